"""What the server says of itself and of its models, the same through each RPC door. Pure."""

from dataclasses import dataclass
from typing import Any

from cloud.serving.repository import ModelRepository, resolved
from cloud.serving.tensors import BYTES, FEATURES, FP32, OUTPUTS, RECONSTRUCTION, VEHICLE_ID
from scoring.bundle import Bundle
from scoring.traffic import CHAMPION

SERVER_NAME = "motorcade"
EXTENSIONS = ("binary_tensor_data", "model_repository")
PLATFORM = "motorcade_tflite"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, type and shape; -1 is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a client must know to ask a model.

    Attributes:
        name: Model name.
        versions: That answer, oldest first.
        platform: What runs it.
        inputs: Tensors it takes.
        outputs: Tensors it gives.
        parameters: Of the version asked for: names and units of the features, readings in a
            window, threshold, hash.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    parameters: dict[str, Any]


def model_info(repository: ModelRepository, name: str, selector: str) -> ModelInfo:
    """Of the version or alias; empty: the champion.

    Raises:
        ContractError: UNKNOWN_MODEL.
    """
    catalog = repository.catalog()
    bundle = resolved(catalog, name, selector or CHAMPION)
    columns = bundle.manifest.columns
    return ModelInfo(
        name=name,
        versions=catalog.versions(name),
        platform=PLATFORM,
        inputs=(TensorInfo(FEATURES, FP32, (-1, columns)), TensorInfo(VEHICLE_ID, BYTES, (-1,))),
        outputs=tuple(
            TensorInfo(output, datatype, (-1, columns) if output == RECONSTRUCTION else (-1,))
            for output, datatype in OUTPUTS.items()
        ),
        parameters=_parameters(bundle, catalog.aliases_of(name, bundle.manifest.version)),
    )


def _parameters(bundle: Bundle, aliases: tuple[str, ...]) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "version": manifest.version,
        "sha256": manifest.model_sha256,
        "aliases": list(aliases),
        "threshold": manifest.threshold,
        "window": manifest.window,
        "features": [spec.name for spec in manifest.features],
        "units": list(manifest.units),
    }
