"""Metrics of the scorer: a handful of calls for each poll, whatever its size."""

import time
from collections.abc import Mapping

from cloud.scoring_step import Outcome
from scoring.arms import ArmedScored
from scoring.lineup import Lane, Lineup
from transport import metrics
from transport.kafka import Partition
from transport.metric_kinds import is_recording

COMPONENT = "scorer"


def labels_of(lane: Lane, deployment: str) -> dict[str, str]:
    """The labels of what a lane scores."""
    manifest = lane.bundle.manifest
    return {
        "model": manifest.name,
        "version": manifest.version,
        "arm": lane.arm,
        "deployment": deployment,
    }


class PollMeter:
    """Takes the time of one poll, from when it is made.

    Args:
        taken_s: When the poll was taken, by the monotonic clock.
        deployment: Where the network runs.
    """

    def __init__(self, taken_s: float, deployment: str) -> None:
        self._deployment = deployment
        self._began_s = time.monotonic()
        self._waited_s = self._began_s - taken_s

    def scored(self, outcome: Outcome, *, now_ms: int) -> None:
        """It was scored; it is not committed yet."""
        if outcome.answered is None or not is_recording():
            return
        compute_s = time.monotonic() - self._began_s
        for part in outcome.answered.parts:
            metrics.poll_scored(
                metrics.ages_s(part.columns, now_ms),
                messages=len(part.columns.vehicle_ids),
                queue_s=self._waited_s,
                compute_s=compute_s,
                labels=labels_of(part.lane, self._deployment),
            )


def committed(outcome: Outcome, deployment: str) -> None:
    """A poll counts."""
    metrics.SCORER_BATCHES.add()
    metrics.SCORER_BATCH_MESSAGES.observe(outcome.messages)
    metrics.SCORER_HELD.add(outcome.held)
    if outcome.answered is not None and is_recording():
        _answered(outcome.answered, deployment)


def _answered(answered: ArmedScored, deployment: str) -> None:
    for part in answered.parts:
        labels = labels_of(part.lane, deployment)
        metrics.SCORE_MESSAGES.add(len(part.columns.vehicle_ids), **labels)
        metrics.SCORE_READINGS.add(len(part.scored.scores), **labels)
    for transition in answered.scored.transitions:
        change = "opened" if transition.state == "OPEN" else "closed"
        lane = answered.lane(transition.message)
        metrics.SCORE_ALERTS.add(change=change, **labels_of(lane, deployment))


def happened(*, aborts: int, rebuilds: int, skipped: int) -> None:
    """What happens outside of polls."""
    metrics.SCORER_ABORTS.add(aborts)
    metrics.SCORER_REBUILDS.add(rebuilds)
    metrics.SCORER_SKIPPED.add(skipped)


def doing(state: str) -> None:
    """What the scorer is doing now, in its words."""
    metrics.SCORER_SCORING.set(state.startswith("scoring"))


def lag(behind: Mapping[Partition, int]) -> None:
    """Offsets behind the end, of the partitions that this member has."""
    metrics.SCORER_LAG.clear()
    for (topic, partition), offsets in behind.items():
        metrics.SCORER_LAG.set(offsets, topic=topic, partition=str(partition))


def in_use(lineup: Lineup) -> None:
    """Score by this lineup from now on."""
    metrics.SCORE_MODEL.clear(component=COMPONENT)
    for lane in lineup.lanes:
        manifest = lane.bundle.manifest
        metrics.model_in_use(
            COMPONENT,
            model=manifest.name,
            version=manifest.version,
            arm=lane.arm,
            sha256=manifest.model_sha256,
        )
