"""The definitions of `scoring.features`, one reading at a time, as plainly as possible.

Keeps every reading of a history, looks at all of them, and adds whole numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scoring.manifest import FeatureKind, FeatureSpec

BUCKET_MS = 5_000
HOLD_MS = 60_000


@dataclass
class Reading:
    time_ms: int
    values: dict[str, float]

    @property
    def bucket(self) -> int:
        return self.time_ms // BUCKET_MS

    def has(self, signal: str) -> bool:
        return not math.isnan(self.values[signal])


@dataclass
class ReferenceVehicle:
    """One vehicle's history."""

    raw_ms: int | None = None
    history: list[Reading] = field(default_factory=list)

    def take(
        self, specs: Sequence[FeatureSpec], raw_ms: int, values: dict[str, float], *, begins: bool
    ) -> list[np.float32]:
        raw_ms = max(raw_ms, 0)
        if begins or self.raw_ms is None or abs(raw_ms - self.raw_ms) > HOLD_MS:
            self.history = []
        self.raw_ms = raw_ms
        newest_ms = self.history[-1].time_ms if self.history else 0
        self.history.append(Reading(max(raw_ms, newest_ms), values))
        return [np.float32(self.feature(spec)) for spec in specs]

    def feature(self, spec: FeatureSpec) -> float:
        now = self.history[-1]
        look_back = round(spec.window_s * 1000) // BUCKET_MS
        if now.bucket - look_back < self.history[0].bucket:
            return math.nan
        if spec.kind is FeatureKind.MEAN:
            return self.mean(spec.signal, now.bucket - look_back)
        if spec.kind is FeatureKind.LAG:
            return self.lag(spec.signal, now.bucket - look_back)
        return self.run_length(spec.signal, spec.window_s)

    def mean(self, signal: str, after: int) -> float:
        fixed = [
            round(reading.values[signal] * 2**20)
            for reading in self.history
            if reading.bucket > after and reading.has(signal)
        ]
        return float(sum(fixed)) / (len(fixed) * 2**20) if fixed else math.nan

    def lag(self, signal: str, until: int) -> float:
        held = [
            reading.values[signal]
            for reading in self.history
            if until - HOLD_MS // BUCKET_MS <= reading.bucket <= until and reading.has(signal)
        ]
        return held[-1] if held else math.nan

    def run_length(self, signal: str, limit_s: float) -> float:
        if not self.history[-1].has(signal):
            return math.nan
        present = [reading for reading in self.history if reading.has(signal)]
        since = present[-1]
        for earlier in reversed(present[:-1]):
            same = earlier.values[signal] == since.values[signal]
            if not same or since.time_ms - earlier.time_ms > HOLD_MS:
                break
            since = earlier
        return min((self.history[-1].time_ms - since.time_ms) / 1000.0, limit_s)
