"""A new model's trial, in a process of its own: `python -m edge.trial FILE MEMORY_BYTES TIMEOUT_S`.

The model is loaded and scores the readings that stand on standard input, by the classes that the
gateway scores with. What comes of it is one line of JSON on standard output. Whatever the model
does to this process, it does to no other: memory, processor time and what may be written are
limited before its first byte is looked at, and an alarm ends what hangs.

Measured is processor time, so that a busy machine makes no model slow.
"""

import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edge.exposure import Exposure
from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.stream import StreamScorer

BATCH_MESSAGES = 20
"""Messages scored at once; a gateway in a car has few at a time."""

VEHICLES_MAX = 5_000
NAN_SHARE_MAX = 0.05
"""Of the readings that hold enough signals, so many may go without a score."""

NICE = 10
WRITTEN_BYTES_MAX = 1_000_000
_LENGTH = struct.Struct("<I")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Report:
    """What a model did on the readings of its trial.

    Attributes:
        readings: Scored.
        judged: Of these, with enough signals for a score.
        nan_share: Of the judged, without a score.
        reading_ms_p99: Processor time for each reading of a batch, 99th percentile of batches.
        alerts: Opened.
    """

    readings: int
    judged: int
    nan_share: float
    reading_ms_p99: float
    alerts: int


def write_inputs(payloads: list[bytes], file: BinaryIO) -> None:
    """Write payloads as `read_inputs` reads them."""
    for payload in payloads:
        file.write(_LENGTH.pack(len(payload)) + payload)


def read_inputs(file: BinaryIO) -> Iterator[bytes]:
    """The payloads that `write_inputs` wrote."""
    while head := file.read(_LENGTH.size):
        yield file.read(_LENGTH.unpack(head)[0])


def tried(bundle: Bundle, payloads: list[bytes]) -> Report:
    """Score payloads with a model that nobody has run yet.

    Raises:
        ContractError: It cannot be loaded, fails, or gives no score for too many readings.
    """
    scorer = StreamScorer(bundle, max_vehicles=VEHICLES_MAX, origin="EDGE")
    exposure = Exposure(VEHICLES_MAX, window=bundle.manifest.window)
    readings = judged = missing = alerts = 0
    reading_ms: list[float] = []
    for start in range(0, len(payloads), BATCH_MESSAGES):
        columns = decode_telemetry(
            payloads[start : start + BATCH_MESSAGES],
            framing=Framing.SINGLE_OBJECT,
            signals=scorer.signals,
        )
        began_s = time.thread_time()
        scored = scorer.process(columns, now_ms=int(columns.event_time_ms.max(initial=0)))
        spent_ms = 1_000 * (time.thread_time() - began_s)
        if not len(scored.scores):
            continue
        seen = exposure.take(columns, scored)
        readings += len(scored.scores)
        judged += seen.judged
        missing += seen.missing
        alerts += sum(transition.state == "OPEN" for transition in scored.transitions)
        reading_ms.append(spent_ms / len(scored.scores))
    share = missing / judged if judged else 0.0
    if share > NAN_SHARE_MAX:
        raise ContractError(
            Reason.MODEL_TRIAL,
            f"it gives NaN, no score, for {missing} of {judged} readings that have the signals "
            "for one",
        )
    return Report(readings, judged, share, float(np.percentile(reading_ms or [0.0], 99)), alerts)


def main(arguments: list[str]) -> int:
    """Try the model of a file; prints the report, or what is wrong with it."""
    path, memory_bytes, timeout_s = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    _limit(memory_bytes=memory_bytes, timeout_s=timeout_s)
    try:
        report = tried(Bundle.load(path), list(read_inputs(sys.stdin.buffer)))
    except ContractError as error:
        # The runtime's own word for want of memory.
        detail = _too_large(memory_bytes) if "bad_alloc" in error.detail else error.detail
        answer: dict[str, object] = {"reason": error.reason.value, "detail": detail}
    except MemoryError:
        answer = {"reason": Reason.MODEL_TRIAL.value, "detail": _too_large(memory_bytes)}
    else:
        answer = asdict(report)
    print(json.dumps(answer), flush=True)
    return 0


def _limit(*, memory_bytes: int, timeout_s: float) -> None:
    """No limit may be lifted again by what runs from here on."""
    used_bytes = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * _PAGE_BYTES
    seconds = int(timeout_s) + 1
    for what, most in (
        (resource.RLIMIT_AS, used_bytes + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, WRITTEN_BYTES_MAX),
    ):
        resource.setrlimit(what, (most, most))
    # At the lower one it is told apart from others that end it.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    os.nice(NICE)
    # Should memory run out all the same, this process is to go first.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    # For the case that the gateway is gone and nobody waits any more.
    signal.alarm(2 * seconds)


def _too_large(memory_bytes: int) -> str:
    return f"it wants more than {memory_bytes >> 20} MiB of memory"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
