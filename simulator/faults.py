"""A catalogue of labelled faults, as array transforms of measured values. No clock, no I/O.

A fault changes what is measured, not how the vehicle drives: a fault injected into a recorded
drive and into a simulated one is the same transform. It begins at once or as a ramp, stays, and
leaves every value inside the schema's range.

A fault shows only where its signals are measured; `draw_injections` heeds that.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError
from schemas.signals import SIGNAL_BY_NAME

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class Patch:
    """The readings of n faulty vehicles, one fault, one moment.

    Attributes:
        values: What the sound sensors show; the transform returns what the faulty ones do.
            Shape (n, k), the signals of the fault in its order.
        at_onset: The same at the fault's first reading. Shape (n, k).
        growth: How far the fault has come, 0..severity. Shape (n, 1).
        noise: Standard normal. Shape (n, k).
    """

    values: Floats
    at_onset: Floats
    growth: Floats
    noise: Floats


Transform = Callable[[Patch], Floats]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One entry of the catalogue.

    Attributes:
        code: The label.
        signals: Signals it changes; empty: all.
        onset_s: Seconds from its beginning to full size; 0: at once.
        transform: What it does.
        doc: One line for people.
    """

    code: str
    signals: tuple[str, ...]
    onset_s: float
    transform: Transform
    doc: str

    @property
    def signal(self) -> str | None:
        """Where it shows first; None: everywhere."""
        return self.signals[0] if self.signals else None


def _stuck(p: Patch) -> Floats:
    return p.at_onset


def _offset(amount: float) -> Transform:
    return lambda p: p.values + amount * p.growth


def _scaled(share: float) -> Transform:
    """Falls by `share` at full size."""
    return lambda p: p.values * (1.0 - share * p.growth)


def _noisy(sigma: float) -> Transform:
    return lambda p: p.values + sigma * p.growth * p.noise


def _toward(level: float) -> Transform:
    """Falls to `level` at full size, and does not rise."""

    def fall(p: Patch) -> Floats:
        fallen = p.values + (level - p.values) * np.minimum(p.growth, 1.0)
        return np.asarray(np.minimum(p.values, fallen), np.float32)

    return fall


def _leaking_manifold(p: Patch) -> Floats:
    """False air: the pressure rises most where the throttle holds it low."""
    room = np.clip(100.0 - p.values, 0.0, None)
    return np.asarray(p.values + 0.55 * np.minimum(p.growth, 1.6) * room, np.float32)


def _weak_cell(p: Patch) -> Floats:
    """A cell drops out, and the string's resistance rises: columns voltage, current."""
    voltage, current = p.values[:, :1], p.values[:, 1:]
    sagging = voltage - p.growth * (14.0 + 0.35 * np.abs(current))
    return np.concatenate([sagging, current], axis=1)


def _failing_bearing(p: Patch) -> Floats:
    louder = p.values * (1.0 + 1.6 * p.growth)
    return np.asarray(louder + 0.5 * p.growth * np.abs(p.noise), np.float32)


CATALOGUE: tuple[FaultKind, ...] = (
    FaultKind("coolant_stuck", ("coolant_temperature",), 0.0, _stuck, "sensor keeps its value"),
    FaultKind("coolant_offset", ("coolant_temperature",), 20.0, _offset(25.0), "reads 25 C high"),
    FaultKind(
        "thermostat_open", ("coolant_temperature",), 90.0, _toward(58.0), "cools down to 58 C"
    ),
    FaultKind("maf_low", ("maf",), 0.0, _scaled(0.45), "dirty sensor reads 45 % low"),
    FaultKind("manifold_leak", ("map",), 0.0, _leaking_manifold, "false air behind the throttle"),
    FaultKind(
        "battery_cell",
        ("traction_battery_voltage", "traction_battery_current"),
        10.0,
        _weak_cell,
        "a cell of the traction battery drops",
    ),
    FaultKind(
        "current_offset", ("traction_battery_current",), 0.0, _offset(60.0), "reads 60 A too much"
    ),
    FaultKind("alternator", ("low_voltage",), 30.0, _toward(11.4), "12 V is no longer charged"),
    FaultKind("tire_leak", ("tire_pressure_row1_left",), 60.0, _scaled(0.40), "a tyre loses 40 %"),
    FaultKind(
        "bearing_wear", ("engine_vibration",), 15.0, _failing_bearing, "shakes almost three-fold"
    ),
    FaultKind("engine_speed_noise", ("engine_speed",), 0.0, _noisy(450.0), "450 rpm of noise"),
    FaultKind("throttle_stuck", ("tps",), 0.0, _stuck, "position sensor keeps its value"),
    FaultKind("frozen_feed", (), 0.0, _stuck, "every signal keeps its value"),
)
"""Codes are labels and never change."""

FAULTS: dict[str, FaultKind] = {kind.code: kind for kind in CATALOGUE}

_SEVERITY = (0.8, 1.3)


def chosen(codes: str) -> tuple[FaultKind, ...]:
    """The faults named in a comma-separated list; empty: all.

    Raises:
        SettingsError: An unknown code.
    """
    names = [code.strip() for code in codes.split(",") if code.strip()]
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise SettingsError(
            f"simulator fault_codes: there is no {', '.join(unknown)}; "
            f"there are {', '.join(FAULTS)}"
        )
    return tuple(FAULTS[name] for name in names) or CATALOGUE


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault in one vehicle. `severity` 1 is the size that the catalogue states."""

    vehicle: int
    kind: FaultKind
    severity: float


def draw_injections(
    measured: Sequence[Collection[str]],
    share: float,
    rng: np.random.Generator,
    kinds: Sequence[FaultKind] = CATALOGUE,
) -> list[Injection]:
    """Draw which vehicles get which fault.

    Args:
        measured: Signals of each vehicle in which a fault may begin; empty: in none of it.
            V of them.
        share: Share of all V, rounded, at least one vehicle where it is above 0.
        rng: Draws vehicles, faults and severities.
        kinds: What to draw from; each that fits comes before any comes again.

    Returns:
        One injection a vehicle at most, in order of vehicles; fewer than asked for where too few
        vehicles measure what a fault needs.
    """
    count = max(1, round(share * len(measured))) if share > 0 else 0
    order = [kinds[place] for place in rng.permutation(len(kinds))]
    drawn: list[Injection] = []
    for vehicle in rng.permutation(len(measured)).tolist():
        if len(drawn) >= count:
            break
        kind = _first_that_fits(order, measured[vehicle])
        if kind is not None:
            order.remove(kind)
            order.append(kind)
            drawn.append(Injection(vehicle, kind, float(rng.uniform(*_SEVERITY))))
    return sorted(drawn, key=lambda injection: injection.vehicle)


def _first_that_fits(order: Sequence[FaultKind], measured: Collection[str]) -> FaultKind | None:
    present = frozenset(measured)
    return next((kind for kind in order if present and present.issuperset(kind.signals)), None)


class Injector:
    """Applies faults to what V vehicles measure, moment by moment.

    Args:
        vehicles: V.
        signals: Columns of the values, in order.
        rng: Noise of noisy faults.
    """

    def __init__(self, vehicles: int, signals: Sequence[str], rng: np.random.Generator) -> None:
        self._vehicles = vehicles
        self._signals = tuple(signals)
        self._rng = rng
        self._groups: list[_Group] = []

    def start(self, injections: Sequence[Injection], time_s: float) -> None:
        """Let faults begin with the first readings at or after `time_s`; they stay.

        Raises:
            SettingsError: A vehicle or signal that there is not.
        """
        for kind in dict.fromkeys(injection.kind for injection in injections):
            same = [injection for injection in injections if injection.kind is kind]
            if not all(0 <= injection.vehicle < self._vehicles for injection in same):
                raise SettingsError(f"{kind.code}: no such vehicle among {self._vehicles}")
            if missing := [name for name in kind.signals if name not in self._signals]:
                raise SettingsError(f"{kind.code}: {', '.join(missing)} is not measured")
            self._groups.append(_Group.of(kind, same, self._signals, time_s))

    def apply(self, values: Floats, vehicles: Ints, time_s: Floats) -> None:
        """Change, in place, one reading each of some vehicles.

        Args:
            values: NaN is absent, and stays so. Shape (m, S).
            vehicles: Which vehicle each row is of, each once. Shape (m,).
            time_s: When each was measured, on the axis of `start`. Shape (m,).
        """
        for group in self._groups:
            _, rows, members = np.intersect1d(
                vehicles, group.vehicles, assume_unique=True, return_indices=True
            )
            begun = time_s[rows] >= np.float32(group.start_s)
            if begun.any():
                rows, members = rows[begun], members[begun]
                cells = np.ix_(rows, group.columns)
                noise = self._rng.standard_normal((rows.size, group.columns.size), np.float32)
                values[cells] = group.faulty(values[cells], members, time_s[rows], noise)


@dataclass(slots=True)
class _Group:
    """The vehicles in which one fault began at one moment.

    `at_onset` has their first faulty reading, NaN until there is one.
    """

    kind: FaultKind
    start_s: float
    vehicles: Ints
    columns: Ints
    severity: Floats
    low: Floats
    high: Floats
    quantum: Floats
    at_onset: Floats

    @staticmethod
    def of(
        kind: FaultKind, injections: Sequence[Injection], signals: Sequence[str], start_s: float
    ) -> "_Group":
        names = kind.signals or tuple(signals)
        known = [SIGNAL_BY_NAME[name] for name in names]
        return _Group(
            kind=kind,
            start_s=start_s,
            vehicles=np.array([injection.vehicle for injection in injections], np.int64),
            columns=np.array([signals.index(name) for name in names], np.int64),
            severity=np.array([[injection.severity] for injection in injections], np.float32),
            low=np.array([signal.minimum for signal in known], np.float32),
            high=np.array([signal.maximum for signal in known], np.float32),
            quantum=np.array([signal.quantum for signal in known], np.float32),
            at_onset=np.full((len(injections), len(names)), np.nan, np.float32),
        )

    def faulty(self, sound: Floats, members: Ints, time_s: Floats, noise: Floats) -> Floats:
        """What the faulty sensors show: quantised, inside the schema's ranges."""
        before = self.at_onset[members]
        self.at_onset[members] = np.where(np.isnan(before), sound, before)
        patch = Patch(
            values=sound,
            at_onset=self.at_onset[members],
            growth=np.asarray(self._grown(time_s) * self.severity[members], np.float32),
            noise=noise,
        )
        steps = np.rint(self.kind.transform(patch) / self.quantum) * self.quantum
        shown = np.where(np.isnan(sound), np.nan, np.clip(steps, self.low, self.high))
        return shown.astype(np.float32)

    def _grown(self, time_s: Floats) -> Floats:
        elapsed_s = np.asarray(time_s - self.start_s, np.float32)[:, None]
        if not self.kind.onset_s:
            return np.ones_like(elapsed_s)
        return np.clip(elapsed_s / np.float32(self.kind.onset_s), 0.0, 1.0)
