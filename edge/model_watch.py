"""Watching the model in use: counts each batch for its probation."""

import time

from edge.exposure import Exposure
from edge.probation import Batch, Breach, Probation
from schemas.columns import TelemetryColumns
from scoring.bounds import Bounds
from scoring.bundle import Bundle
from scoring.stream import Scored, StreamScorer, Times


class ModelWatch:
    """Scores by a model and follows what it costs and does. For the scoring thread alone.

    Args:
        bundle: The model.
        max_vehicles: Vehicles that the scorer remembers.
    """

    def __init__(self, bundle: Bundle, *, max_vehicles: int) -> None:
        self.bundle = bundle
        self._exposure = Exposure(max_vehicles, window=bundle.manifest.window)
        self._probation = Probation(bundle.manifest.bounds or Bounds())

    def process(
        self, scorer: StreamScorer, columns: TelemetryColumns, *, now_ms: Times
    ) -> tuple[Scored, Breach | None]:
        """Score a batch; what came out, and why the model must go, if it must.

        Raises:
            ContractError: As `StreamScorer.process`.
        """
        began_s = time.thread_time()
        scored = scorer.process(columns, now_ms=now_ms)
        spent_ms = 1_000 * (time.thread_time() - began_s)
        if not len(scored.scores):
            return scored, None
        seen = self._exposure.take(columns, scored)
        batch = Batch(
            readings=len(scored.scores),
            judged=seen.judged,
            missing=seen.missing,
            openings=sum(transition.state == "OPEN" for transition in scored.transitions),
            vehicle_s=seen.vehicle_s,
            spent_ms=spent_ms,
        )
        return scored, self._probation.take(batch)
