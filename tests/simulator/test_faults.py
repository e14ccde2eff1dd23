"""The catalogue of faults: what each changes, and what none may."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.errors import SettingsError
from schemas.signals import SIGNAL_BY_NAME, SIGNAL_NAMES
from simulator.faults import (
    CATALOGUE,
    FAULTS,
    FaultKind,
    Injection,
    Injector,
    chosen,
    draw_injections,
)
from simulator.physics import SIMULATED_SIGNALS, FleetState
from simulator.sensors import Sensors

Floats = NDArray[np.float32]
VEHICLES = 30
ONSET_S = 20.0


def drive_with(kind: FaultKind, vehicles: list[int], steps: int = 150) -> tuple[Floats, Floats]:
    """Sound and faulty readings of the same drive. Shapes (T, V, S)."""
    rng = np.random.default_rng(3)
    state, sensors = FleetState(VEHICLES, rng), Sensors(VEHICLES, rng)
    injector = Injector(VEHICLES, SIMULATED_SIGNALS, np.random.default_rng(4))
    injector.start([Injection(vehicle, kind, 1.0) for vehicle in vehicles], ONSET_S)
    sound, faulty = [], []
    everyone = np.arange(VEHICLES)
    for _ in range(steps):
        state.step(1.0)
        values = sensors.read(state.truth(), state.time_s)
        sound.append(values.copy())
        injector.apply(values, everyone, np.full(VEHICLES, state.time_s, np.float32))
        faulty.append(values)
    return np.stack(sound), np.stack(faulty)


def columns_of(kind: FaultKind) -> list[int]:
    return [SIMULATED_SIGNALS.index(name) for name in kind.signals or SIMULATED_SIGNALS]


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.code)
def test_a_fault_changes_its_own_signals_of_its_own_vehicles_only(kind: FaultKind) -> None:
    afflicted = [2, 7, 19]
    sound, faulty = drive_with(kind, afflicted)
    changed = sound != faulty
    assert not changed[: int(ONSET_S) - 1].any(), "before its onset"
    others = [vehicle for vehicle in range(VEHICLES) if vehicle not in afflicted]
    assert not changed[:, others].any()
    beside = [n for n in range(len(SIMULATED_SIGNALS)) if n not in columns_of(kind)]
    assert not changed[:, :, beside].any()
    assert all(changed[:, vehicle].any() for vehicle in afflicted)
    for column, name in enumerate(SIMULATED_SIGNALS):
        signal = SIGNAL_BY_NAME[name]
        assert signal.minimum <= faulty[:, :, column].min()
        assert faulty[:, :, column].max() <= signal.maximum


@pytest.mark.parametrize(
    ("code", "signal", "least"),
    [
        ("coolant_offset", "coolant_temperature", 20.0),
        ("thermostat_open", "coolant_temperature", -15.0),
        ("current_offset", "traction_battery_current", 55.0),
        ("alternator", "low_voltage", -1.5),
        ("tire_leak", "tire_pressure_row1_left", -60.0),
        ("battery_cell", "traction_battery_voltage", -12.0),
        ("bearing_wear", "engine_vibration", 1.0),
        ("maf_low", "maf", -2.0),
        ("manifold_leak", "map", 10.0),
    ],
)
def test_a_grown_fault_has_its_size(code: str, signal: str, least: float) -> None:
    sound, faulty = drive_with(FAULTS[code], list(range(VEHICLES)))
    column = SIMULATED_SIGNALS.index(signal)
    shift = np.median((faulty - sound)[120:, :, column])
    assert shift * np.sign(least) >= abs(least)


def test_a_ramp_grows() -> None:
    sound, faulty = drive_with(FAULTS["tire_leak"], [0])
    column = columns_of(FAULTS["tire_leak"])[0]
    lost = (sound - faulty)[:, 0, column]
    assert lost[24] < lost[40] < lost[60] < lost[85]


def test_stuck_sensors_keep_their_value_and_a_frozen_feed_keeps_all() -> None:
    for code in ("coolant_stuck", "throttle_stuck", "frozen_feed"):
        _, faulty = drive_with(FAULTS[code], [4])
        tail = faulty[int(ONSET_S) :, 4][:, columns_of(FAULTS[code])]
        assert np.all(tail == tail[0])


def test_a_row_that_is_absent_or_holds_absent_values_stays_so() -> None:
    injector = Injector(3, SIGNAL_NAMES, np.random.default_rng(1))
    injector.start([Injection(1, FAULTS["frozen_feed"], 1.0)], 5.0)
    values = np.full((2, len(SIGNAL_NAMES)), np.nan, np.float32)
    values[:, 0] = [50.0, 60.0]
    injector.apply(values, np.array([0, 1]), np.array([6.0, 6.0], np.float32))
    injector.apply(values[:1], np.array([0]), np.array([7.0], np.float32))
    later = values + 10.0
    injector.apply(later, np.array([0, 1]), np.array([8.0, 8.0], np.float32))
    assert later[:, 0].tolist() == [60.0, 60.0]
    assert np.isnan(later[:, 1:]).all()


def test_each_fault_comes_once_before_any_comes_again() -> None:
    measured = [SIMULATED_SIGNALS] * 40
    drawn = draw_injections(measured, 0.5, np.random.default_rng(2))
    codes = [injection.kind.code for injection in drawn]
    assert len(drawn) == 20
    assert set(codes[: len(codes)]) == set(FAULTS)
    assert max(codes.count(code) for code in FAULTS) <= 2


@settings(max_examples=60, deadline=None)
@given(
    measured=st.lists(st.sets(st.sampled_from(SIGNAL_NAMES)), max_size=30),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_draws_fit_their_vehicles(measured: list[set[str]], share: float, seed: int) -> None:
    drawn = draw_injections(measured, share, np.random.default_rng(seed))
    again = draw_injections(measured, share, np.random.default_rng(seed))
    vehicles = [injection.vehicle for injection in drawn]
    assert drawn == again
    assert vehicles == sorted(set(vehicles))
    assert len(drawn) <= max(1, round(share * len(measured))) * (share > 0)
    for injection in drawn:
        assert measured[injection.vehicle], "a vehicle that measures nothing"
        assert measured[injection.vehicle].issuperset(injection.kind.signals)
        assert 0.8 <= injection.severity <= 1.3


def test_codes_are_chosen_by_name() -> None:
    assert chosen("") == CATALOGUE
    assert [kind.code for kind in chosen(" maf_low, tire_leak ")] == ["maf_low", "tire_leak"]
    with pytest.raises(SettingsError, match="there is no flat_battery; there are coolant_stuck"):
        chosen("maf_low,flat_battery")


def test_what_cannot_be_injected_is_refused() -> None:
    injector = Injector(3, ("speed",), np.random.default_rng(1))
    with pytest.raises(SettingsError, match="maf is not measured"):
        injector.start([Injection(0, FAULTS["maf_low"], 1.0)], 0.0)
    with pytest.raises(SettingsError, match="no such vehicle"):
        injector.start([Injection(3, FAULTS["frozen_feed"], 1.0)], 0.0)
