"""What a gateway may write into the log: an outage overnight must not fill the card."""

import io
import logging
import random
from collections.abc import Iterator

import pytest

from edge.announce import (
    KINDS_MAX,
    LINE_CHARACTERS_MAX,
    LOGGER,
    PROBLEMS_KEPT,
    Announcer,
    Bounded,
    lines_at_most,
)
from edge.health import BeatingStop, Health
from edge.patience import Patience
from edge.spool import SpoolError

NIGHT_S = 12 * 3_600
SEED = 20_261_124


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Log:
    """A handler as `motorcade gateway run` has one, on a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.announcer = Announcer(self.clock, wall_ms=lambda: int(self.clock.now_s * 1000))
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.handler.addFilter(Bounded(self.announcer))

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    root = logging.getLogger()
    root.addHandler(log.handler)
    level, root.level = root.level, logging.INFO
    try:
        yield log
    finally:
        root.removeHandler(log.handler)
        root.setLevel(level)


class Night(BeatingStop):
    """The stop event of a gateway on a clock that only its waits move."""

    def __init__(self, health: Health, clock: Clock, happens: Iterator[None]) -> None:
        super().__init__(health.pulse)
        self._clock = clock
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        until_s = self._clock.now_s + (timeout or 0.0)
        while self._clock.now_s < until_s:
            self._clock.now_s += 1.0
            next(self._happens)
        return False


def outage(announcer: Announcer) -> Iterator[None]:
    """What the other parts say in each second of a night without MQTT, Kafka and a disk."""
    library = logging.getLogger("some.library")
    second = 0
    while True:
        second += 1
        if second % 5 == 0:
            announcer.warn("uplink lost", f"not forwarding, storing on: no answer {second}")
        if second % 60 == 0:
            announcer.warn("mqtt lost", "MQTT broker lost: connection refused")
            announcer.info("mqtt", "connected to the MQTT broker")
        announcer.warn("retention", "not trimming the spool: read-only file system")
        announcer.warn("status", "no status for now: input/output error")
        for _ in range(10):
            announcer.warn("alert on MQTT", "alert not yet on MQTT: 20000 messages wait already")
        library.warning("retrying request %d to http://127.0.0.1:8081", second)
        yield


def test_a_night_without_brokers_and_disk_is_a_few_lines(log: Log) -> None:
    print(f"seed {SEED}")
    health = Health(log.announcer)
    stop = Night(health, log.clock, outage(log.announcer))
    patience = Patience(stop, health, random.Random(SEED))

    def write() -> None:
        if log.clock.now_s < NIGHT_S:
            raise SpoolError("no space left on device")

    patience.until_done("storing messages", write)
    assert log.clock.now_s >= NIGHT_S
    assert health.disk_refusals > 4_000
    kinds = 8
    assert 2 * kinds < len(log.lines) <= 20 * kinds
    assert len(log.text) < 20_000
    assert "more like it" in log.lines[-1]


def test_whatever_happens_the_lines_of_a_night_are_bounded(log: Log) -> None:
    """Thousands of kinds, all of the longest text, without end."""
    for minute in range(NIGHT_S // 60):
        log.clock.now_s = minute * 60.0
        for number in range(20):
            log.announcer.warn(f"kind {minute} {number}", "x" * 10_000)
            logging.getLogger(f"library {number}").error("%s", "y" * 10_000)
    assert len(log.lines) <= lines_at_most(12)
    assert len(log.text) < lines_at_most(12) * (LINE_CHARACTERS_MAX + 100)
    assert len(log.announcer._spoken) <= KINDS_MAX
    assert len(log.announcer.problems()) == PROBLEMS_KEPT


def test_what_begins_again_after_a_quiet_time_is_heard_at_once(log: Log) -> None:
    said = []
    for at_s in (0, 1, 70, 100, 190, 400, 10_000, 10_001):
        log.clock.now_s = float(at_s)
        before = len(log.lines)
        log.announcer.warn("uplink", "away")
        said.append((at_s, len(log.lines) > before))
    assert said == [
        (0, True),
        (1, False),
        (70, True),
        (100, False),
        (190, True),
        (400, True),
        (10_000, True),
        (10_001, False),
    ]


def test_the_last_problems_are_kept_with_their_counts(log: Log) -> None:
    log.announcer.warn("disk", "full")
    log.clock.now_s = 5.0
    log.announcer.warn("uplink", "away")
    log.clock.now_s = 9.0
    log.announcer.warn("disk", "read-only")
    log.announcer.info("model", "new")
    found = [(p.kind, p.text, p.time_ms, p.count) for p in log.announcer.problems()]
    assert found == [("disk", "read-only", 9_000, 2), ("uplink", "away", 5_000, 1)]


def test_a_line_of_a_library_says_how_many_were_left_out(log: Log) -> None:
    other = logging.getLogger("library")
    for number in range(5):
        other.info("request %d", number)
    LOGGER.info("ours")
    log.clock.now_s = 100.0
    other.info("request %d", 5)
    assert [line.split(" INFO ")[1] for line in log.lines] == [
        "request 0",
        "ours",
        "request 5 (4 more like it)",
    ]
