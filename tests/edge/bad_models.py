"""Models that a gateway must refuse, each bad in its own way."""

import struct
from collections.abc import Sequence
from pathlib import Path

from scoring.flatbuffer import _Reader

DATA = Path(__file__).parent / "data"
ZERO = (DATA / "zero2.tflite").read_bytes()
"""One operator, FULLY_CONNECTED, from tensor 0 with weights in tensor 1 to tensor 2."""

CONCAT_EMBEDDINGS, CUSTOM, TRANSPOSE, SQRT = 29, 32, 39, 75


def patched(code: int, inputs: Sequence[int]) -> bytes:
    """The model with another operator, on other inputs (-1: none)."""
    model = bytearray(ZERO)
    read = _Reader(ZERO)
    root = read.follow(0)
    [operator_code], [graph] = read.tables(root, 1), read.tables(root, 2)
    [operator] = read.tables(graph, 3)
    model[read.field(operator_code, 0)] = min(code, 127)
    struct.pack_into("<i", model, read.field(operator_code, 3), code)
    places = read.items(operator, 1)
    struct.pack_into("<I", model, places[0] - 4, len(inputs))
    for place, tensor in zip(places, inputs, strict=False):
        struct.pack_into("<i", model, place, tensor)
    return bytes(model)


def crashing() -> bytes:
    """Well-formed, and reads the input that it does not have: a segmentation fault."""
    return patched(TRANSPOSE, [0, -1])


def without_numbers() -> bytes:
    """Square roots: NaN for every input below the training mean, though not for zeros."""
    return patched(SQRT, [0])


def lacking() -> bytes:
    """An operator that stands in the schema, and that no runtime ever had."""
    return patched(CONCAT_EMBEDDINGS, [0])


def endless() -> bytes:
    """A loop that never ends."""
    return (DATA / "endless.tflite").read_bytes()


def greedy() -> bytes:
    """16 MB for each row of a batch."""
    return (DATA / "greedy.tflite").read_bytes()
