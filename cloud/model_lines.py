"""How models read: lines for people, JSON objects for programs. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cloud.model_desk import Found, ModelRow
from scoring.bounds import Bounds
from scoring.diff import ManifestDiff, Moved
from scoring.manifest import Manifest, Provenance
from scoring.traffic import Arm

SHA256_SHOWN = 12
_HEADER = ("NAME", "VERSION", "CREATED", "ALIASES", "ARM", "SHA256")


def model_table(rows: Sequence[ModelRow]) -> list[str]:
    """A line a version below a header, columns aligned."""
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cells(row: ModelRow) -> tuple[str, ...]:
    return (
        row.name,
        row.version,
        created(row.created_time_ms),
        ",".join(row.aliases) or "-",
        ",".join(map(_arm, row.arms)) or "-",
        row.sha256[:SHA256_SHOWN] + ("" if row.sound else " (chunks missing)"),
    )


def _arm(arm: Arm) -> str:
    return f"{arm.name} {arm.weight * 100:g}%"


def created(time_ms: int) -> str:
    """UTC to the second: '2026-11-22 18:30:12Z'."""
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}Z"


def model_json(row: ModelRow) -> str:
    """One JSON object on one line: the row."""
    return json.dumps(asdict(row), ensure_ascii=False)


def found_json(found: Found) -> str:
    """One JSON object on one line: the row, the traffic's last change, the manifest."""
    traffic = found.traffic
    return json.dumps(
        {
            **asdict(found.row),
            "model_bytes": len(found.bundle.model),
            "traffic": {
                "generation": traffic.generation,
                "changed_time_ms": traffic.changed_time_ms,
                "changed_by": traffic.changed_by,
                "reason": traffic.reason,
                "previous": list(traffic.previous),
            },
            "manifest": json.loads(found.bundle.manifest.to_json()),
        },
        ensure_ascii=False,
    )


def found_lines(found: Found) -> Iterator[str]:
    """All about a version, for people."""
    manifest, row, traffic = found.bundle.manifest, found.row, found.traffic
    yield f"model      {manifest.name}@{manifest.version}"
    yield f"created    {created(manifest.created_time_ms)}"
    yield f"aliases    {', '.join(row.aliases) or 'none'}"
    if traffic.experiment is not None:
        arms = ", ".join(map(_arm, row.arms)) or "no arm"
        yield f"experiment {traffic.experiment.id} ({traffic.experiment.mode}): {arms}"
    if traffic.generation:
        yield (
            f"traffic    generation {traffic.generation}, {created(traffic.changed_time_ms)}, "
            f"by {traffic.changed_by}: {traffic.reason}"
        )
    yield f"sha256     {manifest.model_sha256}, {len(found.bundle.model)} bytes"
    yield f"threshold  {manifest.threshold:g}"
    yield f"policy     {_policy(manifest)}"
    if manifest.window > 1:
        yield f"window     {manifest.window} readings"
    if manifest.bounds is not None:
        yield f"bounds     {_bounds(manifest.bounds)}"
    signature = manifest.signature
    yield f"signature  {f'by key {signature.key_id}' if signature else 'none'}"
    yield from _lineage(manifest.provenance)
    yield from _features(manifest)


def _policy(manifest: Manifest) -> str:
    policy = manifest.policy
    return (
        f"{policy.code}: opens at {policy.k} of {policy.n}, closes at {policy.close_k} "
        f"above {policy.close_ratio:g} of the threshold"
    )


def _bounds(bounds: Bounds) -> str:
    most, least, pace = (
        bounds.alerts_per_vehicle_hour_max,
        bounds.alerts_per_vehicle_hour_min,
        bounds.reading_ms_max,
    )
    parts = [
        f"at most {most:g} alerts a vehicle-hour" if most is not None else "",
        f"at least {least:g} alerts a vehicle-hour" if least is not None else "",
        f"{pace:g} ms a reading" if pace is not None else "",
    ]
    return ", ".join(filter(None, parts)) or "none"


def _lineage(source: Provenance) -> Iterator[str]:
    """Back to what was read of the log."""
    yield (
        f"trained    by {source.trainer or 'nobody says'} on {source.readings} readings of "
        f"{source.vehicles} vehicles, seed {source.seed}"
    )
    for part in source.offsets:
        yield (
            f"from       {source.topic} partition {part.partition} "
            f"offsets {part.first}..{part.end - 1}"
            if part.end > part.first
            else f"from       {source.topic} partition {part.partition} nothing"
        )
    for name, text in source.notes.items():
        yield f"note       {name}: {text}"


def _features(manifest: Manifest) -> Iterator[str]:
    width = max(map(len, manifest.feature_names))
    columns = zip(
        manifest.feature_names,
        manifest.mean,
        manifest.scale,
        manifest.error_scale,
        manifest.units,
        strict=True,
    )
    for name, mean, scale, error_scale, unit in columns:
        yield (
            f"feature    {name:<{width}}  mean {mean:.6g}  sd {scale:.6g} {unit}  "
            f"error {error_scale:.4g} sd"
        )


def diff_json(a: str, b: str, diff: ManifestDiff) -> str:
    """One JSON object on one line."""
    return json.dumps({"a": a, "b": b, **asdict(diff)}, ensure_ascii=False)


def diff_lines(diff: ManifestDiff) -> Iterator[str]:
    """What is another, a line each; none where nothing is."""
    yield from (f"- feature {name}" for name in diff.removed)
    yield from (f"+ feature {name}" for name in diff.added)
    if diff.reordered:
        yield "~ features stand in another order"
    yield from (_changed(name, pair) for name, pair in _ordered(diff.changed))
    yield from map(_moved, diff.moved)


def _ordered(changed: Mapping[str, tuple[Any, Any]]) -> list[tuple[str, tuple[Any, Any]]]:
    """What decides first, then where it comes from."""
    return sorted(changed.items(), key=lambda item: item[0].startswith("provenance"))


def _changed(name: str, pair: tuple[Any, Any]) -> str:
    before, after = ("none" if value is None else _value(value) for value in pair)
    return f"~ {name}: {before} -> {after}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ",".join(f"{partition}:{first}-{end}" for partition, first, end in value) or "none"
    return str(value)


def _moved(moved: Moved) -> str:
    mean, scale = moved.mean, moved.scale
    return (
        f"~ {moved.feature}: mean {mean[0]:.6g} -> {mean[1]:.6g} {moved.unit} "
        f"({moved.shift:+.2f} sd), sd {scale[0]:.6g} -> {scale[1]:.6g} "
        f"(x{moved.scale_ratio:.3g}), error x{moved.error_scale_ratio:.3g}"
    )
