"""`motorcade train`: from a stretch of the log to a release."""

import click

from cloud.settings import TrainSettings
from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.moments import Moment
from motorcade.options import with_settings
from motorcade.running import emit, log_to_stderr
from transport.settings import KafkaSettings


@click.command(
    cls=ExampleCommand,
    example="motorcade train --since 5m\n"
    "motorcade train --offsets 0:0-5000,1:0-4800\n"
    "motorcade train --since 1h --alias challenger\n"
    "motorcade train --since 1h --kind lstm --window 32",
    short_help="Train a model on a stretch of the Kafka log and publish it.",
)
@click.option("--since", type=Moment(), help="From here on: an age like 5m, or a time.")
@click.option("--until", type=Moment(), help="Up to here: an age like 5m, or a time.")
@click.option("--progress", is_flag=True, help="Print what was done as JSON lines.")
@with_settings("trainer", "kafka", hide=("trainer.since_ms", "trainer.until_ms"))
def command(config: Config, since: int | None, until: int | None, progress: bool) -> None:
    """Train an autoencoder straight from Kafka, and publish it on model.releases.

    It looks at one reading at a time, or with --kind lstm at the last --window of them.

    Gateways and scorers that follow the name load it without a restart, as long as nobody named
    another champion with `motorcade models promote`. The offsets that it learned from stand in
    its manifest.
    """
    log_to_stderr()
    given = {"since_ms": since, "until_ms": until}
    with needs("cloud"):
        from cloud.trainer import train

        bundle = train(
            config.section(TrainSettings, **{k: v for k, v in given.items() if v is not None}),
            config.section(KafkaSettings),
            on_progress=lambda text: click.echo(text, err=True),
        )
    manifest = bundle.manifest
    facts = {"name": manifest.name, "version": manifest.version, "sha256": manifest.model_sha256}
    if progress:
        emit({**facts, "created_time_ms": manifest.created_time_ms})
    else:
        click.echo(" ".join(facts.values()))
