"""All that a monitor knows, and what it decides. Pure: it is given records and the time."""

from collections.abc import Iterable
from dataclasses import dataclass

from cloud.monitoring.drift import DriftWatch, VersionKey
from cloud.monitoring.settings import MonitorSettings
from schemas.errors import ContractError
from schemas.records import Record
from scoring.catalog import Catalog
from scoring.events import ModelEvent
from scoring.manifest import Manifest
from scoring.stats import ArmWindow


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

    Args:
        settings: What to compare and how far back.
        since_ms: When this monitor began to act: windows that ended before are history, whose
            drift was told.
    """

    def __init__(self, settings: MonitorSettings, *, since_ms: int) -> None:
        self._since_ms = since_ms
        self._catalog = Catalog()
        self._manifests: dict[VersionKey, Manifest] = {}
        self.drift = DriftWatch(settings)
        self.taken = Taken()

    def take_stats(self, records: Iterable[Record]) -> None:
        """Records of `model.stats`."""
        for record in records:
            try:
                window = ArmWindow.from_record(record)
                self._take_window(window)
            except (ContractError, ValueError):
                # Counted with other bins than ours, by another release: adds to nothing here.
                self.taken.broken += 1

    def take_events(self, records: Iterable[Record]) -> None:
        """Records of `model.events`, of this monitor and of those before it."""
        for record in records:
            try:
                self.drift.opened_before(ModelEvent.from_record(record))
            except ContractError:
                # A kind that a newer release made up.
                self.taken.broken += 1

    def take_catalog(self, catalog: Catalog) -> None:
        """The models that there are and what they are used for."""
        self._catalog = catalog
        self._manifests = {
            (name, version): bundle.manifest
            for name, versions in catalog.releases.items()
            for version, bundle in versions.items()
        }

    def decide(self, now_ms: int) -> list[ModelEvent]:
        """What is to be told, given what is known now."""
        return self.drift.judge(self._manifests, now_ms)

    def _take_window(self, window: ArmWindow) -> None:
        self.taken.windows += 1
        if window.end_ms >= self._since_ms:
            self.drift.add(window)
