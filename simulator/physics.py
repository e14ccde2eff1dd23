"""A fleet of parallel hybrid passenger cars, as arrays over vehicles. No clock, no I/O.

Speed follows a drive cycle with the driver's own noise; everything else follows speed: the power
at the wheels, the gear, the share of the electric motor, load, manifold pressure, air flow,
temperatures, voltages, tyres and vibration. Hot: a step is some sixty array operations over all
vehicles, no loop over any.

Calibrated on the recorded drives of a petrol and a diesel car (idle speed, rpm per km/h of the
gears, warm-up, voltages, air flow as k * MAP * rpm / T, correlations); a test holds it there.
What no recorded drive shows (traction battery, motor, tyres, vibration) is textbook physics with
plausible constants, not calibrated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.cycles import ROUTE_S, routes

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SIMULATED_SIGNALS: tuple[str, ...] = (
    "speed",
    "engine_speed",
    "coolant_temperature",
    "maf",
    "map",
    "tps",
    "engine_load",
    "intake_temp",
    "pedal_position",
    "air_temperature",
    "low_voltage",
    "motor_speed",
    "state_of_charge",
    "traction_battery_voltage",
    "traction_battery_current",
    "tire_pressure_row1_left",
    "tire_pressure_row1_right",
    "tire_pressure_row2_left",
    "tire_pressure_row2_right",
    "wheel_acceleration_row1_left",
    "wheel_acceleration_row1_right",
    "wheel_acceleration_row2_left",
    "wheel_acceleration_row2_right",
    "engine_vibration",
)
"""What a simulated vehicle measures; fuel trims, timing and catalysts stay absent."""

COLUMN: dict[str, int] = {name: column for column, name in enumerate(SIMULATED_SIGNALS)}
TIRES = slice(COLUMN["tire_pressure_row1_left"], COLUMN["tire_pressure_row2_right"] + 1)
WHEELS = slice(COLUMN["wheel_acceleration_row1_left"], COLUMN["wheel_acceleration_row2_right"] + 1)

_AIR_KG_M3 = 1.2
_G_MPS2 = 9.81
_KELVIN = 273.15
_ATMOSPHERE_KPA = 99.0
_ROUTES = 24
_GEAR_RPM_PER_KMH = np.array([118.0, 70.0, 46.0, 32.0], np.float32)
_SHIFT_KMH = np.array([16.0, 32.0, 58.0], np.float32)
_MOTOR_RPM_PER_KMH = 68.0
_BATTERY_AH = 6.5
_ENGINE_ON_COOLANT_C = 60.0
_START_STOP_AFTER_S = 3.0


def _lag(dt_s: float, tau_s: float | Floats) -> Floats:
    """How much of the way to its target a first-order lag goes in one step."""
    return np.asarray(1.0 - np.exp(-dt_s / np.asarray(tau_s, np.float32)), np.float32)


def _wander(value: Floats, dt_s: float, tau_s: float, sigma: float, noise: Floats) -> Floats:
    """One step of a mean-reverting random walk whose spread does not depend on the step."""
    kept = np.float32(np.exp(-dt_s / tau_s))
    return np.asarray(kept * value + sigma * np.sqrt(1.0 - kept * kept) * noise, np.float32)


@dataclass(frozen=True, slots=True)
class Build:
    """What differs between vehicles and stays. Every array has shape (V,) unless said."""

    route: NDArray[np.intp]
    phase_s: Floats
    pace: Floats  # driver's factor on the cycle's speed
    mass_kg: Floats
    gear_factor: Floats
    torque_max_nm: Floats
    idle_rpm: Floats
    volumetric_k: Floats  # g K / (s kPa rpm)
    coolant_set_c: Floats
    warm_up_tau_s: Floats
    ambient_c: Floats
    charging_v: Floats
    tire_cold_kpa: Floats  # (V, 4) at 20 Celsius
    cells_v: Floats  # open-circuit voltage of the traction battery at 50 %
    vibration_gain: Floats


def draw_build(vehicles: int, rng: np.random.Generator) -> Build:
    """Draw a fleet's vehicles."""

    def uniform(low: float, high: float, *more: int) -> Floats:
        return rng.uniform(low, high, (vehicles, *more)).astype(np.float32)

    def normal(mean: float, sigma: float, low: float, high: float) -> Floats:
        drawn = rng.normal(mean, sigma, vehicles)
        return np.clip(drawn, low, high).astype(np.float32)

    return Build(
        route=rng.integers(0, _ROUTES, vehicles),
        phase_s=uniform(0.0, ROUTE_S),
        pace=normal(1.0, 0.05, 0.88, 1.1),
        mass_kg=normal(1_450.0, 120.0, 1_150.0, 1_900.0),
        gear_factor=normal(1.0, 0.03, 0.93, 1.07),
        torque_max_nm=normal(165.0, 12.0, 135.0, 200.0),
        idle_rpm=uniform(750.0, 820.0),
        volumetric_k=normal(0.0285, 0.001, 0.026, 0.032),
        coolant_set_c=normal(89.5, 1.2, 87.0, 92.0),
        warm_up_tau_s=np.clip(rng.lognormal(np.log(138.0), 0.3, vehicles), 110.0, 280.0).astype(
            np.float32
        ),
        ambient_c=uniform(-3.0, 31.0),
        charging_v=normal(13.7, 0.08, 13.55, 13.9),
        tire_cold_kpa=uniform(222.0, 246.0, 4),
        cells_v=normal(252.0, 4.0, 240.0, 264.0),
        vibration_gain=normal(1.0, 0.08, 0.8, 1.25),
    )


class FleetState:
    """The true state of V vehicles; `step` moves it, `truth` reads it.

    The same generator gives the same course, whatever the clock on the wall does.

    Args:
        vehicles: V, >= 1.
        rng: Draws the vehicles, their start and all noise.
        warm_share: Vehicles that start with a warm engine; the others start cold.
    """

    def __init__(
        self, vehicles: int, rng: np.random.Generator, *, warm_share: float = 0.65
    ) -> None:
        self._rng = rng
        self.build = draw_build(vehicles, rng)
        self._routes = routes(_ROUTES, rng)
        self.vehicles = vehicles
        self.time_s = 0.0
        build = self.build

        warm = rng.random(vehicles) < warm_share
        cold_c = build.ambient_c + rng.uniform(2.0, 30.0, vehicles)
        self.coolant_c = np.where(warm, build.coolant_set_c, cold_c).astype(np.float32)
        self.warm: Bools = warm
        self._coolant_wander = self._normal() * np.float32(1.6)
        self._gear_mood = self._normal() * np.float32(0.12)
        self.speed_kmh = self._cycle_kmh(0.0) * build.pace
        self.rpm = self._rpm_target(self.speed_kmh, np.zeros(vehicles, np.float32))
        self.engine_on: Bools = np.ones(vehicles, np.bool_)
        self.halted_s = np.zeros(vehicles, np.float32)
        self._restless = np.zeros(vehicles, np.float32)
        self.accel_mps2 = np.zeros(vehicles, np.float32)
        self.load_pct = np.full(vehicles, 25.0, np.float32)
        self.map_kpa = np.full(vehicles, 35.0, np.float32)
        self.pedal_pct = np.zeros(vehicles, np.float32)
        self.intake_c = build.ambient_c + np.where(warm, 16.0, 4.0).astype(np.float32)
        self.volts = build.charging_v.copy()
        self.charge_pct = rng.uniform(48.0, 68.0, vehicles).astype(np.float32)
        self.current_a = np.zeros(vehicles, np.float32)
        self.motor_kw = np.zeros(vehicles, np.float32)
        self.tire_c = build.ambient_c + np.where(warm, 14.0, 0.0).astype(np.float32)

    def step(self, dt_s: float) -> None:
        """Move all vehicles by `dt_s` seconds (> 0; meant for 0.01 to 10)."""
        self.time_s += dt_s
        self._drive(dt_s)
        demand_kw = self._demand_kw()
        self._start_and_stop(dt_s, demand_kw)
        self._share_power(dt_s, demand_kw)
        self._run_engine(dt_s, demand_kw)
        self._heat(dt_s)
        self._electrify(dt_s)

    def truth(self) -> Floats:
        """What perfect sensors would show. Shape (V, len(SIMULATED_SIGNALS)), fresh."""
        on = self.engine_on
        out = np.empty((self.vehicles, len(SIMULATED_SIGNALS)), np.float32)
        out[:, COLUMN["speed"]] = self.speed_kmh
        out[:, COLUMN["engine_speed"]] = self.rpm
        out[:, COLUMN["coolant_temperature"]] = self.coolant_c
        out[:, COLUMN["maf"]] = self._air_flow()
        out[:, COLUMN["map"]] = self.map_kpa
        out[:, COLUMN["tps"]] = np.where(on, 13.0 + 0.62 * self._opening(), 13.0)
        out[:, COLUMN["engine_load"]] = self.load_pct
        out[:, COLUMN["intake_temp"]] = self.intake_c
        out[:, COLUMN["pedal_position"]] = 14.5 + 0.85 * self.pedal_pct
        out[:, COLUMN["air_temperature"]] = self.build.ambient_c
        out[:, COLUMN["low_voltage"]] = self.volts
        out[:, COLUMN["motor_speed"]] = self.speed_kmh * _MOTOR_RPM_PER_KMH
        out[:, COLUMN["state_of_charge"]] = self.charge_pct
        out[:, COLUMN["traction_battery_voltage"]] = self._traction_v()
        out[:, COLUMN["traction_battery_current"]] = self.current_a
        out[:, TIRES] = self._tires_kpa()
        out[:, WHEELS] = self._wheels_mps2()
        out[:, COLUMN["engine_vibration"]] = self._vibration()
        return out

    def _normal(self, *more: int) -> Floats:
        return self._rng.standard_normal((self.vehicles, *more), np.float32)

    # --- the road ---

    def _cycle_kmh(self, ahead_s: float) -> Floats:
        at_s = self.build.phase_s + np.float32(self.time_s % ROUTE_S + ahead_s)
        whole = np.floor(at_s)
        first = whole.astype(np.intp) % ROUTE_S
        part = at_s - whole
        here = self._routes[self.build.route, first]
        there = self._routes[self.build.route, (first + 1) % ROUTE_S]
        return np.asarray(here + part * (there - here), np.float32)

    def _drive(self, dt_s: float) -> None:
        """The driver follows the cycle, not exactly; at rest the cycle is the cycle."""
        self._restless += _lag(dt_s, 12.0) * (
            0.02 * self._normal() * np.float32(3.5) - self._restless
        )
        wanted = self._cycle_kmh(0.0)
        target = np.where(wanted > 0.5, wanted * self.build.pace * (1.0 + self._restless), 0.0)
        before = self.speed_kmh
        moved = before + _lag(dt_s, 0.8) * (target - before)
        moved = np.where((target == 0.0) & (moved < 1.0), 0.0, moved)
        self.speed_kmh = np.clip(moved, 0.0, 200.0).astype(np.float32)
        self.accel_mps2 = np.clip((self.speed_kmh - before) / (3.6 * dt_s), -6.0, 6.0).astype(
            np.float32
        )

    def _demand_kw(self) -> Floats:
        """Power at the wheels: inertia, air, rolling. Negative while braking."""
        speed_mps = self.speed_kmh / 3.6
        air_n = 0.5 * _AIR_KG_M3 * 0.66 * speed_mps**2
        rolling_n = 0.011 * _G_MPS2 * self.build.mass_kg
        force_n = air_n + np.where(speed_mps > 0.1, rolling_n, 0.0)
        force_n = force_n + self.build.mass_kg * 1.05 * self.accel_mps2
        return np.asarray(force_n * speed_mps / 1_000.0, np.float32)

    # --- the drive train ---

    def _start_and_stop(self, dt_s: float, demand_kw: Floats) -> None:
        """A warm engine stops at halts, as the recorded diesel did at 281 of them."""
        halted = (self.speed_kmh < 0.5) & (demand_kw < 0.5)
        self.halted_s = np.where(halted, self.halted_s + dt_s, 0.0).astype(np.float32)
        stops = (
            (self.halted_s > _START_STOP_AFTER_S)
            & (self.coolant_c > _ENGINE_ON_COOLANT_C)
            & (self.charge_pct > 40.0)
            & (self.halted_s < 150.0)
        )
        self.engine_on = ~stops

    def _share_power(self, dt_s: float, demand_kw: Floats) -> None:
        """The motor brakes, helps the engine, and steers the charge back to 58 %."""
        surplus = (self.charge_pct - 58.0) / 20.0
        # The motor fills in where the engine turns slowly and would have to labour.
        slow = np.clip(1.0 - self.rpm / 2_600.0, 0.0, 0.7)
        assist = np.clip((0.10 + 0.8 * slow) * demand_kw * (1.0 + surplus), 0.0, 18.0)
        regen = np.clip(0.55 * demand_kw, -22.0, 0.0)
        hold = np.where(self.engine_on & (demand_kw > 2.0), np.clip(surplus * 3.0, -4.0, 4.0), 0.0)
        target = np.where(demand_kw >= 0.0, assist + hold, regen)
        self.motor_kw = (self.motor_kw + _lag(dt_s, 0.4) * (target - self.motor_kw)).astype(
            np.float32
        )

    def _rpm_target(self, speed_kmh: Floats, pedal_pct: Floats) -> Floats:
        """Engine speed by gear; a pressed pedal holds the gear longer."""
        held = speed_kmh / np.exp(1.1 * pedal_pct / 100.0 + self._gear_mood)
        gear = np.searchsorted(_SHIFT_KMH, held)
        geared = _GEAR_RPM_PER_KMH[gear] * self.build.gear_factor * speed_kmh
        return np.asarray(np.maximum(geared, self.build.idle_rpm), np.float32)

    def _run_engine(self, dt_s: float, demand_kw: Floats) -> None:
        on = self.engine_on
        self._gear_mood = _wander(self._gear_mood, dt_s, 25.0, 0.12, self._normal())
        pull_kw = np.maximum(demand_kw - np.maximum(self.motor_kw, 0.0), 0.0)
        wanted_pct = np.clip(100.0 * pull_kw / 62.0, 0.0, 100.0)
        self.pedal_pct = (self.pedal_pct + _lag(dt_s, 0.5) * (wanted_pct - self.pedal_pct)).astype(
            np.float32
        )
        cold = np.clip((60.0 - self.coolant_c) / 60.0, 0.0, 1.0)
        rpm = self._rpm_target(self.speed_kmh, self.pedal_pct)
        rpm = np.where(self.speed_kmh < 3.0, rpm + 260.0 * cold, rpm)
        # In town the hybrid parts engine and wheels while it brakes.
        declutched = (self.speed_kmh < 50.0) & (demand_kw < -0.5)
        rpm = np.where(declutched, self.build.idle_rpm, rpm)
        rpm = rpm * (1.0 + 0.025 * self._normal())
        rpm = np.where(on, rpm, 0.0)
        self.rpm = np.clip(self.rpm + _lag(dt_s, 0.7) * (rpm - self.rpm), 0.0, 6_500.0).astype(
            np.float32
        )
        self.rpm[~on & (self.rpm < 250.0)] = 0.0
        running = np.maximum(self.rpm, 600.0)
        torque_nm = (pull_kw + 1.6 + 1.4 * cold) * 9_549.0 / running
        load = 13.0 + 87.0 * torque_nm / self.build.torque_max_nm
        # Overrun: the injection is cut, the throttle closed.
        load = np.where((demand_kw < -1.0) & (self.rpm > 1_300.0), 11.0, load)
        load = np.where(on, np.clip(load * (1.0 + 0.03 * self._normal()), 8.0, 100.0), 0.0)
        self.load_pct = (self.load_pct + _lag(dt_s, 0.5) * (load - self.load_pct)).astype(
            np.float32
        )
        self._fill_manifold(dt_s)

    def _fill_manifold(self, dt_s: float) -> None:
        pressure = 20.0 + 0.79 * self.load_pct + 3.0 * self._normal()
        pressure = pressure + self._boost_kpa()
        pressure = np.where(self.rpm > 250.0, np.clip(pressure, 16.0, 190.0), _ATMOSPHERE_KPA)
        self.map_kpa = (self.map_kpa + _lag(dt_s, 0.4) * (pressure - self.map_kpa)).astype(
            np.float32
        )

    def _boost_kpa(self) -> Floats:
        """A small turbocharger: pressure where much exhaust flows, by load and engine speed."""
        spun = np.clip((self.rpm - 1_300.0) / 2_200.0, 0.0, 1.4)
        return np.asarray(np.clip(self.load_pct - 22.0, 0.0, 100.0) * spun, np.float32)

    def _opening(self) -> Floats:
        """Throttle opening in percent of its travel: more at high engine speed for one load."""
        share = np.clip(self.load_pct - 10.0, 0.0, 90.0) / 90.0
        return np.asarray(100.0 * share**1.25 * (0.45 + self.rpm / 8_000.0), np.float32)

    def _air_flow(self) -> Floats:
        kelvin = self.intake_c + _KELVIN
        flow = self.build.volumetric_k * self.map_kpa * self.rpm / kelvin
        return np.asarray(flow * (1.0 + 0.025 * self._normal()) + 0.25, np.float32)

    # --- temperatures ---

    def _heat(self, dt_s: float) -> None:
        self._heat_coolant(dt_s)
        breeze = np.exp(-self.speed_kmh / 35.0)
        engine_heat = np.clip((self.coolant_c - self.build.ambient_c) / 80.0, 0.0, 1.0)
        intake = self.build.ambient_c + 6.0 + 22.0 * breeze * engine_heat
        # Nothing flows past the sensor of a stopped engine: it warms with the metal around it.
        intake = np.where(self.engine_on, intake, self.build.ambient_c + 62.0 * engine_heat)
        tau_s = np.where(self.engine_on, 45.0, 90.0).astype(np.float32)
        self.intake_c = (self.intake_c + _lag(dt_s, tau_s) * (intake - self.intake_c)).astype(
            np.float32
        )
        tire_c = self.build.ambient_c + 0.22 * self.speed_kmh
        self.tire_c = (self.tire_c + _lag(dt_s, 600.0) * (tire_c - self.tire_c)).astype(np.float32)

    def _heat_coolant(self, dt_s: float) -> None:
        """Warm up with the engine's heat, then wander in the thermostat's band."""
        self._coolant_wander += _lag(dt_s, 90.0) * (
            1.2 * 3.0 * self._normal() - self._coolant_wander
        )
        self._coolant_wander = np.clip(self._coolant_wander, -4.0, 3.5)
        target = self.build.coolant_set_c + self._coolant_wander
        effort = np.where(self.engine_on, 0.75 + self.load_pct / 120.0, 0.0)
        rising = self.coolant_c < target
        # Without the engine a warm block cools slowly towards the air.
        target = np.where(self.engine_on, target, np.minimum(self.coolant_c, target) - 1.0)
        tau_s = np.where(rising, self.build.warm_up_tau_s / np.maximum(effort, 0.3), 40.0)
        self.coolant_c = (
            self.coolant_c + _lag(dt_s, tau_s.astype(np.float32)) * (target - self.coolant_c)
        ).astype(np.float32)

    # --- electricity ---

    def _electrify(self, dt_s: float) -> None:
        cold = np.clip((80.0 - self.coolant_c) / 80.0, 0.0, 1.0)
        volts = np.where(self.engine_on, self.build.charging_v + 0.22 * cold, 12.4)
        volts = volts + 0.07 * self._normal()
        self.volts = np.clip(
            self.volts + _lag(dt_s, 0.6) * (volts - self.volts), 12.0, 14.14
        ).astype(np.float32)
        taken_kw = self.motor_kw + 0.35  # and what the car itself uses
        losses = np.where(taken_kw > 0.0, 1.0 / 0.92, 0.92)
        self.current_a = (-1_000.0 * taken_kw * losses / self._open_circuit_v()).astype(np.float32)
        self.charge_pct = np.clip(
            self.charge_pct + self.current_a * (dt_s / 36.0 / _BATTERY_AH), 20.0, 90.0
        ).astype(np.float32)

    def _open_circuit_v(self) -> Floats:
        return np.asarray(self.build.cells_v + 0.35 * (self.charge_pct - 50.0), np.float32)

    def _traction_v(self) -> Floats:
        sag = 0.16 * self.current_a + 0.15 * self._normal()
        return np.asarray(self._open_circuit_v() + sag, np.float32)

    # --- wheels and metal ---

    def _tires_kpa(self) -> Floats:
        """Gay-Lussac on the absolute pressure."""
        ratio = ((self.tire_c + _KELVIN) / (20.0 + _KELVIN))[:, None]
        absolute = (self.build.tire_cold_kpa + 101.3) * ratio
        return np.asarray(absolute - 101.3 + 0.3 * self._normal(4), np.float32)

    def _wheels_mps2(self) -> Floats:
        road = (0.02 + 0.012 * self.speed_kmh)[:, None] * self._normal(4)
        return np.asarray(self.accel_mps2[:, None] + road, np.float32)

    def _vibration(self) -> Floats:
        shaking = 0.25 + 0.0011 * self.rpm * (0.8 + self.load_pct / 250.0)
        amplitude = np.where(self.rpm > 250.0, shaking * self.build.vibration_gain, 0.03)
        return np.asarray(np.abs(amplitude * (1.0 + 0.06 * self._normal())), np.float32)
