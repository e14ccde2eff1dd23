"""The receiver of `motorcade bench gateway` as seen from outside: a process and how far it is."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from motorcade.demo_children import clean_environment
from schemas.errors import TransientError

START_S = 60.0
STOP_S = 60.0

Progress = Mapping[str, float]


class Receiver:
    """`edge.bench_child` as a process.

    Args:
        kind: `gateway` or `bare`.
        given: What it is told; see there.

    Raises:
        TransientError: From `with` and `wait`: it ended, or did not come so far in time.
    """

    def __init__(self, kind: str, given: Mapping[str, Any]) -> None:
        self._command = [sys.executable, "-m", "edge.bench_child", kind, json.dumps(given)]
        self._changed = threading.Condition()
        self._now: dict[str, float] = {}
        self._ended = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, name="receiver", daemon=True)
        self._thread.start()
        self.wait({"received": 0}, timeout_s=START_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()

    @property
    def now(self) -> Progress:
        """What it said last."""
        return self._now

    def wait(self, wanted: Mapping[str, float], *, timeout_s: float) -> Progress:
        """Wait until each counter is at least so high; returns what it said then."""

        def there() -> bool:
            return self._ended or all(
                self._now.get(name, -1) >= least for name, least in wanted.items()
            )

        with self._changed:
            if not self._changed.wait_for(there, timeout_s) or self._ended:
                raise TransientError(f"the receiver came to {self._now}, not to {dict(wanted)}")
            return dict(self._now)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._now = json.loads(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
