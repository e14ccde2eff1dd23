"""Dead letters: found again, looked at, and sent back."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from cloud.decoding import decode_plain
from cloud.redrive import TOPIC_BY_NAME, Letter, LetterId, NotRedrivenError, redriven
from schemas.errors import ContractError, MotorcadeError
from schemas.topics import DEAD_LETTERS
from transport.kafka import (
    Message,
    Outgoing,
    SchemaIds,
    Span,
    publish,
    read_range,
    register_schemas,
    require_topics,
    spans,
)
from transport.settings import KafkaSettings

BATCH_MAX = 100
"""Letters read, or sent back, at once; each may be a megabyte."""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; what is not given, any.

    Attributes:
        ids: These; empty: all that the rest allows.
        since_ms: Written at this time or later, milliseconds since the epoch.
        reason: One of `schemas.errors.Reason`.
        component: That could not process it.
        topic: Where the message came from.
    """

    ids: Sequence[LetterId] = ()
    since_ms: int | None = None
    reason: str | None = None
    component: str | None = None
    topic: str | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is one of them."""
        record = letter.record
        return (
            (not self.ids or letter.id in self.ids)
            and self.reason in (None, record["reason"])
            and self.component in (None, record["component"])
            and self.topic in (None, record["topic"])
        )


@dataclass(slots=True)
class Redriven:
    """What became of the letters that were to be sent back.

    Attributes:
        sent: How many are in their topics again.
        refused: Those that were left where they are, and why.
    """

    sent: int = 0
    refused: list[tuple[LetterId, str]] = field(default_factory=list)


def letters(
    kafka: KafkaSettings,
    wanted: LetterFilter,
    *,
    on_broken: Callable[[LetterId, ContractError], object],
    source: str = DEAD_LETTERS.name,
) -> Iterator[Letter]:
    """Dead letters, oldest first (of each partition; partitions are mixed).

    Args:
        kafka: Where they are.
        wanted: Which ones.
        on_broken: Told of records that are no dead letters; they are passed over.
        source: Topic of the letters.

    Raises:
        MotorcadeError: One of the ids that were given is not there.
        SettingsError: There is no topic `dead-letters`, or Kafka refuses this client.
        TransientError: Kafka or the registry did not answer in time.
    """
    ids = register_schemas(kafka, [DEAD_LETTERS])
    missing = set(wanted.ids)
    for message in _messages(kafka, wanted, source):
        where = LetterId(message.partition() or 0, message.offset() or 0)
        missing.discard(where)
        try:
            letter = _letter(where, message, ids)
        except ContractError as error:
            on_broken(where, error)
            continue
        if wanted.takes(letter):
            yield letter
    if missing:
        raise MotorcadeError(f"no dead letter {', '.join(map(str, sorted(missing)))}")


def _messages(kafka: KafkaSettings, wanted: LetterFilter, source: str) -> Iterator[Message]:
    """Records among which the wanted ones are; by id, no others than between them."""
    held = spans(kafka, source, since_ms=wanted.since_ms)
    if wanted.ids:
        held = {p: _between(span, wanted.ids, p) for p, span in held.items()}
    for batch in read_range(kafka, source, held, batch_messages=BATCH_MAX):
        yield from batch


def _between(held: Span, ids: Iterable[LetterId], partition: int) -> Span:
    offsets = [each.offset for each in ids if each.partition == partition]
    if not offsets:
        return Span(held.end, held.end)
    start = max(held.start, min(offsets))
    return Span(start, max(start, min(held.end, max(offsets) + 1)))


def _letter(where: LetterId, message: Message, ids: SchemaIds) -> Letter:
    schema_id = ids.id_of(DEAD_LETTERS)
    return Letter(where, decode_plain(DEAD_LETTERS.record, schema_id, message.value()))


def redrive(
    kafka: KafkaSettings,
    found: Iterable[Letter],
    *,
    to: str | None,
    per_second: float,
    dry_run: bool,
    on_sent: Callable[[Letter, str], object],
) -> Redriven:
    """Send messages back to the topics that they came from.

    Nothing remembers what was sent: asked twice, it sends twice. A message that comes back as a
    dead letter carries a header for each time; after `REDRIVES_MAX` it is refused.

    Args:
        kafka: Where they go.
        found: Letters in their order.
        to: Topic to send all of them to; None: where each came from.
        per_second: Most messages in a second.
        dry_run: Only say what would be sent.
        on_sent: Told of each letter that was stored, or would be, and of its topic.

    Raises:
        SettingsError: A topic is missing, or Kafka refuses this client.
        TransientError: Kafka did not answer in time; what `on_sent` was told of is stored, and of
            at most a second's worth more it is not known.
    """
    outcome = Redriven()
    framing = _Framing(kafka)
    plans = _plans(found, outcome, framing, to)
    batch_max = max(1, min(BATCH_MAX, math.ceil(per_second)))
    due_s = time.monotonic()
    while batch := list(islice(plans, batch_max)):
        if not dry_run:
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s = time.monotonic() + len(batch) / per_second
            publish(kafka, [record for _, record in batch])
        for letter, record in batch:
            outcome.sent += 1
            on_sent(letter, record.topic)
    return outcome


def _plans(
    found: Iterable[Letter], outcome: Redriven, framing: "_Framing", to: str | None
) -> Iterator[tuple[Letter, Outgoing]]:
    """Letters with the records that send them back; the refused ones go into the outcome."""
    for letter in found:
        try:
            record = redriven(letter, to=to, schema_ids=framing.ids_for(to or letter.topic))
        except NotRedrivenError as error:
            outcome.refused.append((letter.id, str(error)))
        else:
            framing.require(record.topic)
            yield letter, record


class _Framing:
    """Topics that are written to: that they are there, and their schema ids, each asked once."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._ids: dict[str, int] = {}
        self._there: set[str] = set()

    def ids_for(self, name: str) -> dict[str, int]:
        topic = TOPIC_BY_NAME.get(name)
        if topic is not None and name not in self._ids:
            self._ids[name] = register_schemas(self._kafka, [topic]).id_of(topic)
        return self._ids

    def require(self, name: str) -> None:
        """Raises SettingsError where there is no such topic."""
        if name not in self._there:
            require_topics(self._kafka, [name])
            self._there.add(name)
