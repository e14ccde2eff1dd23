"""Who scored which vehicle when: from traffic and from the statistics of the scorers. Pure.

A fault that no alert tells of is a miss of the model that scored its vehicle then; this says
which one. Statistics say which version an arm had and that it was scoring at all; traffic and the
vehicle's hash say which arm a vehicle had.

Bounded: `STRETCHES_MAX` stretches of each arm and changes of each model are remembered.
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from scoring.catalog import Catalog
from scoring.stats import ArmWindow
from scoring.traffic import CHAMPION, PINNED, Experiment, Mode, Splitter, Traffic

STRETCHES_MAX = 1_000
SPLITTERS_MAX = 64

SLACK_MS = 60_000
"""A pause between two windows that is no break, and how far from a window one still scored."""


class ArmRef(NamedTuple):
    """An arm and its version."""

    model: str
    version: str
    arm: str


@dataclass(slots=True)
class _Stretch:
    """A version was seen in an arm from `first_ms` to `last_ms`."""

    version: str
    first_ms: int
    last_ms: int


class Roster:
    """Remembers who scored."""

    def __init__(self) -> None:
        self._stretches: dict[tuple[str, str], deque[_Stretch]] = {}
        self._traffics: dict[str, deque[Traffic]] = {}
        self._splitters: dict[tuple[str, str, int], Splitter] = {}

    def take_window(self, window: ArmWindow) -> None:
        """A scorer was at work."""
        key = window.key
        if key.component != "scorer" or not window.counts.readings:
            return
        held = self._stretches.setdefault((key.model, key.arm), deque(maxlen=STRETCHES_MAX))
        for stretch in reversed(held):
            near = window.start_ms <= stretch.last_ms + SLACK_MS
            if stretch.version == key.version and near:
                stretch.first_ms = min(stretch.first_ms, window.start_ms)
                stretch.last_ms = max(stretch.last_ms, window.end_ms)
                return
            if not near:
                break
        held.append(_Stretch(key.version, window.start_ms, window.end_ms))

    def take_traffic(self, traffic: Traffic) -> None:
        """What `model.traffic` says from `changed_time_ms` on; older generations are passed by."""
        held = self._traffics.setdefault(traffic.name, deque(maxlen=STRETCHES_MAX))
        if not held or traffic.generation > held[-1].generation:
            held.append(traffic)

    def take_catalog(self, catalog: Catalog) -> None:
        """The traffic of every model now."""
        for traffic in catalog.traffics.values():
            self.take_traffic(traffic)

    def responsible(self, vehicle_id: str, time_ms: int) -> list[ArmRef]:
        """Who scored a vehicle at a time: of each model one arm, and the shadows beside it.

        Nobody, where no scorer was seen at work then.
        """
        found = []
        for model in sorted({model for model, _ in self._stretches}):
            for arm in self._arms(model, vehicle_id, time_ms):
                version = self._version(model, arm, time_ms)
                if version is not None:
                    found.append(ArmRef(model, version, arm))
        return found

    def _arms(self, model: str, vehicle_id: str, time_ms: int) -> tuple[str, ...]:
        experiment = self._experiment(model, time_ms)
        if experiment is None:
            return (CHAMPION, PINNED)
        splitter = self._splitter(model, experiment)
        number = int(splitter.choose([vehicle_id.encode()])[0])
        chosen = () if number < 0 else (splitter.arms[number].name,)
        return (CHAMPION, *chosen) if experiment.mode is Mode.SHADOW else (*chosen, PINNED)

    def _experiment(self, model: str, time_ms: int) -> Experiment | None:
        held = self._traffics.get(model, ())
        before = bisect_right([traffic.changed_time_ms for traffic in held], time_ms)
        return held[before - 1].experiment if before else None

    def _splitter(self, model: str, experiment: Experiment) -> Splitter:
        # Weights change within an experiment, so its identity alone does not tell the split.
        key = (model, experiment.id, hash(experiment.arms) ^ hash(experiment.salt))
        splitter = self._splitters.get(key)
        if splitter is None:
            if len(self._splitters) >= SPLITTERS_MAX:
                self._splitters.clear()
            splitter = self._splitters[key] = Splitter(experiment, remembered_max=10_000)
        return splitter

    def _version(self, model: str, arm: str, time_ms: int) -> str | None:
        for stretch in reversed(self._stretches.get((model, arm), ())):
            if stretch.first_ms - SLACK_MS <= time_ms <= stretch.last_ms + SLACK_MS:
                return stretch.version
        return None
