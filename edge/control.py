"""The control socket: how a running gateway is asked and told, by whoever owns its files.

A Unix socket of mode 0600: only the gateway's own user, and root, may speak. Each connection
carries one request and its answer (`edge.control_wire`) on a thread of its own, so that a trial of
a model, which takes a while, does not keep a `status` waiting. CONNECTIONS_MAX are served at once;
others wait in the backlog of the socket.

A command that fails is the asker's to know: its error goes there, and the gateway goes on.
"""

import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.announce import Announcer
from edge.control_wire import (
    ANSWER_BYTES_MAX,
    REQUEST_BYTES_MAX,
    check_path,
    decode_request,
    encode_line,
    error_answer,
    read_line,
)
from schemas.errors import ContractError, MotorcadeError, Reason, SettingsError, TransientError

CONNECTIONS_MAX = 4
BACKLOG = 16
REQUEST_S = 5.0
ANSWER_S = 5.0
JOIN_S = 2.0
MODE = 0o600

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers requests on a Unix socket until closed.

    Args:
        path: Where the socket is made; at most 107 bytes. One that nobody listens on
            any more is replaced, anything else that lies there is left alone.
        handlers: Command to what answers it: arguments in, result out, both JSON objects. They
            run on threads of the server, several at a time.
        announcer: For requests that failed for no reason that a user should know.
    """

    def __init__(
        self, path: Path, handlers: Mapping[str, Handler], *, announcer: Announcer | None = None
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._announcer = announcer or Announcer()
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._inode = 0

    def start(self) -> None:
        """Listen from now on.

        Raises:
            SettingsError: The path is too long, or something else lies there or listens there.
            OSError: The socket cannot be made for now, say for want of space.
        """
        check_path(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _clear(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before it has a name, so that there is no moment in which others may connect.
            os.fchmod(listener.fileno(), MODE)
            listener.bind(os.fspath(self._path))
            self._inode = self._path.stat().st_ino
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._thread = threading.Thread(
            target=self._accept, args=(listener,), name="gateway-control", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more, and take the socket away; answers under way have JOIN_S to leave."""
        listener, self._listener = self._listener, None
        if listener is None or self._thread is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join(JOIN_S)
        listener.close()
        for _ in range(CONNECTIONS_MAX):
            self._places.acquire(timeout=JOIN_S / CONNECTIONS_MAX)
        # Not one that a successor has made meanwhile.
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            self._places.acquire()
            try:
                connection, _ = listener.accept()
            except OSError as error:
                self._places.release()
                if error.errno not in (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE):
                    return
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="gateway-control-answer", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        """One request; whoever hangs up has no need of an answer."""
        try:
            with connection:
                line = self._answer(connection)
                connection.settimeout(ANSWER_S)
                connection.sendall(line)
        except OSError as error:
            self._announcer.info("control connection", f"control: an asker went away: {error}")
        finally:
            self._places.release()

    def _answer(self, connection: socket.socket) -> bytes:
        try:
            line = read_line(connection, bytes_max=REQUEST_BYTES_MAX, timeout_s=REQUEST_S)
            command, arguments = decode_request(line)
            answer = encode_line({"result": self._handle(command, arguments)})
            if len(answer) > ANSWER_BYTES_MAX:
                raise ContractError(Reason.OVERSIZED, f"an answer of {len(answer)} bytes")
        except MotorcadeError as error:
            return encode_line(error_answer(error))
        return answer

    def _handle(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        handler = self._handlers.get(command)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise ContractError(Reason.MALFORMED, f"no command {command!r}; there are: {known}")
        try:
            return handler(arguments)
        except MotorcadeError:
            raise
        except OSError as error:
            raise TransientError(f"{command} failed: {error}") from error
        except Exception as error:
            self._announcer.warn(f"control {command}", f"control: {command} failed: {error!r}")
            raise MotorcadeError(f"{command} failed: {error!r}") from error


def _clear(path: Path) -> None:
    """Take away a socket that nobody listens on.

    Raises:
        SettingsError: Something else is there.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError(f"control_path: {path} is there and no socket; it stays as it is")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(REQUEST_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
    raise SettingsError(f"control_path: another gateway listens on {path}")
