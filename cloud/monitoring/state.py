"""All that a monitor knows, and what it decides. Pure: it is given records and the time."""

from collections.abc import Iterable
from dataclasses import dataclass

from cloud.monitoring.drift import DriftWatch, VersionKey
from cloud.monitoring.experiments import Decision, Trials
from cloud.monitoring.joining import Joiner, Outcome, Quality
from cloud.monitoring.roster import ArmRef, Roster
from cloud.monitoring.settings import MonitorSettings
from schemas.errors import ContractError
from schemas.records import Record
from scoring.catalog import Catalog
from scoring.events import ModelEvent
from scoring.manifest import Manifest
from scoring.stats import ArmWindow
from scoring.traffic import Traffic

ARMS_MAX = 1_000
"""Arms whose quality is kept; beyond it that of the one first met is dropped."""


@dataclass(slots=True)
class Taken:
    """Records taken in, for people.

    Attributes:
        windows: Of `model.stats`.
        broken: Records of any topic that could not be used.
    """

    windows: int = 0
    broken: int = 0


class MonitorState:
    """Takes records in, in any order between topics, and decides when asked.

    The catalog comes first: what belongs to an experiment that is not known yet passes by.

    Args:
        settings: What to compare and how far back.
        since_ms: When this monitor began to act: windows that ended before are history, whose
            drift was told.
    """

    def __init__(self, settings: MonitorSettings, *, since_ms: int) -> None:
        self._since_ms = since_ms
        self._manifests: dict[VersionKey, Manifest] = {}
        self._catalog = Catalog()
        self._settled: dict[ArmRef, Quality] = {}
        self._roster = Roster()
        self.joiner = Joiner(
            horizon_ms=round(settings.label_horizon_s * 1000),
            entries_max=settings.entries_max,
            responsible=self._roster.responsible,
        )
        self.drift = DriftWatch(settings)
        self.trials = Trials(settings)
        self.taken = Taken()

    def take_catalog(self, catalog: Catalog) -> None:
        """The models that there are and what they are used for."""
        self._catalog = catalog
        self._roster.take_catalog(catalog)
        self.trials.take_catalog(catalog)
        self._manifests = {
            (name, version): bundle.manifest
            for name, versions in catalog.releases.items()
            for version, bundle in versions.items()
        }

    def take_traffic(self, records: Iterable[Record]) -> None:
        """Records of `model.traffic`: who had which arm in the past."""
        for record in records:
            try:
                self._roster.take_traffic(Traffic.from_record(record))
            except ContractError:
                self.taken.broken += 1

    def take_stats(self, records: Iterable[Record]) -> None:
        """Records of `model.stats`."""
        for record in records:
            try:
                self._take_window(ArmWindow.from_record(record))
            except (ContractError, ValueError):
                # Counted with other bins than ours, by another release: adds to nothing here.
                self.taken.broken += 1

    def take_history_of_events(self, records: Iterable[Record]) -> None:
        """Records of `model.events` that were told before this monitor acts."""
        for event in self._events(records):
            self.drift.opened_before(event)
            self.trials.take_event(event)

    def take_events(self, records: Iterable[Record]) -> None:
        """Records of `model.events` that come: what scorers tell of storms."""
        for event in self._events(records):
            self.trials.take_event(event)

    def take_alerts(self, records: Iterable[Record]) -> None:
        """Records of `vehicle.alerts` or of its shadow."""
        for record in records:
            self.joiner.take_alert(record)

    def take_labels(self, records: Iterable[Record]) -> None:
        """Records of `vehicle.labels`."""
        for record in records:
            self.joiner.take_label(record)

    def decide(self, now_ms: int) -> list[Decision]:
        """What is to be told and done, given what is known now."""
        outcomes = self.joiner.settle(now_ms)
        self._count(outcomes)
        self.trials.take_outcomes(outcomes)
        drifts = self.drift.judge(self._manifests, now_ms)
        told = [Decision(event.model_name, (event,)) for event in drifts]
        return told + self.trials.decide(now_ms)

    def champion(self, model: str) -> str:
        """Version of a model's champion; empty where there is none."""
        return self._catalog.champion(model) or ""

    def quality(self, now_ms: int) -> dict[ArmRef, Quality]:
        """Live precision and recall of each arm: what is settled, and what is known of the rest."""
        found = {
            arm: Quality(each.alarms, each.confirmed, each.faults, each.found)
            for arm, each in self._settled.items()
        }
        for outcome in self.joiner.provisional(now_ms):
            found.setdefault(outcome.arm, Quality()).add(outcome)
        return found

    def _take_window(self, window: ArmWindow) -> None:
        self.taken.windows += 1
        self._roster.take_window(window)
        self.trials.take_window(window)
        if window.end_ms >= self._since_ms:
            self.drift.add(window)

    def _count(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._settled.setdefault(outcome.arm, Quality()).add(outcome)
        while len(self._settled) > ARMS_MAX:
            del self._settled[next(iter(self._settled))]

    def _events(self, records: Iterable[Record]) -> Iterable[ModelEvent]:
        for record in records:
            try:
                yield ModelEvent.from_record(record)
            except ContractError:
                # A kind that a newer release made up.
                self.taken.broken += 1
