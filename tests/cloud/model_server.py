"""A small model server over gRPC that can misbehave, for tests of those who ask it.

It speaks the Open Inference Protocol and serves any number of bundles, as our own server does or
as one that hosts the bare network. `spoil` changes an answer before it goes out.
"""

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from schemas.inference_v2 import (
    MODEL_INFER,
    MODEL_METADATA,
    InferOutputTensor,
    TensorMetadata,
    decode,
    encode,
    parameter,
)
from scoring.bundle import Bundle
from scoring.interpreter import TfliteModel
from scoring.scorer import BatchScorer

Spoil = Callable[[Any], Any]


class ModelServer:
    """Serves on a free port of the loopback, or on the port it had before.

    Attributes:
        asked: Requests for inference that were answered or refused.
        rows: Rows of each.
        spoil: Given each answer; None: answer well.
        refuse: Status and words to answer with instead.
        hang: Requests wait for it before they are answered; set by default.
    """

    def __init__(self, *bundles: Bundle, bare: bool = False) -> None:
        self.bundles = {bundle.manifest.version: bundle for bundle in bundles}
        self.bare = bare
        self.port = 0
        self.asked = 0
        self.rows: list[int] = []
        self.versions: list[str] = []
        self.spoil: Spoil | None = None
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.hang = threading.Event()
        self.hang.set()
        self._server: Any = None
        self._lock = threading.Lock()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "ModelServer":
        server = grpc.server(
            futures.ThreadPoolExecutor(4),
            options=[("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=16,
        )
        methods = {
            method.name: grpc.unary_unary_rpc_method_handler(handler)
            for method, handler in (
                (MODEL_METADATA, self._metadata),
                (MODEL_INFER, self._infer),
            )
        }
        service = MODEL_INFER.path.split("/")[1]
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        """At once; requests under way break off."""
        self.hang.set()
        if self._server is not None:
            self._server.stop(0).wait()

    def __enter__(self) -> "ModelServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _bundle(self, version: str, context: Any) -> Bundle:
        found = self.bundles.get(version) if version else next(iter(self.bundles.values()), None)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no version {version}")
        assert found is not None
        return found

    def _metadata(self, payload: bytes, context: Any) -> bytes:
        request = decode(MODEL_METADATA.request, payload)
        n = len(self._bundle(request.version, context).manifest.features)
        matrix = {"datatype": "FP32", "shape": [-1, n]}
        if self.bare:
            outputs = [TensorMetadata(name="outputs", **matrix)]
        else:
            outputs = [
                TensorMetadata(name="score", datatype="FP32", shape=[-1]),
                TensorMetadata(name="reconstruction", **matrix),
            ]
        name = "inputs" if self.bare else "features"
        inputs = [TensorMetadata(name=name, **matrix)]
        return encode(MODEL_METADATA.response(name=request.name, inputs=inputs, outputs=outputs))

    def _infer(self, payload: bytes, context: Any) -> bytes:
        self.hang.wait()
        request = decode(MODEL_INFER.request, payload)
        bundle = self._bundle(request.model_version, context)
        rows = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(request.inputs[0].shape)
        with self._lock:
            self.asked += 1
            self.rows.append(len(rows))
            self.versions.append(request.model_version)
        if self.refuse is not None:
            context.abort(*self.refuse)
        outputs = self._outputs(bundle, rows, [output.name for output in request.outputs])
        response = MODEL_INFER.response(
            model_name=request.model_name,
            model_version=bundle.manifest.version,
            outputs=[
                InferOutputTensor(name=name, datatype="FP32", shape=array.shape)
                for name, array in outputs.items()
            ],
            raw_output_contents=[array.tobytes() for array in outputs.values()],
        )
        if not self.bare:
            response.parameters["sha256"].CopyFrom(parameter(bundle.manifest.model_sha256))
        if self.spoil is not None:
            response = self.spoil(response)
        return encode(response) if not isinstance(response, bytes) else response

    def _outputs(
        self, bundle: Bundle, rows: NDArray[np.float32], wanted: list[str]
    ) -> dict[str, NDArray[np.float32]]:
        n = len(bundle.manifest.features)
        if self.bare:
            return {"outputs": TfliteModel(bundle.model, n_inputs=n, n_outputs=n).run(rows)}
        scores, reconstruction = BatchScorer(bundle).score_and_reconstruct(rows)
        every = {"score": scores, "reconstruction": reconstruction}
        return {name: every[name] for name in wanted or every}
