"""A model ready to use: its manifest and its TFLite bytes, tied by a SHA-256.

A bundle travels as a `ModelRelease` record on `model.releases` and lies on disk as one file, the
same record in Avro single-object encoding, usually `NAME-VERSION.motorcade`.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.errors import ContractError, Reason
from schemas.records import decode_single_object, encode_single_object
from scoring.flatbuffer import check_tflite
from scoring.manifest import (
    BUCKET_S,
    WINDOW_S_MAX,
    FeatureKind,
    FeatureSpec,
    Manifest,
    OffsetRange,
    PolicySettings,
    Provenance,
    Reference,
)
from scoring.whole_file import write_whole

__all__ = [
    "BUCKET_S",
    "FILE_SUFFIX",
    "MODEL_BYTES_MAX",
    "WINDOW_S_MAX",
    "Bundle",
    "FeatureKind",
    "FeatureSpec",
    "Manifest",
    "OffsetRange",
    "PolicySettings",
    "Provenance",
    "Reference",
    "sha256_hex",
]

FILE_SUFFIX = ".motorcade"
MODEL_BYTES_MAX = 16_000_000
FILE_BYTES_MAX = MODEL_BYTES_MAX + 2_000_000
"""No bundle's file is larger."""


def sha256_hex(model: bytes) -> str:
    """SHA-256 of TFLite bytes as a manifest states it: 64 hex digits."""
    return hashlib.sha256(model).hexdigest()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest and the model it describes.

    `from_record` and `load` verify; a bundle made by hand is verified by whoever uses it
    (`scoring.scorer.BatchScorer` does).

    Attributes:
        manifest: Everything but the bytes.
        model: TFLite flatbuffer, at most `MODEL_BYTES_MAX` bytes.
    """

    manifest: Manifest
    model: bytes

    @property
    def sha256(self) -> bytes:
        """The 32 bytes that scores and alerts carry."""
        return bytes.fromhex(self.manifest.model_sha256)

    def verify(self) -> None:
        """Compare hash, size and structure, without running the model.

        Raises:
            ContractError: MODEL_HASH where the bytes are not those of the manifest;
                MODEL_INVALID where they are no TFLite model.
        """
        if len(self.model) > MODEL_BYTES_MAX:
            raise ContractError(Reason.MODEL_INVALID, f"model of {len(self.model)} bytes")
        found = sha256_hex(self.model)
        if found != self.manifest.model_sha256:
            raise ContractError(
                Reason.MODEL_HASH,
                f"model {self.manifest.name} {self.manifest.version} has SHA-256 {found}, "
                f"its manifest says {self.manifest.model_sha256}",
            )
        check_tflite(self.model)

    @property
    def release_sha256(self) -> str:
        """Of the whole release, 64 hex digits: the manifest, which states the model's."""
        return hashlib.sha256(self.manifest.to_json().encode()).hexdigest()

    def to_record(self) -> dict[str, Any]:
        """The `ModelRelease` record."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "created_time": self.manifest.created_time_ms,
            "manifest": self.manifest.to_json(),
            "model": self.model,
        }

    @staticmethod
    def from_record(record: dict[str, Any]) -> "Bundle":
        """Read and verify a `ModelRelease` record.

        Raises:
            ContractError: MODEL_HASH, MODEL_FEATURES or MODEL_INVALID.
        """
        bundle = Bundle.unverified(record)
        bundle.verify()
        return bundle

    @staticmethod
    def unverified(record: dict[str, Any]) -> "Bundle":
        """Read a `ModelRelease` record, and leave the look at its bytes to the caller.

        Raises:
            ContractError: MODEL_FEATURES or MODEL_INVALID: its manifest cannot be.
        """
        missing = {"name", "version", "created_time", "manifest", "model"} - set(record)
        if missing or not isinstance(record["manifest"], str):
            raise ContractError(Reason.MODEL_INVALID, "not a ModelRelease record")
        bundle = Bundle(Manifest.from_json(record["manifest"]), bytes(record["model"]))
        stated = (record["name"], record["version"], _epoch_ms(record["created_time"]))
        manifest = bundle.manifest
        if stated != (manifest.name, manifest.version, manifest.created_time_ms):
            raise ContractError(
                Reason.MODEL_INVALID, f"record {stated} and its manifest name different models"
            )
        return bundle

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all, safe on disk on return.

        Raises:
            OSError: The disk refused.
        """
        write_whole(path, encode_single_object("ModelRelease", self.to_record()))

    @staticmethod
    def load(path: Path) -> "Bundle":
        """Read and verify a file that `save` wrote.

        Raises:
            ContractError: Not such a file, or its bundle does not verify.
            OSError: The file cannot be read.
        """
        with path.open("rb") as file:
            payload = file.read(FILE_BYTES_MAX + 1)
        if len(payload) > FILE_BYTES_MAX:
            raise ContractError(Reason.OVERSIZED, f"{path.name} is larger than any bundle")
        return Bundle.from_record(decode_single_object("ModelRelease", payload))


def _epoch_ms(time: object) -> int:
    """Avro readers give timestamps as datetime or as milliseconds."""
    if isinstance(time, datetime):
        return round((time - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)
    if isinstance(time, int):
        return time
    raise ContractError(Reason.MODEL_INVALID, "created_time is no timestamp")
