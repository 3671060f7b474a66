"""Finds weights that an ONNX file wants to read from other files, by walking its bytes: without onnx.

An ONNX file is a protocol buffer: fields with a number and a wire type, messages inside messages. Only those messages
are entered that can hold a tensor; of a tensor, two fields say that its numbers lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
MAX_DEPTH = 64  # graphs inside the attributes of nodes of graphs
MAX_VARINT_BYTES = 10
EXTERNAL_DATA, DATA_LOCATION, EXTERNAL = 13, 14, 1  # of TensorProto; the value EXTERNAL

# message -> its fields that hold messages which can lead to a tensor
FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}


def has_external_tensors(model: bytes) -> bool:
    """Whether any tensor of an ONNX file says that its numbers lie in another file.

    Raises:
        ValueError: the bytes are no protocol buffer, or are nested deeper than MAX_DEPTH.
    """
    return _search(memoryview(model), "model", 0)


def _search(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ValueError(f"messages are nested deeper than {MAX_DEPTH}")
    inner = FIELDS.get(kind, {})
    for number, value in _fields(message):
        if kind == "tensor":
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and value == EXTERNAL):
                return True
        elif number in inner and isinstance(value, memoryview) and _search(value, inner[number], depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number with its value: an integer, or the bytes inside."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == BYTES:
            length, position = _varint(message, position)
        elif wire_type in FIXED_BYTES:
            length = FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"field {number} has the unknown wire type {wire_type}")
        if position + length > len(message):
            raise ValueError(f"field {number} is longer than what is there")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first: the number, and the position behind it."""
    value = 0
    for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
        if position >= len(message):
            break
        value |= (message[position] & 0x7F) << shift
        position += 1
        if message[position - 1] < 0x80:
            return value, position
    raise ValueError("a number without an end")
