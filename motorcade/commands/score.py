"""`motorcade score`: the exactly-once scorer."""

import dataclasses
import logging
from typing import TYPE_CHECKING

import click

from cloud.settings import ScorerSettings
from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.observing import OBSERVED, observed
from motorcade.options import with_settings
from motorcade.running import emit, log_to_stderr
from motorcade.stopping import stop_on_signals
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from cloud.scorer_stats import ScorerStats


@click.command(
    cls=ExampleCommand,
    example="motorcade score --kafka-bootstrap-servers kafka-1.example.org:9092",
    short_help="Score the fleet's readings in Kafka, exactly once.",
)
@click.option("--progress", is_flag=True, help="Print counters as JSON lines.")
@with_settings("scorer", "kafka", *OBSERVED)
def command(config: Config, progress: bool) -> None:
    """Consume telemetry, score it, produce scores and alerts: all in transactions.

    Runs until it is told to stop. Waits for a first model; takes each new release without a
    restart. Several of one group share the partitions; each needs its own transactional id.
    """
    log_to_stderr()
    with observed(config, "motorcade-score", extra="cloud"), needs("cloud"):
        from cloud.scorer import run

        run(
            config.section(ScorerSettings),
            config.section(KafkaSettings),
            stop=stop_on_signals(),
            on_stats=_tell if progress else _StateLog(),
        )


def _tell(stats: "ScorerStats") -> None:
    emit(dataclasses.asdict(stats))


class _StateLog:
    """Logs what the scorer is doing when that changes."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, stats: "ScorerStats") -> None:
        model = f" with model {stats.model_version}" if stats.model_version else ""
        arms = "".join(f", arm {arm}: {version}" for arm, version in stats.arms.items())
        remark = f" ({stats.remark})" if stats.remark else ""
        text = f"{stats.state}{model}{arms}{remark}"
        if text != self._said:
            self._said = text
            logging.getLogger("motorcade.score").info(text)
