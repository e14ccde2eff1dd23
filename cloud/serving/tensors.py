"""Tensors of the Open Inference Protocol, as the model server takes and gives them. Pure.

    inputs   features       FP32  [-1, F]  order and units of the manifest, NaN where absent;
                                           of a windowed model [-1, window * F], oldest first
             vehicle_id     BYTES [-1]     optional: R of them or one; chooses the arm
    outputs  score          FP32  [-1]     what is given where nothing is asked for
             reconstruction FP32  as features  what the network made of the rows, normalised
             arm            BYTES [-1]     of each row
             model_version  BYTES [-1]     of each row

Every function that takes what a client sent raises ContractError: MALFORMED for what is no tensor,
WRONG_SHAPE for one that does not fit.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.serving.asks import Answer, Ask
from schemas.errors import ContractError, Reason

FEATURES = "features"
VEHICLE_ID = "vehicle_id"
SCORE = "score"
RECONSTRUCTION = "reconstruction"
ARM = "arm"
MODEL_VERSION = "model_version"
TIMEOUT = "timeout"
"""Parameter of a request: microseconds after which its answer is worth nothing."""

FP32 = "FP32"
BYTES = "BYTES"
OUTPUTS: Mapping[str, str] = {
    SCORE: FP32,
    RECONSTRUCTION: FP32,
    ARM: BYTES,
    MODEL_VERSION: BYTES,
}
VEHICLE_ID_BYTES_MAX = 256
MIXED = "mixed"
"""What the parameters of a response say of its arm where the rows have several."""

_FLOAT_BYTES = 4
_NUMBERS = {float, int, type(None)}


def malformed(detail: str) -> ContractError:
    """What is no request of the protocol."""
    return ContractError(Reason.MALFORMED, detail)


def wrong_shape(detail: str) -> ContractError:
    """A tensor that does not fit."""
    return ContractError(Reason.WRONG_SHAPE, detail)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request.

    Attributes:
        request_bytes_max: Body or message.
        rows_max: Rows.
    """

    request_bytes_max: int = 16_000_000
    rows_max: int = 100_000


@dataclass(slots=True, eq=False)
class Input:
    """A tensor as it came: checked against nothing yet.

    Attributes:
        name: 'features', ...
        datatype: 'FP32', ...
        shape: As stated.
        raw: Little-endian bytes, row by row; None where there are `values`.
        values: Flat or nested numbers, None for NaN; or texts.
    """

    name: Any
    datatype: Any
    shape: Any
    raw: bytes | memoryview | None = None
    values: Sequence[Any] | None = None


def make_ask(
    model: str,
    version: str,
    inputs: Sequence[Input],
    outputs: Sequence[str],
    parameters: Mapping[str, Any],
    *,
    limits: Limits,
    received_ns: int,
    deadline_ns: int = 0,
) -> Ask:
    """The ask of an inference request.

    Args:
        model: Name.
        version: Version or alias; may be empty.
        inputs: In any order; each name once.
        outputs: Names of what is wanted; empty: the score.
        parameters: Of the request: `vehicle_id`, `timeout`; others are passed over.
        limits: Of one request.
        received_ns: Of `time.monotonic_ns`.
        deadline_ns: What the transport said of it; 0: nothing.
    """
    features: NDArray[np.float32] | None = None
    vehicle_ids = _vehicle_of(parameters)
    for tensor in inputs:
        if tensor.name == FEATURES and features is None:
            features = _features(tensor, limits)
        elif tensor.name == VEHICLE_ID and vehicle_ids is None:
            vehicle_ids = _vehicle_ids(tensor)
        else:
            raise malformed(f"input {tensor.name!r}: unknown, or given twice")
    if features is None:
        raise malformed(f"no input {FEATURES!r}")
    if vehicle_ids is not None and len(vehicle_ids) not in (1, len(features)):
        raise wrong_shape(f"{len(vehicle_ids)} vehicle ids for {len(features)} rows")
    for name in outputs:
        if name not in OUTPUTS:
            raise malformed(f"no output {name!r}; there are: {', '.join(OUTPUTS)}")
    return Ask(
        model,
        version,
        features,
        vehicle_ids,
        RECONSTRUCTION in outputs,
        _deadline(parameters, received_ns, deadline_ns),
        received_ns,
    )


def _deadline(parameters: Mapping[str, Any], received_ns: int, deadline_ns: int) -> int:
    timeout_us = parameters.get(TIMEOUT, 0)
    if isinstance(timeout_us, bool) or not isinstance(timeout_us, int) or timeout_us < 0:
        raise malformed(f"parameter {TIMEOUT} is {timeout_us!r}; it may be microseconds")
    if not timeout_us:
        return deadline_ns
    stated_ns = received_ns + timeout_us * 1000
    return min(stated_ns, deadline_ns) if deadline_ns else stated_ns


def _vehicle_of(parameters: Mapping[str, Any]) -> list[bytes] | None:
    text = parameters.get(VEHICLE_ID)
    if text is None:
        return None
    if not isinstance(text, str):
        raise malformed(f"parameter {VEHICLE_ID} is {text!r}; it may be a string")
    return [_vehicle_id(text.encode("utf-8", "surrogatepass"))]


def _vehicle_id(vehicle_id: bytes) -> bytes:
    if len(vehicle_id) > VEHICLE_ID_BYTES_MAX:
        raise malformed(f"a vehicle id of {len(vehicle_id)} bytes")
    return vehicle_id


def _vehicle_ids(tensor: Input) -> list[bytes]:
    shape = _shape(tensor, BYTES)
    if len(shape) != 1:
        raise wrong_shape(f"{VEHICLE_ID} of shape {shape}; it may be [-1]")
    found = (
        bytes_of_raw(tensor.raw, shape[0])
        if tensor.raw is not None
        else [_bytes_of(value) for value in tensor.values or ()]
    )
    if len(found) != shape[0]:
        raise wrong_shape(f"{VEHICLE_ID} of shape {shape} with {len(found)} values")
    return [_vehicle_id(vehicle_id) for vehicle_id in found]


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    raise malformed(f"{VEHICLE_ID} holds {value!r}; it may hold strings")


def _shape(tensor: Input, datatype: str) -> list[int]:
    if tensor.datatype != datatype:
        raise malformed(f"input {tensor.name!r} is {tensor.datatype!r}; it may be {datatype}")
    shape = tensor.shape
    if not isinstance(shape, list) or not all(
        type(size) is int and 0 <= size < 1 << 31 for size in shape
    ):
        raise wrong_shape(f"input {tensor.name!r} has shape {shape!r}")
    return shape


def _features(tensor: Input, limits: Limits) -> NDArray[np.float32]:
    shape = _shape(tensor, FP32)
    if len(shape) != 2 or not shape[0] or not shape[1]:
        raise wrong_shape(f"{FEATURES} of shape {shape}; it may be [-1, F]")
    if shape[0] > limits.rows_max:
        raise ContractError(Reason.OVERSIZED, f"{shape[0]} rows; at most {limits.rows_max}")
    if tensor.raw is not None:
        if len(tensor.raw) != _FLOAT_BYTES * shape[0] * shape[1]:
            raise wrong_shape(f"{FEATURES} of shape {shape} with {len(tensor.raw)} bytes")
        return np.frombuffer(tensor.raw, np.dtype("<f4")).reshape(shape)
    return _floats(tensor.values, shape)


def _floats(values: Any, shape: list[int]) -> NDArray[np.float32]:
    """From flat or nested numbers; None is NaN."""
    flat = values
    if isinstance(values, list) and values and isinstance(values[0], list):
        if any(not isinstance(row, list) or len(row) != shape[1] for row in values):
            raise wrong_shape(f"{FEATURES} of shape {shape} with rows of other lengths")
        flat = [value for row in values for value in row]
    if flat is None or len(flat) != shape[0] * shape[1]:
        raise wrong_shape(f"{FEATURES} of shape {shape} with {len(flat or ())} values")
    if not set(map(type, flat)) <= _NUMBERS:
        raise malformed(f"{FEATURES} holds something that is no number")
    with np.errstate(over="ignore"):
        return np.array(flat, np.float32).reshape(shape)


def bytes_of_raw(raw: bytes | memoryview, count_max: int) -> list[bytes]:
    """Elements of a BYTES tensor: each has its length before it, four bytes, little-endian."""
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        if len(found) == count_max or at + 4 > len(raw):
            raise wrong_shape(f"BYTES beyond the {count_max} that the shape says")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4 + size
        if at > len(raw):
            raise wrong_shape("BYTES that end early")
        found.append(bytes(raw[at - size : at]))
    return found


def raw_of_bytes(values: Sequence[bytes]) -> bytes:
    """The way back of `bytes_of_raw`."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def given(answer: Answer, outputs: Sequence[str]) -> Sequence[str]:
    """Names of what goes out: what was asked for, and the arms where the rows have several."""
    named = outputs or (SCORE,)
    if len(answer.served) == 1:
        return named
    return (*named, *(name for name in (ARM, MODEL_VERSION) if name not in named))


def floats_of(answer: Answer, name: str) -> NDArray[np.float32]:
    """An FP32 output."""
    if name == SCORE:
        return answer.scores
    assert answer.reconstruction is not None  # It was asked for.
    return answer.reconstruction


def texts_of(answer: Answer, name: str) -> list[str]:
    """A BYTES output, R values."""
    served = answer.served if len(answer.served) > 1 else answer.served * len(answer.scores)
    if name == ARM:
        return [each.arm for each in served]
    return [each.bundle.manifest.version for each in served]


def origin(answer: Answer) -> tuple[str, dict[str, str]]:
    """Version that scored, and the parameters of a response; for several arms see `MIXED`."""
    if len(answer.served) == 1:
        served = answer.served[0]
        manifest = served.bundle.manifest
        return manifest.version, {
            "model_version": manifest.version,
            "sha256": manifest.model_sha256,
            "arm": served.arm,
        }
    return "", {"model_version": "", "sha256": "", "arm": MIXED}
