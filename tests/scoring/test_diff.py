"""What two manifests differ in."""

from dataclasses import replace

from scoring_bundles import small_bundle

from scoring.bundle import OffsetRange
from scoring.diff import diff_manifests
from scoring.manifest import Manifest


def picked(manifest: Manifest, order: list[int]) -> Manifest:
    """With these features of it, in this order."""
    return replace(
        manifest,
        features=tuple(manifest.features[i] for i in order),
        mean=tuple(manifest.mean[i] for i in order),
        scale=tuple(manifest.scale[i] for i in order),
        error_scale=tuple(manifest.error_scale[i] for i in order),
        units=tuple(manifest.units[i] for i in order),
    )


def test_a_manifest_does_not_differ_from_itself() -> None:
    found = diff_manifests(small_bundle().manifest, small_bundle().manifest)
    assert (found.added, found.removed, found.reordered) == ((), (), False)
    assert (found.moved, found.changed) == ((), {})


def test_what_normalisation_moved_comes_by_its_extent() -> None:
    a = small_bundle().manifest
    mean = (a.mean[0] + a.scale[0] / 2, *a.mean[1:])
    scale = (a.scale[0], a.scale[1] / 4, *a.scale[2:])
    error_scale = (*a.error_scale[:-1], a.error_scale[-1] * 1.25)
    found = diff_manifests(a, replace(a, mean=mean, scale=scale, error_scale=error_scale))
    assert [each.feature for each in found.moved] == [
        "engine_speed",
        "speed",
        "map:run:30s",
    ]
    engine, speed, pressure = found.moved
    assert (engine.shift, engine.scale_ratio) == (0, 0.25)
    assert (speed.shift, speed.scale_ratio, speed.unit) == (0.5, 1, "km/h")
    assert pressure.error_scale_ratio == 1.25


def test_features_come_and_go_and_change_places() -> None:
    a = small_bundle().manifest
    fewer = picked(a, [0, 1, *range(3, 9)])
    found = diff_manifests(a, fewer)
    assert (found.removed, found.added) == (("coolant_temperature",), ())
    found = diff_manifests(fewer, a)
    assert (found.removed, found.added) == ((), ("coolant_temperature",))
    found = diff_manifests(a, picked(a, [1, 0, *range(2, 9)]))
    assert found.reordered
    assert found.moved == ()


def test_other_facts_come_by_name() -> None:
    a = small_bundle().manifest
    b = replace(
        a,
        threshold=30.0,
        policy=replace(a.policy, k=4),
        provenance=replace(a.provenance, offsets=(OffsetRange(0, 0, 9),), notes={"new": "yes"}),
    )
    assert diff_manifests(a, b).changed == {
        "threshold": (20.0, 30.0),
        "policy.k": (3, 4),
        "provenance.offsets": ([(0, 0, 100), (1, 5, 80)], [(0, 0, 9)]),
        "provenance.notes.purpose": ("tests", None),
        "provenance.notes.new": (None, "yes"),
    }
