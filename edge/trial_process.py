"""Having a new model tried by another process (`edge.trial`), and putting its end into words."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from edge.trial import Report, write_inputs
from schemas.errors import ContractError, Reason, TransientError
from scoring.bounds import Bounds

MEMORY_BYTES_MAX = 160 * 1024 * 1024
"""What a trial may take beyond an idle interpreter: beside a gateway it fits into 384 MB."""

ANSWER_BYTES_MAX = 100_000
GRACE_S = 5.0
"""For the start of the interpreter, beside the time that the model has."""

LOOK_S = 0.2
"""Between two looks at whether the gateway is to stop."""

_ROOT = Path(__file__).resolve().parent.parent
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "HOME", "TMPDIR")


def run_trial(
    path: Path,
    payloads: list[bytes],
    *,
    timeout_s: float,
    bounds: Bounds | None = None,
    memory_bytes: int = MEMORY_BYTES_MAX,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Try the model of a file on readings, in a process that may die of it.

    Args:
        path: A bundle's file, on the disk of the gateway; nothing is written beside it that
            stays.
        payloads: TelemetryBatch records in single-object encoding.
        timeout_s: Longest time for all of it.
        bounds: What the model's manifest promises.
        memory_bytes: What it may take.
        stopped: Asked meanwhile; ends the trial.

    Raises:
        ContractError: MODEL_TRIAL: it ended or held up its process, or is slower than its bounds;
            or what the process said is wrong with it.
        TransientError: No process could be started, it found no room for its readings, or was
            stopped.
    """
    try:
        with (
            tempfile.TemporaryFile(dir=path.parent) as inputs,
            tempfile.TemporaryFile(dir=path.parent) as said,
            tempfile.TemporaryFile(dir=path.parent) as complained,
        ):
            write_inputs(payloads, inputs)
            inputs.seek(0)
            arguments = [str(path), str(memory_bytes), str(timeout_s)]
            status = _run(
                arguments,
                (inputs, said, complained),
                timeout_s=timeout_s + GRACE_S,
                stopped=stopped,
            )
            answer, complaint = _content(said), _content(complained)
    except OSError as error:
        raise TransientError(f"no model can be tried here: {error}") from error
    if status is None:
        raise _failed(f"it was not done after {timeout_s:g} s (trial_timeout_s)")
    if status < 0:
        raise _failed(_killed(-status, memory_bytes))
    report = _report(answer, complaint, status)
    _check_pace(report, bounds)
    return report


def _run(
    arguments: list[str],
    files: tuple[BinaryIO, BinaryIO, BinaryIO],
    *,
    timeout_s: float,
    stopped: Callable[[], bool],
) -> int | None:
    """The exit status, minus the signal that ended it; None where it did not end in time."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edge.trial", *arguments],
        stdin=files[0],
        stdout=files[1],
        stderr=files[2],
        env=environment,
        start_new_session=True,
    )
    try:
        return _waited(process, timeout_s, stopped)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _waited(
    process: subprocess.Popen[bytes], timeout_s: float, stopped: Callable[[], bool]
) -> int | None:
    """The exit status; None after the time-out. Raises TransientError when stopped."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            return process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            if stopped():
                raise TransientError("stopped in the middle of a model's trial") from None
    return None


def _content(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(ANSWER_BYTES_MAX).decode("utf-8", errors="replace")


def _killed(number: int, memory_bytes: int) -> str:
    """How a process ended that a signal ended."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in (signal.SIGXCPU, signal.SIGALRM):
        return f"it did not come to an end ({name})"
    if number in (signal.SIGABRT, signal.SIGKILL):
        return (
            f"it ended the process that tried it ({name}), perhaps for want of memory: it may "
            f"have {memory_bytes >> 20} MiB"
        )
    return f"it crashed the process that tried it ({name})"


def _report(answer: str, complaint: str, status: int) -> Report:
    """What the process said.

    Raises:
        ContractError: That the model is no good, or nothing that can be understood.
    """
    try:
        found: dict[str, Any] = json.loads(answer.splitlines()[-1])
        if "reason" in found:
            raise ContractError(Reason(found["reason"]), found["detail"])
        return Report(**found)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        last = complaint.strip().splitlines()[-1:] or ["nothing"]
        raise _failed(f"its trial ended with status {status} and said: {last[0]}") from error


def _check_pace(report: Report, bounds: Bounds | None) -> None:
    most_ms = None if bounds is None else bounds.reading_ms_max
    if most_ms is not None and report.reading_ms_p99 > most_ms:
        raise _failed(
            f"it takes {report.reading_ms_p99:.3g} ms a reading here, and its bounds allow "
            f"{most_ms:g} ms"
        )


def _failed(detail: str) -> ContractError:
    return ContractError(Reason.MODEL_TRIAL, detail)
