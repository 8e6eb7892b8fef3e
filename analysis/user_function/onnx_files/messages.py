"""The messages of an ONNX file, as protocol buffers hold them: read and written without running anything of the file.

The numbers of the fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the encoding is that of
https://protobuf.dev/programming-guides/encoding. Fields that say nothing of the function (comments, say) are passed over.
"""

import struct
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

Message = TypeVar("Message")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
PACKED = {"float": ("<f", 4, FIXED32), "double": ("<d", 8, FIXED64)}


class MalformedError(Exception):
    """Bytes are no message of the kind that was expected."""


def _at(number: int, kind: Any) -> dict[str, Any]:
    """Return what is to be known of a field: its number, and the kind of what it holds, or of each part of its list."""
    return {"number": number, "kind": kind}


@dataclass
class Entry:
    """A key with its value."""

    key: str = field(default="", metadata=_at(1, str))
    value: str = field(default="", metadata=_at(2, str))


@dataclass
class TensorMessage:
    """An array of numbers, in one of the ``data`` fields or in another file."""

    dims: list[int] = field(default_factory=list, metadata=_at(1, int))
    data_type: int = field(default=0, metadata=_at(2, int))
    float_data: list[float] = field(default_factory=list, metadata=_at(4, "float"))
    int32_data: list[int] = field(default_factory=list, metadata=_at(5, int))
    int64_data: list[int] = field(default_factory=list, metadata=_at(7, int))
    name: str = field(default="", metadata=_at(8, str))
    raw_data: bytes | None = field(default=None, metadata=_at(9, bytes))
    double_data: list[float] = field(default_factory=list, metadata=_at(10, "double"))
    external_data: list[Entry] = field(default_factory=list, metadata=_at(13, Entry))
    data_location: int = field(default=0, metadata=_at(14, int))


@dataclass
class AttributeMessage:
    """An attribute of a node; ``type`` says which field holds it. Graphs as attributes are not read: no operation here has one."""

    name: str = field(default="", metadata=_at(1, str))
    f: float = field(default=0.0, metadata=_at(2, "float"))
    i: int = field(default=0, metadata=_at(3, int))
    s: bytes = field(default=b"", metadata=_at(4, bytes))
    t: TensorMessage | None = field(default=None, metadata=_at(5, TensorMessage))
    floats: list[float] = field(default_factory=list, metadata=_at(7, "float"))
    ints: list[int] = field(default_factory=list, metadata=_at(8, int))
    type: int = field(default=0, metadata=_at(20, int))


@dataclass
class NodeMessage:
    """An operation: the names of its inputs and outputs, and its attributes."""

    input: list[str] = field(default_factory=list, metadata=_at(1, str))
    output: list[str] = field(default_factory=list, metadata=_at(2, str))
    name: str = field(default="", metadata=_at(3, str))
    op_type: str = field(default="", metadata=_at(4, str))
    attribute: list[AttributeMessage] = field(default_factory=list, metadata=_at(5, AttributeMessage))
    domain: str = field(default="", metadata=_at(7, str))


@dataclass
class Dimension:
    """A length; one that is not known has none."""

    value: int | None = field(default=None, metadata=_at(1, int))


@dataclass
class Shape:
    """The lengths of a tensor."""

    dim: list[Dimension] = field(default_factory=list, metadata=_at(1, Dimension))


@dataclass
class TensorType:
    """What a tensor holds, and its shape where it is told."""

    elem_type: int = field(default=0, metadata=_at(1, int))
    shape: Shape | None = field(default=None, metadata=_at(2, Shape))


@dataclass
class Type:
    """The type of an input or output."""

    tensor_type: TensorType | None = field(default=None, metadata=_at(1, TensorType))


@dataclass
class ValueInfo:
    """An input or output."""

    name: str = field(default="", metadata=_at(1, str))
    type: Type | None = field(default=None, metadata=_at(2, Type))


@dataclass
class GraphMessage:
    """The operations in their order, with the constants that they read."""

    node: list[NodeMessage] = field(default_factory=list, metadata=_at(1, NodeMessage))
    name: str = field(default="", metadata=_at(2, str))
    initializer: list[TensorMessage] = field(default_factory=list, metadata=_at(5, TensorMessage))
    input: list[ValueInfo] = field(default_factory=list, metadata=_at(11, ValueInfo))
    output: list[ValueInfo] = field(default_factory=list, metadata=_at(12, ValueInfo))
    sparse_initializer: list[bytes] = field(default_factory=list, metadata=_at(15, bytes))


@dataclass
class OperatorSet:
    """The version of the operations of one domain."""

    domain: str = field(default="", metadata=_at(1, str))
    version: int = field(default=0, metadata=_at(2, int))


@dataclass
class ModelMessage:
    """What an ONNX file holds."""

    ir_version: int = field(default=0, metadata=_at(1, int))
    producer_name: str = field(default="", metadata=_at(2, str))
    graph: GraphMessage | None = field(default=None, metadata=_at(7, GraphMessage))
    opset_import: list[OperatorSet] = field(default_factory=list, metadata=_at(8, OperatorSet))
    functions: list[bytes] = field(default_factory=list, metadata=_at(25, bytes))


def _is_list(one: "Field[Any]") -> bool:
    return one.default_factory is list


def decoded(kind: type[Message], data: memoryview) -> Message:
    """Return the message of this ``kind`` in ``data``. Raises MalformedError."""
    known = {one.metadata["number"]: one for one in fields(kind)}  # pyrefly: ignore
    message = kind()
    for number, wire, payload in _parts(data):
        if number not in known:
            continue
        values = _values(known[number], wire, payload)
        if _is_list(known[number]):
            getattr(message, known[number].name).extend(values)
        elif values:
            setattr(message, known[number].name, values[-1])
    return message


def _parts(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, number or bytes) of every field in ``data``."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            payload, place = _varint(data, place)
            yield number, wire, payload
            continue
        if wire == BYTES:
            length, place = _varint(data, place)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise MalformedError(f"a field has the unknown wire type {wire}")
        if length > len(data) - place:
            raise MalformedError("it ends in the middle of a field")
        yield number, wire, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return the whole number at ``place``, seven bits a byte, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise MalformedError("it ends in the middle of a number")
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number % 2**64, place
    raise MalformedError("a whole number has more than 64 bits")


def _values(one: "Field[Any]", wire: int, payload: Any) -> list[Any]:
    """Return what a field holds: one value, or several numbers that were packed."""
    kind = one.metadata["kind"]
    if kind is int:
        if wire == VARINT:
            return [_signed(payload)]
        if wire == BYTES and _is_list(one):
            return _packed_integers(payload)
    elif kind in PACKED:
        form, size, alone = PACKED[kind]
        packed = wire == BYTES and _is_list(one) and len(payload) % size == 0
        if wire == alone or packed:
            return [number for (number,) in struct.iter_unpack(form, payload)]
    elif wire == BYTES:
        if kind is bytes:
            return [bytes(payload)]
        if kind is str:
            try:
                return [str(payload, "utf-8")]
            except UnicodeDecodeError:
                raise MalformedError(f"its field {one.name!r} is no text") from None
        return [decoded(kind, payload)]
    raise MalformedError(f"its field {one.name!r} has the wrong wire type {wire}")


def _packed_integers(payload: memoryview) -> list[int]:
    found, place = [], 0
    while place < len(payload):
        number, place = _varint(payload, place)
        found.append(_signed(number))
    return found


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def encoded(message: Any) -> bytes:
    """Return the bytes of a message; what has its default value is left out."""
    parts = []
    for one in fields(message):
        value = getattr(message, one.name)
        number, kind = one.metadata["number"], one.metadata["kind"]
        if not _is_list(one):
            parts += [] if value == one.default else [_encoded_field(number, kind, value)]
        elif kind is int or kind in PACKED:
            packed = b"".join(_encoded_value(kind, item) for item in value)
            parts += [_encoded_varint(number << 3 | BYTES) + _sized(packed)] if value else []
        else:
            parts += [_encoded_field(number, kind, item) for item in value]
    return b"".join(parts)


def _encoded_field(number: int, kind: Any, value: Any) -> bytes:
    wire = VARINT if kind is int else PACKED[kind][2] if kind in PACKED else BYTES
    content = _encoded_value(kind, value)
    return _encoded_varint(number << 3 | wire) + (_sized(content) if wire == BYTES else content)


def _encoded_value(kind: Any, value: Any) -> bytes:
    if kind is int:
        return _encoded_varint(value % 2**64)
    if kind in PACKED:
        return struct.pack(PACKED[kind][0], value)
    if kind is bytes:
        return value
    return value.encode() if kind is str else encoded(value)


def _sized(content: bytes) -> bytes:
    return _encoded_varint(len(content)) + content


def _encoded_varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
