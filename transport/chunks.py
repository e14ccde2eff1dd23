"""Models too large for one record, as pieces on `model.chunks`.

A piece is addressed by what it is part of: its key is `{SHA-256 of the model}/{index}`. So a
repeated upload writes the same keys, versions with the same bytes share their pieces, and
compaction keeps one of each. Pieces are written before the release that needs them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from schemas.errors import ContractError, Reason
from schemas.records import Record, encode_confluent
from schemas.topics import CHUNKS
from scoring.bundle import MODEL_BYTES_MAX, sha256_hex
from transport.kafka import (
    Message,
    Outgoing,
    SchemaIds,
    Span,
    latest_offsets,
    partition_counts,
    read_range,
    spans,
)
from transport.release_records import PARTITION, decode_record
from transport.settings import KafkaSettings

CHUNK_BYTES = 900_000
"""Bytes of a model in one piece; with frame, key and headers it fits into a record."""

CHUNKS_MAX = 1_000
"""Most pieces of a model that a reader takes, whoever cut it."""

READ_TIMEOUT_S = 10.0
"""Longest silence of Kafka while pieces are read."""

_BATCH_MAX = 16


def chunk_key(sha256: str, index: int) -> bytes:
    """Key of a piece's record; `sha256` as 64 hex digits."""
    return f"{sha256}/{index}".encode()


def chunk_records(model: bytes, schema_id: int) -> Iterator[Outgoing]:
    """The pieces of a model, ready to be written."""
    sha256 = sha256_hex(model)
    count = _count(model)
    for index in range(count):
        record = {
            "sha256": bytes.fromhex(sha256),
            "index": index,
            "count": count,
            "data": model[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
        }
        value = encode_confluent(CHUNKS.record, schema_id, record)
        yield Outgoing(CHUNKS.name, value, chunk_key(sha256, index), PARTITION)


def _count(model: bytes) -> int:
    return -(-len(model) // CHUNK_BYTES)


@dataclass(slots=True)
class Assembly:
    """Puts the pieces of one model together, in whatever order and however often they come.

    Holds at most `MODEL_BYTES_MAX` bytes. Of an index that came twice the later piece counts, and
    pieces cut for another count than the last one's do not.

    Attributes:
        sha256: Of the model, 64 hex digits.
    """

    sha256: str
    _count: int = 0
    _pieces: dict[int, bytes] = field(default_factory=dict)
    _damaged: int = 0

    def take(self, message: Message, ids: SchemaIds) -> None:
        """Look at a record of `model.chunks`; those of other models are passed over."""
        key = message.key() or b""
        if key.partition(b"/")[0] != self.sha256.encode():
            return
        value = message.value()
        if value is None:
            self._drop(key)
            return
        try:
            self._add(key, decode_record(value, CHUNKS, ids))
        except ContractError:
            # Told by `model` in the end, where this leaves the model incomplete.
            self._damaged += 1

    def model(self) -> bytes | None:
        """The bytes, once all pieces are there and they have the right SHA-256."""
        if not self._count or len(self._pieces) != self._count:
            return None
        model = b"".join(self._pieces[index] for index in range(self._count))
        return model if sha256_hex(model) == self.sha256 else None

    def error(self) -> ContractError:
        """Why `model` gives none."""
        what = f"model with SHA-256 {self.sha256}"
        damaged = f", {self._damaged} damaged" if self._damaged else ""
        if self._count and len(self._pieces) == self._count:
            return ContractError(
                Reason.MODEL_HASH, f"the chunks of the {what} make other bytes{damaged}"
            )
        there = f"{len(self._pieces)} of {self._count or 'unknown'}"
        return ContractError(
            Reason.MODEL_INVALID, f"chunks of the {what} are missing: {there} are there{damaged}"
        )

    def _add(self, key: bytes, record: Record) -> None:
        index, count, data = record["index"], record["count"], record["data"]
        is_own = key == chunk_key(record["sha256"].hex(), index)
        if not (is_own and 0 <= index < count <= CHUNKS_MAX):
            raise ContractError(Reason.IDENTITY, f"piece {index} of {count} under {key!r}")
        if count != self._count:
            self._count, self._pieces = count, {}
        self._pieces[index] = data
        if sum(map(len, self._pieces.values())) > MODEL_BYTES_MAX:
            self._pieces = {}
            raise ContractError(Reason.OVERSIZED, f"pieces of over {MODEL_BYTES_MAX} bytes")

    def _drop(self, key: bytes) -> None:
        index = key.rpartition(b"/")[2]
        if index.isdigit():
            self._pieces.pop(int(index), None)


def chunks_end(settings: KafkaSettings) -> int:
    """The offset behind the last piece; 0 where there is none.

    Raises:
        TransientError: Kafka did not answer in time.
    """
    if not partition_counts(settings, [CHUNKS.name], timeout_s=READ_TIMEOUT_S)[CHUNKS.name]:
        return 0
    return latest_offsets(settings, CHUNKS.name, timeout_s=READ_TIMEOUT_S)[PARTITION]


def read_chunks(settings: KafkaSettings, ids: SchemaIds, sha256: str, chunks_from: int) -> bytes:
    """Read a model's pieces from the log and put them together.

    Args:
        settings: Where Kafka is.
        ids: With the schema id of `model.chunks`.
        sha256: Of the model, 64 hex digits.
        chunks_from: Offset to search from; where that does not give the model, as after a later
            upload and compaction, the whole topic is searched.

    Raises:
        ContractError: MODEL_INVALID: pieces are missing; MODEL_HASH: they make other bytes.
        TransientError: Kafka did not answer in time.
    """
    if not partition_counts(settings, [CHUNKS.name], timeout_s=READ_TIMEOUT_S)[CHUNKS.name]:
        raise ContractError(Reason.MODEL_INVALID, f"there is no topic {CHUNKS.name}")
    span = spans(settings, CHUNKS.name, timeout_s=READ_TIMEOUT_S)[PARTITION]
    starts = {min(max(chunks_from, span.start), span.end), span.start}
    for start in sorted(starts, reverse=True):
        assembly = Assembly(sha256)
        for batch in _chunks(settings, Span(start, span.end)):
            model = _taken(assembly, batch, ids)
            if model is not None:
                return model
    raise assembly.error()


def tombstones(settings: KafkaSettings, sha256: str) -> list[Outgoing]:
    """Deletions of all the pieces of a model that the log has, whoever cut it.

    Raises:
        TransientError: Kafka did not answer in time.
    """
    if not chunks_end(settings):
        return []
    span = spans(settings, CHUNKS.name, timeout_s=READ_TIMEOUT_S)[PARTITION]
    keys: dict[bytes, bool] = {}
    for batch in _chunks(settings, span):
        for message in batch:
            key = message.key() or b""
            if key.partition(b"/")[0] == sha256.encode():
                keys[key] = message.value() is not None
    return [Outgoing(CHUNKS.name, None, key, PARTITION) for key, there in keys.items() if there]


def _taken(assembly: Assembly, batch: Iterable[Message], ids: SchemaIds) -> bytes | None:
    for message in batch:
        assembly.take(message, ids)
    return assembly.model()


def _chunks(settings: KafkaSettings, span: Span) -> Iterator[list[Message]]:
    return read_range(
        settings,
        CHUNKS.name,
        {PARTITION: span},
        batch_messages=_BATCH_MAX,
        stall_timeout_s=READ_TIMEOUT_S,
    )
