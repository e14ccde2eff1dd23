"""How two versions of a model differ: features, decision, origin, and what normalisation moved."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scoring.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a feature that both versions have.

    Attributes:
        feature: Its name.
        unit: Of the means and scales.
        mean: Training mean before and after.
        scale: Training standard deviation before and after.
        shift: By how many standard deviations of the version before the mean moved.
        scale_ratio: Standard deviation after, divided by that before.
        error_scale_ratio: Typical error of reproduction after, divided by that before.
    """

    feature: str
    unit: str
    mean: tuple[float, float]
    scale: tuple[float, float]
    shift: float
    scale_ratio: float
    error_scale_ratio: float

    @property
    def extent(self) -> float:
        """How much it moved, to order by: 0 where nothing did."""
        ratios = (self.scale_ratio, self.error_scale_ratio)
        return max(abs(self.shift), *(max(ratio, 1 / ratio) - 1 for ratio in ratios))


@dataclass(frozen=True, slots=True)
class ManifestDiff:
    """What is another in the manifest of version b than in that of version a.

    Attributes:
        added: Features that only b has, in its order.
        removed: Features that only a has, in its order.
        reordered: Whether the features of both stand in another order.
        moved: The features of both, what moved most first; those that did not move are left out.
        changed: Other facts by name (`threshold`, `policy.k`, `provenance.readings`), a's and b's.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    reordered: bool
    moved: tuple[Moved, ...]
    changed: Mapping[str, tuple[Any, Any]]


def diff_manifests(a: Manifest, b: Manifest) -> ManifestDiff:
    """Compare two manifests, of one model or of two."""
    names_a, names_b = a.feature_names, b.feature_names
    common_a = [name for name in names_a if name in names_b]
    common_b = [name for name in names_b if name in names_a]
    moved = [_moved(a, b, name) for name in common_a]
    facts_a, facts_b = _facts(a), _facts(b)
    return ManifestDiff(
        added=tuple(name for name in names_b if name not in names_a),
        removed=tuple(name for name in names_a if name not in names_b),
        reordered=common_a != common_b,
        moved=tuple(
            sorted(
                (each for each in moved if each.extent > 0),
                key=lambda each: each.extent,
                reverse=True,
            )
        ),
        changed={
            name: (facts_a.get(name), facts_b.get(name))
            for name in {**facts_a, **facts_b}
            if facts_a.get(name) != facts_b.get(name)
        },
    )


def _moved(a: Manifest, b: Manifest, feature: str) -> Moved:
    at_a, at_b = a.feature_names.index(feature), b.feature_names.index(feature)
    return Moved(
        feature=feature,
        unit=b.units[at_b],
        mean=(a.mean[at_a], b.mean[at_b]),
        scale=(a.scale[at_a], b.scale[at_b]),
        shift=(b.mean[at_b] - a.mean[at_a]) / a.scale[at_a],
        scale_ratio=b.scale[at_b] / a.scale[at_a],
        error_scale_ratio=b.error_scale[at_b] / a.error_scale[at_a],
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    """All but the columns, flat, in the order of the manifest."""
    source = manifest.provenance
    policy = {f"policy.{name}": value for name, value in asdict(manifest.policy).items()}
    bounds = {} if manifest.bounds is None else manifest.bounds.to_object()
    return {
        "model_sha256": manifest.model_sha256,
        "window": manifest.window,
        "threshold": manifest.threshold,
        **policy,
        **{f"bounds.{name}": value for name, value in bounds.items()},
        "signature": None if manifest.signature is None else manifest.signature.key_id,
        "provenance.topic": source.topic,
        "provenance.offsets": [(part.partition, part.first, part.end) for part in source.offsets],
        "provenance.readings": source.readings,
        "provenance.vehicles": source.vehicles,
        "provenance.seed": source.seed,
        "provenance.trainer": source.trainer,
        **{f"provenance.notes.{name}": text for name, text in source.notes.items()},
    }
