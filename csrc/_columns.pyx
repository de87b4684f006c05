# cython: language_level=3, boundscheck=False, wraparound=False
"""Writes visavis.v1.MatchCustomersResponse, byte for byte as the generated classes do.

A pass over the positions finds which texts occur, and with that every size is known; then all is
copied, from its start to its end. What is long does not hold the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy


cdef extern from *:
    """
    #if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the contract's columns are little-endian, and are copied from memory as they are"
    #endif
    """


# The number of a field and how its content is written, as they stand before it.
cdef enum:
    RESPONSE_COLUMNS = 3 << 3 | 2
    OPPORTUNITY_COUNT = 1 << 3 | 2
    IS_CONTROL = 2 << 3 | 2
    CAPABILITY_INDEX = 4 << 3 | 2
    PROPENSITY = 5 << 3 | 2
    EXPECTED_VALUE = 6 << 3 | 2
    REASON_COUNT = 7 << 3 | 2
    INDICATOR_INDEX = 9 << 3 | 2
    CONTRIBUTION = 10 << 3 | 2

ctypedef fused integer:
    int32_t
    int64_t


cdef class Texts:
    """Texts that a column refers to, each written once.

    Parameters
    ----------
    field : int
        The number of their field.
    texts : sequence of str
        No two equal.
    """

    cdef bytes content
    # In the order of the texts' bytes, which is that of the column: where each is written, and in
    # which place each of `texts` stands.
    cdef int64_t* ends
    cdef int32_t* places
    cdef int64_t count

    def __cinit__(self):
        self.ends = NULL
        self.places = NULL

    def __dealloc__(self):
        free(self.ends)
        free(self.places)

    def __init__(self, int field, texts not None):
        cdef int64_t place
        cdef bytes tag = _varint(field << 3 | 2)
        written = [each.encode() for each in texts]
        self.count = len(written)
        if self.count > INT32_MAX:
            raise ValueError("more texts than positions can name")
        free(self.ends)
        free(self.places)
        self.ends = <int64_t*>malloc((self.count + 1) * sizeof(int64_t))
        self.places = <int32_t*>malloc((self.count + 1) * sizeof(int32_t))
        if self.ends == NULL or self.places == NULL:
            raise MemoryError
        self.ends[0] = 0
        parts = []
        for place, index in enumerate(sorted(range(len(written)), key=written.__getitem__)):
            field_bytes = tag + _varint(len(written[index])) + written[index]
            parts.append(field_bytes)
            self.ends[place + 1] = self.ends[place] + len(field_bytes)
            self.places[<int64_t>index] = place
        self.content = b"".join(parts)


# Which texts occur, and the positions among these.
cdef struct Coded:
    int32_t* code_of
    int32_t* codes
    int64_t size
    int64_t text_bytes


def written(
    bytes begun not None,
    bytes ended not None,
    const int32_t[::1] opportunity_count not None,
    const uint8_t[::1] is_control not None,
    const int32_t[::1] capability_index not None,
    const double[::1] propensity not None,
    const double[::1] expected_value not None,
    Texts capability_ids not None,
    reasons,
    Texts indicator_names not None,
):
    """See the types of this module."""
    cdef int64_t n = capability_index.shape[0]
    cdef int64_t customers = opportunity_count.shape[0]
    cdef int64_t r = 0
    cdef const int64_t[::1] offsets = None
    cdef const int64_t[::1] name_index = None
    cdef const double[::1] contribution = None
    cdef bint has_reasons = reasons is not None
    cdef Coded capabilities
    cdef Coded names
    if is_control.shape[0] != customers:
        raise ValueError("a control flag for each customer is wanted")
    if propensity.shape[0] != n or expected_value.shape[0] != n:
        raise ValueError("a propensity and a value for each opportunity are wanted")
    if _sum(opportunity_count) != n:
        raise ValueError("the counts are not those of the opportunities")
    if has_reasons:
        offsets, name_index, contribution = reasons
        if offsets is None or name_index is None or contribution is None:
            raise TypeError("reasons are three arrays")
        r = name_index.shape[0]
        if contribution.shape[0] != r or not _are_bounds(offsets, n, r):
            raise ValueError("the offsets are not those of the reasons")
    capabilities.code_of = NULL
    names.code_of = NULL
    names.text_bytes = 0
    try:
        _code(&capabilities, capability_index, capability_ids)
        if has_reasons:
            _code(&names, name_index, indicator_names)
        return _response(
            begun, ended, opportunity_count, is_control, capability_ids, &capabilities, propensity,
            expected_value, indicator_names, &names, has_reasons, offsets, contribution,
        )
    finally:
        free(capabilities.code_of)
        free(names.code_of)


cdef bytes _response(
    bytes begun,
    bytes ended,
    const int32_t[::1] opportunity_count,
    const uint8_t[::1] is_control,
    Texts capability_ids,
    const Coded* capabilities,
    const double[::1] propensity,
    const double[::1] expected_value,
    Texts indicator_names,
    const Coded* names,
    bint has_reasons,
    const int64_t[::1] offsets,
    const double[::1] contribution,
):
    cdef int64_t customers = opportunity_count.shape[0]
    cdef int64_t n = capabilities.size
    cdef int64_t r = names.size if has_reasons else 0
    cdef int64_t row
    cdef int32_t count
    cdef int64_t columns = (
        _field_size(customers * sizeof(int32_t))
        + _field_size(customers)
        + capabilities.text_bytes
        + _field_size(n * sizeof(int32_t))
        + 2 * _field_size(n * sizeof(double))
    )
    if has_reasons:
        columns += _field_size(n * sizeof(int32_t)) + names.text_bytes
        columns += _field_size(r * sizeof(int32_t)) + _field_size(r * sizeof(double))
    cdef int64_t size = len(begun) + 1 + _varint_size(columns) + columns + len(ended)
    cdef bytes content = PyBytes_FromStringAndSize(NULL, size)
    cdef char* at = PyBytes_AS_STRING(content)
    cdef const char* before = PyBytes_AS_STRING(begun)
    cdef const char* behind = PyBytes_AS_STRING(ended)
    cdef int64_t before_size = len(begun)
    cdef int64_t behind_size = len(ended)
    cdef const char* ids = PyBytes_AS_STRING(capability_ids.content)
    cdef const char* said = PyBytes_AS_STRING(indicator_names.content)
    with nogil:
        memcpy(at, before, before_size)
        at = _put_head(at + before_size, RESPONSE_COLUMNS, columns)
        at = _put(at, OPPORTUNITY_COUNT, &opportunity_count[0], customers * sizeof(int32_t))
        at = _put(at, IS_CONTROL, &is_control[0], customers)
        at = _put_texts(at, ids, capability_ids.ends, capability_ids.count, capabilities.code_of)
        at = _put(at, CAPABILITY_INDEX, capabilities.codes, n * sizeof(int32_t))
        at = _put(at, PROPENSITY, &propensity[0], n * sizeof(double))
        at = _put(at, EXPECTED_VALUE, &expected_value[0], n * sizeof(double))
        if has_reasons:
            if n:
                at = _put_head(at, REASON_COUNT, n * sizeof(int32_t))
                for row in range(n):
                    count = <int32_t>(offsets[row + 1] - offsets[row])
                    memcpy(at, &count, sizeof(count))
                    at += sizeof(count)
            at = _put_texts(at, said, indicator_names.ends, indicator_names.count, names.code_of)
            at = _put(at, INDICATOR_INDEX, names.codes, r * sizeof(int32_t))
            at = _put(at, CONTRIBUTION, &contribution[0], r * sizeof(double))
        memcpy(at, behind, behind_size)
    return content


cdef int _code(Coded* coded, const integer[::1] index, Texts texts) except -1:
    """Number the texts that occur, in their order."""
    cdef int64_t n
    cdef int64_t size = index.shape[0]
    cdef int64_t count = texts.count
    cdef int32_t code = 0
    cdef bint is_outside = False
    coded.size = size
    coded.text_bytes = 0
    # One more, for to ask for no memory at all may be answered by none.
    coded.code_of = <int32_t*>malloc((count + size + 1) * sizeof(int32_t))
    if coded.code_of == NULL:
        raise MemoryError
    coded.codes = coded.code_of + count
    with nogil:
        for n in range(count):
            coded.code_of[n] = -1
        for n in range(size):
            if index[n] < 0 or index[n] >= count:
                is_outside = True
                break
            coded.code_of[texts.places[index[n]]] = 0
        if not is_outside:
            for n in range(count):
                if coded.code_of[n] == 0:
                    coded.code_of[n] = code
                    coded.text_bytes += texts.ends[n + 1] - texts.ends[n]
                    code += 1
            for n in range(size):
                coded.codes[n] = coded.code_of[texts.places[index[n]]]
    if is_outside:
        raise IndexError("a position lies outside its texts")
    return 0


cdef int64_t _sum(const int32_t[::1] counts) noexcept:
    """Of counts; −1 if one is negative."""
    cdef int64_t total = 0
    cdef int64_t n
    for n in range(counts.shape[0]):
        if counts[n] < 0:
            return -1
        total += counts[n]
    return total


cdef bint _are_bounds(const int64_t[::1] offsets, int64_t n, int64_t r) noexcept:
    """Whether they cut `r` reasons among `n` opportunities."""
    cdef int64_t row
    if offsets.shape[0] != n + 1 or offsets[0] != 0 or offsets[n] != r:
        return False
    for row in range(n):
        if offsets[row + 1] < offsets[row] or offsets[row + 1] - offsets[row] > INT32_MAX:
            return False
    return True


cdef char* _put_texts(
    char* at, const char* content, const int64_t* ends, int64_t count, const int32_t* code_of
) noexcept nogil:
    """Those that occur, each as a field."""
    cdef int64_t n
    cdef int64_t size
    for n in range(count):
        if code_of[n] >= 0:
            size = ends[n + 1] - ends[n]
            memcpy(at, content + ends[n], size)
            at += size
    return at


cdef char* _put(char* at, uint8_t tag, const void* content, int64_t size) noexcept nogil:
    """A field that is left out where it is empty."""
    if size == 0:
        return at
    at = _put_head(at, tag, size)
    memcpy(at, content, size)
    return at + size


cdef char* _put_head(char* at, uint8_t tag, uint64_t size) noexcept nogil:
    at[0] = <char>tag
    at += 1
    while size >= 128:
        at[0] = <char>(size & 127 | 128)
        at += 1
        size >>= 7
    at[0] = <char>size
    return at + 1


cdef int64_t _field_size(int64_t size) noexcept nogil:
    return 0 if size == 0 else 1 + _varint_size(size) + size


cdef int64_t _varint_size(uint64_t value) noexcept nogil:
    cdef int64_t size = 1
    while value >= 128:
        value >>= 7
        size += 1
    return size


cdef bytes _varint(uint64_t value):
    cdef char[16] room
    # Without its tag.
    return room[1 : _put_head(room, 0, value) - room]
