# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows from all over the memory of a base, asked for ahead of their use; releases the GIL.

What a request wants of its customers lies nowhere near: each row is some cache lines, often of a page
that is not at hand. One after the other their latencies add up; asked for early they overlap.
"""

from libc.math cimport ldexp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

import numpy as np


cdef extern from *:
    """
    static inline void ask_for(const void* memory, long long bytes) {
      const char* const first = (const char*)memory;
      for (long long at = 0; at < bytes; at += 64) __builtin_prefetch(first + at);
      if (bytes > 0) __builtin_prefetch(first + bytes - 1);
    }
    """
    void ask_for(const void* memory, int64_t size) nogil


# Rows asked for ahead: some twenty lines are what a processor has under way.
cdef int64_t ahead = 8

# Ids looked up together: what is kept of each between two steps.
cdef struct Wanted:
    uint64_t head
    const char* text
    int64_t size
    int64_t at
    int64_t row
    int64_t part


cdef struct Part:
    const float* indicators
    const int32_t* ends
    const char* text


cdef inline int64_t _last_not_above(const int64_t* starts, int64_t count, int64_t row) noexcept nogil:
    """The last of `count` ascending starts, the first being 0, that is not above the row."""
    cdef int64_t low = 0
    cdef int64_t size = count
    cdef int64_t half
    while size > 1:
        half = size // 2
        low += half if starts[low + half] <= row else 0
        size -= half
    return low


cdef inline int64_t _first_not_below(
    const uint64_t* heads, int64_t count, uint64_t head
) noexcept nogil:
    """Where an ascending array of evenly spread numbers reaches one."""
    cdef int64_t near = <int64_t>ldexp(<double>(head >> 11) * <double>count, -53)
    cdef int64_t step = 64
    cdef int64_t low
    cdef int64_t high
    cdef int64_t middle
    near = min(near, count - 1)
    # Beyond `low` all before it are below the head; at `high` none is.
    if heads[near] < head:
        low = near + 1
        while low + step < count and heads[low + step] < head:
            low += step + 1
            step *= 4
        high = min(low + step, count)
    else:
        high = near
        while high - step > 0 and heads[high - step] >= head:
            high -= step
            step *= 4
        low = max(high - step, 0)
    while low < high:
        middle = low + (high - low) // 2
        if heads[middle] < head:
            low = middle + 1
        else:
            high = middle
    return low


cdef class Rows:
    """Where the rows of some parts lie; keeps what it points to.

    Parameters
    ----------
    indicators : list of ndarray of shape (n_p, d), float32
    ends : list of memoryview of n_p + 1 int32
    texts : list of memoryview of bytes
        Ids, each where the ends say.
    starts : ndarray of shape (parts + 1,), int64
    heads : ndarray of shape (n,), uint64, ascending
    row_of : ndarray of shape (n,), int64
        The row of each head.
    """

    cdef Part* _parts
    cdef const int64_t[::1] _starts
    cdef const uint64_t[::1] _heads
    cdef const int64_t[::1] _row_of
    cdef int64_t _part_count
    cdef int64_t _count
    cdef int64_t _width
    cdef object _owned

    def __cinit__(self):
        self._parts = NULL

    def __dealloc__(self):
        free(self._parts)

    def __init__(
        self,
        indicators,
        ends,
        texts,
        const int64_t[::1] starts not None,
        const uint64_t[::1] heads not None,
        const int64_t[::1] row_of not None,
    ):
        cdef const float[:, ::1] matrix
        cdef const int32_t[::1] bounds
        cdef const uint8_t[::1] text
        cdef int64_t part
        self._part_count = len(indicators)
        self._starts, self._heads, self._row_of = starts, heads, row_of
        self._count = heads.shape[0]
        if not self._part_count or starts.shape[0] != self._part_count + 1 or starts[0] != 0:
            raise ValueError("a start for each part, from 0 on, and the end are wanted")
        if row_of.shape[0] != self._count or starts[self._part_count] != self._count:
            raise ValueError("a head and its row for each row are wanted")
        if self._count and not 0 <= np.min(row_of) <= np.max(row_of) < self._count:
            raise ValueError("a head has a row that nobody has")
        self._parts = <Part*>malloc(self._part_count * sizeof(Part))
        if self._parts == NULL:
            raise MemoryError
        views = []
        for part in range(self._part_count):
            matrix, bounds, text = indicators[part], ends[part], texts[part]
            if matrix.shape[0] != starts[part + 1] - starts[part] or bounds.shape[0] <= matrix.shape[0]:
                raise ValueError("a part has other rows than its start says")
            if part and matrix.shape[1] != self._width:
                raise ValueError("a part has other columns than the first")
            self._width = matrix.shape[1]
            self._parts[part].indicators = &matrix[0, 0] if matrix.shape[0] else NULL
            self._parts[part].ends = &bounds[0]
            self._parts[part].text = <const char*>&text[0] if text.shape[0] else NULL
            views.append((matrix, bounds, text))
        self._owned = views

    def indicators(self, const int64_t[::1] rows not None):
        """The indicators of some rows, in their order: (rows, d) float32."""
        cdef int64_t count = rows.shape[0]
        cdef int64_t width = self._width
        cdef int64_t size = width * sizeof(float)
        cdef int64_t n
        cdef int64_t part
        cdef const float** source
        for n in range(count):
            if rows[n] < 0 or rows[n] >= self._count:
                raise IndexError(f"row {rows[n]} of {self._count}")
        block = np.empty((count, width), dtype=np.float32)
        if count == 0:
            return block
        cdef float[:, ::1] to = block
        source = <const float**>malloc(count * sizeof(float*))
        if source == NULL:
            raise MemoryError
        with nogil:
            for n in range(count):
                part = _last_not_above(&self._starts[0], self._part_count, rows[n])
                source[n] = self._parts[part].indicators + (rows[n] - self._starts[part]) * width
                if n < ahead:
                    ask_for(source[n], size)
            for n in range(count):
                if n + ahead < count:
                    ask_for(source[n + ahead], size)
                memcpy(&to[n, 0], source[n], size)
            free(source)
        return block

    def find(self, list ids not None, const uint64_t[::1] heads not None):
        """The rows of some ids, −1 where the row of the first equal head has another id.

        Parameters
        ----------
        ids : list of n bytes
        heads : ndarray of shape (n,), uint64

        Returns
        -------
        ndarray of shape (n,), int64
        """
        cdef int64_t count = heads.shape[0]
        cdef int64_t n
        cdef bytes text
        if len(ids) != count:
            raise ValueError("as many heads as ids are wanted")
        found = np.full(count, -1, dtype=np.int64)
        if count == 0 or self._count == 0:
            return found
        cdef int64_t[::1] to = found
        cdef Wanted* wanted = <Wanted*>malloc(count * sizeof(Wanted))
        if wanted == NULL:
            raise MemoryError
        try:
            for n in range(count):
                text = ids[n]
                wanted[n].text = text
                wanted[n].size = len(text)
                wanted[n].head = heads[n]
            with nogil:
                self._find(wanted, count, &to[0])
        finally:
            free(wanted)
        return found

    def find_one(self, bytes text not None, uint64_t head):
        """The row of one id, −1 as in `find`; its indicators are on their way already."""
        cdef Wanted wanted
        cdef int64_t row = -1
        if self._count == 0:
            return -1
        wanted.text = text
        wanted.size = len(text)
        wanted.head = head
        self._find(&wanted, 1, &row)
        if row >= 0:
            ask_for(
                self._parts[wanted.part].indicators
                + (row - self._starts[wanted.part]) * self._width,
                self._width * sizeof(float),
            )
        return row

    cdef void _find(self, Wanted* wanted, int64_t count, int64_t* to) noexcept nogil:
        cdef int64_t n
        cdef int64_t inside
        cdef const int32_t* ends
        cdef Part part
        # Step by step over all of them, so that what one step asked for is there in the next.
        for n in range(count):
            inside = <int64_t>ldexp(<double>(wanted[n].head >> 11) * <double>self._count, -53)
            ask_for(&self._heads[min(inside, self._count - 1)], 1)
        for n in range(count):
            wanted[n].at = _first_not_below(&self._heads[0], self._count, wanted[n].head)
            if wanted[n].at < self._count:
                ask_for(&self._row_of[wanted[n].at], 1)
        for n in range(count):
            wanted[n].row = -1
            if wanted[n].at == self._count or self._heads[wanted[n].at] != wanted[n].head:
                continue
            wanted[n].row = self._row_of[wanted[n].at]
            wanted[n].part = _last_not_above(&self._starts[0], self._part_count, wanted[n].row)
            inside = wanted[n].row - self._starts[wanted[n].part]
            ask_for(self._parts[wanted[n].part].ends + inside, 2 * sizeof(int32_t))
        for n in range(count):
            if wanted[n].row < 0:
                continue
            part = self._parts[wanted[n].part]
            ends = part.ends + (wanted[n].row - self._starts[wanted[n].part])
            ask_for(part.text + ends[0], ends[1] - ends[0])
        for n in range(count):
            if wanted[n].row < 0:
                continue
            part = self._parts[wanted[n].part]
            ends = part.ends + (wanted[n].row - self._starts[wanted[n].part])
            if ends[1] - ends[0] == wanted[n].size:
                if memcmp(part.text + ends[0], wanted[n].text, wanted[n].size) == 0:
                    to[n] = wanted[n].row


def entries_of(
    const int64_t[::1] indptr not None,
    const int32_t[::1] index not None,
    const float[::1] amount not None,
    const int64_t[::1] rows not None,
):
    """Some rows of a CSR, in their order.

    Parameters
    ----------
    indptr : ndarray of shape (n + 1,), int64
    index : ndarray of shape (entries,), int32
    amount : ndarray of shape (entries,), float32
    rows : ndarray of shape (m,), int64

    Returns
    -------
    ndarrays of shape (m + 1,), int64; (total,), int32; (total,), float32
    """
    cdef int64_t count = rows.shape[0]
    cdef int64_t last = indptr.shape[0] - 1
    cdef int64_t entries = index.shape[0]
    cdef int64_t n
    cdef int64_t begin
    cdef int64_t size
    if amount.shape[0] != entries:
        raise ValueError("as many amounts as entries are wanted")
    for n in range(count):
        if rows[n] < 0 or rows[n] >= last:
            raise IndexError(f"row {rows[n]} of {last}")
    bounds = np.zeros(count + 1, dtype=np.int64)
    cdef int64_t[::1] to = bounds
    with nogil:
        for n in range(count):
            if n + 2 * ahead < count:
                ask_for(&indptr[rows[n + 2 * ahead]], 2 * sizeof(int64_t))
            begin = indptr[rows[n]]
            size = indptr[rows[n] + 1] - begin
            to[n + 1] = to[n] + size
            if begin < 0 or size < 0 or begin + size > entries:
                to[0] = -1
                break
    if bounds[0] < 0:
        raise IndexError("pointers lie outside the entries")
    columns = np.empty(bounds[count], dtype=np.int32)
    amounts = np.empty(bounds[count], dtype=np.float32)
    if not len(columns):
        return bounds, columns, amounts
    cdef int32_t[::1] to_index = columns
    cdef float[::1] to_amount = amounts
    with nogil:
        for n in range(count):
            if n + ahead < count:
                begin = indptr[rows[n + ahead]]
                size = to[n + ahead + 1] - to[n + ahead]
                if size > 0:
                    ask_for(&index[begin], size * sizeof(int32_t))
                    ask_for(&amount[begin], size * sizeof(float))
            begin = indptr[rows[n]]
            size = to[n + 1] - to[n]
            if size > 0:
                memcpy(&to_index[to[n]], &index[begin], size * sizeof(int32_t))
                memcpy(&to_amount[to[n]], &amount[begin], size * sizeof(float))
    return bounds, columns, amounts
