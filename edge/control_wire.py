"""What goes over the control socket: one JSON object a line, a request and then its answer.

    {"command": "rollback", "arguments": {"reason": "…"}}
    {"result": {…}}       or       {"error": {"kind": "contract", "reason": "…", "detail": "…"}}

An error of a handler travels as its family and its words, and is raised again at the client.
"""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    Reason,
    SettingsError,
    TransientError,
)

REQUEST_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 4 * 1024 * 1024
PATH_BYTES_MAX = 107
"""Of a Unix socket's path; the system has 108 bytes for it, the last one a zero."""

_READ_BYTES = 64 * 1024

Object = dict[str, Any]

_KINDS: dict[str, type[MotorcadeError]] = {
    "settings": SettingsError,
    "transient": TransientError,
    "fenced": FencedError,
}


def check_path(path: Path) -> None:
    """Refuse a path that no socket can have.

    Raises:
        SettingsError: Says how long it is and how long it may be.
    """
    length = len(os.fsencode(path))
    if length > PATH_BYTES_MAX:
        raise SettingsError(
            f"control_path: {path} has {length} bytes; a socket's path may have "
            f"{PATH_BYTES_MAX}, so choose a shorter one, such as below /run"
        )


def encode_line(content: Object) -> bytes:
    """One object as a line."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def decode_request(line: bytes) -> tuple[str, Object]:
    """Command and arguments of a request.

    Raises:
        ContractError: It is no request.
    """
    content = _decode(line, "request")
    command, arguments = content.get("command"), content.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ContractError(Reason.MALFORMED, "a request has a command and its arguments")
    return command, arguments


def decode_answer(line: bytes) -> Object:
    """The result in an answer.

    Raises:
        MotorcadeError: What the handler raised: ContractError, SettingsError, TransientError,
            FencedError, or this class for anything else.
        ContractError: It is no answer.
    """
    content = _decode(line, "answer")
    result, error = content.get("result"), content.get("error")
    if isinstance(error, dict):
        raise _error_of(error)
    if not isinstance(result, dict):
        raise ContractError(Reason.MALFORMED, "an answer has a result or an error")
    return result


def _decode(line: bytes, what: str) -> Object:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ContractError(Reason.MALFORMED, f"the {what} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ContractError(Reason.MALFORMED, f"the {what} is no JSON object")
    return content


def error_answer(error: Exception) -> Object:
    """The answer that has an error raised at the client."""
    if isinstance(error, ContractError):
        return {"error": {"kind": "contract", "reason": error.reason, "detail": error.detail}}
    kind = next((name for name, family in _KINDS.items() if isinstance(error, family)), "other")
    detail = str(error) if isinstance(error, MotorcadeError) else repr(error)
    return {"error": {"kind": kind, "detail": detail}}


def _error_of(error: Object) -> MotorcadeError:
    detail = str(error.get("detail", ""))
    if error.get("kind") != "contract":
        return _KINDS.get(str(error.get("kind")), MotorcadeError)(detail)
    try:
        return ContractError(Reason(str(error.get("reason"))), detail)
    except ValueError:
        return ContractError(Reason.MALFORMED, detail)


def read_line(connection: socket.socket, *, bytes_max: int, timeout_s: float) -> bytes:
    """The line that comes, without its end; empty when the other side has gone.

    Raises:
        ContractError: OVERSIZED, longer than `bytes_max`.
        TimeoutError: Not whole after `timeout_s`.
        OSError: The connection broke.
    """
    deadline_s = time.monotonic() + timeout_s
    line = bytearray()
    while b"\n" not in line[-_READ_BYTES:]:
        if len(line) > bytes_max:
            raise ContractError(Reason.OVERSIZED, f"a line of more than {bytes_max} bytes")
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no whole line in {timeout_s:g} s")
        connection.settimeout(left_s)
        read = connection.recv(_READ_BYTES)
        if not read:
            return b""
        line += read
    return bytes(line[: line.index(b"\n")])
