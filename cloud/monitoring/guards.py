"""Limits beyond which an arm is rolled back, looked at again and again. Pure.

A guard trips where a figure is over its limit by more than chance explains: where counts are few
the probability of so many, were the arm just at its limit, must be below `LEVEL`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from scoring.sketch import TIME_BINS, Counts, added
from scoring.stats import ArmWindow
from scoring.storm_guard import LEVEL, Trip, is_storm
from scoring.traffic import Guards

POLLS_MIN = 100
"""Fewer polls of an arm or of the champion say nothing of the 99th percentile of their time."""

LATENCY_FLOOR_S = 0.02
"""An arm faster than this is no trouble, however fast the champion is."""

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Exposure:
    """What an arm did in a stretch of time.

    Attributes:
        readings: Readings scored.
        unscored: Of these, without a score.
        openings: Alerts that it opened, those held back among them.
        vehicle_hours: Vehicles times the time for which they were seen.
        compute: Polls by the time that they took, bins of `TIME_BINS`.
    """

    readings: int = 0
    unscored: int = 0
    openings: int = 0
    vehicle_hours: float = 0.0
    compute: Counts = field(default_factory=lambda: np.zeros(len(TIME_BINS), np.int64))

    @staticmethod
    def of(window: ArmWindow) -> "Exposure":
        """What a record of `model.stats` says."""
        counts = window.counts
        return Exposure(
            readings=counts.readings,
            unscored=counts.unscored,
            openings=counts.alerts_opened + counts.alerts_held,
            vehicle_hours=counts.vehicles * (window.end_ms - window.start_ms) / MS_PER_HOUR,
            compute=counts.compute,
        )

    def plus(self, more: "Exposure") -> "Exposure":
        """Both."""
        return Exposure(
            self.readings + more.readings,
            self.unscored + more.unscored,
            self.openings + more.openings,
            self.vehicle_hours + more.vehicle_hours,
            added(self.compute, more.compute),
        )

    @property
    def unscored_share(self) -> float:
        """Share of the readings that have no score."""
        return self.unscored / self.readings if self.readings else 0.0

    @property
    def alerts_per_vehicle_hour(self) -> float:
        """Rate of openings; NaN where nothing was driven."""
        return self.openings / self.vehicle_hours if self.vehicle_hours else math.nan

    @property
    def compute_p99_s(self) -> float:
        """99th percentile of the time that a poll took; NaN of none."""
        return TIME_BINS.quantile(self.compute, 0.99)


@dataclass(frozen=True, slots=True)
class Tripped:
    """A guard that tripped.

    Attributes:
        guard: Name of the limit, as in `scoring.traffic.Guards`.
        detail: Why, as a part of a sentence.
        value: The figure.
        limit: What it may be.
    """

    guard: str
    detail: str
    value: float
    limit: float


def tripped(guards: Guards, arm: Exposure, champion: Exposure) -> list[Tripped]:
    """The guards that an arm trips, in the order in which they are declared."""
    return [*_alerts(guards, arm, champion), *_scoring(guards, arm, champion)]


def _alerts(guards: Guards, arm: Exposure, champion: Exposure) -> Iterator[Tripped]:
    counted = Trip(1, arm.openings, arm.readings, champion.openings, champion.readings)
    if is_storm(counted, guards):
        expected = champion.openings * arm.readings / max(champion.readings, 1)
        yield Tripped(
            "alert_ratio_max",
            f"{arm.openings} alerts where the champion's rate gives {expected:.3g}",
            arm.openings / max(expected, 1.0),
            guards.alert_ratio_max,
        )
    limit = guards.alerts_per_vehicle_hour_max
    enough = arm.openings >= guards.min_alerts
    if enough and poisson_at_least(arm.openings, limit * arm.vehicle_hours) < LEVEL:
        rate = arm.alerts_per_vehicle_hour
        yield Tripped(
            "alerts_per_vehicle_hour_max", f"{rate:.3g} alerts per vehicle-hour", rate, limit
        )


def _scoring(guards: Guards, arm: Exposure, champion: Exposure) -> Iterator[Tripped]:
    if arm.readings < guards.min_readings:
        return
    beyond = arm.unscored_share - champion.unscored_share
    if beyond > guards.unscored_share_max:
        yield Tripped(
            "unscored_share_max",
            f"{100 * arm.unscored_share:.3g} % of the readings without a score",
            beyond,
            guards.unscored_share_max,
        )
    if min(arm.compute.sum(), champion.compute.sum()) < POLLS_MIN:
        return
    slow_s = arm.compute_p99_s
    ratio = slow_s / max(champion.compute_p99_s, 1e-9)
    if slow_s > LATENCY_FLOOR_S and ratio > guards.latency_ratio_max:
        yield Tripped(
            "latency_ratio_max",
            f"p99 of scoring a poll {1000 * slow_s:.3g} ms, {ratio:.3g} times the champion's",
            ratio,
            guards.latency_ratio_max,
        )


def poisson_at_least(count: int, mean: float) -> float:
    """P(X >= count) of a Poisson X; 1 where it is not in the upper tail.

    Example:
        >>> round(poisson_at_least(10, 2.8), 5)
        0.00066
    """
    if count <= mean:
        return 1.0
    if mean <= 0:
        return 0.0
    term = total = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    for k in range(count + 1, count + 1_000):
        term *= mean / k
        total += term
        if term < total * 1e-12:
            break
    return total
