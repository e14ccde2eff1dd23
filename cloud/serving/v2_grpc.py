"""Inference requests and responses of the Open Inference Protocol as protobuf messages.

Tensors come as raw bytes or typed, and go back the way they came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cloud.serving.asks import Answer, Ask
from cloud.serving.tensors import (
    FP32,
    OUTPUTS,
    SCORE,
    Input,
    Limits,
    floats_of,
    given,
    make_ask,
    malformed,
    origin,
    raw_of_bytes,
    texts_of,
)
from schemas import inference_v2 as v2

_CONTENTS = {"FP32": "fp32_contents", "BYTES": "bytes_contents"}

_USUAL = ((), (SCORE,))
"""Outputs whose answer is put together from bytes that are known before."""

_ID, _OUTPUT, _RAW = b"\x1a", b"\x2a", b"\x32"
_SCORE_TENSOR = b"\x0a\x05score\x12\x04FP32\x1a"
"""Of an InferOutputTensor: name, datatype, and the tag of its shape."""


@dataclass(slots=True, eq=False)
class Call:
    """An inference request that was read.

    Attributes:
        ask: What it asks for.
        id: Of the client, given back.
        outputs: Names asked for; empty: the score.
        typed: Whether tensors go back typed.
    """

    ask: Ask
    id: str
    outputs: Sequence[str]
    typed: bool


def read_call(payload: bytes, *, limits: Limits, received_ns: int, deadline_ns: int) -> Call:
    """Read a ModelInferRequest.

    Args:
        payload: Its bytes.
        limits: Of one request.
        received_ns: Of `time.monotonic_ns`.
        deadline_ns: As the transport said it; 0: none.

    Raises:
        ContractError: MALFORMED, WRONG_SHAPE or OVERSIZED.
    """
    request = v2.decode(v2.MODEL_INFER.request, payload)
    raws = request.raw_input_contents
    tensors = request.inputs
    if raws and len(raws) != len(tensors):
        raise malformed(f"{len(raws)} raw contents for {len(tensors)} inputs")
    inputs = []
    for number, tensor in enumerate(tensors):
        one = Input(tensor.name, tensor.datatype, list(tensor.shape))
        if raws:
            if tensor.HasField("contents"):
                raise malformed(f"input {tensor.name!r} has both raw and typed contents")
            one.raw = raws[number]
        else:
            name = _CONTENTS.get(tensor.datatype)
            one.values = [] if name is None else list(getattr(tensor.contents, name))
        inputs.append(one)
    outputs = [output.name for output in request.outputs]
    ask = make_ask(
        request.model_name,
        request.model_version,
        inputs,
        outputs,
        v2.parameters_of(request) if request.parameters else {},
        limits=limits,
        received_ns=received_ns,
        deadline_ns=deadline_ns,
    )
    return Call(ask, request.id, outputs, typed=not raws)


def write_answer(call: Call, answer: Answer) -> bytes:
    """The bytes of a ModelInferResponse."""
    if len(answer.served) == 1 and not call.typed and tuple(call.outputs) in _USUAL:
        return _write_scores(call, answer)
    version, parameters = origin(answer)
    response = v2.MODEL_INFER.response(
        model_name=call.ask.model,
        model_version=version,
        id=call.id,
        parameters={key: v2.parameter(value) for key, value in parameters.items()},
    )
    for name in given(answer, call.outputs):
        datatype = OUTPUTS[name]
        output = response.outputs.add(name=name, datatype=datatype)
        if datatype == FP32:
            floats = floats_of(answer, name)
            output.shape.extend(floats.shape)
            if call.typed:
                output.contents.fp32_contents.extend(floats.ravel().tolist())
            else:
                response.raw_output_contents.append(floats.tobytes())
        else:
            texts = [text.encode() for text in texts_of(answer, name)]
            output.shape.append(len(texts))
            if call.typed:
                output.contents.bytes_contents.extend(texts)
            else:
                response.raw_output_contents.append(raw_of_bytes(texts))
    return v2.encode(response)


def _write_scores(call: Call, answer: Answer) -> bytes:
    """The scores alone, raw: the fields of the message laid one behind the other.

    Hot path: a third of what it takes to fill in messages; a test holds both to be the same.
    """
    served = answer.served[0]
    manifest = served.bundle.manifest
    parts = [
        _head(call.ask.model, manifest.version, manifest.model_sha256, served.arm),
        _OUTPUT,
    ]
    shape = varint(len(answer.scores))
    tensor = _SCORE_TENSOR + varint(len(shape)) + shape
    raw = answer.scores.tobytes()
    parts += (varint(len(tensor)), tensor, _RAW, varint(len(raw)), raw)
    if call.id:
        call_id = call.id.encode()
        parts += (_ID, varint(len(call_id)), call_id)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _head(model: str, version: str, sha256: str, arm: str) -> bytes:
    """What all answers of one version and arm begin with."""
    parameters = {"model_version": version, "sha256": sha256, "arm": arm}
    return v2.encode(
        v2.MODEL_INFER.response(
            model_name=model,
            model_version=version,
            parameters={key: v2.parameter(value) for key, value in parameters.items()},
        )
    )


def varint(value: int) -> bytes:
    """A number as protobuf writes it.

    Example:
        >>> varint(300).hex()
        'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
