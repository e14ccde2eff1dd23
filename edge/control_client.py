"""Asking a gateway that runs, over its control socket."""

import os
import socket
from pathlib import Path
from typing import Any

from edge.control_wire import ANSWER_BYTES_MAX, check_path, decode_answer, encode_line, read_line
from schemas.errors import MotorcadeError, TransientError

CONNECT_S = 5.0
ANSWER_S = 120.0
"""Longest wait for an answer: to try a model takes a while."""


class NotRunningError(MotorcadeError):
    """No gateway listens at this path."""


def ask(
    path: Path, command: str, *, answer_s: float = ANSWER_S, **arguments: Any
) -> dict[str, Any]:
    """Have the gateway that listens at `path` carry out a command.

    Args:
        path: Its `control_path`.
        command: One that it knows, such as `status`.
        answer_s: Longest wait for the answer.
        arguments: Of the command; what JSON can hold.

    Returns:
        What the command came to.

    Raises:
        NotRunningError: Nobody listens there.
        SettingsError: The path cannot be a socket's, or the user may not connect; or as below.
        TransientError: No answer in time, or the connection broke; or as below.
        ContractError, SettingsError, TransientError, FencedError, MotorcadeError: As the command
            raised it.
    """
    check_path(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        _connect(connection, path)
        try:
            connection.sendall(encode_line({"command": command, "arguments": arguments}))
            line = read_line(connection, bytes_max=ANSWER_BYTES_MAX, timeout_s=answer_s)
        except OSError as error:
            raise TransientError(f"the gateway at {path} did not answer: {error}") from error
    if not line:
        raise TransientError(f"the gateway at {path} went away without an answer")
    return decode_answer(line)


def _connect(connection: socket.socket, path: Path) -> None:
    connection.settimeout(CONNECT_S)
    try:
        connection.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotRunningError(f"no gateway listens on {path}") from error
    except PermissionError as error:
        raise NotRunningError(
            f"{path} belongs to another user; ask as the gateway's user or as root"
        ) from error
    except OSError as error:
        raise TransientError(f"the gateway at {path} does not answer: {error}") from error
