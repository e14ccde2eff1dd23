"""Trace context as text, and spans as OpenTelemetry writes them."""

import json
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from transport import otel, tracing
from transport.settings import TracingSettings

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


def exported(path: Path, share: float = 1.0) -> TracingSettings:
    return TracingSettings(exporter="file", file=path, sample_share=share)


def spans(path: Path) -> dict[str, dict[str, object]]:
    """By name, as they were written."""
    return {span["name"]: span for span in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize(
    "carrier",
    [
        {"traceparent": SAMPLED},
        [("boot_id", "1"), ("traceparent", SAMPLED)],
        [("traceparent", SAMPLED.encode())],
        [(b"traceparent", SAMPLED.encode())],
    ],
)
def test_a_context_is_found_in_every_kind_of_carrier(carrier: tracing.Carrier) -> None:
    assert tracing.extract(carrier) == SAMPLED


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",  # not sampled
        f"01-{TRACE}-{SPAN}-01",  # a version that is not known
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        "é" * 55,
    ],
)
def test_what_is_malformed_or_not_sampled_counts_as_absent(text: str) -> None:
    assert tracing.extract({"traceparent": text}) is None
    assert tracing.extract([("traceparent", text.encode())]) is None
    assert tracing.extract([("traceparent", None)]) is None


def test_while_it_is_off_nothing_is_made_and_nothing_injected() -> None:
    carrier: dict[str, str] = {}
    with tracing.span("a") as begun:
        tracing.inject(carrier)
    assert begun is None
    assert tracing.begin("a", SAMPLED) is None
    assert tracing.begin_trace("a") is None
    assert carrier == {}


def test_blocks_are_below_each_other_and_below_what_came_in(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "traces.jsonl"
    carrier: dict[str, str] = {}
    with otel.exported(exported(path), "tests"):
        with tracing.span("outer", SAMPLED, vehicle_id="car"), tracing.span("inner"):
            tracing.inject(carrier)
        later = tracing.begin("later", carrier["traceparent"], start_ms=1_000.5)
        assert later is not None
        later.end()
    found = spans(path)
    assert found["outer"]["parent_id"] == f"0x{SPAN}"
    assert found["inner"]["parent_id"] == found["outer"]["context"]["span_id"]  # type: ignore[index]
    assert carrier["traceparent"].split("-")[2] == found["inner"]["context"]["span_id"][2:]  # type: ignore[index]
    assert found["later"]["start_time"] == "1970-01-01T00:00:01.000500Z"
    assert found["outer"]["attributes"] == {"vehicle_id": "car"}
    assert {span["context"]["trace_id"] for span in found.values()} == {f"0x{TRACE}"}  # type: ignore[index]
    assert found["outer"]["resource"]["attributes"]["service.name"] == "tests"  # type: ignore[index]
    assert not tracing.is_on()


def test_a_block_that_fails_says_so_and_lets_the_error_pass(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    with (
        otel.exported(exported(path), "tests"),
        pytest.raises(ValueError, match="broken"),
        tracing.span("failing"),
    ):
        raise ValueError("broken")
    assert spans(path)["failing"]["status"] == {
        "status_code": "ERROR",
        "description": "ValueError: broken",
    }
    assert tracing.current() is None


def test_a_share_of_the_roots_is_sampled_and_what_came_in_is_always_followed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "traces.jsonl"
    with otel.exported(exported(path, share=0.0), "tests"):
        with tracing.span("root") as root:
            pass
        assert root is None
        assert tracing.begin_trace("root") is None
        with tracing.span("followed", SAMPLED):
            pass
    assert list(spans(path)) == ["followed"]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"tracing\.file"),
        otel.exported(exported(tmp_path), "tests"),
    ):
        pass
