"""Whatever the clocks of gateway and vehicle do: the same scores, the same alerts, nothing late."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from edge_parts import EPOCH_MS, FAULTY, HEALTHY, batch, bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scoring_loop import Bench

from edge.marks import Mark
from edge.retention import Retention
from edge.rows import Kind, Lane, Telemetry
from scoring.bundle import Bundle
from scoring.specs import FeatureKind, FeatureSpec

HOUR_MS = 3_600_000
JUMPS_MS = (0, 1_000, -1_000, -HOUR_MS, 8_766 * HOUR_MS, -50 * 8_766 * HOUR_MS)
READINGS = 150


@dataclass(frozen=True)
class Moment:
    """What happens to the clocks before a reading."""

    gateway_jump_ms: int = 0
    gateway_right: bool = True
    vehicle_jump_ms: int = 0
    vehicle_synced: bool = True
    restart: bool = False
    reboot: bool = False


CALM = [Moment()] * READINGS

moments = st.builds(
    Moment,
    st.sampled_from(JUMPS_MS),
    st.booleans(),
    st.sampled_from(JUMPS_MS),
    st.booleans(),
    st.sampled_from([False] * 9 + [True]),
    st.sampled_from([False] * 19 + [True]),
)


def model() -> Bundle:
    """One with memory, which a history that is cut short would show."""
    plain = bundle()
    features = (FeatureSpec("speed"), FeatureSpec("engine_speed", FeatureKind.MEAN, 15.0))
    return Bundle(replace(plain.manifest, features=features), plain.model)


class Drive:
    """A vehicle and a gateway whose clocks go as told."""

    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory)
        self.bench.share = 1.0
        self.bench.crash()
        self.shown_ms = EPOCH_MS
        self.bench.loop.offer(model())
        self.lates: list[bool] = []

    def step(self, seq: int, moment: Moment) -> None:
        bench, clock = self.bench, self.bench.clock
        clock.wall += moment.gateway_jump_ms
        clock.right = moment.gateway_right
        if moment.reboot:
            clock.boot, clock.monotonic = f"boot-{seq}", 15_000
        if moment.restart or moment.reboot:
            bench.crash()
            bench.loop.offer(model())
        clock.advance(1_000)
        bench.keeper.tick()
        self.shown_ms += 1_000 + moment.vehicle_jump_ms
        self._store(seq, moment)
        bench.score()
        if seq % 10 == 0:
            self._let_go(seq)

    def _let_go(self, seq: int) -> None:
        """All is in Kafka; only what the features need stays."""
        bench = self.bench
        bench.spool.marks.note(Mark.FORWARDED_TELEMETRY, seq)
        bench.spool.save(bench.book)
        least = replace(bench.settings, history_min_s=0.001)
        Retention(least, bench.spool).round(bench.reader, history_s=bench.loop.history_s)

    def _store(self, seq: int, moment: Moment) -> None:
        faulty = seq % 20 >= 14
        payload = batch(
            "car",
            seq,
            event_ms=self.shown_ms,
            uptime_ms=1_000 * seq,
            synced=moment.vehicle_synced,
            signals={**(FAULTY if faulty else HEALTHY), "engine_speed": 1_900.0 + seq},
        )
        received_ms, gateway_boot, monotonic_ms = self.bench.keeper.now()
        self.bench.book.admit("car", 1, seq, 1)
        row = Telemetry("car", 1, seq, 1, received_ms, payload, None, gateway_boot, monotonic_ms)
        self.bench.spool.store([row], (), self.bench.book)

    def outcome(self) -> tuple[list[tuple[str, str, float]], dict[int, list[float]]]:
        """Alerts, and the sampled scores by batch."""
        alerts = self.bench.of_kind(Kind.ALERT, "Alert")
        told = [(alert["alert_id"], alert["state"], alert["score"]) for alert in alerts]
        return told, {record["seq"]: record["scores"] for record in self.bench.sample()}


Outcome = tuple[list[tuple[str, str, float]], dict[int, list[float]]]


@cache
def calm() -> Outcome:
    """What clocks that are right come to."""
    return driven(CALM)


def driven(course: Sequence[Moment]) -> Outcome:
    with tempfile.TemporaryDirectory() as directory:
        drive = Drive(Path(directory))
        try:
            for seq, moment in enumerate(course, 1):
                drive.step(seq, moment)
            assert (drive.bench.reader.first_position(Lane.TELEMETRY) or 0) > 1  # some may go
            drive.bench.loop._settling.flush()
            return drive.outcome()
        finally:
            drive.bench.close()


@settings(max_examples=5, deadline=None)
@given(st.lists(moments, min_size=READINGS, max_size=READINGS))
def test_any_clocks_give_the_same_scores_and_alerts(course: list[Moment]) -> None:
    alerts, scores = driven(course)
    calm_alerts, calm_scores = calm()
    assert alerts == calm_alerts
    # What the clocks made late is left out of the sample; the rest is the same to the bit.
    assert scores == {seq: calm_scores[seq] for seq in scores}


def test_clocks_that_are_wrong_and_known_to_be_make_nothing_late() -> None:
    year = 8_766 * HOUR_MS
    course = [
        replace(
            moment,
            gateway_right=not 20 <= seq < 60,
            gateway_jump_ms={20: year, 40: -year - HOUR_MS, 60: HOUR_MS}.get(seq, 0),
        )
        for seq, moment in enumerate(CALM)
    ]
    assert driven(course) == calm()
