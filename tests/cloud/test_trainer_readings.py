from dataclasses import replace

import numpy as np
import pytest
from trainer_fleet import SIGNALS, START_MS, poll, readings

from cloud.feature_choice import choose_features, choose_signals, features_of
from cloud.labels import faulty_vehicles
from cloud.readings import ReadingCollector, Readings
from cloud.split import split
from schemas.errors import SettingsError
from scoring.bundle import FeatureKind, FeatureSpec
from scoring.featurizer import Featurizer


def collected(*polls: object, max_readings: int = 10_000, seed: int = 1) -> ReadingCollector:
    collector = ReadingCollector(SIGNALS, max_readings=max_readings, seed=seed)
    for each in polls:
        collector.add(each)  # type: ignore[arg-type]
    return collector


def test_readings_are_sorted_by_vehicle_and_time() -> None:
    found = collected(poll(3, 4)).readings()
    assert found.vehicle_ids == ("car-000", "car-001", "car-002")
    assert found.vehicle.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.time_ms.tolist() == [0, 1_000, 2_000, 3_000] * 3
    assert found.event_time_ms.tolist() == [START_MS + ms for ms in (0, 1_000, 2_000, 3_000)] * 3


def test_repeats_in_the_log_count_once() -> None:
    once, twice = collected(poll(3, 4)), collected(poll(3, 4), poll(3, 4))
    assert twice.seen == 24
    np.testing.assert_array_equal(twice.readings().values, once.readings().values)


def test_a_boot_begins_a_stretch() -> None:
    found = collected(poll(2, 3, boot_id=9), poll(2, 3, boot_id=4)).readings()
    assert found.segment.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_readings_of_one_message_follow_uptime_not_the_clock() -> None:
    columns = poll(1, 4)
    one = replace(
        columns,
        index=np.arange(1),
        vehicle_ids=[b"car"],
        boot_id=np.array([1]),
        seq=np.array([1]),
        oldest_seq=np.array([1]),
        uptime_ms=np.array([50_000]),
        clock_synced=np.array([False]),
        counts=np.array([4]),
        starts=np.array([0]),
    )
    found = collected(one).readings()
    assert found.time_ms.tolist() == [50_000, 51_000, 52_000, 53_000]
    assert found.first.tolist() == [True, False, False, False]


def test_beyond_the_limit_whole_vehicles_go_by_seeded_lot() -> None:
    collector = collected(*(poll(20, 5, boot_id=boot) for boot in (1, 2, 3)), max_readings=100)
    found = collector.readings()
    counts = np.bincount(found.vehicle)
    assert len(found) <= 100
    assert set(counts[counts > 0].tolist()) == {15}
    assert collector.dropped_vehicles == 20 - found.vehicles
    again = collected(*(poll(20, 5, boot_id=boot) for boot in (1, 2, 3)), max_readings=100)
    np.testing.assert_array_equal(again.readings().vehicle, found.vehicle)


def test_one_vehicle_alone_is_cut_to_the_limit() -> None:
    assert len(collected(poll(1, 50), max_readings=20).readings()) == 20


def test_nothing_collected_is_nothing() -> None:
    empty = collected().readings()
    assert (len(empty), empty.vehicles) == (0, 0)


def test_a_limit_of_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="max_readings"):
        ReadingCollector(SIGNALS, max_readings=0, seed=1)


def test_of_much_data_some_vehicles_validate() -> None:
    found = readings(20, 1_600)
    parts = split(found, share=0.25, seed=1)
    valid, train = set(found.vehicle[parts.fold == 0]), set(found.vehicle[parts.fold < 0])
    assert (parts.method, parts.count) == ("vehicles", 1)
    assert (len(valid), len(train)) == (5, 15)
    assert not valid & train


def test_of_little_data_every_vehicle_validates_once() -> None:
    found = readings(20, 5)
    parts = split(found, share=0.25, seed=1)
    assert (parts.method, parts.count) == ("vehicles", 4)
    for vehicle in range(20):
        assert len(set(parts.fold[found.vehicle == vehicle])) == 1
    assert np.bincount(parts.fold).tolist() == [25] * 4


@pytest.mark.parametrize(("seconds", "count"), [(80, 4), (16_000, 1)])
def test_few_vehicles_are_split_by_contiguous_blocks_of_time(seconds: int, count: int) -> None:
    found = readings(2, seconds)
    parts = split(found, share=0.25, seed=1)
    assert (parts.method, parts.count) == ("time-blocks", count)
    for vehicle in (0, 1):
        for fold in range(count):
            rows = np.flatnonzero((parts.fold == fold) & (found.vehicle == vehicle))
            assert len(rows) == seconds // 4
            assert (np.diff(rows) == 1).all()


def with_values(found: Readings, **columns: float) -> Readings:
    values = found.values.copy()
    for name, value in columns.items():
        values[:, SIGNALS.index(name)] = value
    return replace(found, values=values)


def test_absent_and_constant_signals_are_not_chosen() -> None:
    found = with_values(readings(4, 30), maf=np.nan, tps=20.0)
    assert choose_signals(found, presence=0.99) == tuple(
        name for name in SIGNALS if name not in {"maf", "tps"}
    )


def test_too_few_signals_are_refused_in_words() -> None:
    found = with_values(readings(4, 30), **dict.fromkeys(SIGNALS[2:], np.nan))
    with pytest.raises(SettingsError, match="only 2 signals"):
        choose_signals(found, presence=0.99)


def test_a_short_stretch_carries_means_of_ten_seconds() -> None:
    specs = choose_features(readings(4, 25), SIGNALS, presence=0.5, memory_max=8)
    memory = [spec for spec in specs if spec.has_memory]
    assert {spec.window_s for spec in memory} == {10.0}
    assert FeatureSpec("map", FeatureKind.MEAN, 10.0) in memory


def test_a_long_stretch_carries_lags_of_minutes_within_the_bound() -> None:
    specs = choose_features(readings(2, 600), SIGNALS, presence=0.5, memory_max=3)
    memory = [spec for spec in specs if spec.has_memory]
    assert memory[0] == FeatureSpec("coolant_temperature", FeatureKind.LAG, 180.0)
    assert len(memory) == 3
    plain = choose_features(readings(2, 600), SIGNALS, presence=0.5, memory_max=0)
    assert [spec.name for spec in plain] == list(SIGNALS)


def test_features_are_those_that_the_scorer_computes() -> None:
    specs = choose_features(readings(3, 100), SIGNALS, presence=0.3, memory_max=8)
    columns = poll(3, 100)
    featurizer = Featurizer(specs, max_vehicles=10)
    columns.signals = featurizer.signals
    scored = featurizer.process(columns).features
    by_vehicle = scored.reshape(100, 3, -1).transpose(1, 0, 2).reshape(300, -1)
    np.testing.assert_array_equal(features_of(readings(3, 100), specs), by_vehicle)


def label(vehicle_id: str, start_s: int, end_s: int | None) -> dict[str, object]:
    end = None if end_s is None else START_MS + 1_000 * end_s
    return {"vehicle_id": vehicle_id, "start_time": START_MS + 1_000 * start_s, "end_time": end}


def test_labels_that_overlap_the_readings_make_a_vehicle_faulty() -> None:
    found = readings(6, 10)
    labels = [
        label("car-000", 5, None),
        label("car-001", -20, -1),
        label("car-002", -20, 0),
        label("car-003", 10, None),
        label("car-999", 0, None),
    ]
    faulty = faulty_vehicles(found, labels)
    assert faulty == {"car-000", "car-002"}
    assert found.without(faulty).vehicles == 4
    assert faulty_vehicles(collected().readings(), labels) == set()
