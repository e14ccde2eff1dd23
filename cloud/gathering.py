"""Reads a stretch of `vehicle.telemetry` straight from Kafka, for training."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloud.decoding import decode_plain
from cloud.labels import faulty_vehicles
from cloud.readings import ReadingCollector, Readings
from cloud.settings import TrainSettings
from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError, SettingsError
from schemas.records import Record
from schemas.signals import SIGNAL_NAMES
from schemas.topics import LABELS, TELEMETRY
from scoring.bundle import OffsetRange
from transport.kafka import (
    SchemaIds,
    Span,
    partition_counts,
    read_range,
    read_to_end,
    register_schemas,
    spans,
)
from transport.settings import KafkaSettings

_OFFSETS = re.compile(r"(\d+):(\d+)-(\d+)")
BATCH_MESSAGES = 10_000


@dataclass(frozen=True, slots=True)
class Gathered:
    """A stretch of the log, ready to train on.

    Attributes:
        readings: Without the vehicles that were labelled faulty.
        offsets: What was read, by partition; empty spans are left out.
        seen_readings: Readings in the stretch, before anything was left out.
        faulty: Vehicles left out for their labels.
        dropped_vehicles: Vehicles left out for `max_readings`.
        rejected: Messages that break the contract; the scorer dead-letters them.
    """

    readings: Readings
    offsets: tuple[OffsetRange, ...]
    seen_readings: int
    faulty: tuple[str, ...]
    dropped_vehicles: int
    rejected: int


def parse_offsets(text: str) -> dict[int, Span]:
    """'0:100-2000,1:0-500' as spans of partitions.

    Raises:
        SettingsError: It does not read so, or names a partition twice.
    """
    wanted: dict[int, Span] = {}
    for part in text.split(","):
        match = _OFFSETS.fullmatch(part.strip())
        if match is None:
            raise SettingsError(
                f"trainer offsets: {part.strip()!r} is not partition:first-end, e.g. 0:100-2000"
            )
        partition, first, end = map(int, match.groups())
        if partition in wanted or first > end:
            raise SettingsError(f"trainer offsets: {part.strip()!r} is empty or repeated")
        wanted[partition] = Span(first, end)
    return wanted


def gather(settings: TrainSettings, kafka: KafkaSettings) -> Gathered:
    """Read the stretch that the settings name.

    Raises:
        SettingsError: The topic or a partition is missing.
        TransientError: Kafka or the registry did not answer.
    """
    ids = register_schemas(kafka, [TELEMETRY, LABELS])
    wanted = _wanted(settings, kafka)
    collector = ReadingCollector(
        SIGNAL_NAMES, max_readings=settings.max_readings, seed=settings.seed
    )
    rejected = _collect(kafka, wanted, ids, collector)
    readings = collector.readings()
    faulty: set[str] = set()
    if settings.exclude_labelled:
        faulty = faulty_vehicles(readings, _labels(kafka, ids))
    return Gathered(
        readings=readings.without(faulty),
        offsets=tuple(
            OffsetRange(partition, span.start, span.end)
            for partition, span in sorted(wanted.items())
            if span.end > span.start
        ),
        seen_readings=collector.seen,
        faulty=tuple(sorted(faulty)),
        dropped_vehicles=collector.dropped_vehicles,
        rejected=rejected,
    )


def _wanted(settings: TrainSettings, kafka: KafkaSettings) -> dict[int, Span]:
    """Spans to read, cut to what the topic holds."""
    held = spans(kafka, TELEMETRY.name, since_ms=settings.since_ms, until_ms=settings.until_ms)
    if not settings.offsets:
        return held
    wanted = parse_offsets(settings.offsets)
    unknown = sorted(set(wanted) - set(held))
    if unknown:
        raise SettingsError(f"trainer offsets: {TELEMETRY.name} has no partition {unknown[0]}")
    return {partition: _cut(span, held[partition]) for partition, span in wanted.items()}


def _cut(span: Span, held: Span) -> Span:
    start = min(max(span.start, held.start), held.end)
    return Span(start, max(start, min(span.end, held.end)))


def _collect(
    kafka: KafkaSettings, wanted: Mapping[int, Span], ids: SchemaIds, collector: ReadingCollector
) -> int:
    rejected = 0
    for batch in read_range(kafka, TELEMETRY.name, wanted, batch_messages=BATCH_MESSAGES):
        columns = decode_telemetry(
            [message.value() or b"" for message in batch],
            framing=Framing.CONFLUENT,
            schema_id=ids.id_of(TELEMETRY),
        )
        collector.add(columns)
        rejected += len(columns.rejected)
    return rejected


def _labels(kafka: KafkaSettings, ids: SchemaIds) -> Iterator[Record]:
    """All labels there are; a log without that topic has none."""
    if not partition_counts(kafka, [LABELS.name])[LABELS.name]:
        return
    for batch in read_to_end(kafka, LABELS.name):
        for message in batch:
            try:
                yield decode_plain(LABELS.record, ids.id_of(LABELS), message.value())
            except ContractError:
                # No sound label; it says nothing about any vehicle.
                continue
