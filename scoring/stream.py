"""Scores and alerts from a stream of telemetry: one code for the edge and the cloud.

No I/O and no clock: polls go in, scores and transitions come out, and what comes out depends on
what went in alone, however it was cut into polls. After a restart the caller gives back the open
alerts (`restore_open`) and replays `history_s` of the log (`process(..., replay=True)`); from
there on the same scores and the same alerts come out as without the restart.

Bounded: at `max_vehicles` the least recently seen vehicle is forgotten. Its open alert is not:
that stays known by vehicle id, and closes when the vehicle is back; at `2 * max_vehicles` open
alerts the oldest one of a forgotten vehicle is dropped and counted in `alerts_forgotten`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.columns import TelemetryColumns
from scoring.alerts import LeadingSignal, OpenAlert, Origin, Transition
from scoring.bundle import Bundle
from scoring.featurizer import Featured, Featurizer, split
from scoring.policy import AlertPolicy, Decisions
from scoring.scorer import BatchScorer, MakeScorer, RowScorer
from scoring.windows import Windows

Times = int | NDArray[np.int64]

LATE_AFTER_MS = 30_000
_POLICY_READING_S = 10.0
"""Slowest usual rate: so much log per score of the policy's window is replayed."""


@dataclass(slots=True)
class Scored:
    """What came out of a poll of M messages with R readings.

    Attributes:
        scores: NaN where the model could not score. Shape (R,).
        late: Whether the last reading of a message is older than `late_after_ms`, by a vehicle
            clock known to be right. Shape (M,).
        stale: Duplicate or out of order: scored without memory, no part in alerts. Shape (M,).
        transitions: Alerts that open or close, in order of arrival of the deciding readings.
        features: Of the readings, one matrix after the other; R rows in all.
        oldest: The same of the first reading in each window, NaN where that is not full; none for
            a point model.
        vehicle_rows: Numbers that tell the vehicles of the messages apart, M in all.
    """

    scores: NDArray[np.float32]
    late: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    transitions: list[Transition]
    features: list[NDArray[np.float32]] = field(default_factory=list)
    oldest: list[NDArray[np.float32]] = field(default_factory=list)
    vehicle_rows: list[NDArray[np.int64]] = field(default_factory=list)


class StreamScorer:
    """Scores polls and follows alerts. Not for use by two threads at once.

    Args:
        bundle: The model; verified and run once.
        max_vehicles: Vehicles remembered.
        origin: 'EDGE' or 'CLOUD'; part of every alert's identity.
        place: Behind the code of every alert, to tell scorers apart that see a part of each
            vehicle's readings and so decide each for itself.
        late_after_ms: Age from which a message counts as late.
        make_scorer: Where the network runs; in this process by default.

    Raises:
        ContractError: MODEL_HASH, MODEL_FEATURES or MODEL_INVALID.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        max_vehicles: int,
        origin: Origin = "CLOUD",
        place: str = "",
        late_after_ms: int = LATE_AFTER_MS,
        make_scorer: MakeScorer = BatchScorer,
    ) -> None:
        self._make_scorer = make_scorer
        self._scorer = make_scorer(bundle)
        manifest = bundle.manifest
        self._featurizer = Featurizer(
            manifest.features, max_vehicles=max_vehicles, window=manifest.window
        )
        self._policy = AlertPolicy(
            manifest.policy, threshold=manifest.threshold, max_vehicles=max_vehicles
        )
        self._max_vehicles = max_vehicles
        self._origin = origin
        self._place = place
        self._late_after_ms = late_after_ms
        self._open: dict[bytes, OpenAlert] = {}
        self.alerts_forgotten = 0

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._scorer.bundle

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that `decode_telemetry` must select, in this order."""
        return self._featurizer.signals

    @property
    def history_s(self) -> float:
        """Seconds of the log to replay after a restart.

        So far back that the features are those of a scorer that never stopped for as long as the
        policy remembers their scores.
        """
        remembered_s = self.bundle.manifest.policy.n * _POLICY_READING_S
        return self._featurizer.history_s + remembered_s

    @property
    def open_alerts(self) -> dict[bytes, OpenAlert]:
        """Open alerts by vehicle id; a copy."""
        return dict(self._open)

    def process(self, columns: TelemetryColumns, *, now_ms: Times, replay: bool = False) -> Scored:
        """Score a poll.

        Args:
            columns: Decoded with `signals`.
            now_ms: Time of arrival, since the epoch: one for all, or of each message, shape (M,).
            replay: Rebuild the state only: no transitions, and open alerts stay open.

        Raises:
            ContractError: MODEL_FEATURES: decoded with other signals. MODEL_INVALID: the model
                failed at run time.
        """
        scored = Scored(
            scores=np.empty(len(columns.event_time_ms), np.float32),
            late=self._late(columns, now_ms),
            stale=np.empty(len(columns.vehicle_ids), np.bool_),
            transitions=[],
        )
        message = reading = 0
        most = self._featurizer.messages_max or self._max_vehicles
        for columns_part in split(columns, min(most, self._max_vehicles)):
            part = _Part(columns_part, message, reading, scored)
            if columns_part.vehicle_ids:
                self._process_part(part, replay=replay)
            message += len(columns_part.vehicle_ids)
            reading += len(columns_part.event_time_ms)
        return scored

    def restore_open(self, vehicle_id: bytes, alert: OpenAlert) -> None:
        """State from storage that an alert is open; after a restart, before anything live."""
        self._remember_open(vehicle_id, alert)
        row = self._featurizer.vehicles.row(vehicle_id)
        if row is not None:
            self._policy.set_open(np.array([row]), True)

    def swap(self, bundle: Bundle) -> bool:
        """Use another model from the next poll on; on an error the old one stays.

        The policy's memory begins anew; open alerts stay open until the new model has seen a
        whole window of scores low enough.

        Returns:
            Whether feature memory was dropped: `history_s` of the log should be replayed, or
            the features with memory are absent until they are warm.

        Raises:
            ContractError: As the constructor.
        """
        return self.swap_to(self._make_scorer(bundle))

    def swap_to(self, scorer: RowScorer) -> bool:
        """As `swap`, with the scorer of a bundle that was made ready before."""
        manifest = scorer.bundle.manifest
        dropped = self._featurizer.swap(manifest.features, window=manifest.window)
        self._scorer = scorer
        self._policy.swap(manifest.policy, manifest.threshold)
        return dropped

    def forget(self, vehicle_ids: Iterable[bytes]) -> None:
        """Forget vehicles and their open alerts, as when their partition went elsewhere."""
        names = list(vehicle_ids)
        self._featurizer.vehicles.forget(names)
        for name in names:
            self._open.pop(name, None)

    def drop_all(self) -> None:
        """Forget every vehicle and every open alert."""
        manifest = self.bundle.manifest
        self._featurizer = Featurizer(
            manifest.features, max_vehicles=self._max_vehicles, window=manifest.window
        )
        rows = np.arange(self._max_vehicles)
        self._policy.reset(rows)
        self._policy.set_open(rows, False)
        self._open.clear()

    def _process_part(self, part: "_Part", *, replay: bool) -> None:
        featured = self._featurizer.process(part.columns)
        self._admit(part.columns, featured)
        scores = self._scores(featured)
        part.scores[:] = scores
        part.scored.features.append(featured.features)
        if featured.windows is not None:
            part.scored.oldest.append(_oldest(featured, featured.windows))
        part.scored.vehicle_rows.append(featured.rows)
        part.stale[:] = featured.stale
        decisions = self._policy.update(
            featured.fresh_rows,
            featured.begins,
            scores[featured.fresh],
            part.columns.event_time_ms[featured.fresh],
            decide=not replay,
        )
        if decisions.row.size:
            part.scored.transitions += self._transitions(part, featured, decisions)

    def _scores(self, featured: Featured) -> NDArray[np.float32]:
        """Score of each reading; NaN where its window is not full."""
        windows = featured.windows
        if windows is None:
            return self._scorer.score(featured.features)
        scores = np.full(len(featured.features), np.nan, np.float32)
        for block in windows.blocks():
            scores[featured.fresh[block]] = self._scorer.score(windows.rows(block))
        return scores

    def _late(self, columns: TelemetryColumns, now_ms: Times) -> NDArray[np.bool_]:
        newest = columns.event_time_ms[columns.starts + columns.counts - 1]
        late: NDArray[np.bool_] = columns.clock_synced & (now_ms - newest > self._late_after_ms)
        return late

    def _admit(self, columns: TelemetryColumns, featured: Featured) -> None:
        """Tell the policy of the open alerts of vehicles that were given a row."""
        if featured.new:
            self._policy.set_open(featured.rows[featured.new], False)
            known = [i for i in featured.new if columns.vehicle_ids[i] in self._open]
            self._policy.set_open(featured.rows[known], True)

    def _transitions(
        self, part: "_Part", featured: Featured, decisions: Decisions
    ) -> list[Transition]:
        readings = featured.fresh[decisions.row]
        arrival = np.argsort(readings)
        readings, opens = readings[arrival], decisions.opens[arrival]
        since_ms = decisions.since_ms[arrival]
        shown = _shown(featured, decisions.row[arrival[opens]])
        signals = iter(self._scorer.explain(shown))
        messages = np.searchsorted(part.columns.starts, readings, side="right") - 1
        transitions = []
        for i, (message, reading) in enumerate(zip(messages, readings, strict=True)):
            if opens[i]:
                alert = self._opened(part, message, reading, int(since_ms[i]))
                transition = _transition(part, message, reading, alert, next(signals))
            else:
                alert = self._open.pop(part.columns.vehicle_ids[message])
                transition = _transition(part, message, reading, alert, None)
            transitions.append(transition)
        return transitions

    def _opened(self, part: "_Part", message: int, reading: int, since_ms: int) -> OpenAlert:
        columns = part.columns
        vehicle_id = columns.vehicle_ids[message]
        code = self.bundle.manifest.policy.code + self._place
        identity = (
            self._origin,
            vehicle_id.decode(),
            columns.boot_id[message],
            columns.seq[message],
            reading - columns.starts[message],
            code,
        )
        alert = OpenAlert("/".join(map(str, identity)), since_ms, code)
        self._remember_open(vehicle_id, alert)
        return alert

    def _remember_open(self, vehicle_id: bytes, alert: OpenAlert) -> None:
        self._open[vehicle_id] = alert
        if len(self._open) > 2 * self._max_vehicles:
            vehicles = self._featurizer.vehicles
            oldest = next(name for name in self._open if name not in vehicles)
            del self._open[oldest]
            self.alerts_forgotten += 1


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a poll, and where it stands in the whole."""

    columns: TelemetryColumns
    first_message: int
    first_reading: int
    scored: Scored

    @property
    def scores(self) -> NDArray[np.float32]:
        stop = self.first_reading + len(self.columns.event_time_ms)
        return self.scored.scores[self.first_reading : stop]

    @property
    def stale(self) -> NDArray[np.bool_]:
        stop = self.first_message + len(self.columns.vehicle_ids)
        return self.scored.stale[self.first_message : stop]


def _oldest(featured: Featured, windows: Windows) -> NDArray[np.float32]:
    """What stands first in the window of each reading; NaN where it is not full. Shape (R, F)."""
    oldest = np.full(featured.features.shape, np.nan, np.float32)
    oldest[featured.fresh[windows.ready]] = windows.oldest(windows.ready)
    return oldest


def _shown(featured: Featured, fresh: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the model was shown of some of the fresh readings that it scored."""
    if featured.windows is not None:
        return featured.windows.rows(fresh)
    shown: NDArray[np.float32] = featured.features[featured.fresh[fresh]]
    return shown


def _transition(
    part: _Part,
    message: int,
    reading: int,
    alert: OpenAlert,
    signals: tuple[LeadingSignal, ...] | None,
) -> Transition:
    """An opening with its leading signals, or a closing without."""
    columns = part.columns
    return Transition(
        message=part.first_message + int(message),
        reading_index=int(reading - columns.starts[message]),
        vehicle_id=columns.vehicle_ids[message],
        boot_id=int(columns.boot_id[message]),
        seq=int(columns.seq[message]),
        state="CLOSED" if signals is None else "OPEN",
        alert_id=alert.alert_id,
        code=alert.code,
        since_ms=alert.since_ms,
        event_time_ms=int(columns.event_time_ms[reading]),
        score=float(part.scores[reading]),
        late=bool(part.scored.late[part.first_message + message]),
        signals=signals or (),
    )
