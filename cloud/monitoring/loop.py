"""The monitor's shell: who acts, what is read, and what is written. All else is in `state`.

    wait for the lead ─► read the log back ─► take, decide, write ─┐
            ▲                                      ▲───────────────┘
            └──────── the lead went elsewhere, or Kafka is away

The lead is the one partition of `model.stats` in the monitors' group: the brokers give it to one
member, and to another one when that falls silent.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cloud.monitoring.agreement_tail import AgreementTail
from cloud.monitoring.experiments import BY, Change, Decision
from cloud.monitoring.gauges import count, show, show_agreement
from cloud.monitoring.settings import MonitorSettings
from cloud.monitoring.sources import LogTail, Records, missing_topics
from cloud.monitoring.state import MonitorState
from schemas.errors import ContractError, TransientError
from schemas.topics import ALERTS, LABELS, MODEL_EVENTS, MODEL_STATS, SHADOW_ALERTS, TRAFFIC
from scoring.events import ModelEvent
from scoring.traffic import Traffic
from transport.backoff import backoff_s
from transport.catalog import CatalogFollower, write_traffic
from transport.events import publish_events
from transport.kafka import KafkaSettings, LogConsumer, Partition, make_consumer, register_schemas

TOPICS = (TRAFFIC, MODEL_STATS, MODEL_EVENTS, ALERTS, SHADOW_ALERTS, LABELS)
"""What is read; all must be there."""

WAIT_S = 0.25
"""Longest wait for records; bounds how late a stop is seen."""

SHOW_S = 5.0
"""Time between two looks at all that is provisional, for the gauges."""

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 10.0

OnNews = Callable[[str], None]

_log = logging.getLogger("motorcade.monitor")


def run(
    settings: MonitorSettings,
    kafka: KafkaSettings,
    *,
    stop: threading.Event,
    on_news: OnNews = _log.info,
) -> None:
    """Monitor until told to stop.

    Args:
        settings: How.
        kafka: Where Kafka and the registry are.
        stop: Ends it within about a second.
        on_news: Told what it does, and each event that it writes, in a sentence.

    Raises:
        SettingsError: Kafka or the registry refuses this client.
    """
    rng = random.Random()
    failures = 0
    while not stop.is_set():
        life = _Life(settings, kafka, stop, on_news)
        try:
            life.live()
        except TransientError as error:
            failures = 0 if life.has_led else failures + 1
            on_news(f"waiting: {error}")
            stop.wait(
                backoff_s(failures, minimum_s=BACKOFF_MIN_S, maximum_s=BACKOFF_MAX_S, rng=rng)
            )


class Lead:
    """Membership in the group of monitors, and whether this one is to act.

    Args:
        settings: Of the monitor.
        kafka: Where Kafka is.
    """

    def __init__(self, settings: MonitorSettings, kafka: KafkaSettings) -> None:
        self._consumer: LogConsumer = make_consumer(
            kafka,
            settings.group_id,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            queued_min_messages=1,
        )
        self._held: list[Partition] = []
        self._must_pause = False

    def __enter__(self) -> Self:
        """Join. Raises TransientError, SettingsError."""
        self._consumer.start()
        self._consumer.subscribe(
            [MODEL_STATS.name],
            on_assign=self._given,
            on_revoke=self._taken_away,
            on_lost=self._taken_away,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave, so that another one leads at once."""
        self._consumer.close()

    def is_held(self, timeout_s: float) -> bool:
        """Whether this monitor leads, after serving the group for at most `timeout_s`."""
        self._consumer.consume(1, timeout_s)
        if self._must_pause:
            # The partition stands for the lead; what is in it is read elsewhere.
            self._consumer.pause(self._held)
            self._must_pause = False
        return bool(self._held)

    def _given(self, partitions: list[Partition]) -> dict[Partition, int]:
        self._held = [each for each in partitions if each[1] == 0]
        self._must_pause = bool(self._held)
        return {}

    def _taken_away(self, _: list[Partition]) -> None:
        self._held = []


@dataclass(slots=True)
class _Life:
    """One connection to Kafka."""

    settings: MonitorSettings
    kafka: KafkaSettings
    stop: threading.Event
    on_news: OnNews
    has_led: bool = False

    def live(self) -> None:
        """Wait for the lead and act while it is held. Raises TransientError, SettingsError."""
        missing = missing_topics(self.kafka, TOPICS)
        if missing:
            raise TransientError(f"no such topic yet: {', '.join(missing)}")
        with Lead(self.settings, self.kafka) as lead:
            self.on_news("standing by")
            while not self.stop.is_set():
                if lead.is_held(WAIT_S):
                    self._act(lead)

    def _act(self, lead: Lead) -> None:
        since_ms = _now_ms()
        ids = register_schemas(self.kafka, TOPICS)
        state = MonitorState(self.settings, since_ms=since_ms)
        back_ms = since_ms - round(self.settings.lookback_s * 1000)
        with (
            CatalogFollower(self.kafka) as catalog,
            LogTail(self.kafka, TOPICS, ids, since_ms=back_ms) as tail,
            AgreementTail(self.settings, self.kafka, since_ms=since_ms) as pairs,
        ):
            state.take_catalog(catalog.read_to_end(BACKOFF_MAX_S))
            for records in tail.history():
                take(state, records)
                told = records.get(MODEL_EVENTS.name, ())
                state.take_history_of_events(told)
                pairs.agreement.told_before(told)
                if self.stop.is_set() or not lead.is_held(0):
                    return
            self.has_led = True
            self.on_news("monitoring")
            self._follow(lead, state, catalog, tail, pairs)

    def _follow(
        self,
        lead: Lead,
        state: MonitorState,
        catalog: CatalogFollower,
        tail: LogTail,
        pairs: AgreementTail,
    ) -> None:
        next_s = show_s = time.monotonic()
        while not self.stop.is_set() and lead.is_held(0):
            news = catalog.poll(0)
            if news.changed:
                state.take_catalog(news.catalog)
            records = tail.take(WAIT_S)
            take(state, records)
            state.take_events(records.get(MODEL_EVENTS.name, ()))
            self._tell(pairs.take(_now_ms()))
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + self.settings.interval_s
                for decision in state.decide(_now_ms()):
                    self._act_on(decision)
            if time.monotonic() >= show_s:
                show_s = time.monotonic() + SHOW_S
                show(state, _now_ms())
                show_agreement(pairs.agreement)
                for line in pairs.news():
                    self.on_news(line)

    def _act_on(self, decision: Decision) -> None:
        """Write what was decided; what others have settled meanwhile is passed over in silence."""
        if decision.change is None:
            self._tell(decision.events)
            return
        try:
            told = _change_traffic(self.kafka, decision, decision.change)
        except ContractError as error:
            # The version that was to be used is gone; nobody but people can mend that.
            self.on_news(f"cannot change {decision.model}: {error}; {decision.reason}")
            return
        self._told(told)

    def _tell(self, events: Sequence[ModelEvent]) -> None:
        """Write events that no change of traffic belongs to."""
        if events:
            publish_events(self.kafka, events)
            self._told(events)

    def _told(self, events: Sequence[ModelEvent]) -> None:
        count(events)
        for event in events:
            self.on_news(f"{event.kind}: {event.detail}")


def _change_traffic(
    kafka: KafkaSettings, decision: Decision, change: Change
) -> Sequence[ModelEvent]:
    """Change traffic, and tell of it in the same transaction; gives what was told.

    Raises:
        TransientError: Kafka did not answer; the next life decides anew.
    """
    told: list[ModelEvent] = []

    def describe(before: Traffic, after: Traffic) -> Sequence[ModelEvent]:
        told[:] = decision.told(before, after)
        return told

    write_traffic(kafka, decision.model, change, by=BY, reason=decision.reason, describe=describe)
    return told


def take(state: MonitorState, records: Records) -> None:
    """Give a state what was read; events are the caller's to give, as history or as news."""
    state.take_traffic(records.get(TRAFFIC.name, ()))
    state.take_stats(records.get(MODEL_STATS.name, ()))
    state.take_alerts(records.get(ALERTS.name, ()))
    state.take_alerts(records.get(SHADOW_ALERTS.name, ()))
    state.take_labels(records.get(LABELS.name, ()))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
