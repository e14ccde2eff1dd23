"""Opening a spool: the lock, the snapshot, the logs, and what to do when some of it is missing."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.marks import Mark
from edge.rows import Lane
from edge.spool.change import decode_change
from edge.spool.errors import SpoolError, disk_errors
from edge.spool.files import Files, Lock
from edge.spool.framing import CHANGE, KINDS
from edge.spool.log import SegmentLog
from edge.spool.recovery import Damage
from edge.spool.segment import HEADER_BYTES, SEGMENT_SUFFIX, decode_header, number_of
from edge.spool.snapshot import Snapshot, read_snapshot, snapshot_numbers, write_snapshot
from edge.spool.state import State, merge
from schemas.errors import SettingsError


@dataclass(slots=True)
class Opened:
    """An open spool.

    Attributes:
        lock: Held while it is open.
        logs: The lanes.
        state: What they add up to.
        snapshot: From which that began; None when none was sound.
        oldest_snapshot: Number of the oldest one that is there.
        damages: Rows that are lost.
        news: What was found, in words.
        moved_aside: Where a predecessor lies of which nothing could be saved.
    """

    lock: Lock
    logs: Mapping[Lane, SegmentLog]
    state: State
    snapshot: Snapshot | None
    oldest_snapshot: int
    damages: list[Damage]
    news: list[str] = field(default_factory=list)
    moved_aside: Path | None = None


def lane_directory(path: Path, lane: Lane) -> Path:
    """Where the segments of a lane lie."""
    return path / lane.value


def locked(path: Path, files: Files) -> Lock:
    """Lock a spool, before anything of it is looked at.

    Raises:
        SettingsError: Another process has it open.
        SpoolError: The directory cannot be written.
    """
    try:
        files.make_directory(path.parent)
        return files.lock(path.with_name(path.name + ".lock"))
    except BlockingIOError as error:
        raise SettingsError(f"spool_path: {path} is in use by another process") from error
    except OSError as error:
        raise SpoolError(f"spool {path}: {error}") from error


def open_spool(path: Path, lock: Lock, *, files: Files, segment_bytes: int, now_ms: int) -> Opened:
    """Open or make a spool that is locked.

    Raises:
        SettingsError: It is of a later format.
        SpoolError: The disk refuses.
    """
    with disk_errors(path):
        _make_directories(path, files)
        snapshot, news = _newest_sound(path, files)
        spool_id = snapshot.state.spool_id if snapshot else _spool_id_of_segments(path, files)
        moved_aside = None
        if spool_id is None and _holds_anything(path, files):
            moved_aside = _move_aside(path, files, now_ms=now_ms)
            news = []
        if spool_id is None:
            spool_id = uuid.uuid4().hex
            snapshot = write_snapshot(files, path, 1, State(spool_id), None)
        logs = {
            lane: SegmentLog(
                files,
                lane_directory(path, lane),
                lane,
                spool_id=spool_id,
                segment_bytes=segment_bytes,
            )
            for lane in Lane
        }
        numbers = snapshot_numbers(files, path)
        damages = logs[Lane.PRIORITY].open(number_min=max(numbers, default=1))
        damages += logs[Lane.TELEMETRY].open()
        state = _add_up(spool_id, snapshot, logs)
        oldest = min(numbers, default=0)
    return Opened(lock, logs, state, snapshot, oldest, damages, news, moved_aside)


def _make_directories(path: Path, files: Files) -> None:
    files.make_directory(path)
    for lane in Lane:
        files.make_directory(lane_directory(path, lane))
    # A program that was killed may have made names that only the memory of the machine knows.
    for directory in (path.parent, path, *(lane_directory(path, lane) for lane in Lane)):
        files.sync_directory(directory)


def _newest_sound(path: Path, files: Files) -> tuple[Snapshot | None, list[str]]:
    news: list[str] = []
    for number in snapshot_numbers(files, path):
        snapshot = read_snapshot(files, path, number)
        if snapshot is not None:
            return snapshot, news
        news.append(f"snapshot {number} of the spool is damaged: going on from what is before it")
    return None, news


def _spool_id_of_segments(path: Path, files: Files) -> str | None:
    """Should every snapshot be lost, any sound segment tells whose it is."""
    for lane in Lane:
        directory = lane_directory(path, lane)
        for name in sorted(files.names(directory), reverse=True):
            if number_of(name, SEGMENT_SUFFIX) is None:
                continue
            header = decode_header(files.read(directory / name, 0, HEADER_BYTES))
            if header is not None:
                return header.spool_id
    return None


def _holds_anything(path: Path, files: Files) -> bool:
    """Whether a spool was here: the first snapshot is there before the first segment."""
    return any(files.names(lane_directory(path, lane)) for lane in Lane) or any(
        files.size(path / f"snapshot-{number}") for number in snapshot_numbers(files, path)
    )


def _move_aside(path: Path, files: Files, *, now_ms: int) -> Path:
    target = path.with_name(f"{path.name}.damaged-{now_ms}")
    files.replace(path, target)
    files.sync_directory(path.parent)
    _make_directories(path, files)
    return target


def _add_up(spool_id: str, snapshot: Snapshot | None, logs: Mapping[Lane, SegmentLog]) -> State:
    """The snapshot, and all that was written since."""
    state = State(spool_id) if snapshot is None else snapshot.state
    since = 0 if snapshot is None else snapshot.number
    log = logs[Lane.PRIORITY]
    for segment in log.segments:
        if segment.number < since:
            continue
        walker = log.walker_at(segment, HEADER_BYTES)
        while (found := walker.next()) is not None:
            if found.flags & KINDS == CHANGE:
                state.apply(decode_change(found.content))
    if snapshot is None:
        # What was settled before the first frame that is left is only told by the rows.
        state.marks[Mark.IDENTITY] = 0
    marks = dict(state.marks)
    merge(marks, logs[Lane.TELEMETRY].hints)
    for lane, log in logs.items():
        log.floor(max(state.lasts[lane], *_floors(marks, lane)))
    present = {(lane, segment.number) for lane in Lane for segment in logs[lane].segments}
    state.told = {told for told in state.told if (told.lane, told.number) in present}
    return state


def _floors(marks: Mapping[str, int], lane: Lane) -> Iterable[int]:
    """Positions that were given, whether their rows are there or not."""
    yield marks.get(Mark.forwarded(lane), 0)
    if lane is Lane.TELEMETRY:
        yield from (marks.get(mark, 0) for mark in (Mark.SCORED, Mark.IDENTITY, Mark.GIVEN_UP))
