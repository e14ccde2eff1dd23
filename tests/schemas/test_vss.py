"""Signals are called, measured and typed as COVESA VSS 6.0 says."""

import csv
import json
import re
from importlib import resources

import numpy as np
import pytest

from schemas.records import schema_json
from schemas.signals import SIGNAL_BY_NAME, SIGNALS, Signal


def exported() -> dict[str, dict[str, str]]:
    text = resources.files("schemas").joinpath("vss", "vss_6.0_signals.csv").read_text("utf-8")
    return {row["Signal"]: row for row in csv.DictReader(text.splitlines())}


def fields() -> list[dict[str, object]]:
    batch = json.loads(schema_json("TelemetryBatch"))
    readings = next(field for field in batch["fields"] if field["name"] == "readings")
    return [field for field in readings["type"]["items"]["fields"] if "vss" in field]


CATALOGUED = [signal for signal in SIGNALS if signal.catalog != "overlay"]


@pytest.mark.parametrize("signal", CATALOGUED, ids=lambda signal: signal.name)
def test_unit_and_type_are_those_of_vss(signal: Signal) -> None:
    row = exported()[signal.vss]
    field = next(field for field in fields() if field["name"] == signal.name)
    assert signal.unit == row["Unit"]
    assert field["vss_datatype"] == row["DataType"]
    assert row["Type"] == "sensor"


@pytest.mark.parametrize("signal", CATALOGUED, ids=lambda signal: signal.name)
def test_range_allows_what_vss_allows(signal: Signal) -> None:
    row = exported()[signal.vss]
    if row["Min"]:
        assert signal.minimum <= float(row["Min"])
    if row["Max"]:
        assert signal.maximum >= float(row["Max"])


def test_our_own_signals_are_in_no_catalogue() -> None:
    own = [signal for signal in SIGNALS if signal.catalog == "overlay"]
    assert own
    assert not {signal.vss for signal in own} & set(exported())


def test_schema_names_the_release_of_vss() -> None:
    assert json.loads(schema_json("TelemetryBatch"))["vss_version"] == "6.0"


def test_every_signal_is_a_nullable_float_that_may_be_left_out() -> None:
    for field in fields():
        assert field["type"] == ["null", "float"]
        assert field["default"] is None


def test_names_are_snake_case_and_paths_are_used_once() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", signal.name) for signal in SIGNALS)
    assert len({signal.vss for signal in SIGNALS}) == len(SIGNALS) == len(SIGNAL_BY_NAME)


def test_ranges_are_exact_as_floats_so_that_both_decoders_draw_the_line_alike() -> None:
    for signal in SIGNALS:
        assert signal.minimum < signal.maximum
        assert 0 < signal.quantum < signal.maximum - signal.minimum
        assert float(np.float32(signal.minimum)) == signal.minimum
        assert float(np.float32(signal.maximum)) == signal.maximum
