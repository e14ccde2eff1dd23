"""Whether a model keeps to its bounds: exact tests on counts. Pure.

A gateway sees few alerts, so a rate over a bound means nothing by itself: of one alert an hour,
three in ten minutes are bad luck. A bound counts as broken when what was seen would come about by
chance in less than one case in a million, were the model just at its bound:

- alerts: Poisson, the openings in so many vehicle-hours, above the greatest rate or below the
  least; at least OPENINGS_MIN of them, so that no handful from one cold morning decides;
- pace: binomial, the batches that took longer for a reading than `reading_ms_max`, of which one in
  a hundred may;
- scores: binomial, the readings without a score though their signals are there, of which
  NAN_SHARE_MAX may.

Chance gets one case in a million at every look, and there are many looks, but nearly all of them
at rates well within the bounds, where it has next to none.

Trouble may begin at once or after months, so alerts are counted over stretches of several lengths
side by side, from a few minutes to weeks of driving; each forgets what is older than twice its
length. All in all some dozen numbers.
"""

import math
from dataclasses import dataclass, field

from schemas.errors import Reason
from scoring.bounds import Bounds

CHANCE = 1e-6
OPENINGS_MIN = 5
SLOW_SHARE = 0.01
NAN_SHARE_MAX = 0.05
STRETCHES_VEHICLE_H = tuple(0.25 * 4**step for step in range(8))
"""A quarter of an hour to 170 days of driving, of all vehicles together."""

BATCHES_MAX = 2_000
READINGS_MAX = 20_000
_NEGLIGIBLE = 1e-16


@dataclass(frozen=True, slots=True)
class Breach:
    """Why a model must go.

    Attributes:
        reason: MODEL_BOUNDS, or what it failed with.
        detail: In a sentence, with the figures.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch of readings came to.

    Attributes:
        readings: Scored, >= 1.
        judged: Of these, with signals enough for a score.
        missing: Of the judged, without one.
        openings: Alerts that opened.
        vehicle_s: Driven, of all vehicles together.
        spent_ms: Processor time.
    """

    readings: int
    judged: int
    missing: int
    openings: int
    vehicle_s: float
    spent_ms: float


@dataclass(slots=True)
class _Stretch:
    """Counts over the last `length` to twice as much, in whatever is counted off."""

    length: float
    now: tuple[float, int] = (0.0, 0)
    before: tuple[float, int] = (0.0, 0)

    def add(self, extent: float, count: int) -> None:
        self.now = (self.now[0] + extent, self.now[1] + count)
        if self.now[0] >= self.length:
            self.before, self.now = self.now, (0.0, 0)

    @property
    def total(self) -> tuple[float, int]:
        return self.now[0] + self.before[0], self.now[1] + self.before[1]


@dataclass(slots=True)
class Probation:
    """Follows one model from its first batch to its last.

    Attributes:
        bounds: Of its manifest.
    """

    bounds: Bounds
    _alerts: list[_Stretch] = field(
        default_factory=lambda: [_Stretch(length) for length in STRETCHES_VEHICLE_H]
    )
    _pace: _Stretch = field(default_factory=lambda: _Stretch(BATCHES_MAX))
    _scores: _Stretch = field(default_factory=lambda: _Stretch(READINGS_MAX))

    def take(self, batch: Batch) -> Breach | None:
        """Count a batch in; why the model must go, if it must."""
        for stretch in self._alerts:
            stretch.add(batch.vehicle_s / 3_600, batch.openings)
        most_ms = self.bounds.reading_ms_max
        slow = most_ms is not None and batch.spent_ms > most_ms * batch.readings
        self._pace.add(1, int(slow))
        self._scores.add(batch.judged, batch.missing)
        return self._no_scores(batch) or self._slow(batch) or self._alerting(batch)

    def _no_scores(self, batch: Batch) -> Breach | None:
        judged, missing = self._scores.total
        if not batch.missing or not _is_more(missing, int(judged), NAN_SHARE_MAX):
            return None
        return _breach(
            f"no score (NaN) for {missing} of {int(judged)} readings that have the signals for one"
        )

    def _slow(self, batch: Batch) -> Breach | None:
        batches, slow = self._pace.total
        if not slow or not _is_more(slow, int(batches), SLOW_SHARE):
            return None
        return _breach(
            f"{slow} of {int(batches)} batches took over {self.bounds.reading_ms_max:g} ms a "
            f"reading, the last one {batch.spent_ms / batch.readings:.3g} ms"
        )

    def _alerting(self, batch: Batch) -> Breach | None:
        most, least = (
            self.bounds.alerts_per_vehicle_hour_max,
            self.bounds.alerts_per_vehicle_hour_min,
        )
        for stretch in self._alerts:
            hours, openings = stretch.total
            seen = f"{openings} alerts in {hours:.3g} vehicle-hours"
            if most is not None and batch.openings and _is_storm(openings, hours * most):
                return _breach(f"{seen}; its bounds allow {most:g} an hour")
            if least is not None and poisson_at_most(openings, hours * least) < CHANCE:
                return _breach(f"{seen}; its bounds want {least:g} an hour at least")
        return None


def _breach(detail: str) -> Breach:
    return Breach(Reason.MODEL_BOUNDS, detail)


def _is_storm(openings: int, expected: float) -> bool:
    return openings >= OPENINGS_MIN and poisson_at_least(openings, expected) < CHANCE


def _is_more(count: int, of: int, share: float) -> bool:
    return binomial_at_least(count, of, share) < CHANCE


def poisson_at_least(count: int, expected: float) -> float:
    """Probability of `count` or more events where `expected` are; 1 where that is no surprise.

    Args:
        count: >= 0.
        expected: >= 0.

    Example:
        >>> round(poisson_at_least(2, 0.1), 9), poisson_at_least(1, 2.0)
        (0.00467884, 1.0)
    """
    if count <= expected:
        return 1.0
    if not expected:
        return 0.0
    term = math.exp(count * math.log(expected) - expected - math.lgamma(count + 1))
    total, number = 0.0, count
    while term > total * _NEGLIGIBLE:
        total += term
        number += 1
        term *= expected / number
    return total


def poisson_at_most(count: int, expected: float) -> float:
    """Probability of `count` or fewer events where `expected` are; 1 where that is no surprise.

    Example:
        >>> round(poisson_at_most(0, 3.0), 6), poisson_at_most(3, 3.0)
        (0.049787, 1.0)
    """
    if count >= expected:
        return 1.0
    term = math.exp(count * math.log(expected) - expected - math.lgamma(count + 1))
    total, number = 0.0, count
    while number >= 0 and term > total * _NEGLIGIBLE:
        total += term
        term *= number / expected
        number -= 1
    return total


def binomial_at_least(count: int, of: int, share: float) -> float:
    """Probability of `count` or more in `of` tries at `share` each; 1 where that is no surprise.

    Example:
        >>> round(binomial_at_least(3, 3, 0.01), 12), binomial_at_least(1, 200, 0.01)
        (1e-06, 1.0)
    """
    if count <= of * share:
        return 1.0
    term = math.exp(
        math.lgamma(of + 1)
        - math.lgamma(count + 1)
        - math.lgamma(of - count + 1)
        + count * math.log(share)
        + (of - count) * math.log1p(-share)
    )
    total, number = 0.0, count
    while number <= of and term > total * _NEGLIGIBLE:
        total += term
        term *= (of - number) / (number + 1) * share / (1 - share)
        number += 1
    return total
