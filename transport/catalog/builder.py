"""From records in order of the log to a catalog: no I/O, no clock."""

from collections.abc import Collection

from schemas.errors import ContractError
from schemas.topics import RELEASES, TRAFFIC
from scoring.bundle import Bundle
from scoring.catalog import Catalog
from transport.catalog.breakages import Breakages
from transport.catalog.shelf import Entry, Key, Limits, Shelf
from transport.kafka import Message, SchemaIds
from transport.release_records import (
    BrokenRelease,
    broken,
    name_in_key,
    offset_of,
    read_head,
    read_traffic,
)


class CatalogBuilder:
    """Takes records, says which releases are still to be loaded, and gives the catalog.

    Args:
        ids: Schema ids of both topics.
        names: Models to look at; None: all.
        limits: How much is held.
        breakages: Takes what is broken.

    Attributes:
        dirty: Whether there is something that the catalog given last does not show.
        next_offset: Topic to the offset behind the last record taken.
    """

    def __init__(
        self,
        ids: SchemaIds,
        names: Collection[str] | None,
        limits: Limits,
        breakages: Breakages,
    ) -> None:
        self._ids = ids
        self._names = names
        self._shelf = Shelf(limits)
        self._breakages = breakages
        self._failed: dict[Key, int] = {}
        self._not_there: set[Key] = set()
        self.next_offset = {RELEASES.name: 0, TRAFFIC.name: 0}
        self.dirty = True

    def take(self, message: Message) -> None:
        """Look at a record of either topic; one that was taken before is passed over."""
        topic, offset = message.topic() or "", offset_of(message)
        if offset < self.next_offset[topic]:
            return
        self.next_offset[topic] = offset + 1
        is_release = topic == RELEASES.name
        if self._concerns(_name_of(message) if is_release else _text(message.key())):
            self.dirty = True
            self._breakages.replaced(topic, message.key(), offset)
            try:
                (self._take_release if is_release else self._take_traffic)(message)
            except ContractError as error:
                self._breakages.add(broken(message, error))

    def _concerns(self, name: str | None) -> bool:
        """Whether a model is followed; a record without a name concerns everyone."""
        return name is None or self._names is None or name in self._names

    def _take_release(self, message: Message) -> None:
        if message.value() is None:
            self._remove(message)
            return
        release = read_head(message, self._ids)
        manifest = release.manifest
        key = (manifest.name, manifest.version)
        self._failed.pop(key, None)
        whole = release if isinstance(release, Bundle) else None
        model_bytes = len(release.model) if isinstance(release, Bundle) else release.model_bytes
        entry = Entry(
            key,
            offset_of(message),
            model_bytes,
            manifest.model_sha256,
            manifest.created_time_ms,
        )
        self._shelf.enter(entry, whole)

    def _remove(self, message: Message) -> None:
        name, _, version = (_text(message.key()) or "").rpartition("/")
        self._shelf.remove((name, version))
        self._failed.pop((name, version), None)

    def _take_traffic(self, message: Message) -> None:
        self._not_there.clear()
        if message.value() is not None:
            traffic = read_traffic(message, self._ids)
            self._shelf.set_traffic(traffic.name, traffic)
        else:
            self._shelf.set_traffic(_text(message.key()) or "", None)

    def entries(self) -> list[Entry]:
        """Versions in the log, sound or not known to be, oldest first."""
        return sorted(self._shelf.entries(), key=lambda entry: entry.offset)

    def holds(self, key: Key) -> bool:
        """Whether a version is in the log, and not known to be broken."""
        return key in self._shelf and key not in self._failed

    def dangling(self) -> bool:
        """Whether traffic refers to a version that did not come yet.

        The topics keep no order between them: it may stand on `model.releases` already.
        """
        return any(key not in self._shelf for key in self._shelf.referred() - self._not_there)

    def read_all_releases(self) -> None:
        """What traffic refers to and has not come is not in the log."""
        self._not_there |= {key for key in self._shelf.referred() if key not in self._shelf}

    def to_load(self) -> list[Entry]:
        """Versions to hold whose bytes are to be read, in order of the log."""
        keys = self._shelf.missing() - set(self._failed)
        return sorted(map(self._shelf.entry, keys), key=lambda entry: entry.offset)

    def loaded(self, bundle: Bundle) -> None:
        """A version's bytes are here."""
        self._shelf.hold(bundle)

    def refused(self, key: Key, record: BrokenRelease | None) -> None:
        """A version cannot be loaded; None: its record is no more, a later one will come."""
        self._failed[key] = self._shelf.entry(key).offset
        if record is not None:
            self._breakages.add(record)

    @property
    def has_failed(self) -> bool:
        """Whether there are versions that could not be loaded."""
        return bool(self._failed)

    def try_again(self) -> None:
        """Load what could not be loaded once more; what was told is not told again."""
        self._failed.clear()
        self.dirty = True

    def pass_over_history(self) -> None:
        """Do not tell what was broken before the newest sound release of its name."""
        newest = self._shelf.newest_offsets()
        for record in self._breakages.waiting():
            name = name_in_key(record.key)
            behind = newest.get(name, -1) if name else max(newest.values(), default=-1)
            if record.topic == RELEASES.name and record.offset < behind:
                self._breakages.drop(record.topic, record.key)

    def catalog(self) -> Catalog:
        """The models and their traffic now."""
        self.dirty = False
        return self._shelf.catalog()


def _name_of(message: Message) -> str | None:
    return name_in_key(message.key())


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")
