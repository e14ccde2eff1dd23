"""The few messages of TensorFlow Serving's PredictionService that are needed, made from a table.

In a descriptor pool of this module's own, so that they never clash with TensorFlow's. What the
table leaves out of a message is kept by protobuf as unknown fields.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from schemas.errors import ContractError, Reason

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

DT_FLOAT = 1

Message = Any
MessageClass = Callable[..., Message]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "float": _Field.TYPE_FLOAT,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}

# Message to (number, name, type); `[]` repeats, `{}` is a map from string.
_FIELDS: dict[str, tuple[tuple[int, str, str], ...]] = {
    "Dim": ((1, "size", "int64"),),
    "Shape": ((2, "dim", "Dim[]"), (3, "unknown_rank", "bool")),
    "Tensor": (
        (1, "dtype", "int32"),
        (2, "tensor_shape", "Shape"),
        (4, "tensor_content", "bytes"),
        (5, "float_val", "float[]"),
    ),
    "TensorInfo": ((1, "name", "string"), (2, "dtype", "int32"), (3, "tensor_shape", "Shape")),
    "Signature": ((1, "inputs", "TensorInfo{}"), (2, "outputs", "TensorInfo{}")),
    "Signatures": ((1, "signature_def", "Signature{}"),),
    "Int64": ((1, "value", "int64"),),
    "ModelSpec": ((1, "name", "string"), (2, "version", "Int64"), (3, "signature_name", "string")),
    "PredictRequest": (
        (1, "model_spec", "ModelSpec"),
        (2, "inputs", "Tensor{}"),
        (3, "output_filter", "string[]"),
    ),
    "PredictResponse": ((1, "outputs", "Tensor{}"), (2, "model_spec", "ModelSpec")),
    "MetadataRequest": ((1, "model_spec", "ModelSpec"), (2, "metadata_field", "string[]")),
    "Any": ((1, "type_url", "string"), (2, "value", "bytes")),
    "MetadataResponse": ((1, "model_spec", "ModelSpec"), (2, "metadata", "Any{}")),
}

_PACKAGE = "motorcade.tfserving"


def _classes() -> dict[str, MessageClass]:
    file = descriptor_pb2.FileDescriptorProto(
        name="motorcade/tfserving.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            _add_field(message, number, field, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


def _add_field(message: Any, number: int, name: str, kind: str) -> None:
    of = kind.rstrip("[]{}")
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.endswith("{}"):
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, 1, "key", "string")
        _add_field(entry, 2, "value", of)
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
    elif of in _SCALARS:
        field.type = _SCALARS[of]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{of}"
    if kind.endswith(("[]", "{}")):
        field.label = _Field.LABEL_REPEATED


_MADE = _classes()

Tensor = _MADE["Tensor"]
Signatures = _MADE["Signatures"]
ModelSpec = _MADE["ModelSpec"]
Int64 = _MADE["Int64"]
PredictRequest = _MADE["PredictRequest"]
PredictResponse = _MADE["PredictResponse"]
MetadataRequest = _MADE["MetadataRequest"]
MetadataResponse = _MADE["MetadataResponse"]


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
