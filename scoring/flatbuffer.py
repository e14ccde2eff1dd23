"""Structural check of TFLite bytes before native code sees them.

The interpreter follows offsets inside the flatbuffer without looking where they lead, so damaged
bytes may end the process instead of raising. Hence the check that FlatBuffers calls verification
is done here: the identifier; that every table, vector and string of the schema lies inside; that
every index points at something; and that no tensor is absurdly large. The schema is TFLite's
version 3; of the options of operators only the frame is checked.

What remains: the SHA-256 in the manifest rules out damage on the way, so only a release that was
*made* hostile, with well-formed structure and operators that fit neither their tensors nor their
options, can still end the process. Whoever may write to `model.releases` is trusted that far.
"""

import math
import struct
from dataclasses import dataclass

from schemas.errors import ContractError, Reason

IDENTIFIER = b"TFL3"
PARTS_MAX = 20_000
"""Most tables in a model; more is refused. An LSTM over 128 readings has 19,000."""

CUSTOM_CODE = 32
"""Number of an operator that is known by a name alone."""

TENSOR_ELEMENTS_MAX = 1 << 24
"""Most elements in one tensor at batch size 1; more is refused."""


@dataclass(frozen=True, slots=True)
class _Scalar:
    size: int


@dataclass(frozen=True, slots=True)
class _Vector:
    item_size: int


@dataclass(frozen=True, slots=True)
class _Table:
    kind: str


@dataclass(frozen=True, slots=True)
class _Tables:
    kind: str


_Field = _Scalar | _Vector | _Table | _Tables
_BYTE, _INT, _LONG = _Scalar(1), _Scalar(4), _Scalar(8)
_TEXT, _BYTES, _INTS, _LONGS = _Vector(1), _Vector(1), _Vector(4), _Vector(8)
_OPAQUE = _Table("Opaque")

# Fields by number. What a newer schema appends is unknown to the runtime, too.
_SCHEMA: dict[str, tuple[_Field, ...]] = {
    "Model": (
        _INT,
        _Tables("OperatorCode"),
        _Tables("SubGraph"),
        _TEXT,
        _Tables("Buffer"),
        _INTS,
        _Tables("Metadata"),
        _Tables("SignatureDef"),
    ),
    "OperatorCode": (_BYTE, _TEXT, _INT, _INT),
    "SubGraph": (_Tables("Tensor"), _INTS, _INTS, _Tables("Operator"), _TEXT, _INT),
    "Tensor": (
        _INTS,
        _BYTE,
        _INT,
        _TEXT,
        _Table("Quantization"),
        _BYTE,
        _OPAQUE,
        _INTS,
        _BYTE,
        _Tables("Opaque"),
    ),
    "Quantization": (_INTS, _INTS, _INTS, _LONGS, _BYTE, _OPAQUE, _INT),
    "Operator": (
        _INT,
        _INTS,
        _INTS,
        _BYTE,
        _OPAQUE,
        _BYTES,
        _BYTE,
        _BYTES,
        _INTS,
        _LONG,
        _LONG,
        _BYTE,
        _OPAQUE,
        _INT,
    ),
    "Buffer": (_BYTES, _LONG, _LONG),
    "Metadata": (_TEXT, _INT),
    "SignatureDef": (_Tables("TensorMap"), _Tables("TensorMap"), _TEXT, _TEXT, _INT),
    "TensorMap": (_TEXT, _INT),
    "Opaque": (),
}
_CODES, _SUBGRAPHS, _BUFFERS, _METADATA_BUFFERS, _METADATA, _SIGNATURES = 1, 2, 4, 5, 6, 7


def check_tflite(model: bytes) -> None:
    """Refuse bytes that are no well-formed TFLite model.

    Raises:
        ContractError: MODEL_INVALID.
    """
    if len(model) < 16 or model[4:8] != IDENTIFIER:
        raise ContractError(Reason.MODEL_INVALID, "no TFLite model: identifier TFL3 is missing")
    reader = _Reader(model)
    try:
        root = reader.follow(0)
        reader.check_table(root, "Model")
        _check_indices(reader, root)
    except (struct.error, RecursionError) as error:
        raise _damaged("an offset points outside") from error


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator that a model uses.

    Attributes:
        code: Number of the builtin operator; `CUSTOM_CODE` for one that is none.
        version: Of it; a runtime knows each up to some version.
        custom: Name of an operator that is not builtin; empty otherwise.
    """

    code: int
    version: int
    custom: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    Attributes:
        shape: As stored; the first size is the batch's, whatever stands there.
        is_float32: Whether it holds float32.
    """

    shape: tuple[int, ...]
    is_float32: bool


def model_operators(model: bytes) -> tuple[Operator, ...]:
    """The operators of a model that `check_tflite` has passed, each once."""
    reader = _Reader(model)
    codes = reader.tables(reader.follow(0), _CODES)
    return tuple(dict.fromkeys(_operator(reader, code) for code in codes))


def model_ports(model: bytes) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of a model that `check_tflite` has passed."""
    reader = _Reader(model)
    graph = reader.tables(reader.follow(0), _SUBGRAPHS)[0]
    tensors = reader.tables(graph, 0)
    inputs, outputs = (reader.integers(graph, direction) for direction in (1, 2))
    return (
        tuple(_port(reader, tensors[index]) for index in inputs),
        tuple(_port(reader, tensors[index]) for index in outputs),
    )


def _operator(reader: "_Reader", code: int) -> Operator:
    # The byte is where older writers put the number, and it ends at 127.
    at = reader.field(code, 0)
    number = max(reader.number("b", at) if at else 0, reader.integer(code, 3))
    name = bytes(reader.data[item] for item in reader.items(code, 1, 1))
    custom = name.decode(errors="replace") if number == CUSTOM_CODE else ""
    return Operator(number, reader.integer(code, 2, 1), custom)


def _port(reader: "_Reader", tensor: int) -> Port:
    at = reader.field(tensor, 1)
    is_float32 = not at or reader.number("b", at) == 0
    return Port(tuple(reader.integers(tensor, 0)), is_float32)


def _damaged(how: str) -> ContractError:
    return ContractError(Reason.MODEL_INVALID, f"damaged TFLite model: {how}")


@dataclass(slots=True)
class _Reader:
    """Bounds-checked little-endian access: `struct.error` outside of the bytes."""

    data: bytes
    parts: int = 0

    def number(self, layout: str, at: int) -> int:
        if at < 0:
            raise struct.error
        value: int = struct.unpack_from("<" + layout, self.data, at)[0]
        return value

    def follow(self, at: int) -> int:
        return at + self.number("I", at)

    def field(self, table: int, index: int) -> int:
        """Position of a field of a table; 0 where it is absent."""
        vtable = table - self.number("i", table)
        if 4 + 2 * index + 2 > self.number("H", vtable):
            return 0
        offset = self.number("H", vtable + 4 + 2 * index)
        return table + offset if offset else 0

    def items(self, table: int, index: int, item_size: int = 4) -> range:
        """Positions of the items of a vector field; empty where it is absent."""
        at = self.field(table, index)
        if not at:
            return range(0)
        start = self.follow(at)
        stop = start + 4 + self.number("I", start) * item_size
        if stop > len(self.data):
            raise struct.error
        return range(start + 4, stop, item_size)

    def tables(self, table: int, index: int) -> list[int]:
        """The tables that a vector field points at."""
        return [self.follow(item) for item in self.items(table, index)]

    def integers(self, table: int, index: int) -> list[int]:
        """A vector of int32."""
        return [self.number("i", item) for item in self.items(table, index)]

    def integer(self, table: int, index: int, default: int = 0) -> int:
        """An int32 field."""
        at = self.field(table, index)
        return self.number("i", at) if at else default

    def check_table(self, table: int, kind: str) -> None:
        """Check a table and all that hangs on it."""
        self.parts += 1
        if self.parts > PARTS_MAX:
            raise ContractError(Reason.MODEL_INVALID, f"TFLite model of over {PARTS_MAX} parts")
        inline = self._check_frame(table)
        for index, field in enumerate(_SCHEMA[kind]):
            at = self.field(table, index)
            if not at:
                continue
            size = field.size if isinstance(field, _Scalar) else 4
            if at + size > table + inline:
                raise _damaged(f"a field of a {kind} lies outside of it")
            self._check_field(table, index, at, field)

    def _check_frame(self, table: int) -> int:
        """Check the table's own bytes and their directory; returns their number."""
        vtable = table - self.number("i", table)
        directory, inline = self.number("H", vtable), self.number("H", vtable + 2)
        if directory < 4 or directory % 2 or inline < 4 or table % 4:
            raise _damaged("a table without a frame")
        self.number("B", vtable + directory - 1)
        self.number("B", table + inline - 1)
        for at in range(vtable + 4, vtable + directory, 2):
            if self.number("H", at) >= inline:
                raise _damaged("a field lies outside of its table")
        return inline

    def _check_field(self, table: int, index: int, at: int, field: _Field) -> None:
        if isinstance(field, _Vector):
            self.items(table, index, field.item_size)
        elif isinstance(field, _Table):
            self.check_table(self.follow(at), field.kind)
        elif isinstance(field, _Tables):
            for item in self.tables(table, index):
                self.check_table(item, field.kind)


def _check_indices(read: _Reader, root: int) -> None:
    """Check that what one part says of another is so."""
    buffers = len(read.tables(root, _BUFFERS))
    codes = len(read.tables(root, _CODES))
    subgraphs = read.tables(root, _SUBGRAPHS)
    if not subgraphs:
        raise ContractError(Reason.MODEL_INVALID, "TFLite model without a graph")
    _check_within(read.integers(root, _METADATA_BUFFERS), buffers)
    _check_within([read.integer(part, 1) for part in read.tables(root, _METADATA)], buffers)
    tensors = [_check_subgraph(read, subgraph, codes, buffers) for subgraph in subgraphs]
    for signature in read.tables(root, _SIGNATURES):
        subgraph = read.integer(signature, 4)
        _check_within([subgraph], len(subgraphs))
        for direction in (0, 1):
            mapped = [read.integer(part, 1) for part in read.tables(signature, direction)]
            _check_within(mapped, tensors[subgraph])


def _check_subgraph(read: _Reader, subgraph: int, codes: int, buffers: int) -> int:
    """Check one graph; returns its number of tensors."""
    tensors = read.tables(subgraph, 0)
    for tensor in tensors:
        _check_within([read.integer(tensor, 2)], buffers)
        shape = read.integers(tensor, 0)
        if min(shape, default=1) < 0 or math.prod(shape) > TENSOR_ELEMENTS_MAX:
            raise ContractError(Reason.MODEL_INVALID, f"TFLite tensor of shape {shape}")
    inputs, outputs = read.integers(subgraph, 1), read.integers(subgraph, 2)
    if not inputs or not outputs:
        raise ContractError(Reason.MODEL_INVALID, "TFLite graph without input or output")
    _check_within(inputs + outputs, len(tensors))
    for operator in read.tables(subgraph, 3):
        _check_within([read.integer(operator, 0)], codes)
        _check_within(read.integers(operator, 1), len(tensors), optional=True)
        _check_within(read.integers(operator, 2) + read.integers(operator, 8), len(tensors))
    return len(tensors)


def _check_within(indices: list[int], limit: int, *, optional: bool = False) -> None:
    """Indices into a list of `limit`; -1 stands for none where it is optional."""
    if any(not (-1 if optional else 0) <= index < limit for index in indices):
        raise _damaged("an index points nowhere")
