"""Ends the parts that a program started, when that program ends in whatever way.

`python -m deploy.keeper` reads lines `pid start_ticks` from standard input, one for each part
started. When the input ends, because the program that holds its other end closed it or died, even
by SIGKILL, the keeper asks each part that still runs to end, and kills what has not after
`PATIENCE_S`. The kernel's own parent-death signal would not do: it is sent when the *thread* that
started the part ends.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from deploy import processes
from deploy.processes import ProcessId

PATIENCE_S = 10.0


class Keeper:
    """The keeper process, seen from the program that starts it.

    Args:
        log: File for what goes wrong in it; its directory exists.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: tuple[ProcessId, int] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._running is None:
            reading, writing = os.pipe()
            try:
                command = [sys.executable, "-m", "deploy.keeper"]
                keeper = processes.spawn(command, log=self._log, stdin=reading)
            finally:
                os.close(reading)
            self._running = (keeper, writing)

    def keep(self, process: ProcessId) -> None:
        """Have it end this process too. Call `start` before."""
        assert self._running is not None
        os.write(self._running[1], f"{process.pid} {process.start_ticks}\n".encode("ascii"))

    def stop(self) -> None:
        """Let it end what still runs, and then itself. Harmless when repeated."""
        if self._running is not None:
            keeper, writing = self._running
            self._running = None
            os.close(writing)
            processes.wait_gone(keeper, 2 * PATIENCE_S)


def parse(line: str) -> ProcessId:
    """Read one line of the keeper's input.

    Raises:
        ValueError: It is not two numbers.
    """
    pid, start_ticks = line.split()
    return ProcessId(int(pid), int(start_ticks))


def end_all(kept: Iterable[ProcessId], patience_s: float = PATIENCE_S) -> None:
    """Ask all to end, wait, and kill what is left."""
    left = [process for process in kept if processes.is_alive(process)]
    for process in left:
        processes.send(process, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    for process in left:
        if not processes.wait_gone(process, max(0.0, deadline - time.monotonic())):
            processes.kill(process)


def main() -> None:
    """Keep until standard input ends."""
    kept = [parse(line) for line in sys.stdin]
    end_all(kept)


if __name__ == "__main__":
    main()
