"""From rows of the spool to records of Kafka: pure, and the Avro body stays byte for byte."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge.partitions import partition_of
from edge.ranges import Ranges
from edge.receipts import Receipt
from edge.rows import Kind, Lane, Priority, StoredPriority, StoredTelemetry
from schemas.errors import SettingsError
from schemas.records import (
    SINGLE_OBJECT_HEADER_BYTES,
    Record,
    confluent_header,
    decode_single_object,
    encode_confluent,
)
from schemas.topics import (
    ALERTS,
    ALERTS_STATE,
    CLOCKS,
    DEAD_LETTERS,
    EDGE_SCORES,
    GAPS,
    GATEWAY_POSITIONS,
    GATEWAY_STATUS,
    LABELS,
    MODEL_EVENTS,
    TELEMETRY,
    Topic,
    alert_state_key,
)
from schemas.versions import versions_by_fingerprint
from transport.kafka import Header, Outgoing, SchemaIds
from transport.tracing import TRACEPARENT

LATE: Header = ("late", b"1")
"""On telemetry that was not in Kafka `backlog_after_s` after it was received."""

_FINGERPRINT = slice(2, SINGLE_OBJECT_HEADER_BYTES)

WRITTEN_TOPICS: tuple[Topic, ...] = (
    TELEMETRY,
    ALERTS,
    ALERTS_STATE,
    LABELS,
    DEAD_LETTERS,
    GATEWAY_POSITIONS,
    GATEWAY_STATUS,
    GAPS,
    CLOCKS,
    EDGE_SCORES,
    MODEL_EVENTS,
)

TOPIC_OF_KIND: Mapping[str, Topic] = {
    Kind.ALERT: ALERTS,
    Kind.DEAD_LETTER: DEAD_LETTERS,
    Kind.LABEL: LABELS,
    Kind.GAP: GAPS,
    Kind.CLOCK: CLOCKS,
    Kind.EVENT: MODEL_EVENTS,
    Kind.SCORE: EDGE_SCORES,
}


def position_key(gateway_id: str, lane: Lane) -> bytes:
    """Key in `gateway.positions`: compaction keeps the newest per gateway and lane."""
    return f"{gateway_id}/{lane}".encode()


def telemetry_frames(ids: SchemaIds) -> dict[bytes, bytes]:
    """Fingerprint of a writer's schema to the Confluent header of the same schema."""
    by_release: dict[str | None, int] = {release: i for i, release in ids.releases.items()}
    by_release[None] = ids.id_of(TELEMETRY)
    return {
        mark: confluent_header(by_release[release])
        for mark, release in versions_by_fingerprint().items()
        if release in by_release
    }


def as_stored(row: StoredTelemetry) -> Receipt:
    """The time of receipt as the gateway's clock showed it."""
    return Receipt(row.received_ms)


def producers_time() -> int:
    """For a record time: that of the machine, when it is produced."""
    return 0


@dataclass(frozen=True, slots=True)
class Framer:
    """Makes Kafka records for one gateway.

    Attributes:
        gateway_id: Written into headers and keys.
        ids: Schema ids of the topics that are written.
        state_partitions: Partitions of `vehicle.alerts.state`.
        receipt: When a batch was received, in truth where that is known.
        now_ms: The gateway's time, for what does not say its own.
    """

    gateway_id: str
    ids: SchemaIds
    state_partitions: int
    receipt: Callable[[StoredTelemetry], Receipt] = as_stored
    now_ms: Callable[[], int] = producers_time

    def telemetry(self, rows: Sequence[StoredTelemetry], *, late: bool = False) -> list[Outgoing]:
        """One record a batch; key is the vehicle, record time the time of receipt.

        Hot path: each record is made once, as the tuples and the list that the client takes.

        Args:
            rows: From the spool.
            late: They come behind their time; says so in a header.

        Raises:
            SettingsError: A vehicle writes with the schema of a release that the registry does
                not know. The body is never encoded anew, so it has to be registered.
        """
        frames = telemetry_frames(self.ids)
        unknown = {row.payload[_FINGERPRINT] for row in rows} - frames.keys()
        if unknown:
            raise SettingsError(
                f"the registry lacks the schema of {TELEMETRY.name} with the fingerprint "
                f"{unknown.pop().hex()}; register that release's TelemetryBatch"
            )
        of_gateway: Header = ("gateway_id", self.gateway_id.encode())
        of_boot: dict[int, Header] = {
            boot_id: ("boot_id", b"%d" % boot_id) for boot_id in {row.boot_id for row in rows}
        }
        ends = (LATE,) if late else ()
        topic, receipt = TELEMETRY.name, self.receipt
        return [
            Outgoing(
                topic,
                frames[row.payload[_FINGERPRINT]] + row.payload[SINGLE_OBJECT_HEADER_BYTES:],
                row.vehicle_id.encode(),
                -1,
                [
                    of_boot[row.boot_id],
                    ("seq", b"%d" % row.seq),
                    of_gateway,
                    ("received_ms", b"%d" % received_ms),
                    *headers,
                    *ends,
                    *(_trace(row.traceparent) if row.traceparent else ()),
                ],
                received_ms,
            )
            for row in rows
            for received_ms, headers in (receipt(row),)
        ]

    def priority(self, row: StoredPriority) -> list[Outgoing]:
        """A row to the topic of its kind, an alert to its state as well.

        Raises:
            ContractError: It is no such record.
        """
        records = [self._priority(row)]
        if row.kind == Kind.ALERT:
            records.append(self._alert_state(row))
        return records

    def _priority(self, row: StoredPriority) -> Outgoing:
        topic = TOPIC_OF_KIND[row.kind]
        return Outgoing(
            topic.name,
            self._framed(topic, row),
            None if row.message_key is None else row.message_key.encode(),
            headers=(("gateway_id", self.gateway_id.encode()), *_trace(row.traceparent)),
            timestamp_ms=row.received_ms or self.now_ms(),
        )

    def _alert_state(self, row: StoredPriority) -> Outgoing:
        """The alert while it is open, a tombstone when it closes; beside its vehicle."""
        alert = decode_single_object("Alert", row.payload)
        vehicle_id = alert["vehicle_id"].encode()
        return Outgoing(
            ALERTS_STATE.name,
            self._framed(ALERTS_STATE, row) if alert["state"] == "OPEN" else None,
            alert_state_key(alert["origin"], vehicle_id, alert["code"]),
            partition_of(vehicle_id, self.state_partitions),
            timestamp_ms=row.received_ms or self.now_ms(),
        )

    def _framed(self, topic: Topic, row: StoredPriority) -> bytes:
        return confluent_header(self.ids.id_of(topic)) + row.payload[SINGLE_OBJECT_HEADER_BYTES:]

    def position(self, lane: Lane, done: Ranges, *, spool_id: str, now_ms: int) -> Outgoing:
        """How far a lane has come, for the transaction that takes it there."""
        record: Record = {
            "gateway_id": self.gateway_id,
            "spool_id": spool_id,
            "lane": lane.value,
            "position": done.contiguous,
            "committed_time": now_ms,
            "ranges": [{"first": first, "last": last} for first, last in done.above],
        }
        return Outgoing(
            GATEWAY_POSITIONS.name,
            encode_confluent("GatewayPosition", self.ids.id_of(GATEWAY_POSITIONS), record),
            position_key(self.gateway_id, lane),
            0,
        )

    def dead_letter(self, letter: Priority) -> Outgoing:
        """What could not be forwarded as it was."""
        return Outgoing(
            DEAD_LETTERS.name,
            confluent_header(self.ids.id_of(DEAD_LETTERS))
            + letter.payload[SINGLE_OBJECT_HEADER_BYTES:],
            None if letter.message_key is None else letter.message_key.encode(),
            headers=[("gateway_id", self.gateway_id.encode())],
            timestamp_ms=letter.received_ms,
        )

    def status(self, record: Record) -> Outgoing:
        """A heartbeat."""
        return Outgoing(
            GATEWAY_STATUS.name,
            encode_confluent("GatewayStatus", self.ids.id_of(GATEWAY_STATUS), record),
            self.gateway_id.encode(),
        )


def _trace(traceparent: str | None) -> tuple[Header, ...]:
    return () if traceparent is None else ((TRACEPARENT, traceparent.encode()),)
