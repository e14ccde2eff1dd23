"""From decoded telemetry to the feature matrix of a model: one code for training and scoring.

A batch that is a duplicate or older than what was seen of its vehicle is *stale*: it gets the
features without memory only, and changes nothing. A greater `boot_id` begins the vehicle's
history anew. Readings are taken in order of arrival, by feature time (uptime), so that a vehicle
whose clock jumps is scored as if it had not.

For a windowed model the features of the last readings stand together (`scoring.windows`); a stale
batch has no window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.columns import TelemetryColumns
from schemas.errors import ContractError, Reason
from scoring.features import FeatureState, history_s
from scoring.specs import FeatureSpec
from scoring.vehicles import VehicleTable, fits
from scoring.windows import Windows, WindowState, messages_max, reach_s


@dataclass(frozen=True, slots=True)
class Featured:
    """The features of a poll of M messages with R readings.

    Attributes:
        features: Shape (R, F), in order of arrival; NaN where absent or not ready.
        rows: Row of each message's vehicle. Shape (M,).
        new: Messages whose vehicle was given its row with this poll, one a vehicle.
        stale: Shape (M,).
        fresh: Readings that are not stale, grouped by vehicle in order of arrival: indices into
            the reading arrays.
        fresh_rows: Row of each of them.
        begins: Which of them begin their vehicle's history.
        windows: Of the fresh readings, in their order; None for a point model.
    """

    features: NDArray[np.float32]
    rows: NDArray[np.int64]
    new: list[int]
    stale: NDArray[np.bool_]
    fresh: NDArray[np.int64]
    fresh_rows: NDArray[np.int64]
    begins: NDArray[np.bool_]
    windows: Windows | None = None


class Featurizer:
    """Features of many vehicles, poll by poll. F is the number of specs.

    Not for use by two threads at once.

    Args:
        specs: Columns of the feature matrix, in order.
        max_vehicles: Vehicles remembered; at the limit the least recently seen are forgotten.
        window: Readings that the model is shown at once.

    Raises:
        ContractError: MODEL_FEATURES: no specs.
    """

    def __init__(self, specs: Sequence[FeatureSpec], *, max_vehicles: int, window: int = 1) -> None:
        self.vehicles = VehicleTable(max_vehicles)
        self._state: FeatureState | None = None
        self._windows: WindowState | None = None
        self._window = 1
        self._specs: tuple[FeatureSpec, ...] = ()
        self._take(tuple(specs), window)

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that the columns must hold, in this order; give them to the decoder."""
        return self._signals

    @property
    def history_s(self) -> float:
        """Seconds of the log that rebuild the state."""
        return history_s(self._specs) + reach_s(self._window)

    @property
    def messages_max(self) -> int | None:
        """Messages that `process` may be given at once; None: any number."""
        return None if self._window == 1 else messages_max(self._window, len(self._specs))

    def process(self, columns: TelemetryColumns) -> Featured:
        """Take a poll in.

        Args:
            columns: Of at most `max_vehicles` different vehicles (`split` cuts larger polls),
                decoded with `signals`.

        Raises:
            ContractError: MODEL_FEATURES: decoded with other signals. OVERSIZED: too many
                vehicles.
        """
        if tuple(columns.signals) != self._signals:
            raise ContractError(
                Reason.MODEL_FEATURES, f"columns of {columns.signals}, not of {self._signals}"
            )
        interned = self.vehicles.intern(columns.vehicle_ids)
        order = self.vehicles.order(interned.rows, columns.boot_id, columns.seq)
        messages = order.by_vehicle
        if order.stale.any():
            messages = messages[~order.stale[messages]]
        counts = columns.counts[messages]
        fresh = _readings(columns, messages, counts)
        fresh_rows = _repeated(interned.rows[messages], counts)
        begins = _first_of(order.boots[messages], counts)
        remembered = windows = None
        if self._state is not None or self._windows is not None:
            time_ms = _feature_time(columns, messages, counts, fresh)
        if self._state is not None:
            values = columns.values[fresh[:, None], self._memory_columns]
            remembered = self._state.update(fresh_rows, begins, time_ms, values)
        features = self._matrix(columns.values, fresh, remembered)
        if self._windows is not None:
            windows = self._windows.update(fresh_rows, begins, time_ms, features[fresh])
        return Featured(
            features=features,
            rows=interned.rows,
            new=interned.new,
            stale=order.stale,
            fresh=fresh,
            fresh_rows=fresh_rows,
            begins=begins,
            windows=windows,
        )

    def swap(self, specs: Sequence[FeatureSpec], *, window: int = 1) -> bool:
        """Compute other features, or windows, from now on.

        Returns:
            Whether the memory was dropped, because other features with memory, or other windows,
            are wanted: `history_s` of the log rebuilds it, otherwise they warm up.
        """
        state, windows = self._state, self._windows
        self._take(tuple(specs), window)
        dropped = (self._state is not state and self._state is not None) or (
            self._windows is not windows and self._windows is not None
        )
        if dropped:
            self.vehicles.forget_order()
        return dropped

    def _take(self, specs: tuple[FeatureSpec, ...], window: int) -> None:
        if not specs:
            raise ContractError(Reason.MODEL_FEATURES, "no features")
        if window == 1:
            self._windows = None
        elif (specs, window) != (self._specs, self._window):
            self._windows = WindowState(window, len(specs), max_vehicles=self.vehicles.max_vehicles)
        self._window = window
        self._take_specs(specs)

    def _take_specs(self, specs: tuple[FeatureSpec, ...]) -> None:
        self._specs = specs
        self._signals = tuple(dict.fromkeys(spec.signal for spec in specs))
        # In an order of their own, so that a model with the same ones in another order fits.
        memory = sorted((spec for spec in specs if spec.has_memory), key=lambda spec: spec.name)
        if not memory:
            self._state = None
        elif self._state is None or self._state.specs != tuple(memory):
            self._state = FeatureState(memory, max_vehicles=self.vehicles.max_vehicles)
        plain = [(i, spec) for i, spec in enumerate(specs) if not spec.has_memory]
        self._plain_features = _index([i for i, _ in plain])
        self._plain_columns = _index([self._signals.index(spec.signal) for _, spec in plain])
        self._memory_features = _index([specs.index(spec) for spec in memory])
        wanted = self._state.signals if self._state is not None else ()
        self._memory_columns = np.array([self._signals.index(name) for name in wanted], np.int64)

    def _matrix(
        self,
        values: NDArray[np.float32],
        fresh: NDArray[np.int64],
        remembered: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """Put plain and remembered features together; what stale readings lack is NaN."""
        if remembered is None:
            # Specs are unique, so without memory they are the signals, in this order.
            return values
        features = np.empty((len(values), len(self._specs)), np.float32)
        features[:, self._plain_features] = values[:, self._plain_columns]
        if len(fresh) < len(values):
            in_order = np.full((len(values), remembered.shape[1]), np.nan, np.float32)
        else:
            in_order = np.empty_like(remembered)
        in_order[fresh] = remembered
        features[:, self._memory_features] = in_order
        return features


def split(columns: TelemetryColumns, max_vehicles: int) -> Iterator[TelemetryColumns]:
    """Cut a poll into polls of at most so many vehicles; `rejected` goes with none of them."""
    messages = len(columns.vehicle_ids)
    if fits(columns.vehicle_ids, max_vehicles):
        yield columns
        return
    for start in range(0, messages, max_vehicles):
        stop = min(start + max_vehicles, messages)
        first = int(columns.starts[start])
        last = int(columns.starts[stop - 1] + columns.counts[stop - 1])
        part = slice(start, stop)
        yield TelemetryColumns(
            index=columns.index[part],
            vehicle_ids=columns.vehicle_ids[part],
            boot_id=columns.boot_id[part],
            seq=columns.seq[part],
            oldest_seq=columns.oldest_seq[part],
            uptime_ms=columns.uptime_ms[part],
            clock_synced=columns.clock_synced[part],
            counts=columns.counts[part],
            starts=columns.starts[part] - first,
            event_time_ms=columns.event_time_ms[first:last],
            values=columns.values[first:last],
            signals=columns.signals,
            rejected=[],
        )


def _index(positions: list[int]) -> slice | NDArray[np.int64]:
    """An index for columns; a slice where it can be, which copies several times faster."""
    if positions and positions == list(range(positions[0], positions[0] + len(positions))):
        return slice(positions[0], positions[0] + len(positions))
    return np.array(positions, np.int64)


def _repeated(of_message: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(of_message, counts)


def _readings(
    columns: TelemetryColumns, messages: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the readings of these messages, in this order."""
    starts = columns.starts[messages]
    if len(columns.event_time_ms) == len(columns.vehicle_ids):
        return starts
    offsets = np.cumsum(counts) - counts
    readings: NDArray[np.int64] = np.repeat(starts - offsets, counts)
    readings += np.arange(len(readings))
    return readings


def _first_of(flags: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flags of messages, on the first reading of each."""
    if len(counts) == int(counts.sum()):
        return flags
    out = np.zeros(int(counts.sum()), np.bool_)
    out[np.cumsum(counts) - counts] = flags
    return out


def _feature_time(
    columns: TelemetryColumns,
    messages: NDArray[np.int64],
    counts: NDArray[np.int64],
    readings: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Uptime of each reading, in milliseconds."""
    uptime_ms = columns.uptime_ms[messages]
    if len(readings) == len(messages):
        return uptime_ms
    first_ms = columns.event_time_ms[columns.starts[messages]]
    time_ms: NDArray[np.int64] = columns.event_time_ms[readings]
    time_ms += np.repeat(uptime_ms - first_ms, counts)
    return time_ms
