"""Records that cannot be used: which of them are still to be told. Pure."""

from transport.release_records import BrokenRelease

BROKEN_MAX = 64
"""Most broken records that wait to be told; the oldest go first."""

Where = tuple[str, bytes | None]
"""Topic and key."""


class Breakages:
    """Broken records that nobody was told of yet, each told once.

    One that was replaced or deleted before it was told is history. The log may be read again
    from its beginning.
    """

    def __init__(self) -> None:
        self._waiting: dict[Where, BrokenRelease] = {}
        self._told_offset: dict[Where, int] = {}

    def add(self, record: BrokenRelease) -> None:
        """Take one, unless it was told before."""
        where = (record.topic, record.key)
        if self._told_offset.get(where, -1) >= record.offset:
            return
        self._waiting.pop(where, None)
        self._waiting[where] = record
        if len(self._waiting) > BROKEN_MAX:
            del self._waiting[next(iter(self._waiting))]

    def replaced(self, topic: str, key: bytes | None, offset: int) -> None:
        """A record at that offset has the key now."""
        self._waiting.pop((topic, key), None)
        if self._told_offset.get((topic, key), offset) < offset:
            del self._told_offset[topic, key]

    def drop(self, topic: str, key: bytes | None) -> None:
        """Never tell what waits under a key."""
        found = self._waiting.pop((topic, key), None)
        if found is not None:
            self._tell(found)

    def waiting(self) -> list[BrokenRelease]:
        """Those to be told, in order of the log."""
        return sorted(self._waiting.values(), key=lambda record: (record.topic, record.offset))

    def take(self) -> list[BrokenRelease]:
        """Those to be told; they count as told from now on."""
        found = self.waiting()
        self._waiting.clear()
        for record in found:
            self._tell(record)
        return found

    def _tell(self, record: BrokenRelease) -> None:
        self._told_offset[record.topic, record.key] = record.offset
        if len(self._told_offset) > BROKEN_MAX:
            del self._told_offset[next(iter(self._told_offset))]
