"""Ports of the local stack: chosen once, then remembered."""

import errno
import random
import socket
from dataclasses import asdict, dataclass, fields, replace

from schemas.errors import SettingsError

LOOPBACK = "127.0.0.1"

FIRST_PORT = 20_000
LAST_PORT = 32_000
"""Below Linux's ephemeral ports (32768 and up). A broker that is restarted must find its port free,
and a client that retries a dead loopback port inside that range can be connected to itself."""

_TRIES = 200


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each part listens on the loopback; 0 means any free port.

    Attributes:
        kafka: Kafka clients.
        controller: Kafka's own metadata quorum.
        mqtt: MQTT without TLS.
        registry: HTTP of the schema registry.
    """

    kafka: int = 0
    controller: int = 0
    mqtt: int = 0
    registry: int = 0


USUAL_PORTS = Ports(kafka=9092, controller=9093, mqtt=1883, registry=8081)
"""What clients try when nobody tells them otherwise."""


def port_is_free(port: int) -> bool:
    """Whether a server could listen on that loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections of the last run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def choose_ports(wanted: Ports, rng: random.Random | None = None) -> Ports:
    """Replace each 0 by a free port; what was asked for by number stays.

    Raises:
        SettingsError: No free port was found in `_TRIES` tries.
    """
    rng = rng or random.Random()
    chosen = wanted
    for field in fields(Ports):
        if getattr(chosen, field.name) == 0:
            chosen = replace(chosen, **{field.name: _free_port(rng, chosen)})
    return chosen


def free_ports(count: int) -> list[int]:
    """Free loopback ports, no two the same, for what is no part of the stack.

    Raises:
        SettingsError: As `choose_ports`.
    """
    rng = random.Random()
    found: list[int] = []
    while len(found) < count:
        port = _free_port(rng, Ports())
        if port not in found:
            found.append(port)
    return found


def _free_port(rng: random.Random, taken: Ports) -> int:
    used = set(asdict(taken).values())
    for _ in range(_TRIES):
        port = rng.randrange(FIRST_PORT, LAST_PORT)
        if port not in used and port_is_free(port):
            return port
    raise SettingsError(f"no free loopback port between {FIRST_PORT} and {LAST_PORT}")
