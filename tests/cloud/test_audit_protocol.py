import pytest

from cloud.protocol import Alarm, Event, Judgement, judge, merge

HOUR_MS = 3_600_000


def judged(alarms: list[Alarm], events: list[Event]) -> Judgement:
    return judge(alarms, events, observed={"car": (0, HOUR_MS), "other": (0, HOUR_MS)})


def test_alarms_less_than_a_minute_apart_are_one() -> None:
    merged = merge([Alarm("car", 70_000, 80_000), Alarm("car", 0, 10_001)])
    assert merged == [Alarm("car", 0, 80_000)]


def test_a_minute_apart_or_on_another_vehicle_they_are_two() -> None:
    assert len(merge([Alarm("car", 0, 10_000), Alarm("car", 70_000, 80_000)])) == 2
    assert len(merge([Alarm("car", 0, 10_000), Alarm("other", 11_000, 12_000)])) == 2


def test_an_alarm_inside_another_does_not_shorten_it() -> None:
    merged = merge([Alarm("car", 0, 50_000), Alarm("car", 10_000, 20_000)])
    assert merged == [Alarm("car", 0, 50_000)]


def test_an_alarm_in_the_event_detects_it() -> None:
    found = judged([Alarm("car", 130_000, 140_000)], [Event("car", 100_000, 200_000)])
    assert (found.detected, found.missed, found.false_alarms) == (1, 0, 0)
    assert found.delays_s == (30.0,)
    assert found.precision == 1.0


@pytest.mark.parametrize(("open_ms", "detected"), [(260_000, 1), (260_001, 0)])
def test_grace_lasts_a_minute(open_ms: int, detected: int) -> None:
    found = judged([Alarm("car", open_ms, open_ms)], [Event("car", 100_000, 200_000)])
    assert (found.detected, found.false_alarms) == (detected, 1 - detected)


def test_an_alarm_already_on_at_onset_is_no_detection_and_not_false() -> None:
    found = judged([Alarm("car", 90_000, 150_000)], [Event("car", 100_000, 200_000)])
    assert (found.detected, found.missed, found.false_alarms) == (0, 1, 0)


def test_a_flickering_alarm_is_one_and_was_on_at_onset() -> None:
    alarms = [Alarm("car", 80_000, 85_000), Alarm("car", 110_000, 115_000)]
    found = judged(alarms, [Event("car", 100_000, 200_000)])
    assert (found.alarms, found.detected) == (1, 0)


def test_an_alarm_of_another_vehicle_is_false() -> None:
    found = judged([Alarm("other", 130_000, 140_000)], [Event("car", 100_000, 200_000)])
    assert (found.detected, found.false_alarms) == (0, 1)


def test_false_alarms_are_counted_against_clean_time() -> None:
    found = judged([Alarm("other", 5, 6)], [Event("car", 0, HOUR_MS // 2 - 60_000)])
    assert found.clean_hours == pytest.approx(1.5)
    assert found.false_alarms_per_hour == pytest.approx(1 / 1.5)


def test_overlapping_events_and_ends_outside_are_not_subtracted_twice() -> None:
    events = [Event("car", 0, 60_000), Event("car", 30_000, 10 * HOUR_MS)]
    assert judged([], events).clean_hours == pytest.approx(1.0)


def test_an_event_of_an_unobserved_vehicle_is_missed() -> None:
    found = judge([], [Event("ghost", 0, 1)], observed={})
    assert (found.missed, found.clean_hours, found.false_alarms_per_hour) == (1, 0.0, 0.0)
    assert found.precision is None
