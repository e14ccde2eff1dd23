"""Holds back the alerts of an arm that raises too many, before anyone has decided anything.

A canary with a bad model opens an alert for each of its vehicles within seconds; the monitor that
will roll it back has not even counted them then. So each opening of an arm is compared with the
champion's, there where it happens, by counts alone. The guard is given a whole poll, and decides
the same however the stream was cut into polls: no I/O, no clock.

Were the arm's rate of openings `alert_ratio_max` times the champion's, each opening of the two
would be the arm's with the probability p = ratio * r / (ratio * r + s), where r and s are the
readings that arm and champion have scored. The arm trips where so many of them being its own has
a probability below `LEVEL` by the binomial distribution, and there are at least `min_alerts`.

Bounded: the last one to two windows of readings are counted, as a few numbers for each lane.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.alerts import Transition
from scoring.traffic import Guards

LEVEL = 1e-3
"""Probability of tripping an arm whose rate is just the largest allowed, at one opening."""

WINDOW_READINGS = 1_000_000
"""Readings of all lanes after which what was counted grows old."""

_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class Trip:
    """An arm that raised too many alerts.

    Attributes:
        lane: Its number.
        openings: Alerts that it opened in the window, the one that tripped it among them.
        readings: That it scored in the window.
        champion_openings: The champion's.
        champion_readings: The champion's.
    """

    lane: int
    openings: int
    readings: int
    champion_openings: int
    champion_readings: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """What of a poll's transitions comes out.

    Attributes:
        transitions: Those, in order.
        held: Openings that were held back.
        trips: Arms that tripped in this poll.
    """

    transitions: list[Transition]
    held: int
    trips: tuple[Trip, ...]


class StormGuard:
    """Counts the openings of L lanes, the champion's being lane 0, and trips those of arms.

    A lane that tripped opens nothing any more. What it had opened before may close.

    Args:
        guards: `min_alerts` and `alert_ratio_max` are used.
        lanes: L.
        window_readings: After which counts grow old.
    """

    def __init__(
        self, guards: Guards, lanes: int, *, window_readings: int = WINDOW_READINGS
    ) -> None:
        self._guards = guards
        self._lanes = lanes
        self._window_readings = window_readings
        self._position = 0
        self._window = 0
        # A row is a window: that before, and the running one.
        self._readings = np.zeros((2, lanes), np.int64)
        self._openings = np.zeros((2, lanes), np.int64)
        self._tripped: set[int] = set()
        self._held: set[str] = set()

    @property
    def tripped(self) -> frozenset[int]:
        """Lanes that open nothing any more."""
        return frozenset(self._tripped)

    def admit(
        self,
        lane_of: NDArray[np.int64],
        counts: NDArray[np.int64],
        transitions: Sequence[Transition],
    ) -> Admitted:
        """Take a poll in.

        Args:
            lane_of: Lane of each message. Shape (M,).
            counts: Readings of each message. Shape (M,).
            transitions: In order of arrival.
        """
        position = self._position + np.cumsum(counts)
        windows = position // self._window_readings
        admitted = Admitted([], 0, ())
        start = waiting = 0
        for end in [*(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(counts)]:
            if end == start:
                continue
            self._turn_to(int(windows[start]))
            until = waiting
            while until < len(transitions) and transitions[until].message < end:
                until += 1
            part = slice(start, end)
            judged = self._judge(
                lane_of[part], counts[part], transitions[waiting:until], first_message=start
            )
            admitted = _joined(admitted, judged)
            start, waiting = end, until
        if len(position):
            self._position = int(position[-1])
        return admitted

    def _turn_to(self, window: int) -> None:
        """Let what was counted before grow old."""
        if window == self._window:
            return
        for counted in (self._readings, self._openings):
            counted[0] = counted[1] if window == self._window + 1 else 0
            counted[1] = 0
        self._window = window

    def _judge(
        self,
        lane_of: NDArray[np.int64],
        counts: NDArray[np.int64],
        transitions: Sequence[Transition],
        *,
        first_message: int,
    ) -> Admitted:
        """Messages of one window."""
        kept, held, trips = [], 0, []
        if transitions:
            mine = np.arange(self._lanes)[:, None] == lane_of
            scored = self._readings.sum(axis=0)[:, None] + np.cumsum(mine * counts, axis=1)
        for transition in transitions:
            at = transition.message - first_message
            lane = int(lane_of[at])
            if transition.state == "CLOSED":
                if transition.alert_id in self._held:
                    self._held.discard(transition.alert_id)
                else:
                    kept.append(transition)
                continue
            trip = self._opened(lane, scored[:, at])
            if trip is not None:
                trips.append(trip)
            if lane in self._tripped:
                self._held.add(transition.alert_id)
                held += 1
            else:
                kept.append(transition)
        self._readings[1] += np.bincount(lane_of, counts, self._lanes).astype(np.int64)
        return Admitted(kept, held, tuple(trips))

    def _opened(self, lane: int, readings: NDArray[np.int64]) -> Trip | None:
        """Count an opening; the trip that it causes, if it does."""
        self._openings[1, lane] += 1
        if lane == 0 or lane in self._tripped:
            return None
        openings = self._openings.sum(axis=0)
        trip = Trip(
            lane=lane,
            openings=int(openings[lane]),
            readings=int(readings[lane]),
            champion_openings=int(openings[0]),
            champion_readings=int(readings[0]),
        )
        if not is_storm(trip, self._guards):
            return None
        self._tripped.add(lane)
        return trip


def is_storm(counted: Trip, guards: Guards) -> bool:
    """Whether an arm opens more alerts than it may, beyond what chance explains.

    Example:
        >>> from dataclasses import replace
        >>> few = Trip(1, openings=4, readings=100, champion_openings=0, champion_readings=900)
        >>> is_storm(few, Guards()), is_storm(replace(few, openings=6), Guards())
        (False, True)
    """
    if counted.openings < guards.min_alerts:
        return False
    mine = guards.alert_ratio_max * counted.readings
    total = mine + counted.champion_readings
    share = 1.0 if total == 0 else mine / total
    return _at_least(counted.openings, counted.openings + counted.champion_openings, share) < LEVEL


def _at_least(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) of a binomial X; 1 where it is not in the upper tail.

    Reference:
        Sum of the terms n! / (k! (n-k)!) p^k (1-p)^(n-k), each from the one before.
    """
    if successes <= trials * share or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    log_term = (
        math.lgamma(trials + 1)
        - math.lgamma(successes + 1)
        - math.lgamma(trials - successes + 1)
        + successes * math.log(share)
        + (trials - successes) * math.log1p(-share)
    )
    term = total = math.exp(log_term)
    for k in range(successes, trials):
        term *= (trials - k) / (k + 1) * share / (1 - share)
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return total


def _joined(a: Admitted, b: Admitted) -> Admitted:
    return Admitted(a.transitions + b.transitions, a.held + b.held, a.trips + b.trips)
