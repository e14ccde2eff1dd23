"""The OpenAPI document of the REST door: what it takes, what it gives, and its errors. Pure."""

from collections.abc import Mapping
from typing import Any

from cloud.serving.tensors import (
    BYTES,
    FEATURES,
    FP32,
    OUTPUTS,
    TIMEOUT,
    VEHICLE_ID,
    VEHICLE_ID_BYTES_MAX,
    Limits,
)
from cloud.serving.versions import server_version

Json = dict[str, Any]

_ERRORS: Mapping[int, str] = {
    400: "No request of the protocol, or tensors that do not fit the model.",
    404: "No such model, version or alias.",
    413: "Larger than the server takes.",
    500: "The model failed.",
    503: "No room, or not ready; `Retry-After` says when to ask again.",
    504: "The deadline passed before the rows were scored.",
}
_NAME: Json = {"type": "string", "minLength": 1}


def document(limits: Limits) -> Json:
    """OpenAPI 3.1 of every resource."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Motorcade model server",
            "version": server_version(),
            "description": "Open Inference Protocol V2 with the binary tensor extension.",
        },
        "paths": _paths(limits),
        "components": {"schemas": _schemas(limits)},
    }


def _paths(limits: Limits) -> Json:
    name, version = _parameter("name", "Model"), _parameter("version", "Version or alias")
    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    infer = _operation("Score rows", _ref("InferResponse"), 400, 404, 413, 500, 503, 504)
    infer["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _ref("InferRequest")}},
    }
    infer["description"] = f"Up to {limits.request_bytes_max} bytes."
    return {
        "/v2": {"get": _operation("The server", _ref("Server"))},
        "/v2/health/live": {"get": _operation("Whether it runs", _flag("live"))},
        "/v2/health/ready": {"get": _operation("Whether to send requests", _flag("ready"), 503)},
        "/v2/docs/openapi.json": {"get": _operation("This document", {"type": "object"})},
        model: {"parameters": [name], "get": _operation("A model", _ref("Model"), 404)},
        f"{model}/ready": {
            "parameters": [name],
            "get": _operation("Whether a model answers", _ref("ModelReady"), 404),
        },
        f"{model}/infer": {"parameters": [name], "post": infer},
        versioned: {
            "parameters": [name, version],
            "get": _operation("A version", _ref("Model"), 404),
        },
        f"{versioned}/ready": {
            "parameters": [name, version],
            "get": _operation("Whether a version answers", _ref("ModelReady"), 404),
        },
        f"{versioned}/infer": {"parameters": [name, version], "post": infer},
        "/v2/repository/index": {
            "post": _operation("All versions", _ref("Index"), 400, 413, 503)
            | _optional_body({"type": "object", "properties": {"ready": {"type": "boolean"}}})
        },
        **{
            f"/v2/repository/models/{{name}}/{act}": {
                "parameters": [name],
                "post": _operation(text, {"type": "object"}, 400, 404, 413, 500, 503)
                | _optional_body(_ref("ChangeRequest")),
            }
            for act, text in (
                ("load", "Have a model or a version answer again"),
                ("unload", "Have a model or a version answer no more"),
            )
        },
    }


def _operation(summary: str, schema: Json, *errors: int) -> Json:
    responses = {"200": {"description": "Done.", **_content(schema)}}
    for status in errors:
        content = _flag("ready") if not errors[1:] and status == 503 else _ref("Error")
        responses[str(status)] = {"description": _ERRORS[status], **_content(content)}
    return {"summary": summary, "responses": responses}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _optional_body(schema: Json) -> Json:
    return {"requestBody": {"required": False, **_content(schema)}}


def _parameter(name: str, text: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": _NAME}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _flag(name: str) -> Json:
    return _record({name: {"type": "boolean"}})


def _record(properties: Json, *optional: str) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _schemas(limits: Limits) -> Json:
    text: Json = {"type": "string"}
    shape = _array({"type": "integer"})
    tensor = _record({"name": text, "datatype": text, "shape": shape})
    scalar = {"type": ["string", "number", "boolean", "null"]}
    parameters = {"type": "object", "additionalProperties": scalar}
    return {
        "Error": _record({"error": text}),
        "Server": _record({"name": text, "version": text, "extensions": _array(text)}),
        "ModelReady": _record({"name": text, "ready": {"type": "boolean"}}),
        "Model": _record(
            {
                "name": text,
                "versions": _array(text),
                "platform": text,
                "inputs": _array(tensor),
                "outputs": _array(tensor),
                "parameters": {"type": "object"},
            }
        ),
        "Index": _array(
            _record(
                {
                    "name": text,
                    "version": text,
                    "state": {"enum": ["READY", "UNAVAILABLE"]},
                    "reason": text,
                }
            )
        ),
        "ChangeRequest": {
            "type": "object",
            "properties": {
                "parameters": {
                    "type": ["object", "null"],
                    "properties": {"version": {"type": ["string", "null"]}},
                },
            },
        },
        "InferRequest": _infer_request(limits),
        "InferResponse": _record(
            {
                "model_name": text,
                "model_version": text,
                "id": text,
                "parameters": parameters,
                "outputs": _array(
                    _record(
                        {
                            "name": {"enum": list(OUTPUTS)},
                            "datatype": {"enum": [FP32, BYTES]},
                            "shape": shape,
                            "data": _array({"type": ["number", "string", "null"]}),
                            "parameters": parameters,
                        },
                        "data",
                        "parameters",
                    )
                ),
            },
            "id",
        ),
    }


def _infer_request(limits: Limits) -> Json:
    number = {"type": ["number", "null"]}
    size = {"type": "integer", "minimum": 1}
    features = _record(
        {
            "name": {"const": FEATURES},
            "datatype": {"const": FP32},
            "shape": {
                "type": "array",
                "prefixItems": [{**size, "description": f"At most {limits.rows_max}."}, size],
                "minItems": 2,
                "maxItems": 2,
            },
            "data": _array(number),
        }
    )
    vehicles = _record(
        {
            "name": {"const": VEHICLE_ID},
            "datatype": {"const": BYTES},
            "shape": {"type": "array", "items": size, "minItems": 1, "maxItems": 1},
            "data": _array({"type": "string"}),
        }
    )
    return _record(
        {
            "id": {"type": ["string", "null"]},
            "parameters": {
                "type": ["object", "null"],
                "properties": {
                    VEHICLE_ID: {
                        "type": ["string", "null"],
                        "maxLength": VEHICLE_ID_BYTES_MAX // 4,
                    },
                    TIMEOUT: {"type": "integer", "minimum": 0, "description": "Microseconds."},
                    "binary_data_output": {"type": "boolean"},
                },
            },
            "inputs": {
                "type": "array",
                "items": {"oneOf": [features, vehicles]},
                "minItems": 1,
                "maxItems": 2,
            },
            "outputs": _array(
                _record(
                    {
                        "name": {"enum": list(OUTPUTS)},
                        "parameters": {
                            "type": ["object", "null"],
                            "properties": {"binary_data": {"type": ["boolean", "null"]}},
                        },
                    },
                    "parameters",
                )
            ),
        },
        "id",
        "parameters",
        "outputs",
    )
