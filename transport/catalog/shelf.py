"""Which versions a follower holds the bytes of, and which it only knows to be in the log. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from scoring.bundle import Bundle
from scoring.catalog import Catalog
from scoring.traffic import Traffic

Key = tuple[str, str]
"""Name and version."""

SLACK = 0.25
"""Share beyond the limits at which the log's history is thinned out while it is read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the log a follower holds.

    What traffic refers to (aliases and the arms of an experiment), and the newest version where
    nobody named a champion, are always held, also beyond these limits: at most some eighty
    versions of a name. What else there is, is held from the newest to the oldest; beyond a limit
    it falls out of the catalog, and comes back when traffic refers to it.

    Attributes:
        versions_max: Versions of a name.
        bytes_max: Bytes of all models together.
    """

    versions_max: int = 64
    bytes_max: int = 256_000_000


NEEDED_ONLY = Limits(versions_max=0, bytes_max=0)
"""Nothing beyond what is always held: for one-off questions, and where memory is short."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that is in the log.

    Attributes:
        key: Name and version.
        offset: Of its newest record on `model.releases`.
        model_bytes: Size of its model, as far as is known.
        sha256: Of its model, 64 hex digits.
        created_time_ms: Since the epoch, as its manifest says.
    """

    key: Key
    offset: int
    model_bytes: int
    sha256: str
    created_time_ms: int


def references(traffic: Traffic) -> set[Key]:
    """Versions that a model's traffic needs: of its aliases and of its experiment's arms."""
    versions = set(traffic.aliases.values())
    if traffic.experiment is not None:
        versions |= {arm.version for arm in traffic.experiment.arms}
    return {(traffic.name, version) for version in versions}


def wanted(entries: Iterable[Entry], pinned: Collection[Key], limits: Limits) -> set[Key]:
    """Versions to hold.

    Args:
        entries: All that are in the log.
        pinned: Those that are always held.
        limits: Beyond which others fall out.
    """
    newest_first = sorted(entries, key=lambda entry: entry.offset, reverse=True)
    kept = {entry.key for entry in newest_first if entry.key in pinned}
    versions = Counter(name for name, _ in kept)
    held_bytes = sum(entry.model_bytes for entry in newest_first if entry.key in kept)
    for entry in newest_first:
        name = entry.key[0]
        fits = held_bytes + entry.model_bytes <= limits.bytes_max
        if entry.key in kept or versions[name] >= limits.versions_max or not fits:
            continue
        kept.add(entry.key)
        versions[name] += 1
        held_bytes += entry.model_bytes
    return kept


class Shelf:
    """Versions as the log has them, the bytes of those to hold, and the traffic.

    An entry takes some hundred bytes of memory; there are as many as versions in the log.

    Args:
        limits: What is held.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries: dict[Key, Entry] = {}
        self._held: dict[Key, Bundle] = {}
        self._traffics: dict[str, Traffic] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def entry(self, key: Key) -> Entry:
        """Where a version is. Raises KeyError where it is not in the log."""
        return self._entries[key]

    def entries(self) -> Iterable[Entry]:
        """All versions in the log."""
        return self._entries.values()

    def enter(self, entry: Entry, bundle: Bundle | None) -> None:
        """Take a release; a version that was there before is replaced, also in its place.

        Args:
            entry: Where it is.
            bundle: Its bytes; None: they are still to be had.
        """
        self._entries[entry.key] = entry
        self._held.pop(entry.key, None)
        if bundle is not None:
            self._held[entry.key] = bundle
            self._trim(slack=SLACK)

    def hold(self, bundle: Bundle) -> None:
        """Take the bytes of a version that was entered without."""
        key = (bundle.manifest.name, bundle.manifest.version)
        self._held[key] = bundle
        entry = self._entries[key]
        self._entries[key] = replace(entry, model_bytes=len(bundle.model))

    def remove(self, key: Key) -> None:
        """Forget a version; harmless where it is not there."""
        self._entries.pop(key, None)
        self._held.pop(key, None)

    def set_traffic(self, name: str, traffic: Traffic | None) -> None:
        """Take what the newest record of a model says; None: nothing."""
        if traffic is None:
            self._traffics.pop(name, None)
        else:
            self._traffics[name] = traffic

    def referred(self) -> set[Key]:
        """Versions that traffic refers to, in the log or not."""
        return {key for traffic in self._traffics.values() for key in references(traffic)}

    def missing(self) -> set[Key]:
        """Versions to hold whose bytes are not here."""
        return self._wanted() - set(self._held)

    def _wanted(self) -> set[Key]:
        in_order = sorted(self._entries.values(), key=lambda entry: entry.offset)
        newest = {entry.key[0]: entry.key for entry in in_order}
        unnamed = {
            key
            for name, key in newest.items()
            if name not in self._traffics or self._traffics[name].champion is None
        }
        return wanted(in_order, self.referred() | unnamed, self._limits)

    def catalog(self) -> Catalog:
        """What is held, in the order of the log."""
        self._trim(slack=0)
        releases: dict[str, dict[str, Bundle]] = {}
        for name, version in self._in_order():
            releases.setdefault(name, {})[version] = self._held[name, version]
        return Catalog(releases, dict(self._traffics))

    def newest_offsets(self) -> dict[str, int]:
        """Of each name the offset of the newest version that is held."""
        return {key[0]: self._entries[key].offset for key in self._in_order()}

    def _in_order(self) -> list[Key]:
        return sorted(self._held, key=lambda key: self._entries[key].offset)

    def _trim(self, *, slack: float) -> None:
        """Let fall out what is beyond the limits by more than a share."""
        versions = Counter(name for name, _ in self._held)
        held_bytes = sum(len(bundle.model) for bundle in self._held.values())
        limits = self._limits
        if held_bytes > limits.bytes_max * (1 + slack) or (
            max(versions.values(), default=0) > limits.versions_max * (1 + slack)
        ):
            keep = self._wanted()
            self._held = {key: bundle for key, bundle in self._held.items() if key in keep}
