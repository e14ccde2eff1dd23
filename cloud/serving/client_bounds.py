"""What clients may take of an RPC door."""

from dataclasses import dataclass

SWEEP_S = 0.5
"""Time between two looks for slow clients."""

BACKLOG = 1024
"""Connections that the system holds until the loop takes them."""


@dataclass(frozen=True, slots=True)
class ClientBounds:
    """What one client, and all of them, may take.

    Attributes:
        connections_max: Open at once; one more is told to come again, and closed.
        head_timeout_s: From the first byte of a request, or from the connection, to the end of its
            headers.
        body_timeout_s: For the body of a request; and for a response that is not read.
        idle_timeout_s: Between two requests.
    """

    connections_max: int = 512
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0
