"""Making room: what goes when the spool or the disk is full, and what is written before it goes.

First copies of damaged segments, then what is only history, then the oldest telemetry that was
not sent. Of that, gap records, the identities and the position up to which it is given up are on
the disk in one frame before the segment goes; should the power go in between, the next start
deletes it. Alerts, gap records and the other records of the priority lane never go.

The spool's lock is held for all of it.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge.gaps import Gap, GapReason, GapWriter, gaps_of
from edge.identity import IdentityBook
from edge.marks import Mark
from edge.rows import Lane
from edge.spool.aside import Aside
from edge.spool.change import Change, Told, pack_boots
from edge.spool.errors import SpoolError
from edge.spool.files import Files
from edge.spool.framing import KINDS, ROW, Found
from edge.spool.ledger import Ledger
from edge.spool.limits import Lack, Quota, SpoolLimits, lack, unsent_bytes
from edge.spool.reader import frames_behind
from edge.spool.recovery import Damage
from edge.spool.reserve import Reserve
from edge.spool.salvage import Neighbour, gaps_of_damage, nameless, unsent_part
from edge.spool.segment import Segment, segment_name
from edge.spool.telemetry_codec import identity_of

NEWS_MAX = 32

REFUSALS_MAX = 10
"""So often in a row a disk may say that it is full, with room left by its own count, before that
is believed: it may have run out of something else."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """Lets go of what must go, and accounts for what is lost.

    Args:
        files: The disk.
        ledger: The spool.
        limits: None: nothing goes, a full disk refuses.
        gaps: Makes gap records.
        now_ms: Wall time until `now_ms` is set to a later one.
    """

    def __init__(
        self,
        files: Files,
        ledger: Ledger,
        limits: SpoolLimits | None,
        *,
        gaps: GapWriter,
        now_ms: int,
    ) -> None:
        self._files = files
        self._ledger = ledger
        self._gaps = gaps
        self.now_ms = now_ms
        self.is_sent: Callable[[int], bool] = lambda _: False
        self.news: deque[str] = deque(maxlen=NEWS_MAX)
        self._refusals = 0
        self.is_pressed = False
        self.aside = Aside(files, ledger.directory)
        self._set(limits)

    def _set(self, limits: SpoolLimits | None) -> None:
        self._limits = limits
        reserve_bytes = 0 if limits is None else limits.reserve_bytes
        self.reserve = Reserve(self._files, self._ledger.directory, reserve_bytes)

    def open(self) -> None:
        """Delete what was given up already, and let the quota be no less than what is unsent.

        Raises:
            OSError: The disk refuses.
        """
        self.aside.open()
        self.reserve.open()
        given_up = self._ledger.marks.durable(Mark.GIVEN_UP)
        log = self._ledger.telemetry
        log.drop([segment for segment in log.sealed if 0 < segment.last <= given_up])
        self._set_quota()

    def change_limits(self, limits: SpoolLimits | None) -> None:
        """Take other limits; a lower quota discards nothing. Raises OSError."""
        self._set(limits)
        self.reserve.open()
        self._set_quota()

    def _set_quota(self) -> None:
        limits = self._limits
        bytes_max = 0 if limits is None else limits.bytes_max
        self.quota = Quota(bytes_max, max(bytes_max, self.unsent_bytes()))

    # -- sizes

    @property
    def size_bytes(self) -> int:
        """All that the spool takes of the disk, about."""
        return self._ledger.bytes + self.aside.bytes + self.reserve.bytes

    def unsent_bytes(self) -> int:
        """What would be taken if everything went that may go without a gap."""
        ledger = self._ledger
        logs = ledger.telemetry.bytes + ledger.priority.bytes
        unsent = unsent_bytes(ledger.telemetry.segments, self._is_history)
        forwarded = ledger.marks[Mark.FORWARDED_PRIORITY]
        unsent += unsent_bytes(ledger.priority.segments, lambda held: held.last <= forwarded)
        return self.size_bytes - logs + unsent

    def _is_history(self, segment: Segment) -> bool:
        """Whether a segment may go without a gap."""
        marks = self._ledger.marks
        if segment.last <= marks.durable(Mark.GIVEN_UP):
            return True
        sent = segment.last <= marks[Mark.FORWARDED_TELEMETRY]
        scored = segment.last <= marks[Mark.SCORED]
        return sent and scored and segment.last <= marks.durable(Mark.IDENTITY)

    # -- a write that needs room

    def make(self, wanted: int, *, may_refuse: bool) -> None:
        """Have room for so many bytes more.

        Args:
            wanted: How many.
            may_refuse: Whether the quota may; what holds no rows helps to make room.

        Raises:
            OSError: The disk refuses what has to be written first.
            SpoolError: The quota is full of what never goes.
        """
        limits = self._limits
        if limits is None:
            return
        missing = self._missing(limits, wanted)
        if missing is None:
            self.is_pressed = False
            return
        self.quota.drained(self.unsent_bytes())
        missing = self._missing(limits, wanted)
        freed = 0
        while missing is not None and freed < missing.bytes:
            went = self._let_go(missing.reason)
            if not went:
                break
            freed += went
        self.is_pressed = missing is not None and not freed and self._is_full_of_priority(missing)
        if self.is_pressed and may_refuse:
            raise SpoolError(
                f"spool {self._ledger.directory}: {self.quota.effective} bytes are full of alerts "
                "and other records that are kept until they are in Kafka"
            )

    def _missing(self, limits: SpoolLimits, wanted: int) -> Lack | None:
        free = self._files.free_bytes(self._ledger.directory)
        return lack(
            stored=self.size_bytes,
            wanted=wanted,
            quota=self.quota.effective,
            free=free,
            free_min=limits.free_bytes_min,
            is_starved=self._is_starved(free, wanted),
        )

    def _is_starved(self, free: int, wanted: int) -> bool:
        """Whether the disk is full although it does not say so in its free bytes, or does."""
        return self._refusals >= REFUSALS_MAX or (self._refusals > 0 and free < 2 * wanted)

    def _is_full_of_priority(self, missing: Lack) -> bool:
        return (
            missing.reason is GapReason.QUOTA
            and self._ledger.priority.bytes >= self.quota.effective
        )

    def refused(self, error: OSError) -> None:
        """A write failed: if the disk is full, the next one has to make room first."""
        self._refusals += error.errno in _FULL

    def written(self) -> None:
        """A write went through."""
        self._refusals = 0

    def _let_go(self, reason: GapReason) -> int:
        """Let one thing go; its bytes, 0 when there is nothing left."""
        copy = self.aside.drop_oldest()
        if copy:
            return copy
        ledger, log = self._ledger, self._ledger.telemetry
        if not log.sealed and log.segments and (reason is GapReason.QUOTA or self._refusals):
            log.cut()
        if not log.sealed:
            return 0
        history = next((held for held in log.sealed if self._is_history(held)), None)
        segment = log.sealed[0] if history is None else history
        if history is None:
            self._give_up(segment, reason)
        else:
            self.write(ledger.all_marks())
        ledger.drop(Lane.TELEMETRY, [segment])
        return segment.end

    def write(self, change: Change) -> None:
        """Write a change, by the reserve if the disk is full. Raises OSError."""
        try:
            self._ledger.commit((), change)
        except OSError as error:
            if error.errno not in _FULL or not self.reserve.release():
                raise
            self._ledger.commit((), change)

    def _give_up(self, segment: Segment, reason: GapReason) -> None:
        ledger = self._ledger
        unsent = [found for found in self._rows_of(segment) if not self._needs_no_gap(found)]
        batches = [(*identity_of(found)[:3], found.end - found.offset) for found in unsent]
        gaps = gaps_of(batches)
        marks = {**ledger.all_marks().marks, Mark.GIVEN_UP.value: segment.last}
        identities: list[tuple[str, bytes]] = []
        if segment.last > ledger.marks.durable(Mark.IDENTITY):
            book = self._book_up_to(segment.last)
            identities = [(name, pack_boots(boots)) for name, boots in book.unsaved()]
            marks |= {
                Mark.IDENTITY.value: segment.last,
                Mark.VEHICLE_DROPS.value: book.vehicle_drops,
            }
        self.write(self._change(gaps, len(batches), reason, marks=marks, identities=identities))
        self.news.append(
            f"gave up {len(batches)} unsent batches ({reason}), the oldest: the spool holds "
            f"{self.size_bytes >> 20} MiB"
        )

    def _change(
        self,
        gaps: Sequence[Gap],
        batches: int,
        reason: GapReason,
        *,
        marks: dict[str, int] | None = None,
        identities: Sequence[tuple[str, bytes]] = (),
        told: Sequence[Told] = (),
    ) -> Change:
        total = self._ledger.state.drops.get(reason.value, 0) + batches
        return Change(
            self._gaps.rows(gaps, reason, now_ms=self.now_ms),
            marks or {},
            identities=identities,
            drops={reason.value: total} if batches else {},
            told=told,
        )

    def _needs_no_gap(self, found: Found) -> bool:
        settled = self._ledger.settled(Lane.TELEMETRY)
        return found.position <= settled or self.is_sent(found.position)

    def _rows_of(self, segment: Segment) -> Iterator[Found]:
        for found in self._behind(segment.first - 1):
            if found.position > segment.last:
                return
            yield found

    def _behind(self, position: int) -> Iterator[Found]:
        log = self._ledger.telemetry
        for found in frames_behind(log, position, on_damage=self.found_damage):
            if found.flags & KINDS == ROW:
                yield found

    def _book_up_to(self, position: int) -> IdentityBook:
        """What is settled by the rows up to a position, which are about to go."""
        marks = self._ledger.marks
        book = IdentityBook(self._ledger.boots, vehicles_max=1)
        book.vehicle_drops = marks[Mark.VEHICLE_DROPS]
        for found in self._behind(marks.durable(Mark.IDENTITY)):
            if found.position > position:
                break
            book.admit(*identity_of(found))
        return book

    # -- damage

    def found_damage(self, damage: Damage) -> None:
        """Account for rows that cannot be read, once, before anybody goes on behind them.

        Raises:
            OSError: The disk refuses.
        """
        if self._is_told(damage):
            return
        lost = unsent_part(damage, settled=self._ledger.settled(damage.lane))
        rows = max(0, lost.last - lost.first + 1)
        gaps = self._gaps_of(lost) if rows else []
        told = Told(damage.lane, damage.number, damage.first, damage.last)
        copy = self._copy_aside(damage)
        self.write(self._change(gaps, rows, GapReason.DAMAGED, told=[told]))
        self.news.append(
            f"{damage.bytes} bytes of the spool's {damage.lane} are damaged, {rows} unsent rows "
            f"are lost; {copy}"
        )

    def _is_told(self, damage: Damage) -> bool:
        return any(
            (told.lane, told.number) == (damage.lane, damage.number)
            and told.first <= damage.first
            and damage.last <= told.last
            for told in self._ledger.state.told
        )

    def _gaps_of(self, lost: Damage) -> list[Gap]:
        if lost.lane is Lane.PRIORITY:
            return [nameless(lost)]
        log = self._ledger.telemetry
        segment = next((held for held in log.segments if held.number == lost.number), None)
        if segment is None:
            return [nameless(lost)]
        return gaps_of_damage(lost, self._neighbours(segment), self._was_settled(lost))

    def _was_settled(self, lost: Damage) -> Callable[[str, int, int], bool]:
        """Whether a batch was ever settled, as far as the saved identities can tell."""
        if lost.last > self._ledger.marks.durable(Mark.IDENTITY):
            return lambda *_: True

        def was_settled(vehicle_id: str, boot_id: int, seq: int) -> bool:
            state = self._ledger.boots(vehicle_id).get(boot_id)
            return state is None or state.covers(seq)

        return was_settled

    def _neighbours(self, segment: Segment) -> Iterator[Neighbour]:
        walker = self._ledger.telemetry.walker(segment, position=0)
        while (found := walker.next()) is not None:
            if found.flags & KINDS == ROW:
                vehicle_id, boot_id, seq, _ = identity_of(found)
                yield Neighbour(found.position, vehicle_id, boot_id, seq)

    def _copy_aside(self, damage: Damage) -> str:
        log = self._ledger.logs[damage.lane]
        path: Path = log.directory / segment_name(damage.number)
        try:
            return f"a copy lies at {self.aside.keep(path, damage.lane, now_ms=self.now_ms)}"
        except OSError as error:
            return f"no copy was made: {error}"

    # -- housekeeping

    def tend(self) -> None:
        """Let the quota come down, and have the reserve again. Raises OSError."""
        limits = self._limits
        if limits is None:
            return
        self.quota.drained(self.unsent_bytes())
        if self.reserve.bytes != limits.reserve_bytes:
            free = self._files.free_bytes(self._ledger.directory)
            self.reserve.restore(free=free, free_min=limits.free_bytes_min)
