"""Keeps a shadow running while its experiment does, beside the scorer and never in its way."""

import contextlib
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from cloud.settings import ScorerSettings
from scoring.catalog import Catalog, ModelRef
from scoring.traffic import CHAMPION, Mode
from transport.backoff import backoff_s
from transport.settings import KafkaSettings

LOGGER = logging.getLogger("motorcade.score")

LOOK_S = 0.5
"""Time between two looks at whether the shadow still runs."""

END_PATIENCE_S = 15.0
"""Longest wait for a shadow that was told to end; then it is killed."""

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0

HEALTHY_AFTER_S = 60.0
"""A shadow that ran for so long before it died is started again at once."""

Shadowed = tuple[str, int]
"""Id of an experiment, and when it was started: one that is started again is another."""


def shadowed(catalog: Catalog, ref: ModelRef) -> Shadowed | None:
    """The experiment that wants a shadow, if there is one with vehicles."""
    experiment = catalog.traffic(ref.name).experiment
    if ref.selector != CHAMPION or experiment is None or experiment.mode is not Mode.SHADOW:
        return None
    if not any(arm.weight > 0 for arm in experiment.arms):
        return None
    return experiment.id, experiment.started_time_ms


class ShadowProcess:
    """A child process that shadows one experiment; ends with its input.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, settings: ScorerSettings, kafka: KafkaSettings, experiment: str) -> None:
        from cloud.shadow import ShadowTask

        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloud.shadow"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            creationflags=_low_priority(),
            # Ctrl-C in a terminal is the scorer's to deal with.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # One that died at once is found dead at the next look.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(ShadowTask(experiment, settings, kafka).to_line())
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def end(self) -> None:
        """Let it end, or kill it after `END_PATIENCE_S`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _low_priority() -> int:
    """Where a process cannot lower its own priority, its parent does."""
    if sys.platform == "win32":
        return subprocess.BELOW_NORMAL_PRIORITY_CLASS
    return 0


class Shadow(Protocol):
    """A shadow that was started; `ShadowProcess` is one."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def status(self) -> int | None:
        """Exit status; None while it runs."""

    def end(self) -> None:
        """Let it end; harmless when it has."""


StartShadow = Callable[[str], Shadow]
"""Given an experiment's id. Raises OSError."""


@dataclass(slots=True)
class _Running:
    """A shadow, and since when it runs."""

    of: Shadowed
    process: Shadow
    since_s: float


class ShadowKeeper:
    """Starts, restarts with growing pauses, and ends shadows, on a thread of its own.

    Args:
        ref: The model.
        start: Starts a shadow.
    """

    def __init__(self, ref: ModelRef, start: StartShadow) -> None:
        self._ref = ref
        self._start = start
        self._wish: Shadowed | None = None
        self._news = threading.Condition()
        self._ending = False
        self._running: _Running | None = None
        self._failures = 0
        self._not_before_s = 0.0
        self._rng = random.Random()
        self._thread = threading.Thread(target=self._keep, name="shadow-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Ends the shadow; waits for it for at most `END_PATIENCE_S`, and a look."""
        with self._news:
            self._ending = True
            self._news.notify()
        self._thread.join()

    def follow(self, catalog: Catalog) -> None:
        """Take a new catalog in; returns at once."""
        wish = shadowed(catalog, self._ref)
        with self._news:
            if wish != self._wish:
                self._wish = wish
                self._news.notify()

    @property
    def pid(self) -> int | None:
        """Process id of the shadow that runs."""
        running = self._running
        return None if running is None else running.process.pid

    def _keep(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(self._is_there_news, LOOK_S)
                wish = None if self._ending else self._wish
            self._look(wish)
            if self._ending and self._running is None:
                return

    def _is_there_news(self) -> bool:
        of = None if self._running is None else self._running.of
        return self._ending or (of is not None and of != self._wish)

    def _look(self, wish: Shadowed | None) -> None:
        running = self._running
        if running is not None and running.of != wish:
            running.process.end()
            LOGGER.info("the shadow of experiment %s ended", running.of[0])
            self._running = running = None
            self._failures, self._not_before_s = 0, 0.0
        if running is not None and running.process.status() is not None:
            self._died(running)
            self._running = running = None
        if running is None and wish is not None and time.monotonic() >= self._not_before_s:
            self._begin(wish)

    def _begin(self, wish: Shadowed) -> None:
        try:
            process = self._start(wish[0])
        except OSError as error:
            LOGGER.warning("no shadow of experiment %s: %s", wish[0], error)
            self._put_off()
            return
        self._running = _Running(wish, process, time.monotonic())
        LOGGER.info("experiment %s is shadowed by process %s", wish[0], process.pid)

    def _died(self, running: _Running) -> None:
        status = running.process.status()
        running.process.end()
        LOGGER.warning("the shadow of experiment %s ended with %s", running.of[0], status)
        if time.monotonic() - running.since_s > HEALTHY_AFTER_S:
            self._failures = 0
        self._put_off()

    def _put_off(self) -> None:
        pause_s = backoff_s(
            self._failures, minimum_s=BACKOFF_MIN_S, maximum_s=BACKOFF_MAX_S, rng=self._rng
        )
        self._failures += 1
        self._not_before_s = time.monotonic() + pause_s


def shadow_keeper(settings: ScorerSettings, kafka: KafkaSettings, ref: ModelRef) -> ShadowKeeper:
    """A keeper of real shadows of a scorer."""
    return ShadowKeeper(ref, lambda experiment: ShadowProcess(settings, kafka, experiment))
