"""Processes are found again by PID files that cannot be mistaken."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import processes
from deploy.keeper import Keeper, end_all, parse
from deploy.processes import ProcessId
from schemas.errors import TransientError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(600)",
]
PATIENCE_S = 30.0


def test_a_pid_file_names_its_process_until_that_ends(tmp_path: Path) -> None:
    process = processes.spawn(SLEEP, log=tmp_path / "log")
    processes.write_pid_file(tmp_path / "pid", process)
    assert processes.read_pid_file(tmp_path / "pid") == process
    assert processes.terminate(process, PATIENCE_S)
    assert processes.read_pid_file(tmp_path / "pid") is None


def test_an_id_that_another_program_has_now_is_not_taken_for_ours(tmp_path: Path) -> None:
    myself = processes.identify(os.getpid())
    assert myself is not None
    stale = ProcessId(myself.pid, myself.start_ticks - 1)
    processes.write_pid_file(tmp_path / "pid", stale)
    assert processes.read_pid_file(tmp_path / "pid") is None
    processes.send(stale, signal.SIGKILL)
    processes.kill(stale)


@pytest.mark.parametrize("content", ["", "12", "x y", "1 2 3", "999999999 1"])
def test_a_torn_or_dead_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert processes.read_pid_file(tmp_path / "pid") is None


def test_a_process_that_nobody_reaped_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify(child.pid) is None
    child.wait()


def test_a_process_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.spawn(STUBBORN, log=log)
    while "deaf" not in log.read_text():
        assert processes.is_alive(process)
    assert not processes.terminate(process, timeout_s=0.1)
    assert not processes.is_alive(process)


def test_output_goes_to_the_log_and_is_appended(tmp_path: Path) -> None:
    for word in ("first", "second"):
        command = [sys.executable, "-c", f"import sys; print({word!r}, file=sys.stderr)"]
        assert processes.wait_gone(processes.spawn(command, log=tmp_path / "log"), PATIENCE_S)
    assert (tmp_path / "log").read_text().split() == ["first", "second"]


def test_a_program_that_does_not_exist_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="/no/such/program cannot be started"):
        processes.spawn(["/no/such/program"], log=tmp_path / "log")


def test_a_process_has_a_session_of_its_own(tmp_path: Path) -> None:
    process = processes.spawn(SLEEP, log=tmp_path / "log")
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        processes.kill(process)


def test_the_keeper_ends_what_it_keeps_when_its_program_lets_go(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "keeper.log")
    kept = processes.spawn(SLEEP, log=tmp_path / "log")
    keeper.start()
    keeper.keep(kept)
    keeper.stop()
    assert not processes.is_alive(kept)
    keeper.stop()


def test_the_keeper_kills_what_does_not_listen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.spawn(STUBBORN, log=log)
    while "deaf" not in log.read_text():
        assert processes.is_alive(process)
    end_all([process, ProcessId(process.pid, 1)], patience_s=0.1)
    assert not processes.is_alive(process)


def test_a_line_for_the_keeper_is_two_numbers() -> None:
    assert parse("12 34\n") == ProcessId(12, 34)
    with pytest.raises(ValueError, match="unpack"):
        parse("12")
