"""What could not be processed, as `DeadLetter` records. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import ContractError
from schemas.records import encode_confluent
from schemas.topics import DEAD_LETTERS
from transport import metrics
from transport.kafka import Message, Outgoing

PAYLOAD_BYTES_MAX = 900_000
"""A payload is cut to this, so that letter and frame fit into a record of the topic."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that could not be processed, as it came.

    Attributes:
        topic: Where it came from.
        partition: -1 where there is none.
        offset: -1 where there is none.
        key: Of the record.
        headers: Of the record.
        payload: Its value; None for a tombstone.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    payload: bytes | None

    @staticmethod
    def of(message: Message) -> "Refused":
        """A Kafka message."""
        headers = message.headers() or []
        pairs = headers.items() if isinstance(headers, dict) else headers
        return Refused(
            topic=message.topic() or "",
            partition=_number(message.partition()),
            offset=_number(message.offset()),
            key=message.key(),
            headers=[(name, _bytes(value)) for name, value in pairs],
            payload=message.value(),
        )


@dataclass(frozen=True, slots=True)
class Undertaker:
    """Writes the dead letters of one component.

    Attributes:
        component: 'scorer', ...
        component_id: Which one.
        schema_id: Of `dead-letters`.
        topic: Where they go.
    """

    component: str
    component_id: str
    schema_id: int
    topic: str = DEAD_LETTERS.name

    def letter(
        self, refused: Refused, error: ContractError, *, now_ms: int, model_version: str | None
    ) -> Outgoing:
        """The record to write.

        Args:
            refused: Goes along whole, but for a payload of more than `PAYLOAD_BYTES_MAX`, which
                is cut.
            error: Why it was refused.
            now_ms: Time of the failure.
            model_version: In use at the time.
        """
        metrics.DEAD_LETTERS.add(component=self.component, reason=error.reason.value)
        payload = refused.payload
        record = {
            "reason": error.reason.value,
            "error": error.detail,
            "component": self.component,
            "component_id": self.component_id,
            "failed_time": now_ms,
            "model_version": model_version,
            "topic": refused.topic,
            "partition": refused.partition,
            "offset": refused.offset,
            "key": refused.key,
            "headers": [{"name": name, "value": value} for name, value in refused.headers],
            "payload": None if payload is None else payload[:PAYLOAD_BYTES_MAX],
            "payload_bytes": 0 if payload is None else len(payload),
        }
        value = encode_confluent("DeadLetter", self.schema_id, record)
        return Outgoing(self.topic, value, key=refused.key)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _number(value: int | None) -> int:
    return -1 if value is None else value
