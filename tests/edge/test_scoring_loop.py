"""Alerts are raised once, whatever is lost at a crash; with a real spool and a real model."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edge_parts import (
    EPOCH_MS,
    FAULTY,
    HEALTHY,
    SICK,
    SOUND,
    FakeClock,
    batch,
    bundle,
    lstm_bundle,
)

from edge.alert_board import AlertBoard
from edge.health import Health
from edge.marks import Mark
from edge.patience import Patience
from edge.retention import Retention
from edge.rows import Kind, Lane, Telemetry
from edge.scoring_loop import ScoringLoop
from edge.settings import GatewaySettings
from edge.spool import Spool, SpoolLimits, SpoolReader
from edge.timekeeper import Timekeeper
from schemas.errors import MotorcadeError, TransientError
from schemas.records import Record, decode_single_object

EVERYTHING = 1 << 40


class Broker:
    """MQTT as far as alerts go: retained state, and whether it can be reached."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.told = 0
        self.away = False

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        on_published: Callable[[MotorcadeError | None], object] = lambda _: None,
    ) -> None:
        if self.away:
            raise TransientError("away")
        assert (qos, retain) == (1, True)
        self.told += 1
        self.retained[topic] = payload
        on_published(None)


class Bench:
    """A gateway's scoring side, which can be restarted as after a crash."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker = Broker()
        self.seq = 0
        self.share = 0.0
        self.signals = (FAULTY, HEALTHY)
        self.clock = FakeClock(wall=EPOCH_MS)
        self.open()

    def open(self) -> None:
        self.settings = GatewaySettings(
            "gw",
            self.directory / "spool",
            self.directory,
            score_messages_max=4,
            agreement_share=self.share,
        )
        self.spool = Spool(
            self.settings.spool_path, now_ms=0, limits=SpoolLimits(1 << 40, segment_bytes=2_000)
        )
        self.book = self.spool.identity_book(vehicles_max=10)
        self.keeper = Timekeeper(self.clock, self.spool)
        self.health = Health()
        patience = Patience(threading.Event(), self.health, random.Random(1))
        self.board = AlertBoard(
            "f", self.spool, publish=self.broker.publish, patience=patience, health=self.health
        )
        self.loop = ScoringLoop(
            self.settings,
            "f",
            self.spool,
            board=self.board,
            patience=patience,
            health=self.health,
            keeper=self.keeper,
            retreat=lambda _bundle, _breach: None,
        )
        self.reader = self.spool.reader()

    def close(self) -> None:
        self.reader.close()
        self.spool.close()

    def crash(self) -> None:
        """Nothing is saved that was not saved before."""
        self.close()
        self.open()

    def drive(self, faulty: int, healthy: int) -> None:
        rows = []
        bad, good = self.signals
        for signals in faulty * [bad] + healthy * [good]:
            self.seq += 1
            self.book.admit("car", 1, self.seq, 1)
            self.clock.advance(1_000)
            received_ms, gateway_boot, monotonic_ms = self.keeper.now()
            rows.append(
                Telemetry(
                    "car",
                    1,
                    self.seq,
                    1,
                    received_ms,
                    batch("car", self.seq, signals=signals),
                    None,
                    gateway_boot,
                    monotonic_ms,
                )
            )
        self.spool.store(rows, (), self.book)

    def score(self) -> None:
        while self.loop.step(self.reader, wait_s=0.0):
            pass

    def of_kind(self, kind: Kind, name: str) -> list[Record]:
        rows = self.reader.priority(after=0, rows_max=EVERYTHING, bytes_max=EVERYTHING)
        return [decode_single_object(name, row.payload) for row in rows if row.kind == kind]

    def alerts(self) -> list[tuple[str, int]]:
        return [(record["state"], record["seq"]) for record in self.of_kind(Kind.ALERT, "Alert")]

    def sample(self) -> list[Record]:
        return self.of_kind(Kind.SCORE, "ScoreBatch")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


TOPIC = "v1/f/car/alert/anomaly"


def test_without_a_model_scoring_moves_on_and_raises_nothing_late(bench: Bench) -> None:
    bench.drive(5, 0)
    bench.score()
    assert bench.health.scoring == "no model yet"
    assert bench.spool.marks[Mark.SCORED] == 5
    bench.loop.offer(bundle())
    bench.drive(1, 0)
    bench.score()
    # The window reaches back into what was stored before the model came.
    assert bench.alerts() == [("OPEN", 6)]


@pytest.mark.parametrize("restart_after", range(12))
def test_a_crash_between_any_two_batches_changes_no_alert(bench: Bench, restart_after: int) -> None:
    bench.loop.offer(bundle())
    for step in range(12):
        bench.drive(int(step % 6 < 3), int(step % 6 >= 3))
        bench.score()
        if step == restart_after:
            bench.crash()
            bench.loop.offer(bundle())
    bench.score()
    assert bench.alerts() == [("OPEN", 2), ("CLOSED", 6), ("OPEN", 8), ("CLOSED", 12)]


def test_what_mqtt_missed_is_told_after_a_restart(bench: Bench) -> None:
    bench.loop.offer(bundle())
    bench.broker.away = True
    bench.drive(3, 0)
    bench.score()
    assert bench.broker.retained == {}
    bench.broker.away = False
    bench.crash()
    bench.loop.step(bench.reader, wait_s=0.0)
    assert decode_single_object("Alert", bench.broker.retained[TOPIC])["state"] == "OPEN"
    bench.loop.step(bench.reader, wait_s=0.0)
    assert bench.reader.alerts(unpublished_only=True) == []


def test_a_broker_that_forgot_is_told_again_of_open_and_of_closed(bench: Bench) -> None:
    bench.loop.offer(bundle())
    bench.drive(3, 0)
    bench.score()
    bench.loop.step(bench.reader, wait_s=0.0)
    told = bench.broker.told
    bench.loop.step(bench.reader, wait_s=0.0)
    assert bench.broker.told == told
    bench.broker.retained.clear()
    bench.board.tell_all()
    bench.loop.step(bench.reader, wait_s=0.0)
    assert bench.broker.retained[TOPIC]
    bench.drive(0, 4)
    bench.score()
    bench.broker.retained.clear()
    bench.board.tell_all()
    bench.loop.step(bench.reader, wait_s=0.0)
    assert bench.broker.retained == {TOPIC: b""}


def test_history_stays_for_as_long_as_asked_and_what_is_not_in_kafka_for_ever(
    bench: Bench,
) -> None:
    def first(reader: SpoolReader) -> int | None:
        return reader.first_position(Lane.TELEMETRY)

    for _ in range(100):
        bench.drive(0, 10)
    bench.score()
    retention = Retention(bench.settings, bench.spool)
    bench.spool.save(bench.book)
    assert retention.round(bench.reader, history_s=400.0) == 0
    bench.spool.marks.note(Mark.FORWARDED_TELEMETRY, 1_000)
    bench.spool.save(bench.book)
    retention.round(bench.reader, history_s=400.0)
    kept = first(bench.reader)
    assert kept is not None and 570 <= kept <= 600  # received 400 s before the last, or a bit more
    retention.round(bench.reader, history_s=0.0)
    kept = first(bench.reader)
    assert kept is not None and 670 <= kept <= 700  # never less than the least history


@pytest.mark.parametrize("crash_after", range(0, 12, 3))
def test_sampled_scores_are_written_once_whatever_a_crash_takes(
    bench: Bench, crash_after: int
) -> None:
    bench.share = 1.0
    bench.crash()
    bench.loop.offer(bundle())
    for step in range(12):
        bench.drive(int(step % 6 < 3), int(step % 6 >= 3))
        bench.score()
        if step == crash_after:
            bench.crash()  # what was held is gone, and is scored again
            bench.loop.offer(bundle())
    bench.score()
    bench.loop.run(stopped(), stopped())
    assert sorted(record["seq"] for record in bench.sample()) == list(range(1, 13))
    assert bench.spool.marks.durable(Mark.SCORED) == 12
    assert bench.alerts() == [("OPEN", 2), ("CLOSED", 6), ("OPEN", 8), ("CLOSED", 12)]
    assert bench.sample()[0]["scores"] == [50.0]  # half of (150 - 50)² / 10²


def test_while_scores_are_held_the_scored_position_stays_on_disk(bench: Bench) -> None:
    bench.share = 1.0
    bench.crash()
    bench.loop.offer(bundle())
    bench.drive(0, 3)
    bench.score()
    bench.spool.save(bench.book)
    assert bench.sample() == []
    assert bench.spool.marks.durable(Mark.SCORED) == 0
    bench.drive(2, 0)  # an alert cannot wait, and takes them along
    bench.score()
    assert [record["seq"] for record in bench.sample()] == [1, 2, 3, 4, 5]
    assert bench.spool.marks.durable(Mark.SCORED) == 5


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


LSTM_ALERTS = [("OPEN", 6), ("CLOSED", 15), ("OPEN", 22), ("CLOSED", 31)]
"""Of an LSTM over four readings, where 4 to 8 and 20 to 24 of each second's reading are off."""


@pytest.mark.parametrize("restart_after", range(1, 32, 3))
def test_a_crash_in_the_middle_of_a_window_changes_no_alert(
    bench: Bench, restart_after: int
) -> None:
    bench.signals = (SICK, SOUND)
    bench.loop.offer(lstm_bundle())
    for step in range(1, 33):
        bad = int(step % 16 in range(4, 9))
        bench.drive(bad, 1 - bad)
        bench.score()
        if step == restart_after:
            bench.crash()
            bench.loop.offer(lstm_bundle())
    bench.score()
    assert bench.alerts() == LSTM_ALERTS
    assert bench.broker.retained[TOPIC] is not None


def test_the_kinds_of_model_follow_each_other_while_the_gateway_runs(bench: Bench) -> None:
    bench.signals = (SICK, SOUND)
    bench.loop.offer(bundle("point"))
    bench.drive(2, 0)
    bench.score()
    assert bench.alerts() == [("OPEN", 2)]
    bench.loop.offer(lstm_bundle())
    bench.drive(1, 3)
    bench.score()
    # The window was there at once, out of the spool; the alert is the vehicle's, whoever opened it.
    assert (bench.health.scoring, bench.health.model_version) == ("ok", "lstm")
    assert bench.alerts() == [("OPEN", 2)]
    bench.drive(0, 8)
    bench.score()
    assert [state for state, _ in bench.alerts()] == ["OPEN", "CLOSED"]
    closing = bench.of_kind(Kind.ALERT, "Alert")[-1]
    assert (closing["model_version"], closing["state"]) == ("lstm", "CLOSED")
    bench.loop.offer(bundle("point-again"))
    bench.drive(2, 0)
    bench.score()
    assert bench.of_kind(Kind.ALERT, "Alert")[-1]["model_version"] == "point-again"
    assert [state for state, _ in bench.alerts()] == ["OPEN", "CLOSED", "OPEN"]
