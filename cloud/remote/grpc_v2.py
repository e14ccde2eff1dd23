"""The Open Inference Protocol V2 over gRPC, as a client: KServe, Triton, Seldon, MLServer, ours.

Tensors travel as raw little-endian bytes. An answer with its numbers in `contents` is read too.
"""

import numpy as np
from numpy.typing import NDArray

from cloud.remote.asking import FP32, Answer, Ask, Described, Tensor, shaped, wrong_answer
from cloud.remote.grpc_call import GrpcChannel
from schemas.inference_v2 import (
    MODEL_INFER,
    MODEL_METADATA,
    InferInputTensor,
    InferRequestedOutputTensor,
    Message,
    Method,
    decode,
    encode,
    parameters_of,
)

REQUEST_BYTES = 1_000_000
"""Far below the 4 MB that gRPC takes by default, and small enough to be pipelined."""

IN_FLIGHT = 4


class GrpcV2Asker:
    """An `Asker`.

    Args:
        target: `host:port`.
        timeout_s: Longest wait for an answer.
        tls: Whether with TLS.
    """

    def __init__(self, target: str, *, timeout_s: float, tls: bool = False) -> None:
        self.address = target
        self.timeout_s = timeout_s
        self.request_bytes = REQUEST_BYTES
        self.in_flight = IN_FLIGHT
        self._channel = GrpcChannel(target, tls=tls)

    def start(self) -> None:
        """As of `Asker`."""
        self._channel.start()

    def close(self) -> None:
        """As of `Asker`."""
        self._channel.close()

    def describe(self, model: str, version: str) -> Described:
        """As of `Asker`."""
        found = self._call(MODEL_METADATA, MODEL_METADATA.request(name=model, version=version))
        return Described(_tensors(found.inputs), _tensors(found.outputs))

    def ask(self, ask: Ask) -> Answer:
        """As of `Asker`."""
        request = MODEL_INFER.request(
            model_name=ask.model,
            model_version=ask.version,
            inputs=[InferInputTensor(name=ask.input, datatype=FP32, shape=ask.rows.shape)],
            outputs=[InferRequestedOutputTensor(name=name) for name in ask.outputs],
            raw_input_contents=[ask.rows.tobytes()],
        )
        return _answer(self._call(MODEL_INFER, request))

    def _call(self, method: Method, request: Message) -> Message:
        payload = self._channel.call(method.path, encode(request), self.timeout_s)
        return decode(method.response, payload)


def _tensors(found: Message) -> tuple[Tensor, ...]:
    return tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in found)


def _answer(response: Message) -> Answer:
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise wrong_answer(f"{len(raw)} raw contents for {len(response.outputs)} outputs")
    outputs = {
        output.name: _array(output, raw[i] if raw else None)
        for i, output in enumerate(response.outputs)
    }
    sha256 = parameters_of(response).get("sha256", "")
    return Answer(response.model_version, outputs, str(sha256))


def _array(output: Message, raw: bytes | None) -> NDArray[np.float32]:
    """An output's numbers. Raises ContractError where they are not of its shape."""
    if output.datatype != FP32:
        raise wrong_answer(f"output {output.name} is {output.datatype}, not FP32")
    if raw is None:
        numbers = np.array(output.contents.fp32_contents, np.float32)
    elif len(raw) % 4:
        raise wrong_answer(f"output {output.name} has {len(raw)} bytes")
    else:
        numbers = np.frombuffer(raw, "<f4")
    return shaped(output.name, numbers, output.shape)
