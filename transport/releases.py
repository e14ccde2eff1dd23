"""Models on `model.releases`: publish one, follow them.

The topic has one partition, so the log orders the releases; the newest one of a name is its
champion. The key is `name/version`: compaction keeps every version, and of a version that was
published twice the later record.
"""

import struct
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from schemas.errors import ContractError, Reason, TransientError
from schemas.records import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    Record,
    decode_confluent,
    encode_confluent,
)
from schemas.topics import RELEASES
from scoring.bundle import Bundle
from transport.kafka import (
    LogConsumer,
    Message,
    Outgoing,
    SchemaIds,
    make_consumer,
    partition_counts,
    publish,
    read_range,
    register_schemas,
    spans,
)
from transport.settings import KafkaSettings

PARTITION = 0
CATCH_UP_TIMEOUT_S = 5.0
"""Longest wait for each answer while the log so far is read."""
RETRY_S = 1.0
"""Pause after Kafka or the registry could not be reached."""
RECENT_MAX = 64
"""Releases of a name, newest first, among which the newest sound one is looked for."""
BATCH_MAX = 16

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class BrokenRelease:
    """A release that cannot be used, with what a dead letter needs.

    Attributes:
        error: Why.
        offset: Where it is on `model.releases`, partition 0.
        key: Of the record.
        headers: Of the record.
        payload: Its value.
    """

    error: ContractError
    offset: int
    key: bytes | None
    headers: tuple[Header, ...]
    payload: bytes


Release = Bundle | BrokenRelease


def release_key(name: str, version: str) -> bytes:
    """Key of a release's record."""
    return f"{name}/{version}".encode()


def publish_release(settings: KafkaSettings, bundle: Bundle) -> None:
    """Publish a verified bundle; returns when all replicas that must have it do.

    Raises:
        ContractError: The bundle does not verify, or is too large for a record.
        TransientError: Kafka or the registry did not answer in time; the release may still be
            published, and publishing it again does no harm.
        SettingsError: They refuse this client.
    """
    bundle.verify()
    manifest = bundle.manifest
    ids = register_schemas(settings, [RELEASES])
    value = encode_confluent(RELEASES.record, ids.id_of(RELEASES), bundle.to_record())
    record = Outgoing(
        RELEASES.name,
        value,
        release_key(manifest.name, manifest.version),
        PARTITION,
        headers=(("sha256", manifest.model_sha256.encode()),),
    )
    publish(settings, [record])


def newest_release(settings: KafkaSettings, name: str) -> Bundle | None:
    """The champion of a name now; None where nothing sound was published.

    Raises:
        TransientError: Kafka or the registry did not answer in time.
        SettingsError: There is no topic `model.releases`.
    """
    ids = register_schemas(settings, [RELEASES])
    recent, _ = _read_so_far(settings, name)
    return next((r for r in catch_up(recent, ids) if isinstance(r, Bundle)), None)


def read_release(message: Message, ids: SchemaIds) -> Release:
    """The bundle in a record, or why there is none."""
    payload = message.value() or b""
    try:
        return Bundle.from_record(_decode(payload, ids))
    except ContractError as error:
        return BrokenRelease(
            error=error,
            offset=_offset(message),
            key=message.key(),
            headers=_headers(message),
            payload=payload,
        )


def _headers(message: Message) -> tuple[Header, ...]:
    """As (name, bytes); the library's types also allow a mapping and text."""
    headers = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((n, v.encode() if isinstance(v, str) else v) for n, v in pairs)


def _decode(payload: bytes, ids: SchemaIds) -> Record:
    schema_id = ids.id_of(RELEASES)
    if len(payload) >= CONFLUENT_HEADER_BYTES and payload[:1] == CONFLUENT_MAGIC:
        found = struct.unpack(">I", payload[1:CONFLUENT_HEADER_BYTES])[0]
        if not ids.is_known(RELEASES, found):
            raise ContractError(
                Reason.UNKNOWN_SCHEMA_ID, f"schema id {found} is none of {RELEASES.name}'s"
            )
        schema_id = found
    return decode_confluent(RELEASES.record, schema_id, payload)


def _is_of(message: Message, name: str) -> bool:
    """Whether a record may be a release of that name; tombstones are none."""
    key = message.key() or b""
    return message.value() is not None and (
        b"/" not in key or key.rpartition(b"/")[0] == name.encode()
    )


def _offset(message: Message) -> int:
    offset = message.offset()
    return -1 if offset is None else offset


def catch_up(recent: Iterable[Message], ids: SchemaIds) -> list[Release]:
    """From records in order of the log: the newest sound one, after the broken ones behind it.

    What lies before the newest sound release is history and is passed over, broken or not, so
    that it is not reported with every start.
    """
    found: list[Release] = []
    for message in reversed(list(recent)):
        release = read_release(message, ids)
        found.append(release)
        if isinstance(release, Bundle):
            break
    return found


def _read_so_far(settings: KafkaSettings, name: str) -> tuple[deque[Message], int]:
    """The last records of a name, and the offset to go on at."""
    span = spans(settings, RELEASES.name, timeout_s=CATCH_UP_TIMEOUT_S)[PARTITION]
    recent: deque[Message] = deque(maxlen=RECENT_MAX)
    batches = read_range(
        settings,
        RELEASES.name,
        {PARTITION: span},
        batch_messages=BATCH_MAX,
        stall_timeout_s=CATCH_UP_TIMEOUT_S,
    )
    for batch in batches:
        recent.extend(message for message in batch if _is_of(message, name))
    return recent, span.end


class ReleaseFollower:
    """Gives the releases of one name as they appear, starting with the newest that is there.

    Belongs to one thread, best one of its own: while it catches up, a `poll` may take some
    seconds longer than asked. It joins no group; every follower sees every release. Kafka or the
    registry being down, or the topic not being there yet, is no error here: `poll` gives nothing
    until they are.
    """

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._ids: SchemaIds | None = None
        self._consumer: LogConsumer | None = None
        self._retry_at_s = 0.0
        self.last_error: TransientError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; a later `poll` starts again with the newest release."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def poll(self, timeout_s: float) -> list[Release]:
        """Releases that came since the last poll, in order of the log: the last one counts.

        The first poll that reaches Kafka gives the newest sound release and, before it in the
        list, nothing older; broken ones behind it in the log come with it and are to be
        dead-lettered.

        Args:
            timeout_s: Longest wait for something new.

        Returns:
            Perhaps nothing: nothing new, or Kafka cannot be reached (see `last_error`).

        Raises:
            SettingsError: Kafka or the registry refuses this client.
        """
        if time.monotonic() < self._retry_at_s:
            time.sleep(max(0.0, min(timeout_s, self._retry_at_s - time.monotonic())))
            return []
        try:
            found = self._follow(timeout_s)
            self.last_error = None
            return found
        except TransientError as error:
            self.last_error = error
            self._retry_at_s = time.monotonic() + RETRY_S
            return []

    def _follow(self, timeout_s: float) -> list[Release]:
        if self._ids is None:
            self._ids = register_schemas(self._settings, [RELEASES])
        if self._consumer is None:
            return self._start(self._ids)
        messages = self._consumer.consume(BATCH_MAX, timeout_s)
        ids = self._ids
        return [read_release(m, ids) for m in messages if _is_of(m, self._name)]

    def _start(self, ids: SchemaIds) -> list[Release]:
        if not partition_counts(self._settings, [RELEASES.name], timeout_s=CATCH_UP_TIMEOUT_S)[
            RELEASES.name
        ]:
            raise TransientError(f"no topic {RELEASES.name} yet")
        recent, next_offset = _read_so_far(self._settings, self._name)
        consumer = make_consumer(self._settings, f"{self._settings.client_id}-releases")
        consumer.start()
        consumer.assign({(RELEASES.name, PARTITION): next_offset})
        self._consumer = consumer
        return catch_up(recent, ids)
