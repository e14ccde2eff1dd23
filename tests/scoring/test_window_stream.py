"""A windowed model on a stream: the same promises as a point model's, and when it is ready."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_bundles import small_bundle, window_bundle
from scoring_columns import EPOCH_MS, Message
from stream_course import SICK, SOUND, course, message
from stream_cuts import in_cuts, process

from scoring.bundle import Bundle
from scoring.stream import Scored, StreamScorer

BUNDLE = window_bundle()
WINDOW = BUNDLE.manifest.window


def scorer_of(*, max_vehicles: int = 8, bundle: Bundle = BUNDLE) -> StreamScorer:
    return StreamScorer(bundle, max_vehicles=max_vehicles, origin="EDGE")


def ready(scored: Scored) -> list[bool]:
    return [bool(each) for each in np.isfinite(scored.scores)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 300), max_size=20))
def test_scores_and_alerts_are_the_same_however_the_stream_is_cut(
    seed: int, cuts: list[int]
) -> None:
    messages = course(seed, 200)
    scores, transitions = in_cuts(scorer_of(), messages, cuts)
    assert (scores, transitions) == in_cuts(scorer_of(), messages, [])
    assert {transition.state for transition in transitions} == {"OPEN", "CLOSED"}


def steady(seconds: int) -> list[Message]:
    """Three vehicles with a reading a second, sick by turns; one of them reboots now and then."""
    random = np.random.default_rng(7)
    messages: list[Message] = []
    for second in range(seconds):
        for v in range(3):
            sick = (second // 40 + v) % 3 == 0
            row = np.array(SICK if sick else SOUND) * random.normal(1.0, 0.02, 5)
            boots = second // 150 if v == 1 else 0
            made = message(
                second + 1,
                [row.tolist()],
                vehicle=b"car-%d" % v,
                boot_id=1 + boots,
                uptime_ms=1000 * (second - 150 * boots),
            )
            messages.append(replace(made, event_time_ms=EPOCH_MS + 1000 * second))
    return messages


@settings(max_examples=25, deadline=None)
@given(died=st.integers(1, 399), windowed=st.booleans())
def test_a_restart_that_replays_its_history_changes_nothing(died: int, windowed: bool) -> None:
    bundle = BUNDLE if windowed else small_bundle()
    messages = steady(400)
    before = scorer_of(bundle=bundle)
    process(before, messages[: 3 * died])
    expected = in_cuts(before, messages[3 * died :], [])
    lived = scorer_of(bundle=bundle)
    process(lived, messages[: 3 * died])
    restarted = scorer_of(bundle=bundle)
    for vehicle_id, alert in lived.open_alerts.items():
        restarted.restore_open(vehicle_id, alert)
    since = max(0, died - round(restarted.history_s))
    process(restarted, messages[3 * since : 3 * died], replay=True)
    assert in_cuts(restarted, messages[3 * died :], []) == expected


def test_until_the_window_is_full_there_is_no_score_and_no_alert() -> None:
    scorer = scorer_of()
    scored = process(scorer, [message(1, [SICK] * 5)])
    assert ready(scored) == [False] * (WINDOW - 1) + [True, True]
    assert scored.transitions == []
    (opened,) = process(scorer, [message(2, [SICK] * 5)]).transitions
    assert (opened.state, opened.reading_index) == ("OPEN", 0)


def test_a_boot_and_a_long_gap_begin_the_window_anew() -> None:
    scorer = scorer_of()
    assert ready(process(scorer, [message(1, [SOUND] * 4)])) == [False, False, False, True]
    later = message(2, [SOUND] * 4, uptime_ms=3_000 + 60_000)
    # A minute is no gap yet, but such a window reaches too far back.
    assert ready(process(scorer, [later])) == [False, False, False, True]
    assert ready(process(scorer, [message(3, [SOUND], uptime_ms=67_000)])) == [True]
    assert ready(process(scorer, [message(4, [SOUND], uptime_ms=67_000 + 60_001)])) == [False]
    rebooted = message(1, [SOUND] * 4, boot_id=2)
    assert ready(process(scorer, [rebooted])) == [False, False, False, True]


def test_stale_batches_are_not_scored_and_do_not_count() -> None:
    scorer = scorer_of()
    first = message(1, [SOUND] * 3)
    scored = process(scorer, [first, first, message(2, [SOUND], uptime_ms=3_000)])
    assert scored.stale.tolist() == [False, True, False]
    assert ready(scored) == [False] * 6 + [True]


def test_a_vehicle_that_was_forgotten_begins_anew() -> None:
    scorer = scorer_of(max_vehicles=2)
    process(scorer, [message(1, [SOUND] * 4, vehicle=b"a")])
    process(scorer, [message(1, [SICK] * 4, vehicle=b"b"), message(1, [SICK] * 4, vehicle=b"c")])
    scored = process(scorer, [message(2, [SOUND] * 4, vehicle=b"a")])
    assert ready(scored) == [False, False, False, True]
    alone = process(scorer_of(), [message(2, [SOUND] * 4, vehicle=b"a")])
    assert scored.scores.tobytes() == alone.scores.tobytes()


def test_an_opening_names_what_the_window_is_off_by_and_the_newest_values() -> None:
    scorer = scorer_of()
    rows = [list(SOUND) for _ in range(8)]
    for row, coolant in zip(rows[4:], (150.0, 151.0, 152.0, 153.0), strict=True):
        row[2] = coolant
    (opened,) = process(scorer, [message(1, rows)]).transitions
    first = opened.signals[0]
    assert (first.name, first.unit) == ("coolant_temperature", "Celsius")
    assert first.value == rows[opened.reading_index][2]
    assert first.share > max(signal.share for signal in opened.signals[1:])


def test_a_swap_between_the_kinds_comes_to_what_each_would_have_come_to() -> None:
    messages = course(4, 120)
    for old, new in ((small_bundle(), BUNDLE), (BUNDLE, small_bundle())):
        scorer = scorer_of(bundle=old)
        process(scorer, messages[:60])
        wants_history = scorer.swap(new)
        assert wants_history
        process(scorer, messages[:60], replay=True)
        found, _ = in_cuts(scorer, messages[60:], [])
        whole, _ = in_cuts(scorer_of(bundle=new), messages, [])
        assert whole.endswith(found)


def test_a_swap_to_the_same_windows_keeps_them() -> None:
    messages = course(3, 120)
    again = Bundle(replace(BUNDLE.manifest, version="2", threshold=1000.0), BUNDLE.model)
    scorer = scorer_of()
    process(scorer, messages[:60])
    assert not scorer.swap(again)
    found, _ = in_cuts(scorer, messages[60:], [])
    whole, _ = in_cuts(scorer_of(), messages, [])
    assert whole.endswith(found)


def test_forgetting_everything_keeps_the_kind() -> None:
    scorer = scorer_of()
    process(scorer, [message(1, [SICK] * 8)])
    scorer.drop_all()
    assert ready(process(scorer, [message(1, [SOUND] * 4)])) == [False, False, False, True]


def test_a_poll_is_taken_in_as_many_parts_as_memory_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = course(9, 150)
    expected = in_cuts(scorer_of(), messages, [])
    monkeypatch.setattr("scoring.windows.POOL_BYTES", 7 * 4 * BUNDLE.manifest.columns)
    assert scorer_of(max_vehicles=100)._featurizer.messages_max == 7
    assert in_cuts(scorer_of(max_vehicles=100), messages, []) == expected


def test_the_history_covers_features_windows_and_policy() -> None:
    features_s, windows_s, policy_s = 10.0 + 5.0 + 60.0, (WINDOW - 1) * 10.0, 5 * 10.0
    assert scorer_of().history_s == features_s + windows_s + policy_s
