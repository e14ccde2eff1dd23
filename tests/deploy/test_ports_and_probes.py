"""Ports are chosen where a restart finds them free; probes believe only real answers."""

import random
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import ports, probes
from deploy.ports import Ports, choose_ports, port_is_free
from schemas.errors import SettingsError


def test_each_unset_port_gets_a_free_one_below_the_ephemeral_range() -> None:
    chosen = choose_ports(Ports(mqtt=1883), random.Random(1))
    found = (chosen.kafka, chosen.controller, chosen.registry)
    assert chosen.mqtt == 1883
    assert len(set(found)) == 3
    assert all(ports.FIRST_PORT <= port < ports.LAST_PORT for port in found)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


def test_choosing_gives_up_when_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "port_is_free", lambda port: False)
    with pytest.raises(SettingsError, match="no free loopback port"):
        choose_ports(Ports())


@pytest.mark.parametrize(
    "probe", [probes.kafka_answers, probes.mqtt_answers, probes.registry_answers]
)
def test_a_server_of_another_kind_is_no_answer(
    probe: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBE_TIMEOUT_S", 0.05)
    assert callable(probe)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert probe(port) is False
    assert probe(port) is False


def string(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def partition(leader: int) -> bytes:
    return struct.pack(">hiiii", 0, 0, leader, 1, 1) + struct.pack(">ii", 1, 1)


def metadata(leaders: list[int], brokers: int = 1) -> bytes:
    broker = struct.pack(">i", 1) + string(b"localhost") + struct.pack(">ih", 9092, -1)
    topic = struct.pack(">h", 0) + string(b"t") + struct.pack(">bi", 0, len(leaders))
    return (
        struct.pack(">ii", 1, brokers)
        + broker * brokers
        + struct.pack(">ii", 1, 1)
        + topic
        + b"".join(partition(leader) for leader in leaders)
    )


def test_kafka_is_ready_when_every_partition_has_a_leader() -> None:
    assert probes.metadata_is_complete(metadata([1, 1]))
    assert not probes.metadata_is_complete(metadata([1, -1]))
    assert not probes.metadata_is_complete(metadata([1], brokers=0))


@given(st.integers(0, len(metadata([1, 1])) - 1))
def test_a_response_that_ends_early_is_no_answer(length: int) -> None:
    assert not probes.metadata_is_complete(metadata([1, 1])[:length])


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    probes.metadata_is_complete(data)
