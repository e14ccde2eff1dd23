"""Whether a part really answers, asked in its own protocol over a bare socket.

An open port is not an answer: Kafka listens before its partitions have leaders. Bare sockets keep
this room free of client libraries, whose back-off would also make a start slower to notice.
"""

import http.client
import socket
import struct

from deploy.ports import LOOPBACK

PROBE_TIMEOUT_S = 2.0
RESPONSE_BYTES_MAX = 4 << 20

_METADATA_KEY = 3
_METADATA_VERSION = 1
_NO_LEADER = -1

# MQTT 5 CONNECT: clean start, keep-alive 10 s, no properties, empty client id.
_CONNECT = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
_CONNACK = 0x20
_DISCONNECT = b"\xe0\x00"


def mqtt_answers(port: int) -> bool:
    """Whether a broker accepts an MQTT 5 connection."""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_TIMEOUT_S) as link:
            link.sendall(_CONNECT)
            kind, _, _, reason = _receive(link, 4)
            link.sendall(_DISCONNECT)
    except (OSError, EOFError):
        return False
    return kind == _CONNACK and reason == 0


def registry_answers(port: int) -> bool:
    """Whether `GET /subjects` succeeds."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/subjects")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def kafka_answers(port: int) -> bool:
    """Whether a broker serves: it names itself, and every partition it knows has a leader."""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_TIMEOUT_S) as link:
            link.sendall(_metadata_request())
            (length,) = struct.unpack(">i", _receive(link, 4))
            if not 0 < length <= RESPONSE_BYTES_MAX:
                return False
            return metadata_is_complete(_receive(link, length))
    except (OSError, EOFError):
        return False


def _metadata_request() -> bytes:
    client = b"motorcade-probe"
    header = struct.pack(">hhih", _METADATA_KEY, _METADATA_VERSION, 1, len(client)) + client
    all_topics = struct.pack(">i", -1)
    return struct.pack(">i", len(header + all_topics)) + header + all_topics


class _Reader:
    """Takes Kafka's primitive types off a response, front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def is_within(self) -> bool:
        """Whether nothing was skipped that is not there."""
        return self._at <= len(self._data)

    def skip_string(self) -> None:
        length = self.number(">h")
        self._at += max(0, length)

    def skip_numbers(self) -> None:
        count = self.number(">i")
        self._at += 4 * max(0, count)


def metadata_is_complete(response: bytes) -> bool:
    """Read a Metadata response, version 1, with its correlation id.

    Returns:
        True if it lists a broker and every partition has a leader. False for anything that ends
        early.
    """
    reader = _Reader(response)
    try:
        reader.number(">i")
        brokers = reader.number(">i")
        for _ in range(brokers):
            _skip_broker(reader)
        reader.number(">i")  # the controller
        leaders = [leader for _ in range(reader.number(">i")) for leader in _leaders(reader)]
    except struct.error:
        return False
    return brokers > 0 and _NO_LEADER not in leaders and reader.is_within()


def _skip_broker(reader: _Reader) -> None:
    reader.number(">i")
    reader.skip_string()
    reader.number(">i")
    reader.skip_string()


def _leaders(reader: _Reader) -> list[int]:
    reader.number(">h")
    reader.skip_string()
    reader.number(">b")
    leaders = []
    for _ in range(reader.number(">i")):
        reader.number(">h")
        reader.number(">i")
        leaders.append(reader.number(">i"))
        reader.skip_numbers()
        reader.skip_numbers()
    return leaders


def _receive(link: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = link.recv(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
