"""What a gateway does with its spool in a bad year, drawn at random: a course of steps.

Vehicles send batches in order, late, again and again, skip some and give some up; bad ones become
dead letters; alerts open and close; the forwarder moves on, retention trims. The disk refuses now
and then, for one operation or for several, and what was refused is tried again, at once or after
something else. The program ends well, or is killed in the middle of an operation, and begins anew.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from disk_faults import FaultPlan, KilledError
from spool_driver import SpoolDriver

from edge.identity import Verdict
from edge.marks import Mark
from edge.rows import AlertState, Kind, Lane, Priority, Telemetry
from edge.spool import SpoolError

VEHICLES = ("car-a", "car-b", "car-c", "car-d")
CODES = ("anomaly", "other")
TRIES_MAX = 40


@dataclass
class Vehicle:
    """A vehicle's counters, as it knows them."""

    name: str
    boot: int = 1
    seq: int = 0
    skipped: list[tuple[int, int]] = field(default_factory=list)


class SpoolCourse:
    """Takes random steps with a spool.

    Args:
        driver: The spool, open.
        rng: Decides everything, but for `plan`.
        plan: The disk's mood.
    """

    def __init__(
        self, driver: SpoolDriver, rng: random.Random, plan: FaultPlan | None = None
    ) -> None:
        self._driver = driver
        self._rng = rng
        self._plan = FaultPlan() if plan is None else plan
        self._vehicles = [Vehicle(name) for name in VEHICLES]
        self._number = rng.getrandbits(40)
        self._kills = 0.0
        self._resume()
        self._driver.files.faults = self._plan
        self._steps: list[tuple[Callable[[], bool], int]] = [
            (self._store, 40),
            (self._score, 14),
            (self._publish, 4),
            (self._refuse_release, 3),
            (self._forward, 10),
            (self._trim, 8),
            (self._tend, 6),
            (self._end_and_begin, 3),
        ]

    def _resume(self) -> None:
        """Vehicles go on where they were."""
        top: dict[str, tuple[int, int]] = {}
        for name, boot, seq in self._driver.promise.settled:
            top[name] = max(top.get(name, (1, 0)), (boot, seq))
        for vehicle in self._vehicles:
            vehicle.boot, vehicle.seq = top.get(vehicle.name, (1, 0))

    def run(self, steps: int, *, faults: float, kills: float) -> None:
        """Take so many steps, some of them on a disk that refuses or in a program that is killed.

        Raises:
            BrokenPromiseError: The spool does not hold what it said it would.
        """
        self._kills = kills
        for _ in range(steps):
            [step] = self._rng.choices(*zip(*self._steps, strict=True))
            kill = self._rng.random() < kills
            if kill or self._rng.random() < faults:
                self._plan.draw(self._rng, kill=kill)
            self._survive(step)
            self._plan.heal()

    def _survive(self, step: Callable[[], bool]) -> None:
        try:
            step()
        except KilledError:
            self._begin()

    def _begin(self) -> None:
        """A program begins on what the one before has left; it may be killed in that, too."""
        for _ in range(TRIES_MAX):
            if self._kills and self._rng.random() < 0.3:
                self._plan.draw(self._rng, kill=True)
            else:
                self._plan.heal()
            try:
                self._driver.open(self._plan)
            except (KilledError, SpoolError):
                continue
            return
        raise AssertionError("never began")

    def _insist(self, call: Callable[[], bool]) -> bool:
        """Until the disk takes it, as the gateway does; others may have their turn meanwhile."""
        for tries in range(TRIES_MAX):
            if call():
                return True
            if tries >= TRIES_MAX // 2:
                self._relieve()
            if self._rng.random() < 0.3:
                self._bystander()
            if self._rng.random() < 0.2:
                self._plan.heal()
        raise AssertionError("refused for ever")

    def _relieve(self) -> None:
        """The disk is well, and Kafka takes what the spool may never let go of."""
        self._plan.heal()
        lane = Lane.PRIORITY
        self._driver.note(Mark.forwarded(lane), self._driver.spool.last(lane))
        self._driver.tend(snapshot=True)
        self._driver.trim(lane, self._driver.spool.last(lane))

    def _bystander(self) -> None:
        """Another thread's call while one is being tried again; itself it is not."""
        self._driver.store_priority((self._label(),), {})

    # -- steps

    def _store(self) -> bool:
        rows: list[Telemetry] = []
        letters: list[Priority] = []
        dead: set[tuple[str, int, int]] = set()
        for _ in range(self._rng.choice((1, 1, 2, 3, 5, 9))):
            row = self._batch(self._rng.choice(self._vehicles))
            verdict = self._driver.admit(row)
            if verdict is Verdict.NEW and self._rng.random() < 0.06:
                dead.add(row[:3])
                letters.append(self._priority(Kind.DEAD_LETTER, row.vehicle_id))
            elif verdict is Verdict.NEW:
                rows.append(row)
        letters += [self._label() for _ in range(self._rng.choice((0, 0, 0, 1, 2)))]
        if not rows and not letters:
            return True
        return self._insist(
            lambda: self._driver.store(tuple(rows), tuple(letters), frozenset(dead))
        )

    def _score(self) -> bool:
        scored = self._driver.promise.marks[Mark.SCORED]
        last = self._driver.spool.last(Lane.TELEMETRY)
        scored = self._rng.randint(min(scored, last), max(scored, last))
        keys = self._rng.sample(
            [(name, code) for name in VEHICLES for code in CODES], self._rng.choice((0, 1, 1, 2, 3))
        )
        states = tuple(
            AlertState(name, code, self._rng.choice(("OPEN", "CLOSED")), scored, self._payload())
            for name, code in keys
        )
        alerts = tuple(self._priority(Kind.ALERT, state.vehicle_id) for state in states)
        return self._insist(lambda: self._driver.store_alerts(alerts, states, scored))

    def _publish(self) -> bool:
        states = tuple(
            state
            for state in self._driver.promise.alerts.values()
            if state not in self._driver.promise.published and self._rng.random() < 0.7
        )
        return not states or self._insist(lambda: self._driver.alerts_published(states))

    def _refuse_release(self) -> bool:
        marks = {
            mark: self._driver.promise.marks[mark] + 1
            for mark in (Mark.RELEASE_REFUSED, Mark.TRAFFIC_REFUSED)
            if self._rng.random() < 0.6
        }
        letters = (self._priority(Kind.DEAD_LETTER, None),)
        return self._insist(lambda: self._driver.store_priority(letters, marks))

    def _forward(self) -> bool:
        for lane in Lane:
            mark = Mark.forwarded(lane)
            known = self._driver.spool.marks[mark]
            ahead = max(self._driver.spool.last(lane), known)
            self._driver.note(mark, self._rng.randint(known, ahead))
        self._driver.note(
            Mark.POSITIONS_OFFSET, self._driver.spool.marks[Mark.POSITIONS_OFFSET] + 1
        )
        if self._rng.random() < 0.5:
            identities = self._rng.random() < 0.3
            return self._insist(lambda: self._driver.save(identities=identities))
        return True

    def _trim(self) -> bool:
        lane = self._rng.choice(tuple(Lane))
        through = self._rng.randint(0, self._driver.spool.last(lane))
        return self._insist(lambda: self._driver.trim(lane, through))

    def _tend(self) -> bool:
        snapshot = self._rng.random() < 0.5
        return self._insist(lambda: self._driver.tend(snapshot=snapshot))

    def _end_and_begin(self) -> bool:
        self._insist(lambda: self._driver.save(identities=True))
        self._driver.close()
        self._begin()
        return True

    # -- rows

    def _batch(self, vehicle: Vehicle) -> Telemetry:
        """A vehicle's next batch, or one that it sends late or again."""
        draw = self._rng.random()
        boot, seq = vehicle.boot, vehicle.seq + 1
        oldest = 1
        if draw < 0.12 and vehicle.seq:
            seq = self._rng.randint(1, vehicle.seq)
        elif draw < 0.2 and vehicle.skipped:
            boot, seq = vehicle.skipped.pop(self._rng.randrange(len(vehicle.skipped)))
        elif draw < 0.28:
            vehicle.skipped.append((boot, seq))
            seq += 1
        elif draw < 0.31:
            oldest = max(1, seq - self._rng.randint(0, 3))
        elif draw < 0.34:
            boot, seq = boot + 1, 1
        vehicle.boot, vehicle.seq = max((vehicle.boot, vehicle.seq), (boot, seq))
        size = self._rng.choice((0, 1, 20, 60, 200, 700))
        payload = self._payload() + self._rng.randbytes(size)
        trace = f"00-{self._number:032x}-{1:016x}-01" if self._rng.random() < 0.1 else None
        return Telemetry(
            vehicle.name, boot, seq, oldest, 1_000 + self._number % 999, payload, trace
        )

    def _payload(self) -> bytes:
        self._number += 1
        return b"<%x>" % self._number

    def _priority(self, kind: Kind, vehicle: str | None) -> Priority:
        return Priority(kind, vehicle, self._number % 10_000, self._payload())

    def _label(self) -> Priority:
        return self._priority(Kind.LABEL, self._rng.choice(VEHICLES))
