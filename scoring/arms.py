"""One stream, scored by several models, each for its own vehicles.

`ArmedScorer` stands where a `StreamScorer` stood, and holds one of them for each lane of a lineup:
with its own features, threshold, policy and memory. The messages of a poll are split by the
vehicle's arm, each lane scores its own, and what comes out is put back into the order in which it
came. Without an experiment there is one lane and nothing is split. No I/O and no clock.

When a vehicle's lane changes (an experiment starts, stops, is rolled back, a weight grows), its
memory is not carried over: `take` says that the state has to be rebuilt from the log, as after an
assignment, and from there on scores and alerts are those of a scorer that was started with the
new lineup. An open alert stays open, whoever opened it, until its vehicle's present model has
seen a whole window of scores low enough. With the log replayed that window is there at once: the
alerts of an arm that was wrong close with the next reading of their vehicles.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.columns import TelemetryColumns
from schemas.poll import spans
from scoring.alerts import OpenAlert, Origin, Transition
from scoring.bundle import Bundle
from scoring.lineup import NO_LANE, Lane, Lineup, bundle_key
from scoring.scorer import BatchScorer, MakeScorer, RowScorer
from scoring.storm_guard import StormGuard, Trip
from scoring.stream import LATE_AFTER_MS, Scored, StreamScorer
from scoring.traffic import Splitter


@dataclass(frozen=True, slots=True)
class Part:
    """The messages of one lane.

    Attributes:
        lane: Who scored them.
        messages: Their numbers in the poll; None: all of it.
        columns: They.
        scored: Of them, before the storm guard held anything back.
    """

    lane: Lane
    messages: NDArray[np.int64] | None
    columns: TelemetryColumns
    scored: Scored


@dataclass(frozen=True, slots=True)
class ArmedScored:
    """What came out of a poll, as a whole and by lane.

    Attributes:
        columns: The M messages that were scored: those given, or with a shadow its share.
        scored: As of one `StreamScorer` that had scored them all.
        lanes: Of the lineup.
        parts: Of each lane that has messages here.
        lane_of: Number of each message's lane, shape (M,); None: the first lane had them all.
        held: Openings that the storm guard held back.
        trips: Arms that it tripped.
    """

    columns: TelemetryColumns
    scored: Scored
    lanes: tuple[Lane, ...]
    parts: tuple[Part, ...]
    lane_of: NDArray[np.int64] | None = None
    held: int = 0
    trips: tuple[Trip, ...] = ()

    def lane(self, message: int) -> Lane:
        """Who scored a message."""
        return self.lanes[0 if self.lane_of is None else int(self.lane_of[message])]


class Watch(Protocol):
    """Counts what each lane makes of a poll; no part of what is replayed."""

    def scored(self, lane: Lane, columns: TelemetryColumns, scored: Scored, now_ms: int) -> None:
        """A lane has scored its share; of its openings some may be held back yet."""

    def held(self, lane: Lane, openings: int) -> None:
        """Of the openings just told so many were held back."""


class ArmedScorer:
    """Scores polls, each vehicle by its arm's model. Not for use by two threads at once.

    Args:
        lineup: With at least one lane.
        max_vehicles: Vehicles that each lane remembers.
        origin: 'EDGE' or 'CLOUD'.
        late_after_ms: Age from which a message counts as late.
        make_scorer: Gives the scorer of a bundle; best one that was made ready before.

    Raises:
        ContractError: A bundle cannot be used.
    """

    def __init__(
        self,
        lineup: Lineup,
        *,
        max_vehicles: int,
        origin: Origin = "CLOUD",
        late_after_ms: int = LATE_AFTER_MS,
        make_scorer: MakeScorer = BatchScorer,
    ) -> None:
        self._make_scorer = make_scorer
        self._max_vehicles = max_vehicles
        self._origin = origin
        self._late_after_ms = late_after_ms
        self._sidelined: frozenset[str] = frozenset()
        self._streams = [self._stream(make_scorer(lane.bundle)) for lane in lineup.lanes]
        self._lineup = lineup
        self._route_by(lineup)

    @property
    def lineup(self) -> Lineup:
        """What is in use."""
        return self._lineup

    @property
    def bundle(self) -> Bundle:
        """Of the first lane: the champion's."""
        return self._lineup.lanes[0].bundle

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that any lane needs, in the order that `decode_telemetry` must have."""
        return self._signals

    @property
    def history_s(self) -> float:
        """Seconds of the log to replay: the most that any lane needs."""
        return max(stream.history_s for stream in self._streams)

    @property
    def open_alerts(self) -> dict[bytes, OpenAlert]:
        """Open alerts by vehicle id; a copy."""
        return {
            vehicle_id: alert
            for stream in self._streams
            for vehicle_id, alert in stream.open_alerts.items()
        }

    @property
    def alerts_forgotten(self) -> int:
        """Open alerts that were dropped because there were too many."""
        return sum(stream.alerts_forgotten for stream in self._streams)

    def process(
        self,
        columns: TelemetryColumns,
        *,
        now_ms: int,
        replay: bool = False,
        watch: Watch | None = None,
    ) -> ArmedScored:
        """Score a poll.

        Args:
            columns: Decoded with `signals`.
            now_ms: Time of arrival, since the epoch.
            replay: Rebuild the state only: no transitions, and open alerts stay open.
            watch: Told of each lane's share.

        Raises:
            ContractError: As `StreamScorer.process`.
        """
        lanes = self._lineup.lanes
        if self._splitter is None:
            scored = self._streams[0].process(columns, now_ms=now_ms, replay=replay)
            if watch is not None:
                watch.scored(lanes[0], columns, scored, now_ms)
            return ArmedScored(columns, scored, lanes, (Part(lanes[0], None, columns, scored),))
        lane_of = self._route[self._splitter.choose(columns.vehicle_ids)]
        if self._lineup.is_shadow:
            mine = np.flatnonzero(lane_of != NO_LANE)
            columns, lane_of = part_of(columns, mine, self._signals), lane_of[mine]
        parts = self._parts(columns, lane_of, now_ms=now_ms, replay=replay, watch=watch)
        scored = _whole(columns, parts)
        if self._guard is None or replay:
            return ArmedScored(columns, scored, lanes, parts, lane_of)
        admitted = self._guard.admit(lane_of, columns.counts, scored.transitions)
        if watch is not None and admitted.held:
            for number, openings in _held(scored.transitions, admitted.transitions, lane_of):
                watch.held(lanes[number], openings)
        scored.transitions = admitted.transitions
        return ArmedScored(columns, scored, lanes, parts, lane_of, admitted.held, admitted.trips)

    def restore_open(self, vehicle_id: bytes, alert: OpenAlert) -> None:
        """State from storage that an alert is open; before anything live."""
        lane = self._lane_of(vehicle_id)
        if lane != NO_LANE:
            self._streams[lane].restore_open(vehicle_id, alert)

    def take(self, lineup: Lineup) -> bool:
        """Score by another lineup from the next poll on; on an error the old one stays.

        Returns:
            Whether the state has to be rebuilt from the log: `drop_all`, `restore_open`, and
            `history_s` of the log. Until then nothing may be processed.

        Raises:
            ContractError: A bundle cannot be used.
        """
        scorers = [self._make_scorer(lane.bundle) for lane in lineup.lanes]
        moved = not lineup.routes_as(self._lineup)
        rebuild = moved
        if moved:
            # The first lane keeps its tables; the others begin with theirs.
            self._streams[0].swap_to(scorers[0])
            self._streams[1:] = [self._stream(scorer) for scorer in scorers[1:]]
        else:
            for stream, scorer in zip(self._streams, scorers, strict=True):
                if bundle_key(stream.bundle) != bundle_key(scorer.bundle):
                    rebuild |= stream.swap_to(scorer)
        self._lineup = lineup
        if moved:
            self._route_by(lineup)
        self._signals = self._wanted_signals()
        return rebuild

    def sideline(self, arms: Collection[str]) -> None:
        """Give the vehicles of these arms, and of no others, to the champion for now.

        Before a rebuild; until the next lineup that routes otherwise.
        """
        self._sidelined = frozenset(arms)
        self._refresh_route()

    @property
    def sidelined(self) -> frozenset[str]:
        """Arms whose vehicles are the champion's for now."""
        return self._sidelined

    def forget(self, vehicle_ids: Iterable[bytes]) -> None:
        """Forget vehicles and their open alerts."""
        names = list(vehicle_ids)
        for stream in self._streams:
            stream.forget(names)

    def drop_all(self) -> None:
        """Forget every vehicle, every open alert, and what the storm guard has counted."""
        for stream in self._streams:
            stream.drop_all()
        self._guard = self._new_guard()

    def _stream(self, scorer: RowScorer) -> StreamScorer:
        return StreamScorer(
            scorer.bundle,
            max_vehicles=self._max_vehicles,
            origin=self._origin,
            late_after_ms=self._late_after_ms,
            make_scorer=lambda _: scorer,
        )

    def _route_by(self, lineup: Lineup) -> None:
        experiment = lineup.experiment
        self._splitter = None if experiment is None else Splitter(experiment)
        self._sidelined = frozenset()
        self._refresh_route()
        self._guard = self._new_guard()
        self._signals = self._wanted_signals()

    def _refresh_route(self) -> None:
        """Lane of each arm of the splitter, and of none behind them."""
        arms = () if self._splitter is None else self._splitter.arms
        lanes = [0 if a.name in self._sidelined else self._lineup.lane_of(a.name) for a in arms]
        self._route = np.array([*lanes, NO_LANE], np.int64)

    def _new_guard(self) -> StormGuard | None:
        experiment = self._lineup.experiment
        if experiment is None or self._lineup.is_shadow or len(self._streams) == 1:
            return None
        return StormGuard(experiment.guards, len(self._streams))

    def _wanted_signals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for stream in self._streams for name in stream.signals))

    def _lane_of(self, vehicle_id: bytes) -> int:
        if self._splitter is None:
            return 0
        return int(self._route[self._splitter.choose([vehicle_id])[0]])

    def _parts(
        self,
        columns: TelemetryColumns,
        lane_of: NDArray[np.int64],
        *,
        now_ms: int,
        replay: bool,
        watch: Watch | None,
    ) -> tuple[Part, ...]:
        """Score each lane's messages by its own model."""
        parts = []
        for number, (lane, stream) in enumerate(
            zip(self._lineup.lanes, self._streams, strict=True)
        ):
            messages = np.flatnonzero(lane_of == number)
            if messages.size:
                mine = part_of(columns, messages, stream.signals)
                scored = stream.process(mine, now_ms=now_ms, replay=replay)
                if watch is not None:
                    watch.scored(lane, mine, scored, now_ms)
                parts.append(Part(lane, messages, mine, scored))
        return tuple(parts)


def _whole(columns: TelemetryColumns, parts: Iterable[Part]) -> Scored:
    """The parts put back into the order of the poll."""
    whole = Scored(
        scores=np.empty(len(columns.event_time_ms), np.float32),
        late=np.empty(len(columns.vehicle_ids), np.bool_),
        stale=np.empty(len(columns.vehicle_ids), np.bool_),
        transitions=[],
    )
    for part in parts:
        messages = part.messages
        assert messages is not None
        rows = spans(columns.starts[messages], part.columns.counts)
        whole.scores[rows] = part.scored.scores
        whole.late[messages] = part.scored.late
        whole.stale[messages] = part.scored.stale
        whole.transitions += _moved(part.scored.transitions, messages)
    whole.transitions.sort(key=lambda each: (each.message, each.reading_index))
    return whole


def _moved(transitions: Iterable[Transition], messages: NDArray[np.int64]) -> list[Transition]:
    """Transitions of some messages, by the numbers that these have in the poll."""
    return [replace(each, message=int(messages[each.message])) for each in transitions]


def _held(
    before: Iterable[Transition], after: Iterable[Transition], lane_of: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Number of each lane of which openings were held back, and how many."""
    lanes = Counter(int(lane_of[each.message]) for each in before if each.state == "OPEN")
    lanes.subtract(int(lane_of[each.message]) for each in after if each.state == "OPEN")
    return [(lane, openings) for lane, openings in lanes.items() if openings]


def part_of(
    columns: TelemetryColumns, messages: NDArray[np.int64], signals: tuple[str, ...]
) -> TelemetryColumns:
    """Some of the messages and signals of a poll; `rejected` goes with none of them.

    Args:
        columns: The poll.
        messages: Numbers of the messages, ascending.
        signals: Among those of the poll.
    """
    if len(messages) == len(columns.vehicle_ids) and signals == columns.signals:
        return replace(columns, rejected=[])
    counts = columns.counts[messages]
    rows = spans(columns.starts[messages], counts)
    wanted = np.array([columns.signals.index(name) for name in signals], np.int64)
    return TelemetryColumns(
        index=columns.index[messages],
        vehicle_ids=[columns.vehicle_ids[i] for i in messages.tolist()],
        boot_id=columns.boot_id[messages],
        seq=columns.seq[messages],
        oldest_seq=columns.oldest_seq[messages],
        uptime_ms=columns.uptime_ms[messages],
        clock_synced=columns.clock_synced[messages],
        counts=counts,
        starts=np.cumsum(counts) - counts,
        event_time_ms=columns.event_time_ms[rows],
        # Laid out as decoded, column by column, so that sums over a row have the same bits.
        values=columns.values.T[np.ix_(wanted, rows)].T,
        signals=signals,
        rejected=[],
    )
