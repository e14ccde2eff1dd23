"""What becomes of a dead letter that is sent back to where it came from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import ContractError, MotorcadeError
from schemas.records import (
    SINGLE_OBJECT_MAGIC,
    Record,
    confluent_header,
    single_object_body,
)
from schemas.topics import TOPICS, Topic
from transport.kafka import Outgoing

REDRIVEN_HEADER = "redriven-from"
"""Names the dead letter that a record was; one for each time that it was sent back."""

REDRIVES_MAX = 3
"""A record that came back as a dead letter so often is not sent again."""

TOPIC_BY_NAME: Mapping[str, Topic] = {topic.name: topic for topic in TOPICS}


@dataclass(frozen=True, slots=True, order=True)
class LetterId:
    """Where a dead letter is: partition and offset.

    Example:
        >>> LetterId.parse("17"), str(LetterId.parse("2:17")), str(LetterId(0, 17))
        (LetterId(partition=0, offset=17), '2:17', '17')
    """

    partition: int
    offset: int

    @staticmethod
    def parse(text: str) -> "LetterId":
        """Read `offset`, or `partition:offset`.

        Raises:
            ValueError: It is neither.
        """
        partition, colon, offset = text.rpartition(":")
        found = LetterId(int(partition) if colon else 0, int(offset))
        if min(found.partition, found.offset) < 0:
            raise ValueError(f"{text!r} is no offset")
        return found

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}" if self.partition else str(self.offset)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and where it is.

    Attributes:
        id: Where.
        record: `DeadLetter`, times as integers of milliseconds.
    """

    id: LetterId
    record: Record

    @property
    def topic(self) -> str:
        """Where the message came from."""
        return str(self.record["topic"])

    @property
    def is_from_mqtt(self) -> bool:
        """Whether it never was in Kafka: MQTT topics have levels, ours in Kafka have none."""
        return "/" in self.topic

    @property
    def redrives(self) -> int:
        """How often the message was sent back before."""
        return sum(header["name"] == REDRIVEN_HEADER for header in self.record["headers"])


class NotRedrivenError(MotorcadeError):
    """A letter that must not be sent back, with the reason."""


def redriven(letter: Letter, *, to: str | None, schema_ids: Mapping[str, int]) -> Outgoing:
    """The record that sends a letter's message back: payload, key and headers as they were.

    A payload framed for MQTT gets Kafka's frame where its topic is one of ours; the body stays.
    The partition is that of before, so that the order of a key holds; with `to` the key's.

    Args:
        letter: Which.
        to: Topic to send it to; None: the one that it came from.
        schema_ids: Topic to the schema id to frame with.

    Raises:
        NotRedrivenError: It was cut, came from MQTT, came back too often, or cannot be framed.
    """
    record = letter.record
    payload = record["payload"]
    if len(payload or b"") != record["payload_bytes"]:
        raise NotRedrivenError(
            f"its payload was cut from {record['payload_bytes']} to {len(payload or b'')} bytes"
        )
    if letter.redrives >= REDRIVES_MAX:
        raise NotRedrivenError(f"it came back {letter.redrives} times already")
    if to is None and letter.is_from_mqtt:
        raise NotRedrivenError(f"it came from MQTT ({letter.topic}); --to names a Kafka topic")
    topic = to or letter.topic
    return Outgoing(
        topic,
        _framed(payload, topic, schema_ids),
        record["key"],
        -1 if to is not None else record["partition"],
        headers=(
            *((header["name"], header["value"]) for header in record["headers"]),
            (REDRIVEN_HEADER, f"{letter.id.partition}:{letter.id.offset}".encode()),
        ),
    )


def _framed(payload: Any, topic: str, schema_ids: Mapping[str, int]) -> Any:
    """A payload with Kafka's frame; one that is in no frame of ours is left alone."""
    if payload is None or not payload.startswith(SINGLE_OBJECT_MAGIC):
        return payload
    known = TOPIC_BY_NAME.get(topic)
    if known is None:
        raise NotRedrivenError(f"framed for MQTT, and {topic} is none of Motorcade's topics")
    try:
        body = single_object_body(known.record, payload)
    except ContractError as error:
        raise NotRedrivenError(f"{topic} does not take it: {error}") from error
    return confluent_header(schema_ids[topic]) + body
