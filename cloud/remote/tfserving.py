"""TensorFlow Serving's PredictionService over gRPC, as a client. Pure tensors, no TensorFlow.

Its versions are integers: a release whose version is none is addressed without one, and the
server's newest answers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.remote import tfserving_messages as tf
from cloud.remote.asking import FP32, Answer, Ask, Described, Tensor, shaped, wrong_answer
from cloud.remote.grpc_call import GrpcChannel
from cloud.remote.grpc_v2 import IN_FLIGHT, REQUEST_BYTES

SIGNATURE = "serving_default"


class TfServingAsker:
    """An `Asker`.

    Args:
        target: `host:port`.
        timeout_s: Longest wait for an answer.
        signature: Which of the model's signatures.
    """

    def __init__(self, target: str, *, timeout_s: float, signature: str = SIGNATURE) -> None:
        self.address = target
        self.timeout_s = timeout_s
        self.request_bytes = REQUEST_BYTES
        self.in_flight = IN_FLIGHT
        self._signature = signature
        self._channel = GrpcChannel(target)

    def start(self) -> None:
        """As of `Asker`."""
        self._channel.start()

    def close(self) -> None:
        """As of `Asker`."""
        self._channel.close()

    def describe(self, model: str, version: str) -> Described:
        """As of `Asker`."""
        request = tf.MetadataRequest(
            model_spec=self._spec(model, version), metadata_field=["signature_def"]
        )
        found = self._call(tf.METADATA, request, tf.MetadataResponse)
        held = tf.decode(tf.Signatures, found.metadata["signature_def"].value).signature_def
        if self._signature not in held:
            raise wrong_answer(f"no signature {self._signature!r}; there are: {', '.join(held)}")
        signature = held[self._signature]
        return Described(_tensors(signature.inputs), _tensors(signature.outputs))

    def ask(self, ask: Ask) -> Answer:
        """As of `Asker`."""
        request = tf.PredictRequest(
            model_spec=self._spec(ask.model, ask.version), output_filter=ask.outputs
        )
        tensor = request.inputs[ask.input]
        tensor.dtype = tf.DT_FLOAT
        for size in ask.rows.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = ask.rows.tobytes()
        response = self._call(tf.PREDICT, request, tf.PredictResponse)
        outputs = {name: _array(name, tensor) for name, tensor in response.outputs.items()}
        return Answer(_version_of(response.model_spec, ask.version), outputs)

    def _spec(self, model: str, version: str) -> Any:
        spec = tf.ModelSpec(name=model, signature_name=self._signature)
        if version.isdecimal():
            spec.version.value = int(version)
        return spec

    def _call(self, path: str, request: Any, kind: tf.MessageClass) -> Any:
        payload = self._channel.call(path, request.SerializeToString(), self.timeout_s)
        return tf.decode(kind, payload)


def _version_of(spec: Any, asked: str) -> str:
    """The version that answered, where it was asked for by number."""
    return str(spec.version.value) if asked.isdecimal() and spec.HasField("version") else ""


def _tensors(infos: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name,
            FP32 if info.dtype == tf.DT_FLOAT else f"type {info.dtype}",
            tuple(dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    )


def _array(name: str, tensor: Any) -> NDArray[np.float32]:
    """An output's numbers. Raises ContractError where they are not of its shape."""
    if tensor.dtype != tf.DT_FLOAT:
        raise wrong_answer(f"output {name} is of type {tensor.dtype}, not float")
    content = tensor.tensor_content
    if len(content) % 4:
        raise wrong_answer(f"output {name} has {len(content)} bytes")
    numbers = np.frombuffer(content, "<f4") if content else np.array(tensor.float_val, np.float32)
    return shaped(name, numbers, [dim.size for dim in tensor.tensor_shape.dim])
