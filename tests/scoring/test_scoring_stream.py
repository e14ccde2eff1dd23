from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_bundles import small_bundle
from scoring_columns import EPOCH_MS, Message, columns_of
from stream_course import SICK, SOUND, course, message
from stream_cuts import in_cuts, process

from schemas.errors import ContractError, Reason
from schemas.records import decode_body, encode_body
from scoring.alerts import AlertSource, OpenAlert, alert_record, open_alert_of
from scoring.bundle import Bundle
from scoring.stream import StreamScorer

BUNDLE = small_bundle()
SIGNALS = ("speed", "engine_speed", "coolant_temperature", "map", "maf")


def scorer_of(*, max_vehicles: int = 8, bundle: Bundle = BUNDLE) -> StreamScorer:
    return StreamScorer(bundle, max_vehicles=max_vehicles, origin="EDGE")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 300), max_size=20))
def test_scores_and_alerts_are_the_same_however_the_stream_is_cut(
    seed: int, cuts: list[int]
) -> None:
    messages = course(seed, 200)
    scores, transitions = in_cuts(scorer_of(), messages, cuts)
    assert (scores, transitions) == in_cuts(scorer_of(), messages, [])
    assert {transition.state for transition in transitions} == {"OPEN", "CLOSED"}
    of_vehicle: dict[bytes, list[str]] = {}
    for transition in transitions:
        of_vehicle.setdefault(transition.vehicle_id, []).append(transition.state)
    for states in of_vehicle.values():
        assert states == ["OPEN", "CLOSED"] * (len(states) // 2) + ["OPEN"] * (len(states) % 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), died=st.integers(1, 199))
def test_a_restart_with_replay_changes_nothing(seed: int, died: int) -> None:
    messages = course(seed, 200)
    before = scorer_of()
    process(before, messages[:died])
    expected = in_cuts(before, messages[died:], [])
    restarted = scorer_of()
    for vehicle_id, alert in in_time(messages[:died]).items():
        restarted.restore_open(vehicle_id, alert)
    assert process(restarted, messages[:died], replay=True).transitions == []
    assert in_cuts(restarted, messages[died:], []) == expected


def in_time(messages: Sequence[Message]) -> dict[bytes, OpenAlert]:
    scorer = scorer_of()
    process(scorer, messages)
    return scorer.open_alerts


def test_an_alert_opens_and_closes_with_all_that_is_known_of_it() -> None:
    scorer = scorer_of()
    # Three of five open; until then the score of a sick reading alone does nothing.
    polls = [SOUND, SICK, SOUND, SICK, SICK, SICK, SOUND, SOUND, SOUND, SOUND, SOUND]
    found = [process(scorer, [message(i + 1, [row])]) for i, row in enumerate(polls)]
    transitions = [t for scored in found for t in scored.transitions]
    opened, closed = transitions
    assert (opened.state, opened.seq, opened.alert_id) == ("OPEN", 5, "EDGE/car/1/5/0/anomaly")
    assert opened.since_ms == EPOCH_MS + 1000
    assert opened.event_time_ms == EPOCH_MS + 4000
    assert opened.score == found[4].scores[0] > BUNDLE.manifest.threshold
    assert {signal.name for signal in opened.signals} <= set(BUNDLE.manifest.feature_names)
    assert len(opened.signals) == 3
    assert (closed.state, closed.alert_id) == ("CLOSED", opened.alert_id)
    assert closed.since_ms == opened.since_ms
    assert closed.seq == 10
    assert closed.signals == ()
    assert scorer.open_alerts == {}


def test_the_reading_of_a_long_batch_is_named() -> None:
    scorer = scorer_of()
    poll = [message(1, [SOUND] * 6, vehicle=b"a"), message(1, [SOUND, *[SICK] * 5], vehicle=b"b")]
    (opened,) = process(scorer, poll).transitions
    assert (opened.message, opened.reading_index, opened.vehicle_id) == (1, 3, b"b")
    assert opened.alert_id == "EDGE/b/1/1/3/anomaly"
    assert opened.event_time_ms == EPOCH_MS + 3000


def test_an_alert_becomes_an_avro_record() -> None:
    scorer = scorer_of()
    (opened,) = process(scorer, [message(1, [SICK] * 6)]).transitions
    source = AlertSource("EDGE", "v1/f/car/telemetry", -1, 17, EPOCH_MS, gateway_id="gw")
    record = decode_body(
        "Alert", encode_body("Alert", alert_record(opened, BUNDLE.manifest, source))
    )
    assert record["model_sha256"] == BUNDLE.sha256
    assert (record["vehicle_id"], record["input_offset"]) == ("car", 17)
    assert open_alert_of(record) == opened.open_alert == scorer.open_alerts[b"car"]


def test_duplicates_and_old_batches_are_stale_and_raise_nothing() -> None:
    scorer = scorer_of()
    sick = message(5, [SICK])
    poll = [sick, sick, sick, message(4, [SICK]), message(9, [SICK], boot_id=0)]
    scored = process(scorer, poll)
    assert scored.stale.tolist() == [False, True, True, True, True]
    assert np.isfinite(scored.scores).all()
    assert process(scorer, [sick] * 5).transitions == []
    assert scorer.open_alerts == {}


def test_lateness_counts_from_the_last_reading_and_needs_a_clock() -> None:
    scorer = scorer_of()
    old = message(1, [SOUND] * 100, vehicle=b"a", jump_ms=-100_000)
    poll = [
        old,
        replace(old, vehicle=b"b", event_time_ms=EPOCH_MS - 130_000),
        replace(old, vehicle=b"c", event_time_ms=EPOCH_MS - 130_000, clock_synced=False),
    ]
    assert process(scorer, poll).late.tolist() == [False, True, False]


def test_a_clock_that_jumps_back_an_hour_changes_no_score() -> None:
    rows = [[50.0 + i % 7, 2000.0 + i, 85.0, 100.0, 20.0] for i in range(10)]
    steady = [message(seq, rows) for seq in range(1, 21)]
    jumping = [m if m.seq < 10 else replace(m, event_time_ms=EPOCH_MS - 3_600_000) for m in steady]
    assert in_cuts(scorer_of(), jumping, [])[0] == in_cuts(scorer_of(), steady, [])[0]


def test_an_alert_outlives_a_boot_until_a_whole_window_is_sound() -> None:
    scorer = scorer_of()
    assert len(process(scorer, [message(1, [SICK] * 6)]).transitions) == 1
    assert process(scorer, [message(1, [SOUND] * 4, boot_id=2)]).transitions == []
    (closed,) = process(scorer, [message(2, [SOUND] * 4, boot_id=2)]).transitions
    assert (closed.state, closed.reading_index) == ("CLOSED", 0)


def test_an_open_alert_outlives_the_eviction_of_its_vehicle() -> None:
    scorer = scorer_of(max_vehicles=2)
    process(scorer, [message(1, [SICK] * 6, vehicle=b"sick")])
    for i in range(5):
        process(scorer, [message(1, [SOUND], vehicle=b"other-%d" % i)])
    assert set(scorer.open_alerts) == {b"sick"}
    (closed,) = process(scorer, [message(2, [SOUND] * 6, vehicle=b"sick")]).transitions
    assert (closed.state, closed.vehicle_id) == ("CLOSED", b"sick")


def test_open_alerts_of_forgotten_vehicles_are_bounded_and_counted() -> None:
    scorer = scorer_of(max_vehicles=2)
    for i in range(7):
        process(scorer, [message(1, [SICK] * 6, vehicle=b"car-%d" % i)])
    assert len(scorer.open_alerts) == 4
    assert scorer.alerts_forgotten == 3
    assert b"car-6" in scorer.open_alerts


def test_a_poll_of_more_vehicles_than_are_remembered_is_scored_whole() -> None:
    messages = [message(1, [SICK] * 6, vehicle=b"car-%d" % i) for i in range(10)]
    small, large = scorer_of(max_vehicles=3), scorer_of(max_vehicles=10)
    found, expected = process(small, messages), process(large, messages)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.transitions == expected.transitions
    assert [t.message for t in found.transitions] == list(range(10))


def test_forgotten_vehicles_and_their_alerts_are_gone() -> None:
    scorer = scorer_of()
    poll = [message(1, [SICK] * 6, vehicle=name) for name in (b"a", b"b")]
    process(scorer, poll)
    scorer.forget([b"a"])
    assert set(scorer.open_alerts) == {b"b"}
    scored = process(scorer, poll)
    assert scored.stale.tolist() == [False, True]
    assert [t.vehicle_id for t in scored.transitions] == [b"a"]
    scorer.drop_all()
    assert scorer.open_alerts == {}
    assert not process(scorer, poll).stale.any()


def test_a_swap_to_the_same_features_keeps_the_memory() -> None:
    messages = course(3, 120)
    threshold = replace(BUNDLE.manifest, version="2", threshold=1000.0)
    scorer = scorer_of()
    process(scorer, messages[:60])
    open_before = scorer.open_alerts
    assert open_before
    assert not scorer.swap(Bundle(threshold, BUNDLE.model))
    assert scorer.open_alerts == open_before
    scores, transitions = in_cuts(scorer, messages[60:], [])
    whole, _ = in_cuts(scorer_of(), messages, [])
    assert whole.endswith(scores)
    assert {t.state for t in transitions} == {"CLOSED"}


def test_a_swap_to_other_features_wants_the_history_again() -> None:
    manifest = BUNDLE.manifest
    features = list(manifest.features)
    features[5] = replace(features[5], window_s=15.0)
    other = Bundle(replace(manifest, features=tuple(features)), BUNDLE.model)
    messages = course(4, 120)
    scorer = scorer_of()
    process(scorer, messages[:60])
    assert scorer.swap(other)
    process(scorer, messages[:60], replay=True)
    found, _ = in_cuts(scorer, messages[60:], [])
    whole, _ = in_cuts(scorer_of(bundle=other), messages, [])
    assert whole.endswith(found)


def test_a_bundle_that_does_not_fit_leaves_the_old_one_in_use() -> None:
    scorer = scorer_of()
    with pytest.raises(ContractError) as caught:
        scorer.swap(Bundle(BUNDLE.manifest, BUNDLE.model[:-4]))
    assert caught.value.reason is Reason.MODEL_HASH
    assert scorer.bundle == BUNDLE
    assert np.isfinite(process(scorer, [message(1, [SOUND])]).scores).all()


def test_an_empty_poll_is_nothing() -> None:
    scored = process(scorer_of(), [])
    assert (len(scored.scores), len(scored.late), len(scored.stale)) == (0, 0, 0)
    assert scored.transitions == []


def test_columns_of_other_signals_are_refused() -> None:
    scorer = scorer_of()
    with pytest.raises(ContractError, match="model-features"):
        scorer.process(columns_of([message(1, [(1.0,)])], ("speed",)), now_ms=EPOCH_MS)


def test_the_bundle_says_what_is_needed() -> None:
    scorer = scorer_of()
    assert scorer.signals == SIGNALS
    # The features' own, for as long as the policy remembers five scores.
    assert scorer.history_s == 60.0 + 5.0 + 60.0 + 50.0
