"""Courses of a few vehicles for the tests of what scores a stream."""

from collections.abc import Sequence

import numpy as np
from scoring_columns import EPOCH_MS, Message

SOUND = (50.0, 2000.0, 85.0, 100.0, 20.0)
SICK = (50.0, 9000.0, 160.0, 480.0, 600.0)


def message(
    seq: int,
    rows: Sequence[Sequence[float]],
    *,
    vehicle: bytes = b"car",
    boot_id: int = 1,
    uptime_ms: int | None = None,
    jump_ms: int = 0,
) -> Message:
    """The seq-th batch of one-second readings; all batches of a test are equally long."""
    start_ms = (seq - 1) * len(rows) * 1000 if uptime_ms is None else uptime_ms
    return Message(
        vehicle,
        boot_id,
        seq,
        start_ms,
        [(i * 1000, row) for i, row in enumerate(rows)],
        event_time_ms=EPOCH_MS + start_ms + jump_ms,
    )


def course(seed: int, batches: int) -> list[Message]:
    """Vehicles that are sound and sick by turns, with boots, absent values and duplicates."""
    random = np.random.default_rng(seed)
    seq, boot_id, uptime_ms = [0] * 4, [1] * 4, [0] * 4
    messages: list[Message] = []
    for i in range(batches):
        v = int(random.integers(4))
        if random.random() < 0.02:
            seq[v], boot_id[v], uptime_ms[v] = 0, boot_id[v] + 1, 0
        seq[v] += 1
        rows = []
        for _ in range(int(random.integers(1, 6))):
            row = np.array(SICK if (i // 25 + v) % 3 == 0 else SOUND)
            if random.random() < 0.15:
                row[:] = np.nan
            rows.append((row * random.normal(1.0, 0.02, 5)).tolist())
        messages.append(
            message(
                seq[v],
                rows,
                vehicle=b"car-%d" % v,
                boot_id=boot_id[v],
                uptime_ms=uptime_ms[v],
                jump_ms=-3_600_000 if i > batches // 2 else 0,
            )
        )
        if random.random() < 0.1:
            messages.append(messages[int(random.integers(len(messages)))])
        uptime_ms[v] += len(rows) * 1000
    return messages
