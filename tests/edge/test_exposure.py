"""What a model was shown, counted on arrays as one would count it by hand."""

import numpy as np
from edge_parts import EPOCH_MS, batch, bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.exposure import STEP_MAX_MS, Exposure
from schemas.codec import Framing, decode_telemetry
from scoring.stream import StreamScorer

VEHICLES = 3
Steps = list[tuple[int, int]]

steps = st.lists(
    st.tuples(st.integers(0, VEHICLES - 1), st.sampled_from([1, 500, 1_000, 10_000, 10_001, -50])),
    min_size=1,
    max_size=60,
)


def by_hand(sent: Steps, window: int) -> tuple[float, int]:
    """Seconds driven and readings judged."""
    time_ms = dict.fromkeys(range(VEHICLES), EPOCH_MS)
    run = dict.fromkeys(range(VEHICLES), 0)
    driven_ms = judged = 0
    for vehicle, step_ms in sent:
        time_ms[vehicle] += step_ms
        joined = run[vehicle] > 0 and 0 < step_ms <= STEP_MAX_MS
        driven_ms += step_ms if joined else 0
        run[vehicle] = run[vehicle] + 1 if joined else 1
        judged += run[vehicle] >= window
    return driven_ms / 1_000, judged


@settings(deadline=None)
@given(sent=steps, window=st.integers(1, 5), cut=st.integers(1, 20))
def test_counts_are_those_by_hand_however_the_stream_is_cut(
    sent: Steps, window: int, cut: int
) -> None:
    scorer = StreamScorer(bundle(), max_vehicles=VEHICLES)
    exposure = Exposure(VEHICLES, window=window)
    time_ms = dict.fromkeys(range(VEHICLES), EPOCH_MS)
    seq = dict.fromkeys(range(VEHICLES), 0)
    payloads = []
    for vehicle, step_ms in sent:
        seq[vehicle] += 1
        time_ms[vehicle] += step_ms
        # `batch` puts a reading at EPOCH_MS + 1,000 * seq.
        shift = time_ms[vehicle] - EPOCH_MS - 1_000 * seq[vehicle]
        payloads.append(batch(f"car-{vehicle}", seq[vehicle], step_ms=shift))
    driven_s, judged, missing = 0.0, 0, 0
    for start in range(0, len(payloads), cut):
        columns = decode_telemetry(
            payloads[start : start + cut], framing=Framing.SINGLE_OBJECT, signals=scorer.signals
        )
        scored = scorer.process(columns, now_ms=0)
        scored.scores[:] = np.nan
        seen = exposure.take(columns, scored)
        driven_s += seen.vehicle_s
        judged += seen.judged
        missing += seen.missing
    assert (round(driven_s, 6), judged) == (by_hand(sent, window)[0], by_hand(sent, window)[1])
    assert missing == judged


def test_readings_without_signals_are_not_judged() -> None:
    scorer = StreamScorer(bundle(), max_vehicles=VEHICLES)
    exposure = Exposure(VEHICLES, window=1)
    payloads = [batch("car", 1), batch("car", 2, signals={"engine_speed": None, "speed": None})]  # type: ignore[dict-item]
    columns = decode_telemetry(payloads, framing=Framing.SINGLE_OBJECT, signals=scorer.signals)
    seen = exposure.take(columns, scorer.process(columns, now_ms=0))
    assert (seen.judged, seen.missing) == (1, 0)
