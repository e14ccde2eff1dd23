"""Inference requests and responses of the Open Inference Protocol as JSON, with binary tensors.

A body is JSON, or JSON followed by the bytes of its tensors, in the order in which it names them;
then the header `Inference-Header-Content-Length` says where the JSON ends. The only module of the
server that imports `orjson`, which writes NaN as null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from cloud.serving.asks import Answer, Ask
from cloud.serving.tensors import (
    FP32,
    OUTPUTS,
    Input,
    Limits,
    floats_of,
    given,
    make_ask,
    malformed,
    origin,
    raw_of_bytes,
    texts_of,
    wrong_shape,
)
from schemas.errors import ContractError, Reason

_SIZE = "binary_data_size"
_BINARY = "binary_data"
_BINARY_OUTPUT = "binary_data_output"
_REFUSED = ("shared_memory_region", "classification")

JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"


@dataclass(slots=True, eq=False)
class Call:
    """An inference request that was read.

    Attributes:
        ask: What it asks for.
        id: Of the client, given back; None: it gave none.
        outputs: Names asked for; empty: the score.
        binary: Those of them that go back as bytes.
        binary_default: Whether outputs that were not named go back as bytes.
    """

    ask: Ask
    id: str | None
    outputs: Sequence[str]
    binary: frozenset[str]
    binary_default: bool


def dumps(value: Any) -> bytes:
    """JSON."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def loads_object(body: bytes | memoryview) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ContractError: MALFORMED.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed(f"no JSON: {error}") from None
    return _object(value, "the body")


def read_call(
    model: str,
    version: str,
    body: bytes,
    json_bytes: int | None,
    *,
    limits: Limits,
    received_ns: int,
) -> Call:
    """Read the body of an inference request.

    Args:
        model: From the path.
        version: From the path; may be empty.
        body: JSON, perhaps with binary tensors behind it.
        json_bytes: What `Inference-Header-Content-Length` says; None: the whole body is JSON.
        limits: Of one request.
        received_ns: Of `time.monotonic_ns`.

    Raises:
        ContractError: MALFORMED, WRONG_SHAPE or OVERSIZED.
    """
    if json_bytes is None:
        content, binary = loads_object(body), memoryview(b"")
    else:
        if not 0 <= json_bytes <= len(body):
            raise malformed(f"a JSON of {json_bytes} bytes in a body of {len(body)}")
        view = memoryview(body)
        content, binary = loads_object(view[:json_bytes]), view[json_bytes:]
    parameters = _parameters(content)
    call_id = content.get("id")
    if call_id is not None and not isinstance(call_id, str):
        raise malformed(f"id is {call_id!r}; it may be a string")
    outputs, chosen = _outputs(content)
    default = parameters.get(_BINARY_OUTPUT) is True
    ask = make_ask(
        model,
        version,
        _inputs(content, binary),
        outputs,
        parameters,
        limits=limits,
        received_ns=received_ns,
    )
    wanted = frozenset(name for name in outputs if chosen.get(name, default))
    return Call(ask, call_id, outputs, wanted, default)


def _inputs(content: dict[str, Any], binary: memoryview) -> list[Input]:
    inputs = []
    at = 0
    for tensor in _list(content.get("inputs"), "inputs"):
        tensor = _object(tensor, "an input")
        one = Input(tensor.get("name"), tensor.get("datatype"), tensor.get("shape"))
        parameters = _parameters(tensor)
        size = parameters.get(_SIZE)
        if size is None:
            one.values = _list(tensor.get("data"), "data")
        else:
            if "data" in tensor:
                raise malformed(f"input {one.name!r} has both data and {_SIZE}")
            if type(size) is not int or not 0 <= size <= len(binary) - at:
                raise wrong_shape(f"{_SIZE} is {size!r}; {len(binary) - at} bytes are left")
            one.raw = binary[at : at + size]
            at += size
        inputs.append(one)
    if at != len(binary):
        raise wrong_shape(f"{len(binary) - at} bytes behind the last tensor")
    return inputs


def _outputs(content: dict[str, Any]) -> tuple[list[str], dict[str, bool]]:
    """Names, and whether each shall be binary where the request says so."""
    names: list[str] = []
    chosen: dict[str, bool] = {}
    for output in _list(content.get("outputs", []), "outputs"):
        output = _object(output, "an output")
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS or name in names:
            raise malformed(f"output {name!r}: given twice, or none of {', '.join(OUTPUTS)}")
        names.append(name)
        binary = _parameters(output).get(_BINARY)
        if binary is not None:
            chosen[name] = binary is True
    return names, chosen


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return {}
    parameters = _object(found, "parameters")
    for name in _REFUSED:
        if name in parameters:
            raise malformed(f"parameter {name} is not supported")
    return parameters


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"{what} is no JSON object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise malformed(f"{what} is no JSON array")
    return value


def write_answer(call: Call, answer: Answer) -> tuple[bytes, int | None]:
    """The body of a response, and how much of it is JSON where bytes follow."""
    version, parameters = origin(answer)
    outputs: list[dict[str, Any]] = []
    raws: list[bytes] = []
    rows = len(answer.scores)
    for name in given(answer, call.outputs):
        binary = name in call.binary or (name not in call.outputs and call.binary_default)
        datatype = OUTPUTS[name]
        output: dict[str, Any] = {"name": name, "datatype": datatype}
        if datatype == FP32:
            floats = floats_of(answer, name)
            output["shape"] = list(floats.shape)
            if binary:
                raws.append(floats.tobytes())
            else:
                output["data"] = floats.ravel()
        else:
            texts = texts_of(answer, name)
            output["shape"] = [rows]
            if binary:
                raws.append(raw_of_bytes([text.encode() for text in texts]))
            else:
                output["data"] = texts
        if binary:
            output["parameters"] = {_SIZE: len(raws[-1])}
        outputs.append(output)
    content: dict[str, Any] = {
        "model_name": call.ask.model,
        "model_version": version,
        "parameters": parameters,
        "outputs": outputs,
    }
    if call.id is not None:
        content["id"] = call.id
    head = dumps(content)
    return (b"".join((head, *raws)), len(head)) if raws else (head, None)


def write_error(error: Exception) -> bytes:
    """The body of an error."""
    return dumps({"error": str(error)})


def version_parameter(body: bytes) -> str | None:
    """The version that a repository request names in its parameters; None: the whole model.

    Raises:
        ContractError: MALFORMED.
    """
    version = _parameters(loads_object(body)).get("version") if body.strip() else None
    if version is not None and not isinstance(version, str):
        raise ContractError(Reason.MALFORMED, f"version is {version!r}; it may be a string")
    return version
