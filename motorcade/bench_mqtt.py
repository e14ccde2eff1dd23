"""A fleet's stream for benchmarks, packed before it is sent: MQTT 5 over a bare socket.

A client library would cost the sender more than the receiver under test; so the packets are made
beforehand and sent by the hundred. Speaks as much of MQTT 5 as a benchmark's sender needs.
"""

import select
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from schemas.errors import TransientError
from transport.mqtt_packets import publish_properties, utf8, variable_length

MESSAGE_IDS = 65_535
_TIMEOUT_S = 30.0
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to be sent with QoS 1."""

    topic: str
    payload: bytes
    user_properties: Sequence[tuple[str, str]]
    content_type: str


def packet(publication: Publication, number: int) -> bytes:
    """A PUBLISH packet; `number` is the message's place in the stream, from 0."""
    variable = (
        utf8(publication.topic)
        + struct.pack(">H", number % MESSAGE_IDS + 1)
        + publish_properties(publication.user_properties, publication.content_type)
    )
    return (
        b"\x32"
        + variable_length(len(variable) + len(publication.payload))
        + variable
        + publication.payload
    )


class Sender:
    """One connection that only publishes; what the broker answers is read and passed over.

    Raises:
        TransientError: From every method: the broker refuses, or closed the connection.
    """

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self._address = (host, port)
        self._client_id = client_id
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        connection = socket.create_connection(self._address, _TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Keep-alive 0: this client is never taken for dead. Clean start, no will.
        head = b"\x00\x04MQTT\x05\x02" + struct.pack(">H", 0) + b"\x00" + utf8(self._client_id)
        connection.sendall(b"\x10" + variable_length(len(head)) + head)
        answer = connection.recv(4)
        if len(answer) < 4 or answer[0] != 0x20 or answer[3] != 0:
            connection.close()
            raise TransientError(f"the MQTT broker refuses the benchmark: {answer.hex()}")
        self._socket = connection
        self._reader = threading.Thread(target=self._read, name="puback", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
            self._reader.join(_TIMEOUT_S)
            connection.close()

    def send(self, packets: bytes) -> None:
        """Send packets as they are; waits while the broker takes nothing."""
        assert self._socket is not None
        try:
            self._socket.sendall(packets)
        except OSError as error:
            raise TransientError(f"the MQTT broker takes no more: {error}") from error

    def _read(self) -> None:
        """Take the acknowledgements off the connection, or the broker would stop reading."""
        connection = self._socket
        while connection is not None and self._socket is not None:
            select.select([connection], [], [], _TIMEOUT_S)
            try:
                if not connection.recv(_RECEIVE_BYTES):
                    return
            except ConnectionResetError:
                return  # What is sent on it says so.
