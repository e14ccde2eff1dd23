"""State of the vehicles of newly assigned partitions, rebuilt from the log.

Two sources: `vehicle.alerts.state` tells which alerts are open, and the telemetry before the
committed offset, scored once more without writing anything, warms features and alert policy. With
an experiment `model.events` is a third: it tells which arms a guard has tripped, here or
elsewhere.

How far back: by record time, which is when a gateway received a message, so much before the last
processed record as the model remembers, and a margin. A vehicle whose backlog was received long
after it was measured may lack a part of its history; its features then say absent until they are
warm, as after any gap. Bounded by a number of messages for each partition.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from schemas.errors import ContractError
from schemas.records import decode_confluent
from schemas.topics import Topic
from scoring.alerts import OpenAlert, open_alert_of
from scoring.events import EventKind, ModelEvent
from scoring.traffic import Experiment
from transport.kafka import KafkaSettings, Message, Span, read_range, spans

_LAST_MESSAGES = 100
_CLOUD_KEY = b"CLOUD/"


@dataclass(frozen=True, slots=True)
class Rewind:
    """How much of the log is read again.

    Attributes:
        back_s: Record time before the last processed record.
        messages_max: Most offsets of a partition.
        batch_messages: Messages taken in at once.
    """

    back_s: float
    messages_max: int
    batch_messages: int


def history(
    kafka: KafkaSettings, topic: str, committed: Mapping[int, int], rewind: Rewind
) -> Iterator[list[Message]]:
    """The records before the committed offsets that the state depends on.

    Args:
        kafka: Where Kafka is.
        topic: Telemetry.
        committed: Partition to the offset that is scored next.
        rewind: How far back.

    Yields:
        Messages, in order within a partition.

    Raises:
        TransientError: Kafka did not answer.
    """
    wanted = _span_of(kafka, topic, committed, rewind)
    yield from read_range(kafka, topic, wanted, batch_messages=rewind.batch_messages)


def _span_of(
    kafka: KafkaSettings, topic: str, committed: Mapping[int, int], rewind: Rewind
) -> dict[int, Span]:
    times_ms = _last_times_ms(kafka, topic, committed, rewind.messages_max)
    wanted = {}
    for since_ms in set(times_ms.values()):
        found = spans(kafka, topic, since_ms=since_ms - round(rewind.back_s * 1000))
        for partition in (p for p, time_ms in times_ms.items() if time_ms == since_ms):
            end = committed[partition]
            start = max(found[partition].start, end - rewind.messages_max)
            wanted[partition] = Span(min(start, end), end)
    return wanted


def _last_times_ms(
    kafka: KafkaSettings, topic: str, committed: Mapping[int, int], messages_max: int
) -> dict[int, int]:
    """Record time of the last record before the committed offset, where there is one.

    Looks at the last offsets first, and further back where these are control records only.
    """
    times_ms: dict[int, int] = {}
    reach = _LAST_MESSAGES
    while True:
        open_ends = {p: end for p, end in committed.items() if p not in times_ms and end > 0}
        wanted = {p: Span(max(end - reach, 0), end) for p, end in open_ends.items()}
        for messages in read_range(kafka, topic, wanted):
            times_ms |= {_partition(m): m.timestamp()[1] for m in messages}
        if not open_ends or reach >= min(messages_max, max(open_ends.values())):
            return times_ms
        reach *= 10


def _partition(message: Message) -> int:
    partition = message.partition()
    return -1 if partition is None else partition


def open_alerts(
    kafka: KafkaSettings,
    topic: Topic,
    schema_id: int,
    partitions: set[int],
    refuse: Callable[[Message, ContractError], None],
) -> dict[bytes, OpenAlert]:
    """The cloud's open alerts of these partitions, by vehicle.

    Args:
        kafka: Where Kafka is.
        topic: `vehicle.alerts.state`.
        schema_id: Of its values.
        partitions: Which partitions.
        refuse: Given what cannot be read.

    Raises:
        TransientError: Kafka did not answer.
    """
    held = {p: span for p, span in spans(kafka, topic.name).items() if p in partitions}
    newest: dict[bytes, Message] = {}
    for messages in read_range(kafka, topic.name, held):
        newest |= {message.key() or b"": message for message in messages}
    found = {}
    for key, message in newest.items():
        value = message.value()
        if value is None or not key.startswith(_CLOUD_KEY):
            continue
        try:
            found[key.split(b"/")[1]] = open_alert_of(decode_confluent("Alert", schema_id, value))
        except ContractError as error:
            refuse(message, error)
    return found


def tripped_arms(
    kafka: KafkaSettings,
    topic: Topic,
    schema_id: int,
    *,
    model_name: str,
    experiment: Experiment,
    refuse: Callable[[Message, ContractError], None],
) -> frozenset[str]:
    """Arms that a guard has tripped since the experiment began.

    Args:
        kafka: Where Kafka is.
        topic: `model.events`.
        schema_id: Of its values.
        model_name: Of the model.
        experiment: That runs.
        refuse: Given what cannot be read.

    Raises:
        TransientError: Kafka did not answer.
    """
    began_ms = experiment.started_time_ms
    arms = set()
    for messages in read_range(kafka, topic.name, spans(kafka, topic.name, since_ms=began_ms)):
        for message in messages:
            try:
                record = decode_confluent("ModelEvent", schema_id, message.value() or b"")
            except ContractError as error:
                refuse(message, error)
                continue
            if record["kind"] != EventKind.GUARD_TRIPPED.value:
                continue
            event = ModelEvent.from_record(record)
            mine = (event.model_name, event.experiment) == (model_name, experiment.id)
            if mine and event.arm is not None and event.time_ms >= began_ms:
                arms.add(event.arm)
    return frozenset(arms)
