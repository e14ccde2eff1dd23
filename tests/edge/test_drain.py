"""A spool that is left: refused while it holds anything, forwarded by `drain`, then forgotten."""

import threading
import uuid
from pathlib import Path

import pytest
from edge_parts import batch, identities, in_kafka

from deploy.stack import Stack
from edge.drain import drain
from edge.rows import Telemetry
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.spool_memory import FILE_NAME, SpoolMemory, leave_none_behind, unsent_in
from schemas.errors import SettingsError, TransientError
from schemas.topics import TELEMETRY
from transport.settings import KafkaSettings

NOW_MS = 1_790_000_000_000
COUNT = 25


def filled(path: Path, car: str) -> None:
    """A spool of a gateway that never saw Kafka."""
    spool = Spool(path, now_ms=NOW_MS, gateway_id="gw")
    book = spool.identity_book(vehicles_max=10)
    rows = []
    for seq in range(1, COUNT + 1):
        book.admit(car, 1, seq, 1)
        rows.append(Telemetry(car, 1, seq, 1, NOW_MS, batch(car, seq), None))
    spool.store(rows, [], book)
    spool.save(book)
    spool.close()


@pytest.mark.integration
def test_a_spool_is_not_left_before_it_is_empty(tmp_path: Path, stack: Stack) -> None:
    car = f"car-{uuid.uuid4().hex[:8]}"
    old, new = tmp_path / "old", tmp_path / "new"
    settings = GatewaySettings(car, old, tmp_path / "models", control_path=tmp_path / "c")
    ends = stack.endpoints
    kafka = KafkaSettings(bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url)
    memory = SpoolMemory(settings.models_path)
    filled(old, car)
    memory.remember(old)
    with pytest.raises(SettingsError) as refused:
        leave_none_behind(memory, new, now_ms=NOW_MS, gateway_id="gw")
    assert f"{old} holds {COUNT} records" in str(refused.value)
    assert f"motorcade gateway drain --spool-path {old}" in str(refused.value)
    assert leave_none_behind(memory, old, now_ms=NOW_MS, gateway_id="gw") == []

    told: list[int] = []
    left = drain(
        settings, kafka, stop=threading.Event(), on_progress=lambda left, _: told.append(left)
    )
    assert left == 0
    assert told[0] == COUNT
    assert identities(in_kafka(kafka, TELEMETRY, car)) == [
        (car, 1, seq) for seq in range(1, COUNT + 1)
    ]
    assert unsent_in(old, now_ms=NOW_MS, gateway_id="gw") == 0
    assert memory.paths() == []
    assert leave_none_behind(memory, new, now_ms=NOW_MS, gateway_id="gw") == []


def test_a_drain_that_is_told_to_stop_says_what_is_left(tmp_path: Path) -> None:
    filled(tmp_path / "old", "car")
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    settings = GatewaySettings("gw", tmp_path / "old", tmp_path / "models")
    stop = threading.Event()
    assert drain(settings, nowhere, stop=stop, on_progress=lambda *_: stop.set()) == COUNT
    with pytest.raises(SettingsError, match="no spool at"):
        drain(GatewaySettings("gw", tmp_path / "none"), nowhere, stop=stop)


def test_an_empty_spool_is_forgotten_and_one_that_is_away_is_told(tmp_path: Path) -> None:
    memory = SpoolMemory(tmp_path / "models")
    Spool(tmp_path / "empty", now_ms=NOW_MS).close()
    memory.remember(tmp_path / "empty")
    memory.remember(tmp_path / "unplugged")
    told = leave_none_behind(memory, tmp_path / "new", now_ms=NOW_MS, gateway_id="gw")
    assert [str(tmp_path / "unplugged") in text for text in told] == [True]
    assert memory.paths() == [tmp_path / "unplugged"]


def test_a_spool_that_another_gateway_works_on_is_not_judged(tmp_path: Path) -> None:
    filled(tmp_path / "old", "car")
    other = Spool(tmp_path / "old", now_ms=NOW_MS, gateway_id="gw")
    try:
        assert unsent_in(tmp_path / "old", now_ms=NOW_MS, gateway_id="gw") is None
    finally:
        other.close()
    assert unsent_in(tmp_path / "old", now_ms=NOW_MS, gateway_id="gw") == COUNT


def test_a_memory_that_cannot_be_read_is_told_and_not_taken_for_empty(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(TransientError, match=FILE_NAME):
        SpoolMemory(tmp_path / "models").paths()


def test_the_memory_is_bounded_and_keeps_the_order_of_use(tmp_path: Path) -> None:
    memory = SpoolMemory(tmp_path / "models")
    for number in (*range(40), 20):
        memory.remember(tmp_path / str(number))
    assert len(memory.paths()) == 32
    assert memory.paths()[-1] == tmp_path / "20"
