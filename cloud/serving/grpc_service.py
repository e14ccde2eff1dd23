"""The methods of `inference.GRPCInferenceService`: bytes of a request in, bytes of a response out.

What needs no model is answered at once; what changes the repository is done in the back room.
"""

from collections.abc import Callable, Mapping

from cloud.serving.metadata import EXTENSIONS, SERVER_NAME, TensorInfo, model_info
from cloud.serving.repository import RepositoryView
from cloud.serving.rpc_parts import RpcParts
from cloud.serving.tensors import malformed
from cloud.serving.versions import server_version
from schemas import inference_v2 as v2
from schemas.errors import ContractError, Reason

Unary = Callable[[RpcParts, bytes], bytes]
Aside = Callable[[RepositoryView], bytes]
"""Makes a response in the back room."""


def _server_live(_parts: RpcParts, _payload: bytes) -> bytes:
    return v2.encode(v2.SERVER_LIVE.response(live=True))


def _server_ready(parts: RpcParts, _payload: bytes) -> bytes:
    return v2.encode(v2.SERVER_READY.response(ready=parts.is_ready))


def _model_ready(parts: RpcParts, payload: bytes) -> bytes:
    request = v2.decode(v2.MODEL_READY.request, payload)
    try:
        model_info(parts.repository, request.name, request.version)
    except ContractError as error:
        if error.reason is not Reason.UNKNOWN_MODEL:
            raise
        return v2.encode(v2.MODEL_READY.response(ready=False))
    return v2.encode(v2.MODEL_READY.response(ready=True))


def _server_metadata(_parts: RpcParts, _payload: bytes) -> bytes:
    return v2.encode(
        v2.SERVER_METADATA.response(
            name=SERVER_NAME, version=server_version(), extensions=EXTENSIONS
        )
    )


def _model_metadata(parts: RpcParts, payload: bytes) -> bytes:
    request = v2.decode(v2.MODEL_METADATA.request, payload)
    info = model_info(parts.repository, request.name, request.version)
    return v2.encode(
        v2.MODEL_METADATA.response(
            name=info.name,
            versions=info.versions,
            platform=info.platform,
            inputs=[_tensor(each) for each in info.inputs],
            outputs=[_tensor(each) for each in info.outputs],
        )
    )


def _tensor(info: TensorInfo) -> v2.Message:
    return v2.TensorMetadata(name=info.name, datatype=info.datatype, shape=info.shape)


def _index(parts: RpcParts, payload: bytes) -> bytes:
    request = v2.decode(v2.REPOSITORY_INDEX.request, payload)
    entries = [e for e in parts.repository.index() if e.is_ready or not request.ready]
    return v2.encode(
        v2.REPOSITORY_INDEX.response(
            models=[
                v2.ModelIndex(name=e.name, version=e.version, state=e.state.value, reason=e.reason)
                for e in entries
            ]
        )
    )


def _load(parts: RpcParts, payload: bytes) -> bytes:
    request = v2.decode(v2.REPOSITORY_MODEL_LOAD.request, payload)
    parts.repository.load(request.model_name, _version(request))
    return v2.encode(v2.REPOSITORY_MODEL_LOAD.response())


def _unload(parts: RpcParts, payload: bytes) -> bytes:
    request = v2.decode(v2.REPOSITORY_MODEL_UNLOAD.request, payload)
    parts.repository.unload(request.model_name, _version(request))
    return v2.encode(v2.REPOSITORY_MODEL_UNLOAD.response())


def _version(request: v2.Message) -> str | None:
    version = v2.parameters_of(request).get("version")
    if version is not None and not isinstance(version, str):
        raise malformed(f"version is {version!r}; it may be a string")
    return version


def _by_path(methods: Mapping[v2.Method, Unary]) -> Mapping[bytes, Unary]:
    return {method.path.encode(): unary for method, unary in methods.items()}


INFER_PATH = v2.MODEL_INFER.path.encode()

AT_ONCE: Mapping[bytes, Unary] = _by_path(
    {
        v2.SERVER_LIVE: _server_live,
        v2.SERVER_READY: _server_ready,
        v2.MODEL_READY: _model_ready,
        v2.SERVER_METADATA: _server_metadata,
        v2.MODEL_METADATA: _model_metadata,
    }
)
"""Answered on the loop."""

ASIDE: Mapping[bytes, Unary] = _by_path(
    {
        v2.REPOSITORY_INDEX: _index,
        v2.REPOSITORY_MODEL_LOAD: _load,
        v2.REPOSITORY_MODEL_UNLOAD: _unload,
    }
)
"""Answered in the back room: they wait for the repository."""
