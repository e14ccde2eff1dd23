"""Telling systemd how it stands: readiness, reloads, a line of status, the watchdog.

The protocol of sd_notify(3): datagrams of `NAME=value` lines to the socket in NOTIFY_SOCKET, a path
or, with a leading `@`, a name in the abstract namespace. Nothing waits: a datagram that finds no
room is lost, and the next one makes it good.
"""

import os
import socket
import time
from collections.abc import Mapping

from schemas.errors import SettingsError

_MICROSECONDS = 1_000_000


class Notifier:
    """Where to notify, if anybody wants to know.

    Args:
        address: Of the socket; empty: nobody does.
        watchdog_s: How long systemd waits for a sign of life; None: for ever.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Notifier":
        """As systemd set the variables of a service.

        Raises:
            SettingsError: NOTIFY_SOCKET is of a kind that is not known here, or WATCHDOG_USEC is
                no number.
        """
        address = environ.get("NOTIFY_SOCKET", "")
        if address and address[0] not in "/@":
            raise SettingsError(f"NOTIFY_SOCKET is {address!r}; it may be a path, or @ and a name")
        return cls(address, _watchdog_s(environ))

    def ready(self) -> None:
        """The service works, or works again after `reloading`."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The settings are being read again; `ready` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows: one line."""
        self._send(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """Feed the watchdog."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Drop the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        """Send one datagram.

        Raises:
            OSError: Nobody listens there, or there is no room for it.
        """
        if not self._address:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._socket.sendto(text.encode(), self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text or (pid and pid != str(os.getpid())):
        return None
    if not text.isdecimal() or int(text) == 0:
        raise SettingsError(f"WATCHDOG_USEC is {text!r}; it may be a number of microseconds")
    return int(text) / _MICROSECONDS
