"""Paho's client, with a hot path for what comes and goes by the thousand.

Paho reads each packet by three system calls and takes a publication's properties apart by search
in tables, 60 µs a message; here a whole buffer is read at once, and publications of the plain kind
are taken from it in 10. Sessions, keep-alive, acknowledgements of what is sent, every other packet
and everything unusual stay paho's.

This hangs on names inside paho that its documentation does not promise. They are listed in
`INNER_NAMES`, and the lock file holds paho at a version that has them.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from schemas.errors import SettingsError
from transport.mqtt_packets import (
    PUBACK,
    PUBLISH,
    QOS_1,
    Publication,
    packet_bounds,
    pubacks,
    publication,
    publish_packet,
    publish_properties,
)

RECEIVE_BYTES = 1 << 16

INNER_NAMES = (
    "_in_packet",
    "_last_bytes_received",
    "_loop_rc_handle",
    "_msgtime_mutex",
    "_packet_handle",
    "_packet_queue",
    "_send_puback",
    "_sock_recv",
)
"""What is used of paho's client beyond its documentation."""

_PLAIN = 0xF4
"""Bits of the first byte that tell a PUBLISH of QoS 0 or 1, whatever its flags."""


class PublishProperties(Properties):
    """User properties and content type, packed here: paho's own way costs 30 us a message."""

    def __init__(
        self, user_properties: "Iterable[tuple[str, str]]", content_type: str | None
    ) -> None:
        packed = publish_properties(tuple(user_properties), content_type)
        object.__setattr__(self, "_packed", packed)

    def pack(self) -> bytes:
        """Called by paho at each sending, also when it sends again after a reconnect."""
        packed: bytes = object.__getattribute__(self, "_packed")
        return packed

    def __str__(self) -> str:
        return repr(self.pack())


class HotClient(paho.Client):
    """`paho.Client` whose network loop calls `read_hot` in place of `loop_read`.

    Args:
        on_publication: Gets each publication; called on the network thread.
        given: For `paho.Client`.

    Raises:
        SettingsError: The installed paho lacks one of `INNER_NAMES`.
    """

    def __init__(self, on_publication: Callable[[Publication], object], **given: Any) -> None:
        super().__init__(**given)
        missing = [name for name in INNER_NAMES if not hasattr(self, name)]
        if missing:
            raise SettingsError(f"this version of paho-mqtt lacks {', '.join(missing)}")
        self._on_publication = on_publication
        self._version5 = given.get("protocol") == MQTTProtocolVersion.MQTTv5
        self._acks_by_hand = bool(given.get("manual_ack"))
        self._buffer = bytearray()
        self.on_message = self._unusual_message

    def begin(self) -> None:
        """A connection is about to be opened: nothing of the one before counts."""
        self._buffer.clear()

    def read_hot(self) -> bool:
        """Read once from the socket and handle every packet that is whole.

        Returns:
            Whether there may be more to read at once.

        Raises:
            OSError: The connection broke, also by an alert of TLS; it is closed.
        """
        try:
            data = self._sock_recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            raise
        if not data:
            self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            return False
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        self._buffer += data
        self._handle_whole()
        return len(data) == RECEIVE_BYTES and self.socket() is not None

    def _handle_whole(self) -> None:
        buffer, at = self._buffer, 0
        try:
            while (bounds := packet_bounds(buffer, at)) is not None and bounds[1] <= len(buffer):
                self._handle_packet(buffer[at], *bounds)
                at = bounds[1]
                if self.socket() is None:
                    return
        except ValueError:
            self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)
            return
        del buffer[:at]

    def _handle_packet(self, head: int, start: int, end: int) -> None:
        if head & _PLAIN == PUBLISH:
            found = publication(self._buffer, start, end, head=head, version5=self._version5)
            if found is not None:
                self._on_publication(found)
                if found.message_id and not self._acks_by_hand:
                    self._send_puback(found.message_id)
                return
        self._leave_to_paho(head, start, end)

    def _leave_to_paho(self, head: int, start: int, end: int) -> None:
        self._in_packet["command"] = head
        self._in_packet["remaining_length"] = end - start
        self._in_packet["packet"] = self._buffer[start:end]
        try:
            code = self._packet_handle()
        except MalformedPacket:
            code = MQTTErrorCode.MQTT_ERR_PROTOCOL
        finally:
            self._in_packet["command"] = 0
            self._in_packet["packet"] = bytearray()
        if code > 0:
            self._loop_rc_handle(code)

    def _unusual_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        """A publication with properties that the hot path does not read."""
        self._on_publication(
            Publication(
                message.topic,
                bytes(message.payload),
                message.mid if message.qos else 0,
                getattr(message.properties, "UserProperty", ()),
                message.retain,
                message.dup,
            )
        )

    def ack_hot(self, message_ids: Iterable[int]) -> None:
        """Acknowledge QoS 1 messages, all in one write."""
        packets = pubacks(message_ids)
        if packets:
            self._packet_queue(PUBACK, packets, 0, QOS_1)

    def publish_hot(self, messages: Iterable[tuple[str, bytes]], content_type: str | None) -> None:
        """Publish messages with QoS 0, all in one write; nobody is told of the outcome."""
        properties = publish_properties((), content_type) if self._version5 else None
        packets = b"".join(
            publish_packet(topic, payload, properties=properties) for topic, payload in messages
        )
        if packets:
            # As PUBACK, for which paho calls nobody back.
            self._packet_queue(PUBACK, packets, 0, QOS_1)


def properties_of(packet_type: int) -> Properties:
    """Paho's own properties of a packet that is sent once in a while."""
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def connect_properties(*, session_expiry_s: int, receive_max: int) -> Properties:
    """What a CONNECT asks for."""
    properties = properties_of(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session_expiry_s
    properties.ReceiveMaximum = receive_max
    return properties
