"""What a model needs to know about its input, its decision and its origin: the manifest.

The manifest is JSON that travels beside the TFLite bytes. `format` 3 says everything; what needs
no window, bounds or signature is written as `format` 2 with a reference of the training data, or
`format` 1 without, as older readers know it. It is read strictly: a key too many,
a key too few, a wrong type, an unknown signal, a wrong unit or a scale that is not finite and
above zero is a ContractError, because a model fed with the wrong numbers does not fail, it gives
wrong answers.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.errors import ContractError, Reason
from scoring.bounds import Bounds
from scoring.reference import Reference
from scoring.signature import Signature
from scoring.specs import BUCKET_S, WINDOW_S_MAX, FeatureKind, FeatureSpec
from scoring.strict import Fields

__all__ = [
    "BUCKET_S",
    "FORMAT",
    "FORMAT_WITHOUT_REFERENCE",
    "FORMAT_WITH_REFERENCE",
    "WINDOW_MAX",
    "WINDOW_S_MAX",
    "Bounds",
    "FeatureKind",
    "FeatureSpec",
    "Manifest",
    "OffsetRange",
    "PolicySettings",
    "Provenance",
    "Reference",
    "Signature",
]

FORMAT = 3
FORMAT_WITH_REFERENCE = 2
FORMAT_WITHOUT_REFERENCE = 1
SIGNED_PREFIX = b"motorcade-release-1\n"
"""Before the manifest in what is signed, so that a signature means nothing elsewhere."""

WINDOW_MAX = 128
"""Readings in a window at most."""

FEATURES_MAX = 512
COLUMNS_MAX = 4096
"""Numbers in a window at most; bounds what is kept of a vehicle to 16 kB."""

MANIFEST_BYTES_MAX = 1_000_000
OFFSET_RANGES_MAX = 10_000

SCALE_MIN = 1e-6
MAGNITUDE_MAX = 1e9

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CODE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """When an alert opens and closes; see `scoring.policy`.

    Attributes:
        k: Opens when at least `k` of the last `n` scores exceed the threshold.
        n: Scores looked at, 1..64.
        close_k: Closes when at most `close_k` of the last `n` scores exceed
            `threshold * close_ratio`; below `k`.
        close_ratio: 0 < ratio <= 1: how far below the threshold counts as recovered.
        code: Names the alert, e.g. in the MQTT topic; lower case, digits, `_` and `-`.

    Raises:
        ContractError: MODEL_INVALID: a value outside of these.
    """

    k: int = 6
    n: int = 10
    close_k: int = 1
    close_ratio: float = 1.0
    code: str = "anomaly"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n <= 64:
            raise ContractError(Reason.MODEL_INVALID, f"policy: {self.k} of {self.n}: not 1..64")
        if not 0 <= self.close_k < self.k:
            raise ContractError(
                Reason.MODEL_INVALID, f"policy: close_k {self.close_k} is not below k {self.k}"
            )
        if not 0 < self.close_ratio <= 1:
            raise ContractError(
                Reason.MODEL_INVALID, f"policy: close_ratio {self.close_ratio} is not in 0..1"
            )
        if not _CODE.fullmatch(self.code):
            raise ContractError(Reason.MODEL_INVALID, f"policy: code {self.code!r}")


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """A stretch of one Kafka partition.

    Attributes:
        partition: Partition number, >= 0.
        first: First offset read, >= 0.
        end: Offset after the last one read, >= first.

    Raises:
        ContractError: MODEL_INVALID: a negative number, or an end before the start.
    """

    partition: int
    first: int
    end: int

    def __post_init__(self) -> None:
        if self.partition < 0 or not 0 <= self.first <= self.end:
            raise ContractError(Reason.MODEL_INVALID, f"provenance: no offset range: {self}")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: enough to read the same data again.

    Attributes:
        topic: Kafka topic that was read, or what else the readings came from.
        offsets: What was read of it, by partition.
        readings: Readings used for training.
        vehicles: Vehicles they came from.
        seed: Seed of the training.
        trainer: Program and version that trained.
        notes: Further facts, text to text.
    """

    topic: str = ""
    offsets: tuple[OffsetRange, ...] = ()
    readings: int = 0
    vehicles: int = 0
    seed: int = 0
    trainer: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.offsets) > OFFSET_RANGES_MAX:
            raise ContractError(Reason.MODEL_INVALID, "provenance: too many offset ranges")
        if self.readings < 0 or self.vehicles < 0:
            raise ContractError(Reason.MODEL_INVALID, "provenance: a count below zero")


@dataclass(frozen=True, slots=True)
class Manifest:
    """All about a model but its bytes. F is the number of features.

    Attributes:
        name: Model name, 1..64 of letters, digits, `.`, `_`, `-`.
        version: Version; same characters.
        created_time_ms: Milliseconds since the epoch.
        features: The model's input columns, in order. F of them, unique.
        mean: Training mean of each feature, in its unit. F, finite.
        scale: Training standard deviation of each, in its unit. F, finite, >= 1e-6.
        threshold: Scores above it exceed. Finite, > 0.
        model_sha256: Of the TFLite bytes, 64 hex digits.
        error_scale: Typical error of reproduction of each feature, in standard deviations of
            training; a feature's error is divided by it. F, finite, >= 1e-6. Empty: all 1.
        window: Readings of a vehicle that the model is shown at once, 1..`WINDOW_MAX`; 1 is a
            point model, whose input has shape (B, F), others' have (B, window, F).
        policy: When alerts open and close.
        provenance: Where the model comes from.
        units: Unit of each feature. F. Empty: filled in; otherwise must be the feature's own.
        reference: What the training data looked like; None: nothing to compare with.
        bounds: Limits under which a gateway keeps the model; None: it has none of its own.
        signature: Who vouches for all this; None: nobody.

    Raises:
        ContractError: MODEL_FEATURES or MODEL_INVALID; the detail names the value at fault.
    """

    name: str
    version: str
    created_time_ms: int
    features: tuple[FeatureSpec, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    threshold: float
    model_sha256: str
    error_scale: tuple[float, ...] = ()
    window: int = 1
    policy: PolicySettings = PolicySettings()
    provenance: Provenance = field(default_factory=Provenance)
    units: tuple[str, ...] = ()
    reference: Reference | None = None
    bounds: Bounds | None = None
    signature: Signature | None = None

    def __post_init__(self) -> None:
        self._check_identity()
        self._check_features()
        if not self.units:
            object.__setattr__(self, "units", tuple(spec.unit for spec in self.features))
        if not self.error_scale:
            object.__setattr__(self, "error_scale", (1.0,) * len(self.features))
        self._check_numbers()
        if self.reference and len(self.reference.features) != len(self.features):
            raise ContractError(
                Reason.MODEL_FEATURES,
                f"reference of {len(self.reference.features)} features, not {len(self.features)}",
            )

    def _check_identity(self) -> None:
        for what, text in (("name", self.name), ("version", self.version)):
            if not _NAME.fullmatch(text):
                raise ContractError(Reason.MODEL_INVALID, f"{what} {text!r} is not a plain name")
        if not _SHA256.fullmatch(self.model_sha256):
            raise ContractError(Reason.MODEL_INVALID, "model_sha256 is not 64 hex digits")
        if not 1 <= self.window <= WINDOW_MAX:
            raise ContractError(
                Reason.MODEL_INVALID, f"window {self.window} is not in 1..{WINDOW_MAX}"
            )
        if not 0 <= self.created_time_ms < 1 << 53:
            raise ContractError(Reason.MODEL_INVALID, f"created_time_ms {self.created_time_ms}")

    def _check_features(self) -> None:
        if not 1 <= len(self.features) <= FEATURES_MAX:
            raise ContractError(Reason.MODEL_FEATURES, f"{len(self.features)} features")
        if self.columns > COLUMNS_MAX:
            raise ContractError(
                Reason.MODEL_FEATURES,
                f"windows of {self.window} x {len(self.features)}: over {COLUMNS_MAX} numbers",
            )
        names = [spec.name for spec in self.features]
        if len(set(names)) != len(names):
            raise ContractError(Reason.MODEL_FEATURES, "a feature stands there twice")

    def _check_numbers(self) -> None:
        for spec, unit in zip(self.features, self.units, strict=False):
            if unit != spec.unit:
                raise ContractError(
                    Reason.MODEL_FEATURES, f"{spec.name} is in {spec.unit}, not in {unit!r}"
                )
        columns = {"mean": self.mean, "scale": self.scale, "error_scale": self.error_scale}
        for what, column in {**columns, "units": self.units}.items():
            if len(column) != len(self.features):
                raise ContractError(
                    Reason.MODEL_FEATURES,
                    f"{len(column)} values of {what} for {len(self.features)} features",
                )
        for what, numbers in columns.items():
            for spec, number in zip(self.features, numbers, strict=True):
                low = -MAGNITUDE_MAX if what == "mean" else SCALE_MIN
                if not low <= number <= MAGNITUDE_MAX:  # NaN fails too
                    raise ContractError(Reason.MODEL_FEATURES, f"{what} of {spec.name} is {number}")
        if not (math.isfinite(self.threshold) and 0 < self.threshold <= MAGNITUDE_MAX):
            raise ContractError(Reason.MODEL_INVALID, f"threshold is {self.threshold}")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the input columns, in order."""
        return tuple(spec.name for spec in self.features)

    @property
    def columns(self) -> int:
        """Numbers in a row that the model is shown: F, of a windowed model window * F.

        A windowed model's row is its window, reading by reading, the oldest first.
        """
        return self.window * len(self.features)

    @property
    def format(self) -> int:
        """The oldest format that can say it."""
        if self.window != 1 or self.bounds or self.signature:
            return FORMAT
        return FORMAT_WITH_REFERENCE if self.reference else FORMAT_WITHOUT_REFERENCE

    def signed_bytes(self) -> bytes:
        """What a signature is made over: all of the manifest but the signature itself."""
        return SIGNED_PREFIX + replace(self, signature=None).to_json().encode()

    def to_json(self) -> str:
        """The manifest as JSON, with keys in a fixed order."""
        return json.dumps(_manifest_to_object(self), indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Manifest":
        """Read what `to_json` wrote.

        Raises:
            ContractError: MODEL_INVALID or MODEL_FEATURES; unknown and missing keys, too.
        """
        if len(text) > MANIFEST_BYTES_MAX:
            raise ContractError(Reason.MODEL_INVALID, f"manifest of {len(text)} characters")
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ContractError(Reason.MODEL_INVALID, f"manifest is not JSON: {error}") from error
        return _manifest_from_object(parsed)


def _manifest_to_object(manifest: Manifest) -> dict[str, Any]:
    policy = manifest.policy
    source = manifest.provenance
    return {
        "format": manifest.format,
        "name": manifest.name,
        "version": manifest.version,
        "created_time_ms": manifest.created_time_ms,
        "model_sha256": manifest.model_sha256,
        "window": manifest.window,
        "threshold": manifest.threshold,
        "features": [
            {
                "signal": spec.signal,
                "kind": spec.kind.value,
                "window_s": spec.window_s,
                "unit": unit,
                "mean": mean,
                "scale": scale,
                "error_scale": error_scale,
            }
            for spec, unit, mean, scale, error_scale in zip(
                manifest.features,
                manifest.units,
                manifest.mean,
                manifest.scale,
                manifest.error_scale,
                strict=True,
            )
        ],
        "policy": {
            "k": policy.k,
            "n": policy.n,
            "close_k": policy.close_k,
            "close_ratio": policy.close_ratio,
            "code": policy.code,
        },
        "provenance": {
            "topic": source.topic,
            "offsets": [
                {"partition": part.partition, "first": part.first, "end": part.end}
                for part in source.offsets
            ],
            "readings": source.readings,
            "vehicles": source.vehicles,
            "seed": source.seed,
            "trainer": source.trainer,
            "notes": dict(source.notes),
        },
        **_extras_to_object(manifest),
    }


def _extras_to_object(manifest: Manifest) -> dict[str, Any]:
    """What came with later formats."""
    reference, bounds, signature = manifest.reference, manifest.bounds, manifest.signature
    if manifest.format < FORMAT:
        return {"reference": reference.to_object()} if reference else {}
    return {
        "reference": reference.to_object() if reference else None,
        "bounds": bounds.to_object() if bounds else None,
        "signature": signature.to_object() if signature else None,
    }


def _manifest_from_object(parsed: object) -> Manifest:
    top = Fields(parsed, "manifest")
    version = top.integer("format")
    if not FORMAT_WITHOUT_REFERENCE <= version <= FORMAT:
        raise ContractError(Reason.MODEL_INVALID, f"manifest: format {version} is not 1, 2 or 3")
    columns = [Fields(item, "feature") for item in top.array("features")]
    specs = tuple(_spec_from_fields(column) for column in columns)
    manifest = Manifest(
        name=top.text("name"),
        version=top.text("version"),
        created_time_ms=top.integer("created_time_ms"),
        features=specs,
        mean=tuple(column.number("mean") for column in columns),
        scale=tuple(column.number("scale") for column in columns),
        error_scale=tuple(column.number("error_scale") for column in columns),
        units=tuple(column.text("unit") for column in columns),
        threshold=top.number("threshold"),
        model_sha256=top.text("model_sha256"),
        window=top.integer("window"),
        policy=_policy_from_fields(Fields(top.value("policy"), "policy")),
        provenance=_provenance_from_fields(Fields(top.value("provenance"), "provenance")),
        **_extras_from_fields(top, version),
    )
    for fields in (top, *columns):
        fields.end()
    if manifest.window != 1 and version < FORMAT:
        raise ContractError(Reason.MODEL_INVALID, f"window {manifest.window} in format {version}")
    return manifest


def _extras_from_fields(top: Fields, version: int) -> dict[str, Any]:
    """What came with later formats; null is absent, but a reference of format 2 must be there."""
    if version == FORMAT_WITHOUT_REFERENCE:
        return {}
    reference = top.value("reference")
    if version == FORMAT_WITH_REFERENCE:
        return {"reference": Reference.from_object(reference)}
    bounds, signature = top.value("bounds"), top.value("signature")
    return {
        "reference": None if reference is None else Reference.from_object(reference),
        "bounds": None if bounds is None else Bounds.from_object(bounds),
        "signature": None if signature is None else Signature.from_object(signature),
    }


def _spec_from_fields(fields: Fields) -> FeatureSpec:
    kind = fields.text("kind")
    if kind not in {known.value for known in FeatureKind}:
        raise ContractError(Reason.MODEL_FEATURES, f"unknown kind of feature {kind!r}")
    return FeatureSpec(fields.text("signal"), FeatureKind(kind), fields.number("window_s"))


def _policy_from_fields(fields: Fields) -> PolicySettings:
    policy = PolicySettings(
        k=fields.integer("k"),
        n=fields.integer("n"),
        close_k=fields.integer("close_k"),
        close_ratio=fields.number("close_ratio"),
        code=fields.text("code"),
    )
    fields.end()
    return policy


def _provenance_from_fields(fields: Fields) -> Provenance:
    offsets = []
    for item in fields.array("offsets"):
        part = Fields(item, "offset range")
        offsets.append(
            OffsetRange(part.integer("partition"), part.integer("first"), part.integer("end"))
        )
        part.end()
    notes = Fields(fields.value("notes"), "notes")
    provenance = Provenance(
        topic=fields.text("topic"),
        offsets=tuple(offsets),
        readings=fields.integer("readings"),
        vehicles=fields.integer("vehicles"),
        seed=fields.integer("seed"),
        trainer=fields.text("trainer"),
        notes={key: notes.text(key) for key in notes.names},
    )
    fields.end()
    return provenance
