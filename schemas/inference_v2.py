"""The messages of the Open Inference Protocol V2 over gRPC, and the names of its methods.

KServe, Triton, Seldon and MLServer speak `inference.GRPCInferenceService`. Its messages are made
here from a table of numbers and types, in a descriptor pool of this module's own, so that another
copy of them in the same process (tritonclient's, MLServer's) does not clash. It and
`cloud/remote/tfserving_messages.py` alone import protobuf; whoever installs no more than the edge
or the simulator never imports it.

Messages are made at run time, so mypy knows no more of them than `Message`; a test compares every
field with tritonclient's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from schemas.errors import ContractError, Reason

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

Message = Any
"""A message of the table; its attributes are the table's fields."""
MessageClass = Callable[..., Message]
"""Makes a message from values of its fields by name."""

_REQUESTED = (
    (1, "model_name", "string"),
    (2, "model_version", "string"),
    (3, "id", "string"),
    (4, "parameters", "map InferParameter"),
)
_NAMED = ((1, "name", "string"), (2, "version", "string"))
_CHANGED = (
    (1, "repository_name", "string"),
    (2, "model_name", "string"),
    (3, "parameters", "map ModelRepositoryParameter"),
)
_TENSOR = (
    (1, "name", "string"),
    (2, "datatype", "string"),
    (3, "shape", "repeated int64"),
    (4, "parameters", "map InferParameter"),
    (5, "contents", "InferTensorContents"),
)

# Message to (number, name, type). A name with dots is a message within another. `one of` fields
# exclude each other; `map` goes from string to the message named.
_FIELDS: dict[str, tuple[tuple[int, str, str], ...]] = {
    "InferParameter": (
        (1, "bool_param", "one of bool"),
        (2, "int64_param", "one of int64"),
        (3, "string_param", "one of string"),
        (4, "double_param", "one of double"),
        (5, "uint64_param", "one of uint64"),
    ),
    "ModelRepositoryParameter": (
        (1, "bool_param", "one of bool"),
        (2, "int64_param", "one of int64"),
        (3, "string_param", "one of string"),
        (4, "bytes_param", "one of bytes"),
    ),
    "InferTensorContents": (
        (1, "bool_contents", "repeated bool"),
        (2, "int_contents", "repeated int32"),
        (3, "int64_contents", "repeated int64"),
        (4, "uint_contents", "repeated uint32"),
        (5, "uint64_contents", "repeated uint64"),
        (6, "fp32_contents", "repeated float"),
        (7, "fp64_contents", "repeated double"),
        (8, "bytes_contents", "repeated bytes"),
    ),
    "ServerLiveRequest": (),
    "ServerLiveResponse": ((1, "live", "bool"),),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ((1, "ready", "bool"),),
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": ((1, "ready", "bool"),),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (*_NAMED, (3, "extensions", "repeated string")),
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": (
        (1, "name", "string"),
        (2, "versions", "repeated string"),
        (3, "platform", "string"),
        (4, "inputs", "repeated ModelMetadataResponse.TensorMetadata"),
        (5, "outputs", "repeated ModelMetadataResponse.TensorMetadata"),
    ),
    "ModelMetadataResponse.TensorMetadata": _TENSOR[:3],
    "ModelInferRequest": (
        *_REQUESTED,
        (5, "inputs", "repeated ModelInferRequest.InferInputTensor"),
        (6, "outputs", "repeated ModelInferRequest.InferRequestedOutputTensor"),
        (7, "raw_input_contents", "repeated bytes"),
    ),
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": (
        (1, "name", "string"),
        (2, "parameters", "map InferParameter"),
    ),
    "ModelInferResponse": (
        *_REQUESTED,
        (5, "outputs", "repeated ModelInferResponse.InferOutputTensor"),
        (6, "raw_output_contents", "repeated bytes"),
    ),
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    "RepositoryIndexRequest": ((1, "repository_name", "string"), (2, "ready", "bool")),
    "RepositoryIndexResponse": ((1, "models", "repeated RepositoryIndexResponse.ModelIndex"),),
    "RepositoryIndexResponse.ModelIndex": (
        *_NAMED,
        (3, "state", "string"),
        (4, "reason", "string"),
    ),
    "RepositoryModelLoadRequest": _CHANGED,
    "RepositoryModelLoadResponse": (),
    "RepositoryModelUnloadRequest": _CHANGED,
    "RepositoryModelUnloadResponse": (),
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


def _pool() -> Any:
    """A pool of our own that holds every message of the table."""
    file = descriptor_pb2.FileDescriptorProto(
        name="motorcade/inference_v2.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for name, fields in _FIELDS.items():
        outer, _, inner = name.rpartition(".")
        siblings = made[outer].nested_type if outer else file.message_type
        made[name] = siblings.add(name=inner)
        for number, field, kind in fields:
            _add_field(made[name], f".{PACKAGE}.{name}", number, field, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, full_name: str, number: int, name: str, kind: str) -> None:
    what, _, of = kind.rpartition(" ")
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if what == "map":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, f"{full_name}.{entry.name}", 1, "key", "string")
        _add_field(entry, f"{full_name}.{entry.name}", 2, "value", of)
        field.type, field.type_name = _Field.TYPE_MESSAGE, f"{full_name}.{entry.name}"
    elif of in _SCALARS:
        field.type = _SCALARS[of]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{of}"
    if what in ("map", "repeated"):
        field.label = _Field.LABEL_REPEATED
    if what == "one of":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0


_POOL = _pool()


def message_class(name: str) -> MessageClass:
    """The class of a message by its name in the table. Raises KeyError."""
    made: MessageClass = message_factory.GetMessageClass(
        _POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")
    )
    return made


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the service: one request, one response.

    Attributes:
        name: 'ModelInfer', ...
        request: Class of the request.
        response: Class of the response.
    """

    name: str
    request: MessageClass
    response: MessageClass

    @property
    def path(self) -> str:
        """As gRPC names it: `/inference.GRPCInferenceService/ModelInfer`."""
        return f"/{SERVICE}/{self.name}"


def _method(name: str) -> Method:
    return Method(name, message_class(f"{name}Request"), message_class(f"{name}Response"))


SERVER_LIVE = _method("ServerLive")
SERVER_READY = _method("ServerReady")
MODEL_READY = _method("ModelReady")
SERVER_METADATA = _method("ServerMetadata")
MODEL_METADATA = _method("ModelMetadata")
MODEL_INFER = _method("ModelInfer")
REPOSITORY_INDEX = _method("RepositoryIndex")
REPOSITORY_MODEL_LOAD = _method("RepositoryModelLoad")
REPOSITORY_MODEL_UNLOAD = _method("RepositoryModelUnload")

METHODS: tuple[Method, ...] = (
    SERVER_LIVE,
    SERVER_READY,
    MODEL_READY,
    SERVER_METADATA,
    MODEL_METADATA,
    MODEL_INFER,
    REPOSITORY_INDEX,
    REPOSITORY_MODEL_LOAD,
    REPOSITORY_MODEL_UNLOAD,
)

InferParameter = message_class("InferParameter")
InferTensorContents = message_class("InferTensorContents")
InferInputTensor = message_class("ModelInferRequest.InferInputTensor")
InferRequestedOutputTensor = message_class("ModelInferRequest.InferRequestedOutputTensor")
InferOutputTensor = message_class("ModelInferResponse.InferOutputTensor")
TensorMetadata = message_class("ModelMetadataResponse.TensorMetadata")
ModelIndex = message_class("RepositoryIndexResponse.ModelIndex")


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return bytes(message.SerializeToString())


def decode(kind: MessageClass, payload: bytes) -> Message:
    """A message from bytes.

    Raises:
        ContractError: MALFORMED: not such a message.
    """
    message = kind()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise ContractError(Reason.MALFORMED, f"no message of the protocol: {error}") from error
    return message


def parameter(value: bool | int | float | str) -> Message:
    """An `InferParameter` of the kind that suits the value."""
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)


def parameters_of(message: Message) -> dict[str, bool | int | float | str | bytes]:
    """The `parameters` of a request, tensor or response as plain values; unset ones left out."""
    chosen = (
        (key, value, value.WhichOneof("parameter_choice"))
        for key, value in message.parameters.items()
    )
    return {key: getattr(value, choice) for key, value, choice in chosen if choice is not None}
