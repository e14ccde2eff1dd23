"""Requests and responses as JSON: the bodies of the Open Inference Protocol's infer call.

A request holds one input `features` of datatype FP32 and shape [R, F] (or [F] for one row), null
where absent; `id` is the correlation id, and `parameters` hold `model`, and where wanted `version`,
`vehicle_id`, `reply_topic`, `reply_partition` and `deadline_ms` (since the epoch). The response
holds the output `score` of shape [R] and, where the request's `outputs` name it, `reconstruction`
of shape [R, F]; null where there is no score. With an error it holds `error`, and the reason among
its parameters.
"""

import itertools
import json
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from schemas.request_columns import ANY_PARTITION, AnswerableError, Envelope
from schemas.request_record import Request, check_address, checked_request
from schemas.response_encode import Scored

FEATURES = "features"
SCORE = "score"
RECONSTRUCTION = "reconstruction"
DATATYPE = "FP32"
_INT_MAX = (1 << 31) - 1

Object = dict[str, Any]


def decode_json_request(payload: bytes, bytes_max: int) -> Request:
    """Decode one JSON request and check all that the contract says of it.

    Raises:
        AnswerableError: WRONG_SCHEMA, WRONG_SHAPE, OUT_OF_RANGE or IDENTITY, in a request that
            can be answered.
        ContractError: OVERSIZED, MALFORMED, or as `request_record.decode_request`.
    """
    if len(payload) > bytes_max:
        raise ContractError(Reason.OVERSIZED, f"{len(payload)} bytes, {bytes_max} are allowed")
    body = _parse(payload)
    parameters = _object(body, "parameters")
    envelope = Envelope(
        model=_text(parameters, "model"),
        version=_text(parameters, "version"),
        reply_topic=_text(parameters, "reply_topic"),
        reply_partition=_number(parameters, "reply_partition", ANY_PARTITION),
        reconstruction=_wants_reconstruction(body),
        json=True,
    )
    correlation_id = _utf8(_text(body, "id"))
    check_address(envelope, correlation_id)
    try:
        rows, values = _features(body)
        return checked_request(
            envelope,
            correlation_id=correlation_id,
            vehicle_id=_utf8(_text(parameters, "vehicle_id")),
            deadline_ms=_number(parameters, "deadline_ms", 0),
            rows=rows,
            values=values,
        )
    except AnswerableError:
        raise
    except ContractError as error:
        raise AnswerableError(
            error.reason, error.detail, envelope=envelope, correlation_id=correlation_id
        ) from error


def encode_json_responses(scored: Scored) -> list[bytes]:
    """Encode responses as JSON, one at a time; NaN becomes null."""
    ends = np.cumsum(scored.rows).tolist()
    return [
        json.dumps(_response(scored, number, end), separators=(",", ":")).encode()
        for number, end in enumerate(ends)
    ]


def _response(scored: Scored, number: int, end: int) -> Object:
    verdict = scored.verdict
    body: Object = {"model_name": verdict.model}
    correlation_id = scored.correlation_ids[number].decode("utf-8")
    if verdict.reason:
        body |= {"id": correlation_id, "error": verdict.error}
        return body | {"parameters": {"reason": verdict.reason, "arm": verdict.arm}}
    rows = slice(end - int(scored.rows[number]), end)
    outputs = [_output(SCORE, scored.scores[rows])]
    if scored.reconstruction.size:
        outputs.append(_output(RECONSTRUCTION, scored.reconstruction[rows]))
    parameters = {
        "arm": verdict.arm,
        "sha256": verdict.sha256,
        "score_time_ms": scored.score_time_ms,
        "queue_us": scored.queue_us,
        "compute_us": scored.compute_us,
    }
    body |= {"model_version": verdict.version, "id": correlation_id}
    return body | {"parameters": parameters, "outputs": outputs}


def _output(name: str, values: NDArray[np.float32]) -> Object:
    data = values.astype(np.float64).reshape(-1)
    return {
        "name": name,
        "shape": list(values.shape),
        "datatype": DATATYPE,
        "data": [number if finite else None for number, finite in _finite(data)],
    }


def _finite(data: NDArray[np.float64]) -> "zip[tuple[float, bool]]":
    return zip(data.tolist(), np.isfinite(data).tolist(), strict=True)


def _parse(payload: bytes) -> Object:
    try:
        body = json.loads(payload.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ContractError(Reason.MALFORMED, f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ContractError(Reason.MALFORMED, "not a JSON object")
    return body


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON; an absent feature is null")


def _wrong(detail: str) -> ContractError:
    return ContractError(Reason.WRONG_SCHEMA, detail)


def _object(body: Object, name: str) -> Object:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise _wrong(f"{name} is no object")
    return value


def _text(body: Object, name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise _wrong(f"{name} is no string")
    _utf8(value)
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ContractError(Reason.MALFORMED, f"a string that is not Unicode: {error}") from error


def _number(body: Object, name: str, default: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(f"{name} is no whole number")
    return value


def _wants_reconstruction(body: Object) -> bool:
    outputs = body.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise _wrong("outputs is no list of objects")
    return any(each.get("name") == RECONSTRUCTION for each in outputs)


def _features(body: Object) -> tuple[int, NDArray[np.float32]]:
    """Rows, and the features row by row."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong(f"inputs is no list of one object, {FEATURES!r}")
    features = inputs[0]
    if features.get("name") != FEATURES or features.get("datatype") != DATATYPE:
        raise _wrong(
            f"input {features.get('name')!r} of datatype {features.get('datatype')!r}; it must be "
            f"{FEATURES!r} of {DATATYPE!r}"
        )
    rows, width = _shape(features.get("shape"))
    values = _floats(features.get("data"))
    if values.size != rows * width:
        raise ContractError(
            Reason.WRONG_SHAPE, f"{values.size} numbers for the shape [{rows}, {width}]"
        )
    return rows, values


def _shape(shape: Any) -> tuple[int, int]:
    """Rows, and features of a row."""
    if isinstance(shape, list) and all(type(n) is int and 0 < n <= _INT_MAX for n in shape):
        if len(shape) == 1:
            return 1, shape[0]
        if len(shape) == 2:
            return shape[0], shape[1]
    raise ContractError(Reason.WRONG_SHAPE, f"shape {str(shape)[:80]}; it must be [R, F]")


def _floats(data: Any) -> NDArray[np.float32]:
    """Numbers, in a list or in a list of lists; null is NaN."""
    if not isinstance(data, list):
        raise _wrong("data is no list")
    if data and all(isinstance(row, list) for row in data):
        data = list(itertools.chain.from_iterable(data))
    if not all(type(number) in (int, float) or number is None for number in data):
        raise _wrong("data holds what is no number")
    try:
        wide = np.array([np.nan if number is None else float(number) for number in data], float)
    except OverflowError as error:
        raise ContractError(Reason.OUT_OF_RANGE, "data holds more than FP32 can") from error
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    if np.isinf(values).any():
        raise ContractError(Reason.OUT_OF_RANGE, "data holds more than FP32 can")
    return values
