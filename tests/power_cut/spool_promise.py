"""What the spool has promised, as plain dictionaries, and whether a spool keeps it.

A `Promise` is what the calls that returned amount to. A `Call` is one that has begun: after a
crash it has happened as a whole or not at all. `judged` compares both with what a spool shows
(`Seen`) and names each difference as a loss or as a repetition.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from edge.gaps import GapReason
from edge.identity import IdentityBook, Verdict
from edge.marks import Mark
from edge.rows import AlertState, Kind, Lane, Priority, StoredPriority, StoredTelemetry, Telemetry
from edge.spool import Spool
from schemas.records import Record, decode_single_object

EVERYTHING = 1 << 40
VEHICLES_MAX = 3

Identity = tuple[str, int, int]
Stored = StoredTelemetry | StoredPriority
Rows = Mapping[int, Any]

EXACT = (Mark.SCORED, Mark.RELEASE_REFUSED, Mark.TRAFFIC_REFUSED)
"""Marks that are written together with what they speak of."""

HINTS = (Mark.FORWARDED_TELEMETRY, Mark.FORWARDED_PRIORITY, Mark.POSITIONS_OFFSET)
"""Marks of which the disk may hold an older value, but none older than it once held."""


class Wrong(Enum):
    """What kind of harm a broken promise does."""

    LOST = "lost"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken promise, in words."""

    wrong: Wrong
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a call of the spool is to change.

    Attributes:
        name: Of the method.
        telemetry: Rows for the lane, in order.
        priority: Rows for the priority lane, in order.
        states: Alert states.
        marks: Marks that are written with them.
        settles: Identities that are settled by it without a row of telemetry.
        publishes: Alert states that MQTT holds.
    """

    name: str
    telemetry: tuple[Telemetry, ...] = ()
    priority: tuple[Priority, ...] = ()
    states: tuple[AlertState, ...] = ()
    marks: Mapping[Mark, int] = field(default_factory=dict)
    settles: frozenset[Identity] = frozenset()
    publishes: frozenset[AlertState] = frozenset()


NO_CALL = Call("nothing")


@dataclass(frozen=True, slots=True)
class Promise:
    """What every call that returned, together, says of the spool.

    Attributes:
        rows: By lane and position, what must be there.
        gone: The same, of what was let go of: it may show until its removal is confirmed.
        last: By lane, the highest position that was given.
        marks: The exact marks, and the least value of the hints.
        noted: The highest value of the hints.
        alerts: By vehicle and code, the newest state.
        published: Those of the states that MQTT holds.
        settled: Identities that must not be admitted again.
        forgone: By vehicle and boot, up to which batch the vehicle has ever said that it has none:
            these may be settled as well.
    """

    rows: Mapping[Lane, Rows] = field(default_factory=lambda: {lane: {} for lane in Lane})
    gone: Mapping[Lane, Rows] = field(default_factory=lambda: {lane: {} for lane in Lane})
    last: Mapping[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    marks: Mapping[Mark, int] = field(default_factory=lambda: dict.fromkeys(Mark, 0))
    noted: Mapping[Mark, int] = field(default_factory=lambda: dict.fromkeys(Mark, 0))
    alerts: Mapping[tuple[str, str], AlertState] = field(default_factory=dict)
    published: frozenset[AlertState] = frozenset()
    settled: frozenset[Identity] = frozenset()
    forgone: Mapping[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What an open spool shows.

    Attributes:
        rows: By lane, in order.
        last: By lane, the highest position that was given.
        marks: As they are on the disk.
        alerts: Newest states.
        unpublished: Those that MQTT does not hold.
        book: Reads the identities anew, each time; None: not looked at.
    """

    rows: Mapping[Lane, Sequence[Any]]
    last: Mapping[Lane, int]
    marks: Mapping[Mark, int]
    alerts: Sequence[AlertState]
    unpublished: frozenset[AlertState]
    book: Callable[[], IdentityBook] | None

    @classmethod
    def of(cls, spool: Spool) -> "Seen":
        """All of it."""
        return cls._behind(
            spool,
            dict.fromkeys(Lane, ()),
            dict.fromkeys(Lane, 0),
            lambda: spool.identity_book(vehicles_max=VEHICLES_MAX),
        )

    @classmethod
    def news(cls, spool: Spool, promise: Promise) -> "Seen":
        """What is new since a promise; the rest is taken to be as it was, for it takes time."""
        known = {lane: tuple(promise.rows[lane].values()) for lane in Lane}
        return cls._behind(spool, known, promise.last, None)

    @classmethod
    def _behind(
        cls,
        spool: Spool,
        known: Mapping[Lane, tuple[Any, ...]],
        after: Mapping[Lane, int],
        book: Callable[[], IdentityBook] | None,
    ) -> "Seen":
        reader = spool.reader()
        telemetry = reader.telemetry(
            after=after[Lane.TELEMETRY], rows_max=EVERYTHING, bytes_max=EVERYTHING
        )
        priority = reader.priority(
            after=after[Lane.PRIORITY], rows_max=EVERYTHING, bytes_max=EVERYTHING
        )
        seen = cls(
            rows={
                Lane.TELEMETRY: (*known[Lane.TELEMETRY], *telemetry),
                Lane.PRIORITY: (*known[Lane.PRIORITY], *priority),
            },
            last={lane: spool.last(lane) for lane in Lane},
            marks={mark: spool.marks.durable(mark) for mark in Mark},
            alerts=reader.alerts(unpublished_only=False),
            unpublished=frozenset(reader.alerts(unpublished_only=True)),
            book=book,
        )
        reader.close()
        return seen


def identity(row: Telemetry | StoredTelemetry) -> Identity:
    """Vehicle, boot and sequence number of a batch."""
    return row.vehicle_id, row.boot_id, row.seq


def judged(promise: Promise, call: Call, seen: Seen) -> tuple[list[Breach], Promise]:
    """Compare a spool with the promise and one call that it has done.

    Returns:
        What is broken, and the promise that holds from now on.
    """
    gaps = _gaps_ever(promise, seen)
    breaches: list[Breach] = []
    rows: dict[Lane, Rows] = {}
    gone: dict[Lane, Rows] = {}
    for lane in Lane:
        verdict = _Lane(lane, promise, call, seen, gaps)
        breaches += verdict.breaches
        rows[lane], gone[lane] = verdict.rows, verdict.gone
    settled = promise.settled | call.settles | {identity(row) for row in call.telemetry}
    breaches += gaps.breaches(promise, rows[Lane.TELEMETRY], seen)
    breaches += _marks(promise, call, seen)
    breaches += _alerts(promise, call, seen)
    if not breaches and seen.book is not None:
        breaches = _identities(settled, promise.forgone, seen.book())
    return breaches, replace(
        promise,
        rows=rows,
        gone=gone,
        last={lane: max(seen.last[lane], promise.last[lane]) for lane in Lane},
        marks={mark: seen.marks[mark] for mark in Mark},
        alerts={(state.vehicle_id, state.code): state for state in seen.alerts},
        published=frozenset(seen.alerts) - seen.unpublished,
        settled=settled,
    )


def best_judged(
    promise: Promise, calls: Sequence[Call], seen: Seen
) -> tuple[list[Breach], Promise]:
    """`judged` by what explains best what is seen.

    Each of the calls may have happened in part. Telemetry is a log of its own, each row of it for
    itself, in their order; all else that a call writes is one piece.
    """
    verdicts = (judged(promise, call, seen) for call in _outcomes(calls, seen))
    best = next(verdicts)
    for verdict in verdicts:
        if not best[0]:
            break
        best = min(best, verdict, key=lambda found: len(found[0]))
    return best


def has_happened(call: Call, promise: Promise) -> bool:
    """Whether what a call was to write is promised now, or it wrote no rows that could tell."""
    stored = any(identity(row) in promise.settled for row in call.telemetry)
    payloads = {row.payload for row in call.priority}
    told = any(row.payload in payloads for row in promise.rows[Lane.PRIORITY].values())
    return stored or told or not (call.telemetry or call.priority)


def _outcomes(calls: Sequence[Call], seen: Seen) -> Iterator[Call]:
    yield from calls
    shown = {identity(row) for row in seen.rows[Lane.TELEMETRY]}
    for call in calls:
        there = tuple(takewhile(lambda row: identity(row) in shown, call.telemetry))
        if there:
            yield from (replace(other, telemetry=there) for other in calls)


def damaged(promise: Promise, spool: Spool, *, rotten: Path) -> tuple[list[Breach], Promise]:
    """Compare a spool of which a bit has rotted with the promise.

    One record of the file may be lost, and if it was not sent, that is told; all else is there.

    Returns:
        What is broken, and the promise that holds from now on.
    """
    Seen.of(spool)  # damage is found, and told, by reading
    seen = Seen.of(spool)
    breaches: list[Breach] = []
    rows: dict[Lane, Rows] = {}
    lost: dict[Lane, list[Stored]] = {}
    for lane in Lane:
        shown = {row.position: row for row in seen.rows[lane]}
        held = promise.rows[lane]
        rows[lane] = shown
        lost[lane] = [row for position, row in held.items() if position not in shown]
        wrong = [row for position, row in held.items() if shown.get(position, row) != row]
        breaches += [Breach(Wrong.LOST, f"{brief(row)} is another") for row in wrong]
        new = [row for position, row in shown.items() if position not in held]
        told = [row for row in new if not isinstance(row, StoredPriority) or row.kind != Kind.GAP]
        breaches += [Breach(Wrong.REPEATED, f"nobody stored {brief(row)}") for row in told]
        if lost[lane] and rotten.parent.name != lane:
            breaches.append(Breach(Wrong.LOST, f"{lane}: {len(lost[lane])} rows, by {rotten}"))
    breaches += _untold(promise, seen, lost)
    if len(lost[Lane.TELEMETRY]) > 1:
        breaches.append(Breach(Wrong.LOST, f"one bit cost {len(lost[Lane.TELEMETRY])} rows"))
    if not breaches and rotten.parent.name != Lane.PRIORITY:
        breaches = [*_marks(promise, NO_CALL, seen), *_alerts(promise, NO_CALL, seen)]
    return breaches, replace(
        promise,
        rows=rows,
        last=seen.last,
        marks=seen.marks,
        noted=seen.marks,
        alerts={(state.vehicle_id, state.code): state for state in seen.alerts},
        published=frozenset(seen.alerts) - seen.unpublished,
        settled=_still_settled(promise.settled, seen),
    )


def _untold(promise: Promise, seen: Seen, lost: Mapping[Lane, list[Stored]]) -> list[Breach]:
    """Rows that are lost, were not sent, and of which no gap record tells."""
    unsent = [
        row
        for lane in Lane
        for row in lost[lane]
        if row.position > max(seen.marks[Mark.forwarded(lane)], _given_up(lane, seen))
    ]
    known = promise.rows[Lane.PRIORITY]
    gaps = Gaps(
        [
            row
            for row in seen.rows[Lane.PRIORITY]
            if row.kind == Kind.GAP and row.position not in known
        ]
    )
    told = sum(gap["batches"] for gap in gaps.records)
    # What a lost gap record told of may be found missing, and told, again.
    forgotten = Gaps(
        [
            row
            for row in lost[Lane.PRIORITY]
            if isinstance(row, StoredPriority) and row.kind == Kind.GAP
        ]
    )
    again = sum(gap["batches"] for gap in forgotten.records)
    if len(unsent) <= told <= len(unsent) + again:
        return []
    return [Breach(Wrong.LOST, f"gaps tell of {told} rows, {len(unsent)} unsent ones are lost")]


def _given_up(lane: Lane, seen: Seen) -> int:
    return seen.marks[Mark.GIVEN_UP] if lane is Lane.TELEMETRY else 0


def _still_settled(settled: frozenset[Identity], seen: Seen) -> frozenset[Identity]:
    """What the identities still know; damage may have taken the rest."""
    book = seen.book() if seen.book is not None else None
    return frozenset(
        each for each in settled if book is None or book.admit(*each, 1) is not Verdict.NEW
    )


class Gaps:
    """The gap records that a spool shows.

    Args:
        rows: Of kind GAP.
    """

    def __init__(self, rows: Sequence[StoredPriority]) -> None:
        self.records: list[Record] = [decode_single_object("GatewayGap", r.payload) for r in rows]
        self._ranges: dict[tuple[str | None, int], list[tuple[int, int]]] = {}
        for gap in self.records:
            self._ranges.setdefault((gap["vehicle_id"], gap["boot_id"]), []).append(
                (gap["first_seq"], gap["last_seq"])
            )

    def covers(self, row: Telemetry | StoredTelemetry) -> bool:
        """Whether this batch is told to be missing."""
        ranges = self._ranges.get((row.vehicle_id, row.boot_id), ())
        return any(first <= row.seq <= last for first, last in ranges)

    def breaches(self, promise: Promise, kept: Rows, seen: Seen) -> list[Breach]:
        """Each batch given up is told once: neither two gaps for one, nor a gap for none."""
        told = sum(gap["batches"] for gap in self.records if gap["reason"] != GapReason.DAMAGED)
        given_up = seen.marks[Mark.GIVEN_UP]
        known = {**promise.gone[Lane.TELEMETRY], **promise.rows[Lane.TELEMETRY]}
        missing = told and sum(
            self.covers(row) and (position not in kept or position <= given_up)
            for position, row in known.items()
        )
        if told > missing:
            return [Breach(Wrong.REPEATED, f"gaps tell of {told} batches, {missing} are missing")]
        return []


def _gaps_ever(promise: Promise, seen: Seen) -> Gaps:
    """Those that are there, and those that went when they were in Kafka."""
    lane = Lane.PRIORITY
    shown = {row.position: row for row in seen.rows[lane]}
    ever = {**promise.gone[lane], **promise.rows[lane], **shown}
    return Gaps([row for row in ever.values() if row.kind == Kind.GAP])


class _Lane:
    """Judges the rows of one lane."""

    def __init__(self, lane: Lane, promise: Promise, call: Call, seen: Seen, gaps: Gaps) -> None:
        self._lane = lane
        self._promise = promise
        self.breaches: list[Breach] = []
        self.rows: dict[int, Stored] = {}
        self.gone: dict[int, Stored] = dict(promise.gone[lane])
        self._given_up = seen.marks[Mark.GIVEN_UP] if lane is Lane.TELEMETRY else 0
        self._done = _done(lane, promise, seen)
        shown = {row.position: row for row in seen.rows[lane]}
        self._order(seen.rows[lane], seen.last[lane])
        self._promised(shown, gaps)
        self._new(shown, call)

    def _say(self, wrong: Wrong, text: str) -> None:
        self.breaches.append(Breach(wrong, f"{self._lane}: {text}"))

    def _order(self, shown: Sequence[Stored], last: int) -> None:
        positions = [row.position for row in shown]
        if any(after <= before for before, after in pairwise(positions)):
            self._say(Wrong.REPEATED, "positions do not rise")
        if (positions and positions[-1] > last) or last < self._promise.last[self._lane]:
            self._say(Wrong.REPEATED, f"{last} is said to be the last position")

    def _promised(self, shown: Mapping[int, Stored], gaps: Gaps) -> None:
        for position, row in self._promise.rows[self._lane].items():
            found = shown.get(position)
            if found == row:
                self.rows[position] = row
            elif found is not None:
                self._say(Wrong.LOST, f"{position} holds {brief(found)}, not {brief(row)}")
            else:
                self.gone[position] = row
                if not (position <= self._done or self._told(row, gaps)):
                    self._say(Wrong.LOST, f"{position} is not there: {brief(row)}")

    def _told(self, row: Stored, gaps: Gaps) -> bool:
        return (
            isinstance(row, StoredTelemetry) and row.position <= self._given_up and gaps.covers(row)
        )

    def _new(self, shown: Mapping[int, Stored], call: Call) -> None:
        """What was not there before: what the call wrote, and nothing else."""
        wanted: list[Telemetry | Priority] = list(
            call.telemetry if self._lane is Lane.TELEMETRY else call.priority
        )
        for position, row in shown.items():
            if position in self.rows or position in self._promise.rows[self._lane]:
                continue
            if position in self.gone:
                if self.gone[position] != row:
                    self._say(Wrong.REPEATED, f"{position} came back as {brief(row)}")
            elif wanted and same(row, wanted[0]) and position > self._promise.last[self._lane]:
                self.rows[position] = row
                wanted.pop(0)
            elif isinstance(row, StoredPriority) and _tells_of_room(row):
                self.rows[position] = row
            else:
                self._say(Wrong.REPEATED, f"nobody stored {brief(row)} at {position}")
        for missing in wanted:
            self._say(Wrong.LOST, f"the call's row is not there: {brief(missing)}")


def _tells_of_room(row: StoredPriority) -> bool:
    """Whether it is a gap record for want of room; of damage there is none to tell."""
    if row.kind != Kind.GAP:
        return False
    return bool(decode_single_object("GatewayGap", row.payload)["reason"] != GapReason.DAMAGED)


def _done(lane: Lane, promise: Promise, seen: Seen) -> int:
    """Up to which position rows may go without a gap record: they are in Kafka, and scored.

    Telemetry that is in Kafka may also be given up before it is scored.
    """
    forwarded = promise.noted[Mark.forwarded(lane)]
    if lane is Lane.PRIORITY:
        return forwarded
    return min(forwarded, max(seen.marks[Mark.SCORED], seen.marks[Mark.GIVEN_UP]))


def same(stored: Stored, row: Telemetry | Priority) -> bool:
    """Whether a stored row is the row that was given."""
    return all(
        getattr(stored, name) == getattr(row, name) for name in stored._fields if name != "position"
    )


def brief(row: Stored | Telemetry | Priority) -> str:
    """A row in a few words."""
    if isinstance(row, StoredTelemetry | Telemetry):
        return f"batch {row.seq} of {row.vehicle_id}, boot {row.boot_id} ({row.payload[:14]!r})"
    return f"{row.kind} {row.payload[:14]!r}"


def _marks(promise: Promise, call: Call, seen: Seen) -> list[Breach]:
    breaches = []
    for mark in EXACT:
        wanted = max(call.marks.get(mark, 0), promise.marks[mark])
        if seen.marks[mark] != wanted:
            wrong = Wrong.LOST if seen.marks[mark] < wanted else Wrong.REPEATED
            breaches.append(Breach(wrong, f"{mark} is {seen.marks[mark]}, not {wanted}"))
    for mark in HINTS:
        low, high = promise.marks[mark], max(promise.noted[mark], promise.marks[mark])
        if not low <= seen.marks[mark] <= high:
            wrong = Wrong.REPEATED if seen.marks[mark] < low else Wrong.LOST
            breaches.append(Breach(wrong, f"{mark} is {seen.marks[mark]}, not {low}..{high}"))
    return breaches


def _alerts(promise: Promise, call: Call, seen: Seen) -> list[Breach]:
    wanted = {
        **promise.alerts,
        **{(state.vehicle_id, state.code): state for state in call.states},
    }
    shown = {(state.vehicle_id, state.code): state for state in seen.alerts}
    breaches = [
        Breach(Wrong.LOST, f"alert {key} is {shown.get(key)}, not {state}")
        for key, state in wanted.items()
        if shown.get(key) != state
    ]
    breaches += [
        Breach(Wrong.REPEATED, f"nobody raised {shown[key]}")
        for key in shown.keys() - wanted.keys()
    ]
    published = (promise.published | call.publishes) - set(call.states)
    unpublished = set(wanted.values()) - published
    if not breaches and seen.unpublished != unpublished:
        wrong = Wrong.LOST if unpublished - seen.unpublished else Wrong.REPEATED
        breaches.append(Breach(wrong, f"to be published: {seen.unpublished}, not {unpublished}"))
    return breaches


def _identities(
    settled: frozenset[Identity], forgone: Mapping[tuple[str, int], int], book: IdentityBook
) -> list[Breach]:
    """Whether the book refuses what is settled, and lets in what comes next.

    It is changed by the questions.
    """
    breaches = [
        Breach(Wrong.REPEATED, f"batch {seq} of {vehicle}, boot {boot} would be stored again")
        for vehicle, boot, seq in sorted(settled)
        if book.admit(vehicle, boot, seq, 1) is Verdict.NEW
    ]
    for vehicle, boot, seq in _open_identities(settled):
        verdict = book.admit(vehicle, boot, seq, 1)
        if verdict is Verdict.DUPLICATE and seq > forgone.get((vehicle, boot), 0):
            breaches.append(
                Breach(Wrong.LOST, f"batch {seq} of {vehicle}, boot {boot} would be refused")
            )
    return breaches


def _open_identities(settled: frozenset[Identity]) -> list[Identity]:
    """Those that were skipped, and the next one, of each boot."""
    highest: dict[tuple[str, int], int] = {}
    for vehicle, boot, seq in settled:
        highest[vehicle, boot] = max(highest.get((vehicle, boot), 0), seq)
    return [
        (vehicle, boot, seq)
        for (vehicle, boot), top in sorted(highest.items())
        for seq in range(1, top + 2)
        if (vehicle, boot, seq) not in settled
    ]
