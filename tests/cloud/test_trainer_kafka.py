from dataclasses import replace

import numpy as np
import pytest
from cloud_kafka import now_ms, publish_records, publish_telemetry
from trainer_fleet import START_MS, poll

from cloud.gathering import gather, parse_offsets
from cloud.model_desk import list_models
from cloud.settings import TrainSettings
from cloud.trainer import train
from deploy.stack import Stack
from schemas.errors import SettingsError
from schemas.topics import LABELS, TELEMETRY
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    Span,
    ensure_topics,
    latest_offsets,
    publish,
)
from transport.releases import newest_release


@pytest.fixture(scope="module")
def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=stack.endpoints.kafka_bootstrap,
        registry_url=stack.endpoints.registry_url,
    )
    ensure_topics(settings)
    return settings


def written(kafka: KafkaSettings, vehicles: int, seconds: int, prefix: bytes) -> TrainSettings:
    """Writes a drive, and says where it stands."""
    before = latest_offsets(kafka, TELEMETRY.name)
    columns = poll(vehicles, seconds)
    publish_telemetry(
        kafka, replace(columns, vehicle_ids=[prefix + name for name in columns.vehicle_ids])
    )
    after = latest_offsets(kafka, TELEMETRY.name)
    offsets = ",".join(f"{partition}:{before[partition]}-{after[partition]}" for partition in after)
    return TrainSettings(name=prefix.decode() + "model", offsets=offsets, epochs=10, threads=1)


@pytest.mark.integration
def test_a_stretch_of_the_log_becomes_a_release(kafka: KafkaSettings) -> None:
    settings = replace(written(kafka, 12, 60, b"train-"), alias="challenger")
    told: list[str] = []
    bundle = train(settings, kafka, on_progress=told.append)
    source = bundle.manifest.provenance
    stretch = parse_offsets(settings.offsets)
    assert {part.partition: Span(part.first, part.end) for part in source.offsets} == {
        partition: span for partition, span in stretch.items() if span.end > span.start
    }
    assert (source.topic, source.readings, source.vehicles) == (TELEMETRY.name, 720, 12)
    assert newest_release(kafka, settings.name) == bundle
    assert told[0] == "read 720 readings of 12 vehicles"
    assert told[-1].endswith(" as challenger")
    [row] = list_models(kafka, settings.name)
    assert row.aliases == ("champion", "challenger")


@pytest.mark.integration
def test_faulty_vehicles_are_left_out_if_wanted(kafka: KafkaSettings) -> None:
    settings = written(kafka, 6, 10, b"label-")
    label = {
        "vehicle_id": "label-car-003",
        "label": "overheating",
        "signal": None,
        "start_time": START_MS,
        "end_time": None,
        "severity": 1.0,
        "source": "test",
    }
    publish_records(kafka, LABELS, [label])
    left = gather(settings, kafka)
    assert (left.faulty, left.readings.vehicles) == (("label-car-003",), 5)
    assert left.seen_readings == 60
    everyone = gather(replace(settings, exclude_labelled=False), kafka)
    assert (everyone.faulty, everyone.readings.vehicles) == ((), 6)


@pytest.mark.integration
def test_time_chooses_by_record_time_and_junk_is_counted(kafka: KafkaSettings) -> None:
    since_ms = now_ms()
    columns = poll(5, 4)
    publish_telemetry(
        kafka, replace(columns, vehicle_ids=[b"time-" + name for name in columns.vehicle_ids])
    )
    publish(kafka, [Outgoing(TELEMETRY.name, b"junk", b"time-junk", timestamp_ms=now_ms())])
    found = gather(TrainSettings(since_ms=since_ms, until_ms=now_ms() + 60_000), kafka)
    ours = np.flatnonzero([name.startswith("time-") for name in found.readings.vehicle_ids])
    assert np.isin(found.readings.vehicle, ours).sum() == 20
    assert found.rejected == 1
    nothing = gather(TrainSettings(until_ms=1), kafka)
    assert (len(nothing.readings), nothing.offsets) == (0, ())


@pytest.mark.integration
def test_an_empty_stretch_is_refused_in_words(kafka: KafkaSettings) -> None:
    with pytest.raises(SettingsError, match="0 readings of 0 vehicles are too few"):
        train(TrainSettings(until_ms=1), kafka)


@pytest.mark.integration
def test_an_unknown_partition_is_refused(kafka: KafkaSettings) -> None:
    with pytest.raises(SettingsError, match="no partition 99"):
        gather(TrainSettings(offsets="99:0-5"), kafka)


def test_offsets_read_as_spans() -> None:
    assert parse_offsets("0:100-2000, 1:0-500") == {0: Span(100, 2_000), 1: Span(0, 500)}


@pytest.mark.parametrize("text", ["0", "0:5", "0:9-5", "0:1-2,0:2-3", "a:1-2", "0:1-2,"])
def test_what_is_no_offset_range_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="trainer offsets"):
        parse_offsets(text)
