"""What a scorer tells about itself."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from cloud import scorer_metrics
from cloud.scoring_step import Outcome
from scoring.lineup import Lineup


@dataclass(frozen=True, slots=True)
class ScorerStats:
    """What a scorer has done since it started, counted when committed.

    Attributes:
        state: What it is doing: 'starting', 'no model yet', 'scoring', 'waiting: …', 'stopped'.
        model_version: Of the champion in use; None before the first.
        arms: Version of each arm beside the champion's.
        remark: What of the traffic is not followed, and why.
        messages: Telemetry messages answered, with a score or a dead letter.
        readings: Readings scored.
        batches: Transactions with telemetry.
        opened: Alerts opened.
        closed: Alerts closed.
        alerts_held: Alerts of arms that the storm guard held back.
        dead_letters: Messages and releases refused.
        aborts: Transactions whose work was done again.
        rebuilds: Times that the vehicles' state was rebuilt from the log.
        skipped: Messages that retention had removed before they were scored.
        lag: Offsets behind the end of the partitions, as last heard from the brokers.
    """

    state: str = "starting"
    model_version: str | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    messages: int = 0
    readings: int = 0
    batches: int = 0
    opened: int = 0
    closed: int = 0
    alerts_held: int = 0
    dead_letters: int = 0
    aborts: int = 0
    rebuilds: int = 0
    skipped: int = 0
    lag: int = 0


OnStats = Callable[[ScorerStats], None]


class StatsBoard:
    """Statistics of a scorer over all its connections, and when they are told.

    Args:
        on_stats: Told each change of state, and otherwise as often as `tell` is called.
        interval_s: How often that should be.
        deployment: Where the network runs; a label of the metrics.
    """

    def __init__(
        self, on_stats: OnStats, interval_s: float, *, deployment: str = "embedded"
    ) -> None:
        self.deployment = deployment
        self._on_stats = on_stats
        self._interval_s = interval_s
        self._told_s = time.monotonic()
        self.stats = ScorerStats()

    @property
    def is_due(self) -> bool:
        """Whether it is time to tell."""
        return time.monotonic() - self._told_s >= self._interval_s

    def tell(self, *, lag: int) -> None:
        """The periodic report."""
        self.stats = replace(self.stats, lag=lag)
        self._tell()

    def state(self, state: str, *, remark: str | None = None) -> None:
        """What the scorer is doing now; told if it changed."""
        scorer_metrics.doing(state)
        said = self.stats.remark if remark is None else remark
        self._change(replace(self.stats, state=state, remark=said))

    def lineup(self, lineup: Lineup) -> None:
        """Who scores from now on; told if it changed."""
        scorer_metrics.in_use(lineup)
        champion, *others = lineup.lanes
        self._change(
            replace(
                self.stats,
                model_version=champion.bundle.manifest.version,
                arms={lane.arm: lane.bundle.manifest.version for lane in others},
                remark="; ".join(lineup.remarks),
            )
        )

    def sidelined(self, lineup: Lineup, arms: Collection[str]) -> None:
        """Which arms of the lineup a guard has tripped; told if it changed."""
        said = [f"arm {arm} tripped a guard: champion scores its vehicles" for arm in sorted(arms)]
        self._change(replace(self.stats, remark="; ".join([*lineup.remarks, *said])))

    def committed(self, outcome: Outcome) -> None:
        """A poll whose transaction counts."""
        stats = self.stats
        self.stats = replace(
            stats,
            messages=stats.messages + outcome.messages,
            readings=stats.readings + outcome.readings,
            batches=stats.batches + 1,
            opened=stats.opened + outcome.opened,
            closed=stats.closed + outcome.closed,
            alerts_held=stats.alerts_held + outcome.held,
            dead_letters=stats.dead_letters + outcome.dead_letters,
        )
        scorer_metrics.committed(outcome, self.deployment)

    def add(
        self, *, dead_letters: int = 0, aborts: int = 0, rebuilds: int = 0, skipped: int = 0
    ) -> None:
        """What happens outside of polls."""
        stats = self.stats
        self.stats = replace(
            stats,
            dead_letters=stats.dead_letters + dead_letters,
            aborts=stats.aborts + aborts,
            rebuilds=stats.rebuilds + rebuilds,
            skipped=stats.skipped + skipped,
        )
        scorer_metrics.happened(aborts=aborts, rebuilds=rebuilds, skipped=skipped)

    def _change(self, stats: ScorerStats) -> None:
        if stats != self.stats:
            self.stats = stats
            self._tell()

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        self._on_stats(self.stats)
