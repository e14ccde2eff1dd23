import numpy as np
import pytest

from cloud.audit import (
    Log,
    MeasuredBoot,
    alarms_of,
    alert_latency,
    judge_alerts,
    percentiles,
    tally,
    unique_alerts,
)
from cloud.protocol import Alarm, Event
from schemas.records import Record


def log_of(*identities: tuple[str, int, int, int]) -> Log:
    log = Log()
    for vehicle_id, boot_id, seq, readings in identities:
        log.add([vehicle_id], [boot_id], [seq], [readings])
    return log


def alert(**changes: object) -> Record:
    record: Record = {
        "alert_id": "EDGE/car-1/1/3/0/anomaly",
        "state": "OPEN",
        "origin": "EDGE",
        "vehicle_id": "car-1",
        "boot_id": 1,
        "seq": 3,
        "event_time": 10_000,
        "score_time": 10_250,
        "late": False,
    }
    return record | changes


def test_everything_arrived_once() -> None:
    found = tally(
        [MeasuredBoot("a", 1, 3, 30), MeasuredBoot("b", 7, 1, 4)],
        log_of(("a", 1, 2, 10), ("a", 1, 1, 10), ("b", 7, 1, 4), ("a", 1, 3, 10)),
    )
    assert (found.messages, found.readings) == (4, 34)
    assert (found.lost_messages, found.lost_readings) == (0, 0)
    assert (found.duplicate_messages, found.duplicate_readings) == (0, 0)
    assert found.unknown_messages == 0


def test_a_gap_is_lost_and_named() -> None:
    found = tally([MeasuredBoot("a", 1, 4, 40)], log_of(("a", 1, 1, 10), ("a", 1, 4, 10)))
    assert (found.lost_messages, found.lost_readings) == (2, 20)
    assert found.lost == ("a/1/2", "a/1/3")


def test_a_vehicle_of_which_nothing_arrived_is_lost_whole() -> None:
    found = tally([MeasuredBoot("a", 1, 2, 5)], Log())
    assert (found.messages, found.lost_messages, found.lost_readings) == (0, 2, 5)


def test_repeats_count_as_duplicates_and_not_as_readings() -> None:
    found = tally([MeasuredBoot("a", 1, 1, 3)], log_of(*[("a", 1, 1, 3)] * 3))
    assert (found.messages, found.readings) == (1, 3)
    assert (found.duplicate_messages, found.duplicate_readings) == (2, 6)
    assert found.lost_messages == 0


def test_what_the_vehicle_dropped_itself_is_not_lost() -> None:
    boot = MeasuredBoot("a", 1, 3, 30, dropped_seq=np.array([2]), dropped_readings=10)
    found = tally([boot], log_of(("a", 1, 1, 10), ("a", 1, 3, 10)))
    assert (found.lost_messages, found.lost_readings) == (0, 0)


def test_what_arrived_although_it_was_dropped_hides_no_loss() -> None:
    boot = MeasuredBoot("a", 1, 3, 30, dropped_seq=np.array([2]), dropped_readings=10)
    found = tally([boot], log_of(("a", 1, 1, 10), ("a", 1, 2, 10)))
    assert (found.messages, found.lost_messages, found.lost_readings) == (2, 1, 10)


def test_other_vehicles_boots_and_numbers_are_unknown() -> None:
    found = tally(
        [MeasuredBoot("a", 1, 1, 1)],
        log_of(("a", 1, 1, 1), ("a", 1, 9, 1), ("a", 2, 1, 1), ("z", 1, 1, 1)),
    )
    assert (found.messages, found.unknown_messages, found.lost_messages) == (1, 3, 0)


def test_the_named_losses_are_bounded() -> None:
    found = tally([MeasuredBoot("a", 1, 1000, 1000), MeasuredBoot("b", 1, 9, 9)], Log())
    assert found.lost_messages == 1009
    assert len(found.lost) == 10


def test_many_messages_against_plain_sets() -> None:
    rng = np.random.default_rng(7)
    vehicles = rng.integers(0, 50, 20_000)
    seq = rng.integers(1, 400, 20_000)
    log = Log()
    log.add([f"car-{v}" for v in vehicles], np.ones_like(seq), seq, np.full_like(seq, 2))
    found = tally([MeasuredBoot(f"car-{v}", 1, 399, 798) for v in range(50)], log)
    unique = set(zip(vehicles.tolist(), seq.tolist(), strict=True))
    assert found.messages == len(unique)
    assert found.duplicate_messages == 20_000 - len(unique)
    assert found.lost_messages == 50 * 399 - len(unique)
    assert found.lost_readings == 2 * found.lost_messages


def test_alerts_are_unique_by_id_and_state() -> None:
    log = unique_alerts([alert(), alert(state="CLOSED"), alert(score_time=99)])
    assert log.duplicates == 1
    assert [(a["state"], a["score_time"]) for a in log.unique] == [
        ("OPEN", 10_250),
        ("CLOSED", 10_250),
    ]


def test_latency_runs_from_the_first_publish_of_the_deciding_batch() -> None:
    boot = MeasuredBoot("car-1", 1, 3, 3, published_ms=np.array([8_000, 9_000, 10_000]))
    alerts = [
        alert(),
        alert(state="CLOSED"),
        alert(seq=2, late=True, score_time=19_000),
        alert(origin="CLOUD", score_time=10_700),
        alert(seq=4),
        alert(vehicle_id="unknown"),
    ]
    edge = alert_latency(alerts, [boot], origin="EDGE")
    cloud = alert_latency(alerts, [boot], origin="CLOUD")
    assert (edge.live.count, edge.live.p50) == (1, 250.0)
    assert (edge.late.count, edge.late.p99) == (1, 10_000.0)
    assert (cloud.live.p50, cloud.late.p50) == (700.0, None)


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles([]).p50 is None
    assert percentiles([1.0, 3.0]).p50 == pytest.approx(2.0)


def test_alarms_run_from_opening_to_closing_or_to_the_end() -> None:
    alerts = [
        alert(alert_id="1", event_time=5_000),
        alert(alert_id="1", event_time=9_000, state="CLOSED"),
        alert(alert_id="2", event_time=20_000),
        alert(alert_id="3", event_time=30_000, vehicle_id="car-2"),
        alert(alert_id="4", event_time=1_000, state="CLOSED"),
    ]
    assert alarms_of(alerts, end_ms={"car-1": 60_000}) == [
        Alarm("car-1", 5_000, 9_000),
        Alarm("car-1", 20_000, 60_000),
        Alarm("car-2", 30_000, 30_000),
    ]


def test_alerts_of_one_origin_are_judged_alone() -> None:
    alerts = [
        alert(alert_id="e", event_time=12_000),
        alert(alert_id="c", event_time=15_000, origin="CLOUD"),
        alert(alert_id="x", event_time=15_000, vehicle_id="elsewhere"),
    ]
    events = [Event("car-1", 10_000, 60_000, "overheating")]
    observed = {"car-1": (0, 60_000)}
    both = judge_alerts(alerts, events, observed=observed)
    cloud = judge_alerts(alerts, events, observed=observed, origin="CLOUD")
    assert (both.delays_s, both.alarms, both.false_alarms) == ((2.0,), 1, 0)
    assert cloud.delays_s == (5.0,)
