"""MQTT packets that come and go by the thousand: publications and their acknowledgements. Pure.

Only what a hot path needs, for MQTT 5 and 3.1.1; everything else is paho's. What does not look
like the plain case is left to paho too, which then says what is wrong with it.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PUBLISH = 0x30
PUBACK = 0x40
QOS_1 = 0x02

LENGTH_BYTES_MAX = 4

_CONTENT_TYPE = 0x03
_USER_PROPERTY = 0x26
_PUBACK_HEAD = b"\x40\x02"

UserProperties = Sequence[tuple[str, str]]


class Publication(NamedTuple):
    """A PUBLISH packet of QoS 0 or 1; `message_id` is 0 for QoS 0."""

    topic: str
    payload: bytes
    message_id: int
    user_properties: UserProperties
    retained: bool
    duplicate: bool


def packet_bounds(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Where the body of the packet that begins at `at` begins and ends.

    Returns:
        None where its length has not come whole; the end may lie behind the buffer's.

    Raises:
        ValueError: The length has more than LENGTH_BYTES_MAX bytes.
    """
    length = 0
    for index, byte in enumerate(buffer[at + 1 : at + 1 + LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            body = at + 2 + index
            return body, body + length
    if len(buffer) - at > LENGTH_BYTES_MAX:
        raise ValueError("length of a packet without an end")
    return None


def publication(
    buffer: bytearray, start: int, end: int, *, head: int, version5: bool
) -> Publication | None:
    """The publication in a body, or None where it is not of the plain kind.

    Args:
        buffer: Holds the body.
        start: Of the body.
        end: Behind it.
        head: First byte of the packet.
        version5: Whether there are properties.
    """
    qos = head & 0x06
    try:
        at, topic = _text(buffer, start)
        message_id = 0
        if qos:
            message_id = buffer[at] << 8 | buffer[at + 1]
            at += 2
        user_properties: UserProperties = ()
        if version5:
            at, user_properties = _properties(buffer, at)
    except (IndexError, UnicodeDecodeError, _NotPlainError):
        return None
    if at > end or not topic or qos > QOS_1 or (qos and not message_id):
        return None
    return Publication(
        topic,
        bytes(buffer[at:end]),
        message_id,
        user_properties,
        bool(head & 0x01),
        bool(head & 0x08),
    )


class _NotPlainError(Exception):
    """A property that is not read here."""


def _text(buffer: bytearray, at: int) -> tuple[int, str]:
    start = at + 2
    end = start + (buffer[at] << 8 | buffer[at + 1])
    if end > len(buffer):
        raise IndexError(end)
    if buffer.find(0, start, end) >= 0:
        raise _NotPlainError  # no string of MQTT's holds it
    return end, buffer[start:end].decode("utf-8")


def _properties(buffer: bytearray, at: int) -> tuple[int, UserProperties]:
    """Position behind the properties, and those of the user."""
    length = buffer[at]
    at += 1
    if length > 0x7F:
        high = buffer[at]
        at += 1
        if high > 0x7F:
            raise _NotPlainError
        length = length & 0x7F | high << 7
    end = at + length
    found: list[tuple[str, str]] = []
    while at < end:
        kind = buffer[at]
        if kind == _USER_PROPERTY:
            at, name = _text(buffer, at + 1)
            at, value = _text(buffer, at)
            found.append((name, value))
        elif kind == _CONTENT_TYPE:
            at += 3 + (buffer[at + 1] << 8 | buffer[at + 2])
        else:
            raise _NotPlainError
    if at != end:
        raise _NotPlainError
    return at, found


def pubacks(message_ids: Iterable[int]) -> bytes:
    """PUBACK packets, one for each message, with reason 0."""
    return b"".join(_PUBACK_HEAD + message_id.to_bytes(2, "big") for message_id in message_ids)


def publish_packet(topic: str, payload: bytes, *, properties: bytes | None) -> bytes:
    """A PUBLISH packet of QoS 0; `properties` as `publish_properties` packs them, None: 3.1.1."""
    name = utf8(topic)
    packed = properties or b""
    length = variable_length(len(name) + len(packed) + len(payload))
    return b"".join((b"\x30", length, name, packed, payload))


def publish_properties(user_properties: UserProperties, content_type: str | None) -> bytes:
    """User properties and content type, with their length before them.

    MQTT 5, 2.2.2: a length, then identifier and value of each. Strings are UTF-8 behind two bytes
    of length.
    """
    packed = b"" if content_type is None else b"\x03" + utf8(content_type)
    packed += b"".join(b"\x26" + utf8(name) + utf8(text) for name, text in user_properties)
    return variable_length(len(packed)) + packed


def utf8(text: str) -> bytes:
    """MQTT's string: UTF-8 behind two bytes of length. Raises OverflowError above 65,535 bytes."""
    encoded = text.encode("utf-8")
    return struct.pack(">H", len(encoded)) + encoded if len(encoded) < 1 << 16 else _too_long()


def _too_long() -> bytes:
    raise OverflowError("an MQTT string has at most 65,535 bytes")


def variable_length(value: int) -> bytes:
    """MQTT's variable byte integer: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
