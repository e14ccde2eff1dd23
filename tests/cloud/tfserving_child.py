"""A stand-in for TensorFlow Serving, on its own messages and stubs, in a process of its own.

python tfserving_child.py BUNDLE: hosts the bundle's bare network as model `small`, versions 1 and
2, says on which port, and serves until a line comes in. It has TensorFlow's interpreter, because
TensorFlow and the scorers' TFLite runtime do not live in one process.
"""

import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from schemas.records import decode_single_object

VERSIONS = (1, 2)


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Answers as the real one does to what it is asked here."""

    def __init__(self, model: bytes) -> None:
        self._lock = threading.Lock()
        self._interpreter = tf.lite.Interpreter(model_content=model)
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self._row = tuple(int(size) for size in self._input["shape"][1:])

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self._check(request.model_spec, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for name, infos in (("keras_tensor", signature.inputs), ("output_0", signature.outputs)):
            infos[name].dtype = types_pb2.DT_FLOAT
            for size in (-1, *self._row):
                infos[name].tensor_shape.dim.add(size=size)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.CopyFrom(request.model_spec)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self._check(request.model_spec, context)
        if set(request.inputs) != {"keras_tensor"}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"inputs {sorted(request.inputs)}")
        rows = tf.make_ndarray(request.inputs["keras_tensor"])
        if rows.shape[1:] != self._row:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"shape {rows.shape}")
        with self._lock:
            self._interpreter.resize_tensor_input(self._input["index"], rows.shape)
            self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(self._input["index"], rows)
            self._interpreter.invoke()
            outputs = self._interpreter.get_tensor(self._output["index"])
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = request.model_spec.version.value or max(VERSIONS)
        response.outputs["output_0"].CopyFrom(tf.make_tensor_proto(outputs))
        return response

    def _check(self, spec: Any, context: Any) -> None:
        known = spec.HasField("version") is False or spec.version.value in VERSIONS
        if spec.name != "small" or not known:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")


def main() -> None:
    record = decode_single_object("ModelRelease", Path(sys.argv[1]).read_bytes())
    server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Service(bytes(record["model"])), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.readline()
    server.stop(0)


if __name__ == "__main__":
    main()
