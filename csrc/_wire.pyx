# cython: language_level=3, boundscheck=True, wraparound=False
"""Writes visavis.v1.MatchCustomerResponse, byte for byte as the generated classes do.

A message holds others, each behind its size, which is known once it is written. So everything is
written from its end to its start: what comes last in a message is put first. Each put asks for its
room, and nothing is kept between two of them but how much was written.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_AsStringAndSize, PyBytes_FromStringAndSize
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strchr


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


# The number of a field and how its content is written, as they stand before it.
cdef enum:
    RESPONSE_CUSTOMER_ID = 2 << 3 | 2
    RESPONSE_OPPORTUNITIES = 3 << 3 | 2
    OPPORTUNITY_ID = 1 << 3 | 2
    OPPORTUNITY_MESSAGE_TEXT = 5 << 3 | 2
    OPPORTUNITY_RANK = 8 << 3
    OPPORTUNITY_PROPENSITY = 9 << 3 | 1
    OPPORTUNITY_EXPECTED_VALUE = 10 << 3 | 1
    OPPORTUNITY_REASONS = 11 << 3 | 2
    OPPORTUNITY_IS_CONTROL = 12 << 3
    REASON_CONTRIBUTION = 2 << 3 | 1

# Before the ids of customer and capability stand the check and the size of the customer's.
cdef enum:
    CHECK_BYTES = 4
    SIZE_BYTES = 4
    FIRST_ROOM = 8192

cdef const char* LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# Four bits at a time: the table of sixteen is one line of the cache, where one of 256 is sixteen.
cdef uint32_t[16] CRC32 = [
    0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
    0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
]


# The columns of an answer, in the order in which they are opened.
cdef enum:
    OPPORTUNITY_COUNT
    CONTROL
    CAPABILITY_INDEX
    PROPENSITY
    EXPECTED_VALUE
    REASON_OFFSETS
    REASON_NAME_INDEX
    CONTRIBUTION
    COLUMN_COUNT

# As the struct module names them: int, long, long long.
cdef const char* INTEGERS = b"ilq"


# No typed memoryviews: to make eight of those took as long as to write an answer.
cdef struct Columns:
    Py_buffer[COLUMN_COUNT] held
    int count


cdef struct Room:
    char* start
    # What was written lies between `at` and `end`.
    char* at
    char* end


cdef struct Customer:
    const char* text
    Py_ssize_t size
    # crc32 of what the ids of all opportunities of the customer have in common.
    uint32_t check


cdef class Card:
    """What an opportunity says of its capability, whoever it is for.

    Parameters
    ----------
    capability_id : bytes
    before, behind : bytes
        The fields before `rank`: all of them, or those before and behind the text of the message.
    needs_message : bool
        Whether the text stands between the two, written anew for each customer.
    """

    # The three behind each other, so that one piece of memory is read.
    cdef bytes content
    cdef Py_ssize_t id_size
    cdef Py_ssize_t before_size
    cdef bint needs_message

    def __init__(
        self,
        bytes capability_id not None,
        bytes before not None,
        bytes behind not None,
        bint needs_message,
    ):
        self.content = capability_id + before + behind
        self.id_size = len(capability_id)
        self.before_size = len(before)
        self.needs_message = needs_message


def written(
    bytes version not None,
    uint32_t check,
    customer_ids not None,
    opportunity_count,
    control,
    capability_index,
    propensity,
    expected_value,
    reasons,
    list names not None,
    list cards not None,
    make_card,
    message,
):
    """See the types of this module."""
    cdef Columns columns
    cdef Room out
    columns.count = 0
    out.start = <char*>PyMem_Malloc(FIRST_ROOM)
    if out.start == NULL:
        raise MemoryError
    out.end = out.at = out.start + FIRST_ROOM
    try:
        _open(&columns, opportunity_count, INTEGERS)
        _open(&columns, control, b"?")
        _open(&columns, capability_index, INTEGERS)
        _open(&columns, propensity, b"d")
        _open(&columns, expected_value, b"d")
        if reasons is not None:
            offsets, name_index, contribution = reasons
            _open(&columns, offsets, INTEGERS)
            _open(&columns, name_index, INTEGERS)
            _open(&columns, contribution, b"d")
        return _responses(
            &out, &columns, version, check, customer_ids, names, cards, make_card, message
        )
    finally:
        PyMem_Free(out.start)
        while columns.count:
            columns.count -= 1
            PyBuffer_Release(&columns.held[columns.count])


cdef list _responses(
    Room* out,
    const Columns* columns,
    bytes version,
    uint32_t check,
    customer_ids,
    list names,
    list cards,
    make_card,
    message,
):
    cdef Customer customer
    cdef Card card
    cdef bint is_control
    cdef Py_ssize_t after
    cdef int64_t count, place, row, j, start = 0
    responses = []
    for place in range(columns.held[OPPORTUNITY_COUNT].shape[0]):
        count = _integer(columns, OPPORTUNITY_COUNT, place)
        # Of a rank that no int32 can hold, there is no opportunity.
        if not 0 <= count <= INT32_MAX:
            raise ValueError("a count of opportunities is out of range")
        customer_id = customer_ids[place]
        customer.text = PyUnicode_AsUTF8AndSize(customer_id, &customer.size)
        customer.check = _check_of(check, customer.text, customer.size)
        is_control = _integer(columns, CONTROL, place)
        out.at = out.end
        row = start + count
        while row > start:
            row -= 1
            after = out.end - out.at
            j = _integer(columns, CAPABILITY_INDEX, row)
            made = _at(cards, j)
            card = <Card?>(make_card(j) if made is None else made)
            if is_control:
                _put_varint(out, 1)
                _put_tag(out, OPPORTUNITY_IS_CONTROL)
            if columns.count > REASON_OFFSETS:
                _put_reasons(out, columns, names, row)
            _put_double(out, OPPORTUNITY_EXPECTED_VALUE, _number(columns, EXPECTED_VALUE, row))
            _put_double(out, OPPORTUNITY_PROPENSITY, _number(columns, PROPENSITY, row))
            _put_varint(out, row - start + 1)
            _put_tag(out, OPPORTUNITY_RANK)
            _put_card(out, card, message(place, j) if card.needs_message else b"")
            _put_id(out, &customer, PyBytes_AS_STRING(card.content), card.id_size)
            _put_varint(out, out.end - out.at - after)
            _put_tag(out, RESPONSE_OPPORTUNITIES)
        _put_text(out, RESPONSE_CUSTOMER_ID, customer.text, customer.size)
        _put(out, PyBytes_AS_STRING(version), PyBytes_GET_SIZE(version))
        responses.append(PyBytes_FromStringAndSize(out.at, out.end - out.at))
        start += count
    return responses


cdef int _open(Columns* columns, array, const char* kinds) except -1:
    cdef Py_buffer* held = &columns.held[columns.count]
    PyObject_GetBuffer(array, held, PyBUF_FORMAT | PyBUF_STRIDES)
    columns.count += 1
    if held.ndim != 1 or held.format[0] == 0 or held.format[1] != 0:
        raise ValueError("a column must be an array of numbers, of one dimension")
    if strchr(kinds, held.format[0]) == NULL:
        raise ValueError("a column is of another type")
    return 0


cdef const char* _cell(const Columns* columns, int column, int64_t index) except NULL:
    cdef const Py_buffer* held = &columns.held[column]
    if not 0 <= index < held.shape[0]:
        raise IndexError("array index out of range")
    return <const char*>held.buf + index * held.strides[0]


cdef int64_t _integer(const Columns* columns, int column, int64_t index) except? -1:
    cdef const char* cell = _cell(columns, column, index)
    cdef int64_t wide
    cdef int32_t narrow
    if columns.held[column].itemsize == 1:
        return cell[0] != 0
    if columns.held[column].itemsize == sizeof(narrow):
        memcpy(&narrow, cell, sizeof(narrow))
        return narrow
    memcpy(&wide, cell, sizeof(wide))
    return wide


cdef double _number(const Columns* columns, int column, int64_t index) except? -1:
    cdef double number
    memcpy(&number, _cell(columns, column, index), sizeof(number))
    return number


cdef object _at(list items, int64_t index):
    # Lists count from the end for what is negative.
    if not 0 <= index < len(items):
        raise IndexError("list index out of range")
    return items[index]


cdef int _put_reasons(Room* out, const Columns* columns, list names, int64_t row) except -1:
    cdef int64_t start = _integer(columns, REASON_OFFSETS, row)
    cdef int64_t at = _integer(columns, REASON_OFFSETS, row + 1)
    cdef Py_ssize_t after, size
    cdef char* name
    while at > start:
        at -= 1
        after = out.end - out.at
        _put_double(out, REASON_CONTRIBUTION, _number(columns, CONTRIBUTION, at))
        PyBytes_AsStringAndSize(
            _at(names, _integer(columns, REASON_NAME_INDEX, at)), &name, &size
        )
        _put(out, name, size)
        _put_varint(out, out.end - out.at - after)
        _put_tag(out, OPPORTUNITY_REASONS)
    return 0


cdef int _put_card(Room* out, Card card, bytes text) except -1:
    cdef const char* before = PyBytes_AS_STRING(card.content) + card.id_size
    cdef Py_ssize_t size = PyBytes_GET_SIZE(card.content) - card.id_size
    if text is None:
        raise TypeError("the text of a message must be bytes")
    if PyBytes_GET_SIZE(text) == 0:
        return _put(out, before, size)
    _put(out, before + card.before_size, size - card.before_size)
    _put_text(out, OPPORTUNITY_MESSAGE_TEXT, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return _put(out, before, card.before_size)


cdef int _put_id(
    Room* out, const Customer* customer, const char* capability, Py_ssize_t size
) except -1:
    """The id of an opportunity, in base64: see visavis.gateway.naming."""
    cdef Py_ssize_t whole = CHECK_BYTES + SIZE_BYTES + customer.size + size
    cdef Py_ssize_t groups = (whole + 2) // 3
    cdef char* to = _taken(out, 4 * groups)
    # The bytes stand at the end of their own room: a group of three becomes four letters, and only
    # the last letters reach the end.
    cdef char* at = to + 4 * groups - whole
    _set_big_endian(at, _crc32(customer.check, capability, size))
    _set_big_endian(at + CHECK_BYTES, <uint32_t>customer.size)
    memcpy(at + CHECK_BYTES + SIZE_BYTES, customer.text, customer.size)
    memcpy(at + CHECK_BYTES + SIZE_BYTES + customer.size, capability, size)
    _encode(to, <const uint8_t*>at, whole)
    _put_varint(out, 4 * groups)
    return _put_tag(out, OPPORTUNITY_ID)


cdef void _encode(char* to, const uint8_t* at, Py_ssize_t size) noexcept:
    cdef uint32_t group
    while size >= 3:
        group = <uint32_t>at[0] << 16 | <uint32_t>at[1] << 8 | at[2]
        to[0] = LETTERS[group >> 18]
        to[1] = LETTERS[group >> 12 & 63]
        to[2] = LETTERS[group >> 6 & 63]
        to[3] = LETTERS[group & 63]
        at += 3
        to += 4
        size -= 3
    if size > 0:
        group = <uint32_t>at[0] << 16
        if size == 2:
            group |= <uint32_t>at[1] << 8
        to[0] = LETTERS[group >> 18]
        to[1] = LETTERS[group >> 12 & 63]
        to[2] = LETTERS[group >> 6 & 63] if size == 2 else c"="
        to[3] = c"="


cdef uint32_t _check_of(uint32_t begun, const char* text, Py_ssize_t size) noexcept:
    """What `_put_id` goes on with for each capability."""
    cdef char[SIZE_BYTES] counted
    _set_big_endian(counted, <uint32_t>size)
    return _crc32(_crc32(begun, counted, SIZE_BYTES), text, size)


cdef uint32_t _crc32(uint32_t begun, const char* text, Py_ssize_t size) noexcept:
    cdef uint32_t state = ~begun
    cdef Py_ssize_t at
    for at in range(size):
        state ^= <uint8_t>text[at]
        state = state >> 4 ^ CRC32[state & 15]
        state = state >> 4 ^ CRC32[state & 15]
    return ~state


cdef void _set_big_endian(char* to, uint32_t value) noexcept:
    to[0] = <char>(value >> 24)
    to[1] = <char>(value >> 16)
    to[2] = <char>(value >> 8)
    to[3] = <char>value


cdef int _put_double(Room* out, uint8_t tag, double value) except -1:
    """A field that is left out where all its bits are zero, which those of −0.0 are not."""
    cdef uint64_t bits
    cdef char* to
    cdef int at
    memcpy(&bits, &value, sizeof(bits))
    if bits == 0:
        return 0
    to = _taken(out, 1 + sizeof(bits))
    to[0] = <char>tag
    for at in range(8):
        to[1 + at] = <char>(bits >> 8 * at)
    return 0


cdef int _put_text(Room* out, uint8_t tag, const char* text, Py_ssize_t size) except -1:
    """A field that is left out where it is empty."""
    if size == 0:
        return 0
    _put(out, text, size)
    _put_varint(out, size)
    return _put_tag(out, tag)


cdef int _put_varint(Room* out, uint64_t value) except -1:
    cdef uint64_t left = value >> 7
    cdef Py_ssize_t size = 1
    cdef char* to
    while left:
        left >>= 7
        size += 1
    to = _taken(out, size)
    while value >= 128:
        to[0] = <char>(value & 127 | 128)
        to += 1
        value >>= 7
    to[0] = <char>value
    return 0


cdef int _put_tag(Room* out, uint8_t tag) except -1:
    _taken(out, 1)[0] = <char>tag
    return 0


cdef int _put(Room* out, const char* content, Py_ssize_t size) except -1:
    memcpy(_taken(out, size), content, size)
    return 0


cdef char* _taken(Room* out, Py_ssize_t size) except NULL:
    """Room for so many bytes more, before all that was written."""
    if out.at - out.start < size:
        _grow(out, size)
    out.at -= size
    return out.at


cdef int _grow(Room* out, Py_ssize_t size) except -1:
    cdef Py_ssize_t held = out.end - out.at
    cdef Py_ssize_t whole = 2 * (out.end - out.start) + size
    cdef char* start = <char*>PyMem_Malloc(whole)
    if start == NULL:
        raise MemoryError
    memcpy(start + whole - held, out.at, held)
    PyMem_Free(out.start)
    out.start = start
    out.end = start + whole
    out.at = out.end - held
    return 0
