"""Motorcade's own programs as child processes, each with its log and its progress.

A child's standard output goes to `<name>.out` (progress as JSON lines), its standard error to
`<name>.log`. Children live in sessions of their own, so that Ctrl-C reaches only the demo, which
then stops them in order; `deploy.keeper` ends them if the demo itself is killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.keeper import Keeper
from deploy.processes import identify
from motorcade.config import is_setting

STOP_TIMEOUT_S = 15.0
LOG_LINES_SHOWN = 15
_LINE_BYTES_MAX = 1 << 20


def clean_environment() -> dict[str, str]:
    """The environment without settings of Motorcade: the children's file has theirs."""
    return {name: value for name, value in os.environ.items() if not is_setting(name)}


def settings_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A settings file; None leaves a key out.

    Example:
        >>> print(settings_text({"mqtt": {"port": 1883, "tls": None}}))
        [mqtt]
        port = 1883
        <BLANKLINE>
    """
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        # JSON's text, numbers and lists are TOML too.
        lines += [
            f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}"
            for key, value in values.items()
            if value is not None
        ]
        lines.append("")
    return "\n".join(lines)


class Child:
    """One `motorcade` command as a process.

    Args:
        name: For its files and for people.
        arguments: What follows `motorcade`.
        directory: Where its files go.
    """

    def __init__(self, name: str, arguments: list[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.out = directory / f"{name}.out"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._read_to = 0
        self._rest = b""

    def start(self, keeper: Keeper) -> None:
        """Start it, or start it again after its end."""
        with self.out.open("ab") as out, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "motorcade", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=clean_environment(),
                start_new_session=True,
            )
        process = identify(self._process.pid)
        if process is not None:
            keeper.keep(process)

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return None if self._process is None else self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Signal its process group; nothing happens if it has ended."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end. Returns False if it still runs after `timeout_s`."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Ask it to end; kill it if it has not after `timeout_s`.

        Returns:
            True if it ended when asked.
        """
        self.signal(signal.SIGTERM)
        if self.wait(timeout_s):
            return True
        self.kill()
        return False

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.signal(signal.SIGKILL)
        self.wait(STOP_TIMEOUT_S)

    @property
    def has_spoken(self) -> bool:
        """Whether it has written any progress yet."""
        return self.out.exists() and self.out.stat().st_size > 0

    def progress(self) -> list[dict[str, Any]]:
        """The progress lines that are new since the last call."""
        if not self.out.exists():
            return []
        with self.out.open("rb") as file:
            file.seek(self._read_to)
            read = file.read(_LINE_BYTES_MAX)
        self._read_to += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def tail(self) -> str:
        """The end of its log, for a message."""
        text = self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-LOG_LINES_SHOWN:])


class Crew:
    """The children of one demo or test; none outlives it.

    Example:
        >>> with Crew(Path("run")) as crew:  # doctest: +SKIP
        ...     crew.start("scorer", ["score"])
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: dict[str, Child] = {}
        self._keeper = Keeper(directory / "keeper.log")

    def __enter__(self) -> "Crew":
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, arguments: list[str]) -> Child:
        """Start a command under a name."""
        child = Child(name, arguments, self.directory)
        self.children[name] = child
        child.start(self._keeper)
        return child

    def restart(self, name: str) -> None:
        """Start a child again that has ended."""
        self.children[name].start(self._keeper)

    def stop(self) -> None:
        """Ask all that run to end, last started first, and kill what has not in time."""
        running = [child for child in reversed(self.children.values()) if child.running]
        for child in running:
            child.signal(signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for child in running:
            if not child.wait(max(0.0, deadline_s - time.monotonic())):
                child.kill()
        self._keeper.stop()
