"""Asks a model server by tritonclient, whose libraries warn of much; prints what it got as JSON.

triton_child.py http|grpc PORT MODEL ROWS.npy VERSION
"""

import json
import sys
from typing import Any

import numpy as np


def main(kind: str, port: str, model: str, path: str, version: str) -> None:
    if kind == "http":
        import tritonclient.http as triton
    else:
        import tritonclient.grpc as triton
    features = np.load(path)
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    said: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "version_ready": client.is_model_ready(model, version),
        "other_ready": client.is_model_ready("other"),
        "server": as_dict(client.get_server_metadata())["name"],
        "model": as_dict(client.get_model_metadata(model)),
        "index": as_dict(client.get_model_repository_index()),
    }
    said["answers"] = [
        asked(triton, client, model, features, version, **options)
        for options in ways(kind, bool(np.isnan(features).any()))
    ]
    client.unload_model(model)
    said["unloaded_ready"] = client.is_model_ready(model)
    client.load_model(model)
    said["loaded_ready"] = client.is_model_ready(model)
    try:
        asked(triton, client, "other", features, "")
    except triton.InferenceServerException as error:
        said["unknown"] = [error.status(), error.message()]
    client.close()
    print(json.dumps(said))


def ways(kind: str, has_nan: bool) -> list[dict[str, Any]]:
    both: list[dict[str, Any]] = [{}, {"request_id": "7"}]
    if kind == "grpc":
        return [*both, {"compression_algorithm": "gzip"}, {"client_timeout": 60.0}]
    # tritonclient writes NaN as no JSON reader takes it.
    as_json = [] if has_nan else [{"binary": False}]
    return [*both, {"binary_out": False}, *as_json]


def asked(
    triton: Any,
    client: Any,
    model: str,
    features: Any,
    version: str,
    *,
    binary: bool = True,
    binary_out: bool = True,
    **options: Any,
) -> dict[str, Any]:
    tensor = triton.InferInput("features", list(features.shape), "FP32")
    if triton.__name__.endswith("http"):
        tensor.set_data_from_numpy(features, binary_data=binary)
        wanted = [
            triton.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("score", "reconstruction")
        ]
    else:
        tensor.set_data_from_numpy(features)
        wanted = [triton.InferRequestedOutput(name) for name in ("score", "reconstruction")]
    result = client.infer(model, [tensor], model_version=version, outputs=wanted, **options)
    response = as_dict(result.get_response())
    return {
        "score": result.as_numpy("score").astype("<f4").tobytes().hex(),
        "reconstruction": result.as_numpy("reconstruction").astype("<f4").tobytes().hex(),
        "id": response.get("id", ""),
        "model_version": response["model_version"],
        "parameters": response["parameters"],
    }


def as_dict(answer: Any) -> Any:
    if isinstance(answer, (dict, list)):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
