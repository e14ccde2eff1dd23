"""The hot path takes from a stream what paho would take, and leaves the rest to it."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from schemas.errors import SettingsError
from transport import mqtt_paho
from transport.mqtt_packets import (
    Publication,
    packet_bounds,
    pubacks,
    publication,
    publish_packet,
    publish_properties,
    variable_length,
)
from transport.mqtt_paho import HotClient, PublishProperties

PLAIN = st.characters(exclude_characters="\0+#", exclude_categories=["Cs"])
TEXT = st.text(PLAIN, max_size=40)
TOPIC = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=40
)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=5)


def rare_properties(draw_from: dict[str, Any]) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in draw_from.items():
        setattr(properties, name, value)
    return properties


RARE = st.fixed_dictionaries(
    {},
    optional={
        "PayloadFormatIndicator": st.sampled_from([0, 1]),
        "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        "ResponseTopic": TOPIC,
        "CorrelationData": st.binary(max_size=10),
        "ContentType": TEXT,
    },
)


def body_of(topic: str, payload: bytes, *, message_id: int, properties: bytes | None) -> bytes:
    name = topic.encode()
    number = message_id.to_bytes(2, "big") if message_id else b""
    return len(name).to_bytes(2, "big") + name + number + (properties or b"") + payload


@given(
    st.tuples(TOPIC, st.binary(max_size=200), st.integers(0, 65_535), st.integers(0, 9)),
    PAIRS,
    RARE,
)
def test_a_publication_is_read_as_paho_reads_it(
    plain: tuple[str, bytes, int, int], pairs: list[tuple[str, str]], rare: dict[str, Any]
) -> None:
    topic, payload, message_id, flags = plain
    properties = rare_properties(rare)
    if pairs:
        properties.UserProperty = pairs
    body = body_of(
        topic,
        payload,
        message_id=message_id,
        properties=properties.pack(),  # type: ignore[no-untyped-call]
    )
    head = 0x30 | (flags & 0x09) | (0x02 if message_id else 0)
    ours = publication(bytearray(body), 0, len(body), head=head, version5=True)
    theirs = decode_publish(head, bytearray(body), MQTTProtocolVersion.MQTTv5)
    if rare.keys() - {"ContentType"}:
        assert ours is None
        return
    assert ours == Publication(
        theirs.topic.decode(),
        bytes(theirs.payload),
        theirs.mid,
        pairs,
        theirs.retain,
        theirs.dup,
    )


@given(st.binary(max_size=60), st.sampled_from([0x30, 0x32, 0x3B]), st.booleans())
@example(b"\x00\x01a\x00\x01\x05\x26\x00\x01a", 0x32, True)
def test_noise_is_a_publication_for_both_or_left_to_paho(
    body: bytes, head: int, version5: bool
) -> None:
    ours = publication(bytearray(body), 0, len(body), head=head, version5=version5)
    if ours is not None:
        version = MQTTProtocolVersion.MQTTv5 if version5 else MQTTProtocolVersion.MQTTv311
        theirs = decode_publish(head, bytearray(body), version)
        assert (ours.topic.encode(), ours.payload, ours.message_id) == (
            theirs.topic,
            bytes(theirs.payload),
            theirs.mid,
        )


def test_what_stands_behind_a_body_is_not_part_of_it() -> None:
    body = body_of("a/b", b"", message_id=1, properties=b"\x07\x26\x00\x01x\x00\x01y")
    for end in range(len(body)):
        assert publication(bytearray(body), 0, end, head=0x32, version5=True) is None


@given(
    pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8),
    content_type=st.text(min_size=1, max_size=30),
)
def test_properties_are_packed_as_paho_packs_them(
    pairs: list[tuple[str, str]], content_type: str
) -> None:
    theirs = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    theirs.ContentType = content_type
    theirs.UserProperty = pairs
    packed = theirs.pack()  # type: ignore[no-untyped-call]
    assert PublishProperties(pairs, content_type).pack() == packed
    assert publish_properties(pairs, content_type) == packed


@given(st.integers(0, 268_435_455), st.integers(0, 5))
def test_the_bounds_of_a_packet_are_known_once_its_length_has_come(length: int, at: int) -> None:
    whole = bytearray(at) + b"\x32" + variable_length(length)
    assert packet_bounds(whole, at) == (len(whole), len(whole) + length)
    for short in range(at, len(whole)):
        assert packet_bounds(whole[:short], at) is None


def test_a_length_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="without an end"):
        packet_bounds(bytearray(b"\x32\xff\xff\xff\xff\x01"), 0)


def test_acknowledgements_are_joined() -> None:
    assert pubacks([1, 65_535]) == b"\x40\x02\x00\x01\x40\x02\xff\xff"
    assert pubacks([]) == b""


@contextmanager
def hot_client(
    version: MQTTProtocolVersion,
) -> Iterator[tuple[HotClient, socket.socket, list[Publication]]]:
    """A client on a socket pair in place of a broker: bytes go in as they are sent."""
    got: list[Publication] = []
    ours, brokers = socket.socketpair()
    client = HotClient(
        got.append,
        callback_api_version=CallbackAPIVersion.VERSION2,
        client_id="hot",
        protocol=version,
        manual_ack=True,
    )
    ours.setblocking(False)
    client._sock = ours
    client.begin()
    try:
        yield client, brokers, got
    finally:
        ours.close()
        brokers.close()


@given(
    st.lists(st.tuples(TOPIC, st.binary(max_size=300)), min_size=1, max_size=8),
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
    st.sampled_from([MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311]),
)
def test_however_the_stream_is_cut_each_message_comes_once(
    messages: list[tuple[str, bytes]], cuts: list[int], version: MQTTProtocolVersion
) -> None:
    properties = publish_properties((), "x") if version == MQTTProtocolVersion.MQTTv5 else None
    stream = b"".join(publish_packet(t, p, properties=properties) for t, p in messages)
    with hot_client(version) as (client, brokers, got):
        at = turn = 0
        while at < len(stream):
            step = cuts[turn % len(cuts)]
            brokers.sendall(stream[at : at + step])
            assert not client.read_hot()
            at, turn = at + step, turn + 1
    assert [(found.topic, found.payload) for found in got] == messages


def test_a_message_with_rare_properties_comes_by_way_of_paho() -> None:
    properties = rare_properties({"MessageExpiryInterval": 9, "UserProperty": [("a", "b")]})
    body = body_of("t", b"p", message_id=3, properties=properties.pack())  # type: ignore[no-untyped-call]
    with hot_client(MQTTProtocolVersion.MQTTv5) as (client, brokers, got):
        brokers.sendall(b"\x32" + variable_length(len(body)) + body)
        client.read_hot()
    assert got == [Publication("t", b"p", 3, [("a", "b")], False, False)]


@pytest.mark.parametrize(
    "noise",
    [b"\x32\xff\xff\xff\xff\xff", b"\x36\x00", b"\x00\x00", b"\x32\x03\x00\x09a", b""],
    ids=["endless length", "quality of service 3", "no packet", "cut topic", "closed"],
)
def test_a_broken_stream_ends_the_connection(noise: bytes) -> None:
    with hot_client(MQTTProtocolVersion.MQTTv5) as (client, brokers, got):
        brokers.sendall(noise)
        if not noise:
            brokers.close()
        assert not client.read_hot()
        assert client.socket() is None
    assert got == []


def test_a_paho_without_the_names_it_hangs_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_paho, "INNER_NAMES", (*mqtt_paho.INNER_NAMES, "_gone"))
    with pytest.raises(SettingsError, match="lacks _gone"):
        HotClient(lambda _: None, callback_api_version=CallbackAPIVersion.VERSION2)


def test_what_broke_a_connection_is_told() -> None:
    with hot_client(MQTTProtocolVersion.MQTTv5) as (client, _brokers, _):
        linger = struct.pack("ii", 1, 0)  # closing then resets, as a refusal in mid-handshake does
        with reset_pair() as (ours, theirs):
            client._sock = ours
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            theirs.close()
            with pytest.raises(ConnectionResetError):
                client.read_hot()
            assert client.socket() is None


@contextmanager
def reset_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, which unlike a socket pair can be reset."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            yield ours, theirs
