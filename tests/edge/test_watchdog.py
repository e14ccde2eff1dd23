"""Telling systemd, and the watchdog that is fed by progress alone."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.health import BeatingStop, Crew, Health
from edge.intake import Inbound, Intake
from edge.notify import Notifier
from edge.pulse import WITHIN_S, Pulse
from schemas.errors import SettingsError


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A socket as systemd has one; `@` begins an abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(30)
        yield sock


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_every_word_arrives(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "n") if kind == "path" else f"@motorcade-test-{os.getpid()}"
    with listening(address) as systemd:
        notifier = Notifier.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        notifier.ready()
        notifier.reloading()
        notifier.status("two\nlines")
        notifier.alive()
        notifier.stopping()
        heard = [systemd.recv(4096).decode() for _ in range(5)]
        notifier.close()
    reloading, since = heard[1].split("\n")
    assert (heard[0], reloading, *heard[2:]) == (
        "READY=1",
        "RELOADING=1",
        "STATUS=two lines",
        "WATCHDOG=1",
        "STOPPING=1",
    )
    assert int(since.removeprefix("MONOTONIC_USEC=")) >= before_us
    assert notifier.watchdog_s == 3.0


def test_without_systemd_nothing_is_told() -> None:
    notifier = Notifier.of({})
    notifier.ready()
    notifier.alive()
    assert notifier.watchdog_s is None


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"},
    ],
)
def test_what_is_not_known_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="it may be"):
        Notifier.of(environ)


def test_the_watchdog_of_another_process_is_none_of_ours() -> None:
    assert Notifier.of({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog_s is None
    mine = {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.of(mine).watchdog_s == 5.0


def test_a_socket_that_is_gone_or_full_is_an_error_and_no_wait(tmp_path: Path) -> None:
    address = str(tmp_path / "n")
    notifier = Notifier(address)
    with pytest.raises(FileNotFoundError):
        notifier.ready()
    with listening(address), pytest.raises(BlockingIOError):
        for _ in range(100_000):
            notifier.ready()
    notifier.close()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_loop_that_does_not_come_round_hangs() -> None:
    clock = Clock()
    pulse = Pulse(clock, {"store": 10.0, "score": 20.0})
    pulse.beat_of("store")
    pulse.beat_of("score")
    clock.now_s = 10.0
    assert pulse.hanging() == []
    clock.now_s = 10.1
    assert pulse.hanging() == ["store"]
    pulse.beat_of("store")
    clock.now_s = 20.2
    assert pulse.hanging() == ["score", "store"]


def test_a_pause_that_was_said_before_is_no_hanging() -> None:
    clock = Clock()
    pulse = Pulse(clock, {"mqtt": 10.0})
    pulse.beat_of("mqtt", more_s=120.0)
    clock.now_s = 130.0
    assert pulse.hanging() == []
    clock.now_s = 130.1
    assert pulse.hanging() == ["mqtt"]


def test_a_loop_that_has_ended_is_not_waited_for() -> None:
    clock = Clock()
    pulse = Pulse(clock, {"store": 10.0})
    with pulse.loop("store"):
        clock.now_s = 11.0
        assert pulse.hanging() == ["store"]
    assert pulse.hanging() == []


def test_asking_for_the_end_is_the_beat_of_whoever_asks() -> None:
    clock = Clock()
    pulse = Pulse(clock, {"store": 10.0, "score": 10.0})
    crew = Crew(BeatingStop(pulse))
    beaten, go_on = threading.Event(), threading.Event()

    def store() -> None:
        with pulse.loop("store"):
            assert go_on.wait(60)
            assert not crew.stop.is_set()
            beaten.set()
            crew.stop.wait(60)

    with pulse.loop("score"):
        thread = threading.Thread(target=store)
        thread.start()
        while "store" not in pulse._loops:
            time.sleep(0.001)
        clock.now_s = 11.0
        assert pulse.hanging() == ["score", "store"]
        go_on.set()
        assert beaten.wait(60)
        assert pulse.hanging() == ["score"]
        crew.stop.set()
        thread.join(60)
        crew.stop.is_set()
        assert pulse.hanging() == []
    assert crew.stop.is_set()


def test_a_network_thread_that_waits_for_a_full_queue_is_excused() -> None:
    clock = Clock()
    health = Health(pulse=Pulse(clock, {"mqtt": 1.0}))
    intake = Intake(messages_max=1, bytes_max=1_000)
    health.pulse.beat_of("mqtt", excused=lambda: intake.is_full)
    intake.put(Inbound("t", b"", (), 0, 0))
    clock.now_s = 100.0
    assert health.pulse.hanging() == []
    intake.take(group_max=1, group_s=0.0, timeout_s=0.0)
    assert health.pulse.hanging() == ["mqtt"]


def test_every_loop_has_a_time() -> None:
    assert set(WITHIN_S) == {"store", "score", "forward", "releases", "mqtt"}
