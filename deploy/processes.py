"""Child processes that outlive the object that started them, found again by a PID file.

A PID file names a process by its id and its start time in clock ticks since boot, so that an id
the system gave to another program meanwhile is never taken for ours, and never signalled.
Linux only: it reads `/proc`.
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import TransientError

_POLL_S = 0.01
_ZOMBIE = "Z"
_NEVER_TICKS = -1


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, told apart from a later one with the same number.

    Attributes:
        pid: Its number.
        start_ticks: When it started, in clock ticks since boot.
    """

    pid: int
    start_ticks: int


def identify(pid: int) -> ProcessId | None:
    """The process that has `pid` now; None if there is none, or only its unreaped remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold anything.
    fields = stat.rpartition(")")[2].split()
    # A process that was killed is a zombie while its other threads still hold its ports and files.
    if fields[0] == _ZOMBIE and int(fields[17]) <= 1:
        return None
    return ProcessId(pid, int(fields[19]))


def is_alive(process: ProcessId) -> bool:
    """Whether that very process still runs."""
    return identify(process.pid) == process


def read_pid_file(path: Path) -> ProcessId | None:
    """The running process that `path` names; None if the file is absent, torn or stale."""
    try:
        pid, start_ticks = (int(word) for word in path.read_text("ascii").split())
    except (FileNotFoundError, ValueError):
        return None
    process = ProcessId(pid, start_ticks)
    return process if is_alive(process) else None


def write_pid_file(path: Path, process: ProcessId) -> None:
    """Write `path` whole or not at all."""
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(f"{process.pid} {process.start_ticks}\n", "ascii")
    scratch.replace(path)


def spawn(command: Sequence[str], *, log: Path, stdin: int | None = None) -> ProcessId:
    """Start a program in a session of its own, its output appended to `log`.

    A session of its own keeps Ctrl-C in a terminal from reaching it before whoever started it
    has stopped things in order.

    Args:
        command: Path of the program and its arguments.
        log: File for standard output and error, made if absent.
        stdin: File descriptor it reads from; nothing to read if not given.

    Raises:
        TransientError: The program cannot be started.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    reading = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        if stdin is None
        else (os.POSIX_SPAWN_DUP2, stdin, 0)
    )
    try:
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                reading,
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
    except OSError as error:
        raise TransientError(f"{command[0]} cannot be started: {error}") from error
    return identify(pid) or ProcessId(pid, _NEVER_TICKS)


def send(process: ProcessId, number: signal.Signals) -> None:
    """Signal the process's whole group; nothing happens if it is gone."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait until the process has ended, and reap it if it is a child of ours.

    Returns:
        False if it still runs after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return True


def terminate(process: ProcessId, timeout_s: float) -> bool:
    """Ask a process to end, and kill it if it has not after `timeout_s`.

    Returns:
        True if it ended when asked.
    """
    send(process, signal.SIGTERM)
    if wait_gone(process, timeout_s):
        return True
    kill(process)
    return False


def kill(process: ProcessId) -> None:
    """End a process at once (SIGKILL) and wait until it is gone."""
    send(process, signal.SIGKILL)
    # The kernel may still be writing out what it held; nothing else can delay this.
    wait_gone(process, timeout_s=30.0)
