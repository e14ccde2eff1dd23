"""Counts what arrived against what was measured: the closing table of the demo. Pure.

Everything works on arrays of identities (vehicle, boot, seq); a few hundred thousand messages
take well under a second. `cloud.audit_reader` fills a `Log` from Kafka; who measured gives
`MeasuredBoot`s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cloud.protocol import Alarm, Event, Judgement, judge
from schemas.records import Record

Int64 = NDArray[np.int64]
Index = dict[str, int]


@dataclass(frozen=True, slots=True)
class MeasuredBoot:
    """What one vehicle measured in one boot, by its own account.

    Attributes:
        vehicle_id: The vehicle.
        boot_id: The boot.
        last_seq: Batches 1..last_seq were measured.
        readings: Readings in all of them.
        dropped_seq: Batches that the vehicle's full buffer dropped, counted by itself.
        dropped_readings: Readings in these.
        published_ms: Wall time (ms) of the first publish of batch i + 1, shape (last_seq,), or
            empty where nobody recorded it.
    """

    vehicle_id: str
    boot_id: int
    last_seq: int
    readings: int
    dropped_seq: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    dropped_readings: int = 0
    published_ms: Int64 = field(default_factory=lambda: np.empty(0, np.int64))


class Log:
    """Identities as they were found in a topic, in any order, repeats included.

    Grows by chunks and keeps 32 bytes a message; the caller bounds what it adds.
    """

    def __init__(self) -> None:
        self._index: Index = {}
        self._chunks: list[Int64] = []

    def add(
        self, vehicle_ids: Sequence[str], boot_id: ArrayLike, seq: ArrayLike, readings: ArrayLike
    ) -> None:
        """Add messages: their identity and how many readings each holds, all of length M."""
        index = self._index
        vehicle = [index.setdefault(vehicle_id, len(index)) for vehicle_id in vehicle_ids]
        columns = [np.asarray(c, np.int64) for c in (vehicle, boot_id, seq, readings)]
        self._chunks.append(np.stack(columns, axis=1))

    @property
    def vehicles(self) -> list[str]:
        """Vehicle ids by their number in `rows`."""
        return list(self._index)

    def rows(self) -> Int64:
        """Shape (M, 4): vehicle number, boot_id, seq, readings."""
        return np.concatenate(self._chunks) if self._chunks else np.empty((0, 4), np.int64)


@dataclass(frozen=True, slots=True)
class Tally:
    """How one topic compares with what was measured.

    Attributes:
        messages: Batches found that were measured, each counted once.
        readings: Readings in them.
        lost_messages: Batches measured and not dropped by the vehicle, but not found.
        lost_readings: Readings measured and not dropped, minus `readings`.
        duplicate_messages: Batches found again.
        duplicate_readings: Readings in those.
        unknown_messages: Batches found that nobody measured (another fleet, an older run).
        lost: The first few lost identities 'vehicle/boot/seq', for people.
    """

    messages: int
    readings: int
    lost_messages: int
    lost_readings: int
    duplicate_messages: int
    duplicate_readings: int
    unknown_messages: int
    lost: tuple[str, ...] = ()


LOST_SHOWN = 10


def tally(measured: Sequence[MeasuredBoot], log: Log) -> Tally:
    """Compare the messages of one topic with what was measured.

    A batch that the vehicle says it dropped is not lost if it is missing; where it was found all
    the same (dropped after it had been sent), it counts as found.
    """
    first, repeats = _first_and_repeats(log.rows())
    boots = {(boot.vehicle_id, boot.boot_id): boot for boot in measured}
    counted, unknown = _Count(), 0
    for (vehicle, boot_id), rows in _by_boot(first, log.vehicles):
        boot = boots.pop((vehicle, boot_id), None)
        if boot is None:
            unknown += len(rows)
            continue
        known = rows[rows[:, 2] <= boot.last_seq]
        unknown += len(rows) - len(known)
        counted.add(boot, known[:, 2], known[:, 3])
    for boot in boots.values():
        counted.add(boot, np.empty(0, np.int64), np.empty(0, np.int64))
    return Tally(
        messages=counted.messages,
        readings=counted.readings,
        lost_messages=counted.lost_messages,
        lost_readings=counted.lost_readings,
        duplicate_messages=len(repeats),
        duplicate_readings=int(repeats[:, 3].sum()),
        unknown_messages=unknown,
        lost=tuple(counted.lost),
    )


class _Count:
    """Sums over boots."""

    def __init__(self) -> None:
        self.messages = self.readings = self.lost_messages = self.lost_readings = 0
        self.lost: list[str] = []

    def add(self, boot: MeasuredBoot, seq: Int64, readings: Int64) -> None:
        missing = np.setdiff1d(np.arange(1, boot.last_seq + 1), np.union1d(seq, boot.dropped_seq))
        found_though_dropped = np.isin(seq, boot.dropped_seq)
        kept = int(readings[~found_though_dropped].sum())
        self.messages += len(seq)
        self.readings += int(readings.sum())
        self.lost_messages += len(missing)
        self.lost_readings += boot.readings - boot.dropped_readings - kept
        shown = missing[: LOST_SHOWN - len(self.lost)]
        self.lost.extend(f"{boot.vehicle_id}/{boot.boot_id}/{number}" for number in shown)


def _first_and_repeats(rows: Int64) -> tuple[Int64, Int64]:
    """Rows of each identity's first occurrence, sorted by identity, and all further ones."""
    order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
    ordered = rows[order]
    repeat = np.zeros(len(rows), bool)
    repeat[1:] = (ordered[1:, :3] == ordered[:-1, :3]).all(axis=1)
    return ordered[~repeat], ordered[repeat]


def _by_boot(rows: Int64, vehicles: Sequence[str]) -> Iterable[tuple[tuple[str, int], Int64]]:
    """Rows sorted by identity, cut where vehicle or boot changes."""
    if not len(rows):
        return
    cuts = np.flatnonzero((rows[1:, :2] != rows[:-1, :2]).any(axis=1)) + 1
    for part in np.split(rows, cuts):
        yield (vehicles[int(part[0, 0])], int(part[0, 1])), part


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Median and tail of `count` values; None where there are none."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None


def percentiles(values: Sequence[float]) -> Percentiles:
    """Linear interpolation between the two nearest values."""
    if not len(values):
        return Percentiles(0, None, None, None)
    p50, p90, p99 = (float(q) for q in np.percentile(np.asarray(values, np.float64), (50, 90, 99)))
    return Percentiles(len(values), p50, p90, p99)


@dataclass(frozen=True, slots=True)
class AlertLog:
    """Alerts by identity.

    Attributes:
        unique: First record of each (alert_id, state), in order of arrival.
        duplicates: Records of an identity that was there already.
    """

    unique: tuple[Record, ...]
    duplicates: int


def unique_alerts(alerts: Iterable[Record]) -> AlertLog:
    """Tell alerts from their repeats by (alert_id, state)."""
    seen: dict[tuple[str, str], Record] = {}
    total = 0
    for alert in alerts:
        total += 1
        seen.setdefault((alert["alert_id"], alert["state"]), alert)
    return AlertLog(tuple(seen.values()), total - len(seen))


@dataclass(frozen=True, slots=True)
class Latency:
    """Measurement to alert, in milliseconds, of one origin.

    Attributes:
        live: Alerts whose data came in time.
        late: Alerts whose data was marked late (a backlog after an outage).
    """

    live: Percentiles
    late: Percentiles


def alert_latency(
    alerts: Iterable[Record], measured: Sequence[MeasuredBoot], *, origin: str
) -> Latency:
    """From the first publish of the deciding reading's batch to `score_time`.

    Only openings count, and only those whose batch `measured` has a time for.

    Args:
        alerts: Unique alerts, times as integers of milliseconds.
        measured: With `published_ms`, by a clock that agrees with the scorer's.
        origin: 'EDGE' or 'CLOUD'.
    """
    boots = {(boot.vehicle_id, boot.boot_id): boot.published_ms for boot in measured}
    nothing = np.empty(0, np.int64)
    taken: dict[bool, list[float]] = {False: [], True: []}
    for alert in alerts:
        if alert["origin"] != origin or alert["state"] != "OPEN":
            continue
        published_ms = boots.get((alert["vehicle_id"], alert["boot_id"]), nothing)
        if 1 <= alert["seq"] <= len(published_ms):
            taken[alert["late"]].append(float(alert["score_time"] - published_ms[alert["seq"] - 1]))
    return Latency(percentiles(taken[False]), percentiles(taken[True]))


def alarms_of(alerts: Iterable[Record], *, end_ms: Mapping[str, int]) -> list[Alarm]:
    """Alerts as alarms: from the reading that opened to the one that closed.

    Args:
        alerts: Unique alerts of any origin.
        end_ms: Event time at which each vehicle's observation ends: where an alert that is still
            open is cut. A vehicle that is missing ends with the alert.
    """
    opened: dict[str, Record] = {}
    closed: dict[str, int] = {}
    for alert in alerts:
        if alert["state"] == "OPEN":
            opened.setdefault(alert["alert_id"], alert)
        else:
            closed.setdefault(alert["alert_id"], alert["event_time"])
    return [
        Alarm(
            alert["vehicle_id"],
            alert["event_time"],
            max(
                closed.get(alert_id, end_ms.get(alert["vehicle_id"], alert["event_time"])),
                alert["event_time"],
            ),
        )
        for alert_id, alert in opened.items()
    ]


def judge_alerts(
    alerts: Iterable[Record],
    events: Iterable[Event],
    *,
    observed: dict[str, tuple[int, int]],
    origin: str | None = None,
) -> Judgement:
    """Judge unique alerts against labelled faults by `cloud.protocol`.

    Args:
        alerts: Unique alerts; those of vehicles outside `observed` are left out.
        events: Labelled faults, in event time.
        observed: First and last event time (ms) of each vehicle; take what follows the release
            of the model, as nothing can alert before.
        origin: 'EDGE' or 'CLOUD'; None takes both as one detector.
    """
    wanted = [
        alert
        for alert in alerts
        if alert["vehicle_id"] in observed and (origin is None or alert["origin"] == origin)
    ]
    ends = {vehicle_id: last for vehicle_id, (_, last) in observed.items()}
    return judge(alarms_of(wanted, end_ms=ends), events, observed=observed)
