"""`motorcade monitor`: drift, live quality, experiments."""

import click

from cloud.monitoring.settings import MonitorSettings
from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.observing import measured
from motorcade.options import with_settings
from motorcade.running import log_to_stderr
from motorcade.stopping import stop_on_signals
from transport.settings import KafkaSettings


@click.command(
    cls=ExampleCommand,
    example="motorcade monitor --drift-window-s 30",
    short_help="Watch drift, quality and experiments; roll back and promote.",
)
@with_settings("monitor", "kafka", "metrics")
def command(config: Config) -> None:
    """Compare what is scored with the training data, and alerts with labels.

    Writes what it finds to model.events, rolls back arms whose guards trip, and promotes winners
    where an experiment asks for it. Several stand in for each other; one of them acts.
    """
    log_to_stderr()
    with measured(config, extra="cloud"), needs("cloud"):
        from cloud.monitoring.loop import run

        run(
            config.section(MonitorSettings),
            config.section(KafkaSettings),
            stop=stop_on_signals(),
        )
