"""Gateways' scores beside the cloud's: what is compared, counted and told."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.monitoring import agreement as module
from cloud.monitoring.agreement import EVENT_EVERY_MS, Agreement, Identity, Outcome
from cloud.monitoring.agreement_tail import peeked
from cloud.monitoring.settings import MonitorSettings
from schemas.codec import ScoreStamp, encode_scores
from schemas.errors import SettingsError
from schemas.records import Record
from scoring.events import EventKind, ModelEvent, Severity

SHA = b"\1" * 32
OTHER = b"\2" * 32


def score(
    seq: int,
    scores: Sequence[float],
    *,
    vehicle: str = "car",
    sha256: bytes = SHA,
    late: bool = False,
) -> Record:
    return {
        "model_name": "anomaly",
        "model_version": "7",
        "model_sha256": sha256,
        "threshold": 4.0,
        "vehicle_id": vehicle,
        "boot_id": 1,
        "seq": seq,
        "late": late,
        "scores": list(scores),
    }


def compared(
    edge: Record, cloud: Record, *, gateway_id: str = "gw", **settings: Any
) -> tuple[list[ModelEvent], dict[Outcome, int]]:
    agreement = Agreement(MonitorSettings(**settings))
    agreement.take_edge(edge, gateway_id=gateway_id, now_ms=0)
    events = agreement.take_cloud(cloud, now_ms=5)
    return events, dict(agreement.totals())


def test_the_same_scores_agree_and_nothing_is_told() -> None:
    nan = math.nan
    assert compared(score(1, [1.0, nan]), score(1, [1.0005, nan])) == ([], {Outcome.AGREED: 1})


@pytest.mark.parametrize(
    ("edge", "cloud"),
    [([1.0, 9.0], [1.0, 9.1]), ([1.0], [1.0, 1.0]), ([1.0], [math.nan]), ([0.0], [0.1])],
)
def test_what_differs_is_told_with_both_scores(edge: list[float], cloud: list[float]) -> None:
    events, counts = compared(score(3, edge), score(3, cloud), gateway_id="depot 4")
    assert counts == {Outcome.DISAGREED: 1}
    (event,) = events
    assert event.kind is EventKind.EDGE_DISAGREEMENT
    assert event.severity is Severity.WARNING
    assert "gateway depot 4 scored" in event.detail
    assert "vehicle car, boot 1, batch 3" in event.detail
    assert (event.values["compared"], event.values["disagreed"]) == (1, 1)


def test_next_to_nothing_is_not_compared_to_the_last_digit() -> None:
    assert compared(score(1, [1e-7]), score(1, [2e-7]))[1] == {Outcome.AGREED: 1}
    exact = compared(score(1, [1e-7]), score(1, [2e-7]), agreement_tolerance=0.0)
    assert exact[1] == {Outcome.DISAGREED: 1}


def test_another_model_and_late_batches_are_left_out() -> None:
    assert compared(score(1, [1.0]), score(1, [9.0], sha256=OTHER)) == (
        [],
        {Outcome.OTHER_MODEL: 1},
    )
    assert compared(score(1, [1.0]), score(1, [9.0], late=True)) == ([], {Outcome.LATE: 1})


def test_an_event_is_told_once_in_a_while_for_each_gateway_and_all_are_counted() -> None:
    agreement = Agreement(MonitorSettings())
    told = []
    for seq in range(1, 21):
        now_ms = seq * EVENT_EVERY_MS // 10
        for gateway_id in ("a", "b"):
            agreement.take_edge(
                score(seq, [1.0], vehicle=gateway_id), gateway_id=gateway_id, now_ms=now_ms
            )
            told += agreement.take_cloud(score(seq, [2.0], vehicle=gateway_id), now_ms=now_ms)
    assert [event.values["disagreed"] for event in told] == [1, 1, 11, 11]
    assert agreement.totals() == {Outcome.DISAGREED: 40}
    successor = Agreement(MonitorSettings())
    successor.told_before([event.to_record() for event in told])
    successor.take_edge(score(1, [1.0]), gateway_id="a", now_ms=told[-1].time_ms + 1)
    assert successor.take_cloud(score(1, [2.0]), now_ms=told[-1].time_ms + 1) == []


def test_two_gateways_with_the_same_batch_are_both_compared() -> None:
    agreement = Agreement(MonitorSettings())
    for gateway_id, value in (("a", 1.0), ("b", 5.0), ("b", 5.0)):
        agreement.take_edge(score(1, [value]), gateway_id=gateway_id, now_ms=0)
    (event,) = agreement.take_cloud(score(1, [1.0]), now_ms=0)
    assert "gateway b scored" in event.detail
    assert agreement.totals() == {Outcome.AGREED: 1, Outcome.DISAGREED: 1}


def test_what_waits_is_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 10)
    agreement = Agreement(MonitorSettings(agreement_window_s=60.0))
    for seq in range(1, 16):
        agreement.take_edge(score(seq, [1.0]), gateway_id="gw", now_ms=seq * 1_000)
    assert agreement.totals() == {Outcome.NOT_FOUND: 5}
    agreement.expire(68_000)
    assert agreement.totals() == {Outcome.NOT_FOUND: 8}
    assert not agreement.waits_for(Identity("car", 1, 8))
    assert agreement.waits_for(Identity("car", 1, 9))
    agreement.expire(10**9)
    assert not agreement.waits_for_vehicle("car")


@given(
    st.text(min_size=1, max_size=40).filter(lambda text: len(text.encode()) <= 128),
    st.integers(0, 1 << 62),
    st.integers(1, 1 << 62),
    st.integers(0, 1 << 40),
)
def test_whose_score_it_is_can_be_seen_without_decoding(
    vehicle: str, boot: int, seq: int, offset: int
) -> None:
    stamp = ScoreStamp("CLOUD", "anomaly", "2026", SHA, "champion", 4.0, "vehicle.telemetry", 5)
    (payload,) = encode_scores(
        stamp,
        vehicle_ids=[vehicle.encode()],
        input_partition=np.array([1]),
        input_offset=np.array([offset]),
        boot_id=np.array([boot]),
        seq=np.array([seq]),
        event_time_ms=np.array([7]),
        late=np.array([False]),
        counts=np.array([2]),
        scores=np.array([1.0, 2.0], np.float32),
        schema_id=9,
    )
    # A vehicle of the name of the model, or of the topic, is the exception that `peeked` names.
    if vehicle not in ("anomaly", "2026", "champion", "vehicle.telemetry"):
        assert peeked(payload, vehicle.encode()) == Identity(vehicle, boot, seq)
    assert peeked(payload[:20], b"no such vehicle") is None


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingsError):
        MonitorSettings(agreement_tolerance=-1.0)
    with pytest.raises(SettingsError):
        MonitorSettings(agreement_delay_s=300.0)
