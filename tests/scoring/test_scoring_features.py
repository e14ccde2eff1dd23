import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_features import ReferenceVehicle
from scoring_columns import Message, columns_of

from schemas.errors import ContractError
from scoring import features as features_module
from scoring.features import FeatureState, history_s
from scoring.featurizer import Featurizer, split
from scoring.manifest import FeatureKind, FeatureSpec

MEAN, LAG, RUN = FeatureKind.MEAN, FeatureKind.LAG, FeatureKind.RUN_LENGTH
SPECS = (
    FeatureSpec("speed"),
    FeatureSpec("speed", MEAN, 10.0),
    FeatureSpec("map", MEAN, 10.0),
    FeatureSpec("map", MEAN, 30.0),
    FeatureSpec("maf", MEAN, 30.0),
    FeatureSpec("coolant_temperature", LAG, 10.0),
    FeatureSpec("coolant_temperature", LAG, 5.0),
    FeatureSpec("speed", LAG, 60.0),
    FeatureSpec("map", RUN, 20.0),
    FeatureSpec("map", RUN, 5.0),
    FeatureSpec("speed", RUN, 60.0),
)
SIGNALS = ("speed", "map", "maf", "coolant_temperature")


@dataclass(frozen=True)
class Step:
    """How a vehicle's next batch follows on its last."""

    vehicle: int
    after_ms: int
    boots: bool
    readings: tuple[tuple[int, tuple[float | None, ...]], ...]


VALUES = st.sampled_from([None, 0.0, -0.0, 1.0, 1.5, 80.123, -3.0, 249.99])
STEPS = st.builds(
    Step,
    vehicle=st.integers(0, 2),
    after_ms=st.sampled_from(
        [0, 1, 1000, 4999, 5000, 10_000, 59_999, 60_000, 60_001, 300_000, -1, -4000, -90_000]
    ),
    boots=st.integers(0, 15).map(lambda number: number == 0),
    readings=st.lists(
        st.tuples(
            st.sampled_from([0, 100, 1000, 5000, 12_000, 61_000, -500]),
            st.tuples(VALUES, VALUES, VALUES, VALUES),
        ),
        min_size=1,
        max_size=5,
    ).map(tuple),
)


def messages_of(steps: Sequence[Step]) -> list[Message]:
    boot_id, seq, uptime_ms = [1, 1, 1], [0, 0, 0], [0, 2500, 100_000]
    messages: list[Message] = []
    for step in steps:
        v = step.vehicle
        if step.boots:
            boot_id[v], seq[v], uptime_ms[v] = boot_id[v] + 1, 0, 0
        seq[v] += 1
        start_ms = max(uptime_ms[v] + step.after_ms, 0)
        offsets = np.cumsum([0, *(after for after, _ in step.readings[1:])]).tolist()
        rows = [row for _, row in step.readings]
        messages.append(
            Message(
                vehicle=b"car-%d" % v,
                boot_id=boot_id[v],
                seq=seq[v],
                uptime_ms=start_ms,
                readings=list(zip(offsets, rows, strict=True)),
                # The clock jumps to and fro between batches; features must not see it.
                event_time_ms=1_750_000_000_000 + 3_600_000 * (len(messages) % 3),
            )
        )
        uptime_ms[v] = start_ms + offsets[-1]
    return messages


def reference(messages: Sequence[Message]) -> NDArray[np.float32]:
    vehicles: dict[bytes, tuple[int, ReferenceVehicle]] = {}
    rows = []
    for message in messages:
        boot_id, vehicle = vehicles.get(message.vehicle, (-1, ReferenceVehicle()))
        begins = message.boot_id > boot_id
        vehicles[message.vehicle] = (message.boot_id, vehicle)
        for after_ms, row in message.readings:
            values = {
                name: math.nan if value is None else float(np.float32(value))
                for name, value in zip(SIGNALS, row, strict=True)
            }
            remembered = vehicle.take(
                [spec for spec in SPECS if spec.has_memory],
                message.uptime_ms + after_ms,
                values,
                begins=begins,
            )
            begins = False
            rows.append([np.float32(values["speed"]), *remembered])
    return np.array(rows, np.float32).reshape(-1, len(SPECS))


def computed(
    messages: Sequence[Message], cuts: Sequence[int] = (), *, featurizer: Featurizer | None = None
) -> NDArray[np.float32]:
    featurizer = featurizer or Featurizer(SPECS, max_vehicles=8)
    edges = sorted({0, len(messages), *(cut % (len(messages) + 1) for cut in cuts)})
    polls = [messages[a:b] for a, b in pairwise(edges)]
    parts = [
        featurizer.process(part).features
        for poll in polls
        for part in split(columns_of(poll, featurizer.signals), 8)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(SPECS)), np.float32)


@pytest.fixture(params=[5, 16_384], ids=["small-blocks", "blocks"])
def block_readings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "_BLOCK_READINGS", request.param)


def assert_same_bits(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(found, expected)


def test_the_specs_use_the_signals_in_this_order() -> None:
    assert Featurizer(SPECS, max_vehicles=1).signals == SIGNALS


@pytest.mark.usefixtures("block_readings")
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_arrays_equal_the_reference_however_the_stream_is_cut(
    steps: list[Step], cuts: list[int]
) -> None:
    messages = messages_of(steps)
    assert_same_bits(computed(messages, cuts), reference(messages))


@pytest.mark.usefixtures("block_readings")
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_long_steady_streams_equal_the_reference(seed: int, cuts: list[int]) -> None:
    messages = steady(np.random.default_rng(seed), batches=120)
    assert_same_bits(computed(messages, cuts), reference(messages))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lost=st.integers(1, 239))
def test_replaying_the_history_rebuilds_the_state_to_the_bit(seed: int, lost: int) -> None:
    messages = steady(np.random.default_rng(seed), batches=240)
    expected = computed(messages)
    replayed = []
    reading = 0
    for i, message in enumerate(messages):
        after_ms = message.readings[-1][0]
        if i < lost:
            reading += len(message.readings)
        same = [other for other in messages[lost:] if other.vehicle == message.vehicle]
        horizon_ms = history_s(SPECS) * 1000
        if (
            i < lost
            and same
            and same[0].boot_id == message.boot_id
            and message.uptime_ms + after_ms >= same[0].uptime_ms - horizon_ms
        ):
            replayed.append(message)
    featurizer = Featurizer(SPECS, max_vehicles=8)
    computed(replayed, featurizer=featurizer)
    assert_same_bits(computed(messages[lost:], featurizer=featurizer), expected[reading:])


def steady(random: np.random.Generator, *, batches: int) -> list[Message]:
    """Three vehicles at steady rates of their own, with missing values and a few boots."""
    period_ms = random.choice([200, 1000, 2000, 7000], 3)
    uptime_ms, seq, boot_id = [0, 0, 0], [0, 0, 0], [1, 1, 1]
    missing = random.choice([0.0, 0.05, 0.9])
    messages = []
    for _ in range(batches):
        v = int(random.integers(3))
        if random.random() < 0.01:
            uptime_ms[v], seq[v], boot_id[v] = 0, 0, boot_id[v] + 1
        seq[v] += 1
        readings: list[tuple[int, list[float | None]]] = []
        for i in range(int(random.integers(1, 8))):
            row = random.integers(0, 4, len(SIGNALS)) / 7
            absent = random.random(len(SIGNALS)) < missing
            readings.append(
                (
                    i * int(period_ms[v]),
                    [None if gone else float(x) for x, gone in zip(row, absent, strict=True)],
                )
            )
        messages.append(Message(b"car-%d" % v, boot_id[v], seq[v], uptime_ms[v], readings))
        uptime_ms[v] += len(readings) * int(period_ms[v])
    return messages


def one_signal(spec: FeatureSpec, readings: Sequence[tuple[int, float | None]]) -> list[float]:
    featurizer = Featurizer([spec], max_vehicles=1)
    message = Message(b"car", 1, 1, 0, [(after, [value]) for after, value in readings])
    found = featurizer.process(columns_of([message], featurizer.signals)).features
    return [float(value) for value in found[:, 0]]


def test_a_mean_reaches_back_its_window() -> None:
    found = one_signal(
        FeatureSpec("speed", MEAN, 10.0), [(s * 1000, float(s)) for s in (0, 5, 9, 10, 14, 15)]
    )
    assert np.isnan(found[:3]).all()
    assert found[3:] == [8.0, 9.5, 13.0]


def test_a_lag_is_the_last_value_of_the_bucket_back_then() -> None:
    found = one_signal(
        FeatureSpec("speed", LAG, 10.0), [(s * 1000, float(s)) for s in (0, 4, 9, 10, 15, 30, 45)]
    )
    assert np.isnan(found[:3]).all()
    assert found[3:] == [4.0, 9.0, 15.0, 30.0]


def test_a_run_length_counts_up_to_its_window_and_falls_to_0_at_a_change() -> None:
    found = one_signal(
        FeatureSpec("speed", RUN, 10.0),
        [(0, 1.0), (10_000, 1.0), (30_000, 1.0), (31_000, None), (34_000, 2.0), (36_500, 2.0)],
    )
    np.testing.assert_array_equal(found, [math.nan, 10.0, 10.0, math.nan, 0.0, 2.5])


def test_an_absent_signal_is_not_counted_in_a_mean() -> None:
    found = one_signal(
        FeatureSpec("speed", MEAN, 5.0), [(0, 4.0), (5000, None), (6000, 8.0), (10_000, None)]
    )
    np.testing.assert_array_equal(found, [math.nan, math.nan, 8.0, math.nan])


def test_a_mean_does_not_drift_over_a_long_boot() -> None:
    state = FeatureState([FeatureSpec("engine_speed", MEAN, 30.0)], max_vehicles=1)
    readings = 200_000
    values = np.full((readings, 1), 15_999.875, np.float32)
    values[readings // 2 :] = 0.125
    found = state.update(
        np.zeros(readings, np.int64),
        np.zeros(readings, np.bool_),
        np.arange(readings, dtype=np.int64) * 1000,
        values,
    )
    assert found[readings // 2 - 1, 0] == np.float32(15_999.875)
    assert found[-1, 0] == np.float32(0.125)


def test_stale_batches_have_no_memory_and_leave_none() -> None:
    messages = steady(np.random.default_rng(5), batches=60)
    expected = computed(messages)
    featurizer = Featurizer(SPECS, max_vehicles=8)
    reading = 0
    for message in messages:
        old = [replace(message, boot_id=0), message, message]
        featured = featurizer.process(columns_of([message, *old], featurizer.signals))
        n = len(message.readings)
        assert featured.stale.tolist() == [False, True, True, True]
        assert_same_bits(featured.features[:n], expected[reading : reading + n])
        assert np.isnan(featured.features[n:, 1:]).all()
        np.testing.assert_array_equal(featured.features[n : 2 * n, 0], featured.features[:n, 0])
        reading += n


def test_the_same_memory_in_another_order_survives_a_swap() -> None:
    messages = steady(np.random.default_rng(11), batches=100)
    expected = computed(messages)
    featurizer = Featurizer(SPECS, max_vehicles=8)
    before = computed(messages[:50], featurizer=featurizer)
    assert not featurizer.swap(tuple(reversed(SPECS)))
    turned = [
        Message(
            message.vehicle,
            message.boot_id,
            message.seq,
            message.uptime_ms,
            [
                (after, [row[SIGNALS.index(name)] for name in featurizer.signals])
                for after, row in message.readings
            ],
        )
        for message in messages[50:]
    ]
    after = computed(turned, featurizer=featurizer)[:, ::-1]
    assert_same_bits(np.concatenate([before, after]), expected)


def test_another_memory_is_dropped_at_a_swap_and_may_be_replayed() -> None:
    messages = steady(np.random.default_rng(12), batches=100)
    featurizer = Featurizer(SPECS[:1], max_vehicles=8)
    featurizer.process(columns_of([first_signal(m) for m in messages], ("speed",)))
    assert featurizer.swap(SPECS)
    assert_same_bits(computed(messages, featurizer=featurizer), computed(messages))


def first_signal(message: Message) -> Message:
    return replace(message, readings=[(after, row[:1]) for after, row in message.readings])


def test_history_is_none_without_memory() -> None:
    assert history_s([FeatureSpec("speed")]) == 0.0
    assert history_s(SPECS) == 60.0 + 5.0 + 60.0


def test_wrong_arrays_are_refused() -> None:
    state = FeatureState([FeatureSpec("speed", MEAN, 30.0)], max_vehicles=1)
    with pytest.raises(ContractError):
        state.update(
            np.zeros(2, np.int64),
            np.zeros(2, np.bool_),
            np.zeros(1, np.int64),
            np.zeros((2, 1), np.float32),
        )
    with pytest.raises(ContractError):
        FeatureState([FeatureSpec("speed")], max_vehicles=1)


def test_columns_of_other_signals_are_refused() -> None:
    featurizer = Featurizer(SPECS, max_vehicles=1)
    message = Message(b"car", 1, 1, 0, [(0, [1.0])])
    with pytest.raises(ContractError, match="model-features"):
        featurizer.process(columns_of([message], ("map",)))


def test_readings_of_a_vehicle_that_do_not_stand_together_are_refused() -> None:
    state = FeatureState([FeatureSpec("speed", MEAN, 30.0)], max_vehicles=2)
    with pytest.raises(ContractError, match="stand together"):
        state.update(
            np.array([0, 1, 0]),
            np.zeros(3, np.bool_),
            np.zeros(3, np.int64),
            np.zeros((3, 1), np.float32),
        )
