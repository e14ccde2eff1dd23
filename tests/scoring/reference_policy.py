"""The alert policy in words of one score at a time."""

import math
from dataclasses import dataclass, field

import numpy as np

from scoring.manifest import PolicySettings


@dataclass
class ReferencePolicy:
    """One vehicle. `scores` are those since its memory began, without NaN."""

    settings: PolicySettings
    threshold: float
    scores: list[tuple[np.float32, int]] = field(default_factory=list)
    since_ms: int = 0
    is_open: bool = False

    def begin(self) -> None:
        self.scores = []

    def take(self, score: np.float32, event_time_ms: int, *, decide: bool) -> str | None:
        """'OPEN', 'CLOSED' or nothing."""
        if math.isnan(score):
            return None
        self.scores.append((score, event_time_ms))
        window = self.scores[-self.settings.n :]
        threshold = np.float32(self.threshold)
        high = np.float32(threshold * np.float32(self.settings.close_ratio))
        exceeding = [time_ms for value, time_ms in window if value > threshold]
        highs = [value for value, _ in window if value > high]
        if score > threshold and len(exceeding) == 1:
            self.since_ms = event_time_ms
        if not decide:
            return None
        if not self.is_open and len(exceeding) >= self.settings.k:
            self.is_open = True
            return "OPEN"
        whole = len(self.scores) >= self.settings.n
        if self.is_open and whole and len(highs) <= self.settings.close_k:
            self.is_open = False
            return "CLOSED"
        return None
