"""Snapshots: what the spool adds up to, in one file that is written beside its predecessor.

    head │ state │ block of identities │ … │ directory of the blocks │ tail

Identities lie in blocks, sorted by vehicle, each with a checksum; only the directory is kept in
memory, so a fleet of any size takes little of it. A snapshot is named after the segment of the
priority log whose frames come after it. The newest that is sound counts.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge.spool.errors import SpoolError
from edge.spool.files import File, Files
from edge.spool.packing import Packer, Unpacker
from edge.spool.state import State, decode_state
from schemas.errors import SettingsError

FORMAT = 3
"""Of the spool: 1 and 2 were SQLite files."""

BLOCK_BYTES = 16 * 1024
KEPT = 2
"""Snapshots kept: should the newest be damaged, the one before and the log since then serve."""

_MAGIC = b"MCSNAPSH"
_HEAD = struct.Struct("<8sIII")
_TAIL = struct.Struct("<QII8s")
_CRC = struct.Struct("<I")
_PREFIX = "snapshot-"
_UNFINISHED = "unfinished-snapshot"


@dataclass(slots=True)
class Snapshot:
    """A sound snapshot on the disk.

    Attributes:
        number: Segment of the priority log that comes after it.
        path: The file.
        size: Its bytes.
        state: What it holds, without the identities.
        firsts: First vehicle of each block.
        blocks: Where the blocks lie: offset and length.
    """

    number: int
    path: Path
    size: int
    state: State
    firsts: list[str] = field(default_factory=list)
    blocks: list[tuple[int, int]] = field(default_factory=list)

    def boots(self, files: Files, vehicle_id: str) -> bytes | None:
        """Packed boots of a vehicle; None when it is unknown.

        Raises:
            SpoolError: The block cannot be read, or is damaged.
        """
        at = bisect_right(self.firsts, vehicle_id) - 1
        if at < 0:
            return None
        return dict(self._block(files, *self.blocks[at])).get(vehicle_id)

    def identities(self, files: Files) -> Iterator[tuple[str, bytes]]:
        """All of them, by vehicle."""
        for block in self.blocks:
            yield from self._block(files, *block)

    def _block(self, files: Files, offset: int, length: int) -> list[tuple[str, bytes]]:
        data = files.read(self.path, offset, length)
        if not _fits(data):
            raise SpoolError(f"spool {self.path}: a block of identities is damaged")
        unpacker = Unpacker(data, _CRC.size)
        return [(unpacker.text(), unpacker.bytes_()) for _ in range(unpacker.u32())]


def snapshot_numbers(files: Files, directory: Path) -> list[int]:
    """Numbers of the snapshots that are there, newest first."""
    names = [name.removeprefix(_PREFIX) for name in files.names(directory) if _PREFIX in name]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def read_snapshot(files: Files, directory: Path, number: int) -> Snapshot | None:
    """A snapshot; None when any of it is damaged, its format's number included.

    Raises:
        SettingsError: It is of a later format.
        OSError: It cannot be read.
    """
    path = directory / f"{_PREFIX}{number}"
    data = files.read(path, 0, files.size(path))
    if len(data) < _HEAD.size + _TAIL.size:
        return None
    magic, version, length, crc = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or zlib.crc32(body, version) != crc:
        return None
    if version > FORMAT:
        raise SettingsError(
            f"spool_path: {directory} is of format {version}, this program's is {FORMAT}"
        )
    at, directory_bytes, tail_crc, end = _TAIL.unpack_from(data, len(data) - _TAIL.size)
    listing = data[at : at + directory_bytes]
    if (
        end != _MAGIC
        or at + directory_bytes + _TAIL.size != len(data)
        or zlib.crc32(listing) != tail_crc
    ):
        return None
    snapshot = Snapshot(number, path, len(data), decode_state(body))
    unpacker = Unpacker(listing)
    for _ in range(unpacker.u32()):
        snapshot.firsts.append(unpacker.text())
        snapshot.blocks.append((unpacker.i64(), unpacker.i64()))
    sound = all(_fits(data[offset : offset + size]) for offset, size in snapshot.blocks)
    return snapshot if sound else None


def write_snapshot(
    files: Files, directory: Path, number: int, state: State, older: Snapshot | None
) -> Snapshot:
    """Put a snapshot on the disk, whole or not at all.

    Args:
        files: The disk.
        directory: Of the spool.
        number: See `Snapshot`.
        state: What to hold; its identities come in place of those in `older`.
        older: Where the other identities are.

    Raises:
        OSError: The disk refuses; nothing has changed.
        SpoolError: `older` is damaged.
    """
    unfinished = directory / _UNFINISHED
    with suppress(FileNotFoundError):
        files.remove(unfinished)
    path = directory / f"{_PREFIX}{number}"
    body = state.encode()
    snapshot = Snapshot(number, path, 0, state)
    file = files.create(unfinished)
    try:
        file.append(_HEAD.pack(_MAGIC, FORMAT, len(body), zlib.crc32(body, FORMAT)) + body)
        offset = _HEAD.size + len(body)
        known = iter(()) if older is None else older.identities(files)
        offset = _write_blocks(file, offset, merged(known, state.identities), snapshot)
        snapshot.size = _write_end(file, offset, snapshot)
        file.sync()
    finally:
        file.close()
    files.replace(unfinished, path)
    files.sync_directory(directory)
    return snapshot


def _write_blocks(
    file: File, offset: int, identities: Iterable[tuple[str, bytes]], snapshot: Snapshot
) -> int:
    block: list[tuple[str, bytes]] = []
    size = 0

    def put() -> int:
        data = _block(block)
        file.append(data)
        snapshot.firsts.append(block[0][0])
        snapshot.blocks.append((offset, len(data)))
        return len(data)

    for identity in identities:
        block.append(identity)
        size += len(identity[1]) + 32
        if size >= BLOCK_BYTES:
            offset += put()
            block, size = [], 0
    if block:
        offset += put()
    return offset


def _block(identities: list[tuple[str, bytes]]) -> bytes:
    packer = Packer()
    packer.u32(len(identities))
    for vehicle_id, boots in identities:
        packer.text(vehicle_id)
        packer.blob(boots)
    body = packer.done()
    return _CRC.pack(zlib.crc32(body)) + body


def _write_end(file: File, offset: int, snapshot: Snapshot) -> int:
    """The directory and the tail; returns the size of the file."""
    packer = Packer()
    packer.u32(len(snapshot.blocks))
    for first, (at, length) in zip(snapshot.firsts, snapshot.blocks, strict=True):
        packer.text(first)
        packer.i64(at, length)
    listing = packer.done()
    file.append(listing + _TAIL.pack(offset, len(listing), zlib.crc32(listing), _MAGIC))
    return offset + len(listing) + _TAIL.size


def merged(
    known: Iterator[tuple[str, bytes]], newer: Mapping[str, bytes]
) -> Iterator[tuple[str, bytes]]:
    """Identities by vehicle, those of `newer` in place of the known ones."""
    fresh = iter(sorted(newer))
    next_fresh = next(fresh, None)
    for vehicle_id, boots in known:
        while next_fresh is not None and next_fresh < vehicle_id:
            yield next_fresh, newer[next_fresh]
            next_fresh = next(fresh, None)
        if next_fresh == vehicle_id:
            yield vehicle_id, newer[vehicle_id]
            next_fresh = next(fresh, None)
        else:
            yield vehicle_id, boots
    while next_fresh is not None:
        yield next_fresh, newer[next_fresh]
        next_fresh = next(fresh, None)


def remove_older(files: Files, directory: Path, *, newest: int) -> int:
    """Delete all but the KEPT newest; returns the number of the oldest that is kept."""
    numbers = [number for number in snapshot_numbers(files, directory) if number <= newest]
    for number in numbers[KEPT:]:
        files.remove(directory / f"{_PREFIX}{number}")
    return numbers[:KEPT][-1]


def _fits(data: bytes) -> bool:
    return len(data) >= _CRC.size and _CRC.unpack_from(data)[0] == zlib.crc32(
        memoryview(data)[_CRC.size :]
    )
