# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows from all over the memory of a base, asked for ahead of their use; releases the GIL.

What a request wants of its customers lies nowhere near: each row is some cache lines, often of a page
that is not at hand. One after the other their latencies add up; asked for early they overlap.
"""

from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

import numpy as np


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef extern from "sha256.h" namespace "visavis" nogil:
    uint64_t Sha256Head(const void* text, int64_t size)


cdef extern from *:
    """
    static inline void ask_for(const void* memory, long long bytes) {
      const char* const first = (const char*)memory;
      for (long long at = 0; at < bytes; at += 64) __builtin_prefetch(first + at);
      if (bytes > 0) __builtin_prefetch(first + bytes - 1);
    }
    """
    void ask_for(const void* memory, int64_t size) nogil


# Heads that begin with the same bits stand in one bucket: so many of them, in the mean.
cdef enum:
    BUCKET_SIZE = 8

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
    const uint64_t* heads, int64_t low, int64_t high, uint64_t head
) noexcept nogil:
    """Where an ascending array reaches a number, of low … high."""
    cdef int64_t middle
    while low < high:
        middle = low + (high - low) // 2
        if heads[middle] < head:
            low = middle + 1
        else:
            high = middle
    return low


cdef void _say(customer_id, Wanted* wanted) noexcept:
    """What is looked for; nothing, where that is no text, or none that UTF-8 can write.

    The text belongs to the id, which must outlive what is wanted.
    """
    cdef Py_ssize_t size = 0
    wanted.text = NULL
    if isinstance(customer_id, str):
        try:
            wanted.text = PyUnicode_AsUTF8AndSize(customer_id, &size)
        except UnicodeEncodeError:
            pass
    wanted.size = size


def heads_of(const int32_t[::1] ends not None, const uint8_t[::1] text not None):
    """The first eight bytes of the sha256 of each id of a part, as big-endian numbers.

    Parameters
    ----------
    ends : memoryview of n + 1 int32
        Where each id begins in `text`; ascending.
    text : memoryview of bytes

    Returns
    -------
    ndarray of shape (n,), uint64
    """
    cdef int64_t count = ends.shape[0] - 1
    cdef int64_t n
    if count < 0 or ends[0] < 0 or ends[count] > text.shape[0]:
        raise ValueError("ids lie outside their text")
    heads = np.empty(count, dtype=np.uint64)
    if count == 0:
        return heads
    for n in range(count):
        if ends[n] > ends[n + 1]:
            raise ValueError("an id ends before it begins")
    cdef uint64_t[::1] to = heads
    cdef const uint8_t* first = &text[0] if text.shape[0] else NULL
    with nogil:
        for n in range(count):
            to[n] = Sha256Head(first + ends[n], ends[n + 1] - ends[n])
    return heads


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
        Evenly spread, as those of digests are; else ids are found more slowly.
    row_of : ndarray of shape (n,), int64
        The row of each head.
    """

    cdef Part* _parts
    cdef const int64_t[::1] _starts
    cdef const uint64_t[::1] _heads
    cdef const int64_t[::1] _row_of
    cdef int64_t _part_count
    # Where each bucket of heads begins, and where the last one ends.
    cdef uint32_t* _buckets
    # How many bits of a head are not its bucket, less one.
    cdef int _shift
    cdef int64_t _count
    cdef int64_t _width
    cdef object _owned

    def __cinit__(self):
        self._parts = NULL
        self._buckets = NULL

    def __dealloc__(self):
        free(self._parts)
        free(self._buckets)

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
        self._fill_buckets()

    cdef int _fill_buckets(self) except -1:
        cdef int64_t bucket_count = 1
        cdef int64_t bucket = 0
        cdef int64_t n
        if self._count > UINT32_MAX:
            raise ValueError("more rows than can be counted")
        self._shift = 63
        while bucket_count * BUCKET_SIZE < self._count:
            bucket_count *= 2
            self._shift -= 1
        self._buckets = <uint32_t*>malloc((bucket_count + 1) * sizeof(uint32_t))
        if self._buckets == NULL:
            raise MemoryError
        with nogil:
            for n in range(self._count):
                while bucket <= self._bucket(self._heads[n]):
                    self._buckets[bucket] = n
                    bucket += 1
            while bucket <= bucket_count:
                self._buckets[bucket] = self._count
                bucket += 1
        return 0

    cdef inline int64_t _bucket(self, uint64_t head) noexcept nogil:
        # In two steps: a shift by all 64 bits is none.
        return head >> 1 >> self._shift

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

    def find(self, list ids not None):
        """The rows of some ids.

        Parameters
        ----------
        ids : list of n str

        Returns
        -------
        ndarray of shape (n,), int64
            −1 where nobody has the id, where it is no text that UTF-8 can write, and where the row
            of the first equal head has another id.
        """
        cdef int64_t count = len(ids)
        cdef int64_t n
        found = np.full(count, -1, dtype=np.int64)
        if count == 0 or self._count == 0:
            return found
        cdef int64_t[::1] to = found
        cdef Wanted* wanted = <Wanted*>malloc(count * sizeof(Wanted))
        if wanted == NULL:
            raise MemoryError
        try:
            for n in range(count):
                _say(ids[n], &wanted[n])
            with nogil:
                self._find(wanted, count, &to[0])
        finally:
            free(wanted)
        return found

    def find_one(self, customer_id):
        """The row of one id, −1 as in `find`; its indicators are on their way already."""
        cdef Wanted wanted
        cdef int64_t row = -1
        if self._count == 0:
            return -1
        _say(customer_id, &wanted)
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
        cdef int64_t begin
        cdef int64_t end
        # Step by step over all of them, so that what one step asked for is there in the next.
        for n in range(count):
            wanted[n].head = 0 if wanted[n].text == NULL else Sha256Head(wanted[n].text, wanted[n].size)
            ask_for(&self._buckets[self._bucket(wanted[n].head)], 2 * sizeof(uint32_t))
        for n in range(count):
            begin = self._buckets[self._bucket(wanted[n].head)]
            ask_for(&self._heads[min(begin, self._count - 1)], BUCKET_SIZE * sizeof(uint64_t))
        for n in range(count):
            begin = self._buckets[self._bucket(wanted[n].head)]
            end = self._buckets[self._bucket(wanted[n].head) + 1]
            wanted[n].at = _first_not_below(&self._heads[0], begin, end, wanted[n].head)
            if wanted[n].at < self._count:
                ask_for(&self._row_of[wanted[n].at], 1)
        for n in range(count):
            wanted[n].row = -1
            if wanted[n].text == NULL:
                continue
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
