import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_bundles import SMALL_PATH, small_bundle

from schemas.errors import ContractError, Reason
from schemas.records import decode_body, encode_body
from scoring.bundle import (
    Bundle,
    FeatureKind,
    FeatureSpec,
    Manifest,
    OffsetRange,
    PolicySettings,
    sha256_hex,
)
from scoring.flatbuffer import check_tflite
from scoring.interpreter import TfliteModel

Json = dict[str, Any]


@pytest.fixture
def small() -> Bundle:
    return small_bundle()


def refused(reason: Reason, act: Callable[[], object]) -> str:
    with pytest.raises(ContractError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value.detail


def test_a_manifest_survives_json(small: Bundle) -> None:
    assert Manifest.from_json(small.manifest.to_json()) == small.manifest


def test_a_bundle_survives_a_record_of_avro(small: Bundle) -> None:
    body = encode_body("ModelRelease", small.to_record())
    assert Bundle.from_record(decode_body("ModelRelease", body)) == small


def test_a_bundle_survives_a_file(small: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.motorcade"
    small.save(path)
    assert Bundle.load(path) == small
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.motorcade"]


def test_a_damaged_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = SMALL_PATH.read_bytes()
    path = tmp_path / "cut.motorcade"
    for length in range(0, len(whole), 101):
        path.write_bytes(whole[:length])
        with pytest.raises(ContractError):
            Bundle.load(path)


def test_a_wrong_hash_is_refused(small: Bundle) -> None:
    changed = bytearray(small.model)
    changed[-1] ^= 1
    detail = refused(Reason.MODEL_HASH, replace(small, model=bytes(changed)).verify)
    assert "small 1" in detail
    assert small.manifest.model_sha256 in detail


@pytest.mark.parametrize("key", ["name", "version", "created_time"])
def test_a_record_that_disagrees_with_its_manifest_is_refused(small: Bundle, key: str) -> None:
    record = small.to_record()
    record[key] = 5 if key == "created_time" else "other"
    refused(Reason.MODEL_INVALID, lambda: Bundle.from_record(record))


def test_an_incomplete_record_is_refused(small: Bundle) -> None:
    record = small.to_record()
    del record["model"]
    refused(Reason.MODEL_INVALID, lambda: Bundle.from_record(record))


def put(*path: str | int, value: object) -> Callable[[Json], None]:
    def change(parsed: Json) -> None:
        at: Any = parsed
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[Json], None]:
    def change(parsed: Json) -> None:
        at: Any = parsed
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


FEATURES, INVALID = Reason.MODEL_FEATURES, Reason.MODEL_INVALID
BAD_MANIFESTS = {
    "format": (INVALID, put("format", value=2)),
    "format of another type": (INVALID, put("format", value=True)),
    "unknown key": (INVALID, put("extra", value=1)),
    "unknown key of a feature": (INVALID, put("features", 0, "extra", value=1)),
    "unknown key of the policy": (INVALID, put("policy", "extra", value=1)),
    "unknown key of the provenance": (INVALID, put("provenance", "extra", value=1)),
    "unknown key of an offset range": (INVALID, put("provenance", "offsets", 0, "x", value=1)),
    "missing key": (INVALID, drop("threshold")),
    "missing key of a feature": (INVALID, drop("features", 0, "mean")),
    "name": (INVALID, put("name", value="../up")),
    "hash": (INVALID, put("model_sha256", value="00")),
    "window": (INVALID, put("window", value=32)),
    "time": (INVALID, put("created_time_ms", value=-1)),
    "threshold NaN": (INVALID, put("threshold", value=math.nan)),
    "threshold infinite": (INVALID, put("threshold", value=math.inf)),
    "threshold 0": (INVALID, put("threshold", value=0)),
    "threshold as text": (INVALID, put("threshold", value="1")),
    "threshold beyond any float": (INVALID, put("threshold", value=10**400)),
    "features as object": (INVALID, put("features", value={})),
    "a feature as text": (INVALID, put("features", 0, value="speed")),
    "no features": (FEATURES, put("features", value=[])),
    "unknown signal": (FEATURES, put("features", 0, "signal", value="warp")),
    "unknown kind": (FEATURES, put("features", 0, "kind", value="guess")),
    "window of a value": (FEATURES, put("features", 0, "window_s", value=5.0)),
    "window between buckets": (FEATURES, put("features", 5, "window_s", value=12.0)),
    "window too long": (FEATURES, put("features", 5, "window_s", value=185.0)),
    "window NaN": (FEATURES, put("features", 5, "window_s", value=math.nan)),
    "wrong unit": (FEATURES, put("features", 0, "unit", value="m/s")),
    "mean NaN": (FEATURES, put("features", 0, "mean", value=math.nan)),
    "scale 0": (FEATURES, put("features", 0, "scale", value=0.0)),
    "scale below 0": (FEATURES, put("features", 0, "scale", value=-1.0)),
    "scale NaN": (FEATURES, put("features", 0, "scale", value=math.nan)),
    "scale infinite": (FEATURES, put("features", 0, "scale", value=math.inf)),
    "error scale 0": (FEATURES, put("features", 0, "error_scale", value=0.0)),
    "feature twice": (FEATURES, put("features", 1, "signal", value="speed")),
    "k above n": (INVALID, put("policy", "k", value=6)),
    "n above 64": (INVALID, put("policy", "n", value=65)),
    "close_k not below k": (INVALID, put("policy", "close_k", value=3)),
    "close ratio": (INVALID, put("policy", "close_ratio", value=1.5)),
    "code": (INVALID, put("policy", "code", value="a/b")),
    "offset range backwards": (INVALID, put("provenance", "offsets", 0, "end", value=-1)),
    "readings below 0": (INVALID, put("provenance", "readings", value=-1)),
    "note as number": (INVALID, put("provenance", "notes", "purpose", value=1)),
}


@pytest.mark.parametrize("fault", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(small: Bundle, fault: str) -> None:
    reason, change = BAD_MANIFESTS[fault]
    parsed = json.loads(small.manifest.to_json())
    change(parsed)
    # Changing the twin's unit too, so that the fault at hand is the only one.
    if fault == "feature twice":
        parsed["features"][1]["unit"] = "km/h"
    refused(reason, lambda: Manifest.from_json(json.dumps(parsed)))


@given(st.text(max_size=50) | st.recursive(st.integers(), st.lists).map(json.dumps))
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    refused(Reason.MODEL_INVALID, lambda: Manifest.from_json(text))


def test_deeply_nested_json_is_refused() -> None:
    refused(Reason.MODEL_INVALID, lambda: Manifest.from_json("[" * 200_000))


def test_lists_of_wrong_length_are_refused(small: Bundle) -> None:
    manifest = small.manifest
    for change in ({"mean": (1.0,)}, {"scale": (1.0,)}, {"error_scale": (1.0,)}, {"units": ("s",)}):
        refused(FEATURES, lambda change=change: replace(manifest, **change))  # type: ignore[misc]


def test_names_and_units_of_features() -> None:
    specs = [
        FeatureSpec("speed"),
        FeatureSpec("coolant_temperature", FeatureKind.LAG, 60.0),
        FeatureSpec("map", FeatureKind.RUN_LENGTH, 30.0),
    ]
    assert [spec.name for spec in specs] == [
        "speed",
        "coolant_temperature:lag:60s",
        "map:run:30s",
    ]
    assert [spec.unit for spec in specs] == ["km/h", "Celsius", "s"]


def test_settings_by_hand_are_checked_too() -> None:
    refused(INVALID, lambda: PolicySettings(k=0))
    refused(INVALID, lambda: OffsetRange(0, 5, 4))


def test_bytes_that_are_no_model_are_refused(small: Bundle) -> None:
    model = small.model
    for bad in (
        b"",
        b"TFL3",
        b"\0" * 64,
        model[:4] + b"XXXX" + model[8:],
        model[:8] + b"\xff" * 64,
    ):
        refused(INVALID, lambda bad=bad: check_tflite(bad))  # type: ignore[misc]
    for length in range(0, len(model), 37):
        refused(INVALID, lambda length=length: check_tflite(model[:length]))  # type: ignore[misc]


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(noise: bytes) -> None:
    refused(INVALID, lambda: check_tflite(b"\x1c\0\0\0TFL3" + noise))


def test_damaged_models_do_not_end_the_process() -> None:
    program = Path(__file__).with_name("hostile_models.py")
    found = subprocess.run(
        [sys.executable, program, SMALL_PATH, "20", "300"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 100


def test_a_model_of_another_shape_is_refused(small: Bundle) -> None:
    width = len(small.manifest.features)
    detail = refused(
        FEATURES, lambda: TfliteModel(small.model, n_inputs=width + 1, n_outputs=width)
    )
    assert str(width) in detail
    refused(FEATURES, lambda: TfliteModel(small.model, n_inputs=width, n_outputs=width - 1))


def test_the_hash_is_of_the_model(small: Bundle) -> None:
    assert sha256_hex(small.model) == small.manifest.model_sha256 == small.sha256.hex()
