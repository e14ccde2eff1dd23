"""The files of a stopped Kafka, put back to the worst moment for a kill: just after a commit.

A commit is acknowledged once the transaction log says that it is to be, before its markers are in
the partitions. How often a kill falls between the two depends on the machine. Here it always does:
the markers that made it are cut off again, as are the words in the transaction log that they did.
"""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

_BATCH_HEADER_BYTES = 61
_ATTRIBUTES = slice(21, 23)
_CONTROL = 0x20
_STATUS = 16
_COMPLETE_COMMIT = 4


def forget_markers(data: Path, topics: Collection[str], transactional_id: str) -> None:
    """Undo what came after the commit of the last transaction was acknowledged.

    Args:
        data: Kafka's log directory. Kafka does not run.
        topics: Where the transaction wrote, each a topic of one partition.
        transactional_id: Whose last transaction it was, and the last of all.
    """
    for topic in topics:
        _cut_tail(_newest_segment(data / f"{topic}-0"), _is_control)

    def completes(batch: bytes) -> bool:
        return transactional_id.encode() in batch and _status(batch) == _COMPLETE_COMMIT

    for partition in data.glob("__transaction_state-*"):
        _cut_tail(_newest_segment(partition), completes)


def _newest_segment(partition: Path) -> Path:
    return max(partition.glob("*.log"))


def _cut_tail(segment: Path, goes: Callable[[bytes], bool]) -> None:
    content = segment.read_bytes()
    kept_bytes = len(content)
    for batch in reversed(list(_batches(content))):
        if not goes(batch):
            break
        kept_bytes -= len(batch)
    os.truncate(segment, kept_bytes)


def _batches(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at + 8 : at + 12], "big")
        yield content[at:end]
        at = end


def _is_control(batch: bytes) -> bool:
    return bool(int.from_bytes(batch[_ATTRIBUTES], "big") & _CONTROL)


def _status(batch: bytes) -> int:
    """What a batch of the transaction log, which holds one record, says of its transaction."""
    _, at = _varint(batch, _BATCH_HEADER_BYTES)  # the length of the record
    _, at = _varint(batch, at + 1)  # after its attributes: its time
    _, at = _varint(batch, at)  # its offset
    key_bytes, at = _varint(batch, at)
    value_bytes, at = _varint(batch, at + key_bytes)
    return batch[at + _STATUS] if value_bytes > 0 else 0


def _varint(batch: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, and where it ends."""
    number = shift = 0
    while True:
        byte = batch[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
