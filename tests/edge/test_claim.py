"""Who a gateway is to Kafka: claims, and the id that a spool was forwarded as, on a real Kafka."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.stack import Stack
from edge.claim import Claim
from edge.forwarded_as import ForwardedAs
from edge.frames import WRITTEN_TOPICS, Framer
from edge.positions import Positions
from edge.ranges import Ranges
from edge.rows import Lane
from edge.spool import Spool
from schemas.errors import FencedError
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    SchemaIds,
    TransactionalProducer,
    ensure_topics,
    register_schemas,
)


@dataclass
class Owner:
    """A spool that is forwarded under an id."""

    kafka: KafkaSettings
    ids: SchemaIds
    spool: Spool
    gateway_id: str

    def __post_init__(self) -> None:
        self.claim = Claim(self.gateway_id, self.kafka, self.spool)
        self.producer = TransactionalProducer(self.kafka, self.gateway_id)

    def take(self) -> Positions:
        return self.claim.take(self.producer)

    def tell(self, telemetry: Ranges, *, commit: bool = True) -> None:
        self.producer.begin()
        self.producer.produce_all([self._position(telemetry)])
        if commit:
            self.producer.commit()
            self.claim.told()
        else:
            self.producer.flush()

    def _position(self, telemetry: Ranges) -> Outgoing:
        framer = Framer(self.gateway_id, self.ids, 4)
        return framer.position(Lane.TELEMETRY, telemetry, spool_id=self.spool.spool_id, now_ms=1)


@dataclass
class Place:
    """Makes owners, and closes what they hold."""

    kafka: KafkaSettings
    ids: SchemaIds
    directory: Path
    held: ExitStack

    def owner(self, spool: str, gateway_id: str) -> Owner:
        made = Spool(self.directory / spool, now_ms=0)
        self.held.callback(made.close)
        owner = Owner(self.kafka, self.ids, made, gateway_id)
        self.held.callback(owner.producer.close)
        return owner


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> Iterator[Place]:
    ends = stack.endpoints
    kafka = KafkaSettings(bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url)
    ensure_topics(kafka, WRITTEN_TOPICS)
    with ExitStack() as held:
        yield Place(kafka, register_schemas(kafka, WRITTEN_TOPICS), tmp_path, held)


@pytest.mark.integration
def test_who_comes_back_leaves_its_successor_alone(place: Place) -> None:
    name = uuid.uuid4().hex
    older, newer = place.owner("older", name), place.owner("newer", name)
    older.take()
    older.tell(Ranges())
    newer.take()
    newer.tell(Ranges())
    older.producer.close()
    with pytest.raises(FencedError, match=newer.spool.spool_id):
        older.take()
    newer.tell(Ranges(3))  # Its producer is not fenced.


@pytest.mark.integration
def test_another_id_settles_what_is_open_under_the_former_one(place: Place) -> None:
    """The brokers would end a transaction of a dead producer in half a minute; here it lives."""
    former, name = uuid.uuid4().hex, uuid.uuid4().hex
    before = place.owner("spool", former)
    before.take()
    before.tell(Ranges())
    before.tell(Ranges(0), commit=False)
    renamed = Owner(place.kafka, place.ids, before.spool, name)
    place.held.callback(renamed.producer.close)
    assert renamed.take() == {lane: Ranges() for lane in Lane}
    with pytest.raises(FencedError):
        before.producer.commit()
    assert ForwardedAs(before.spool.path).read(before.spool.spool_id) == name


def test_what_a_spool_was_forwarded_as_is_no_other_spools(tmp_path: Path) -> None:
    remembered = ForwardedAs(tmp_path / "spool")
    assert remembered.read("a") is None
    remembered.write("a", "depot\n7")
    assert remembered.read("a") == "depot\n7"
    assert remembered.read("b") is None
    remembered.write("b", "depot-8")
    assert (remembered.read("a"), remembered.read("b")) == (None, "depot-8")
