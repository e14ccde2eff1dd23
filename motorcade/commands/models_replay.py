"""`motorcade models replay`: what another version would have done."""

import json

import click

from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.moments import Moment
from motorcade.options import with_settings
from scoring.catalog import ModelRef
from scoring.traffic import CHAMPION
from transport.settings import KafkaSettings


@click.command(
    "replay",
    cls=ExampleCommand,
    example="motorcade models replay 20261124-1200 --since 2h\n"
    "motorcade models replay challenger --since 1d --until 12h --against champion --json",
)
@click.argument("version")
@click.option("--name", default="anomaly", show_default=True, help="Model.")
@click.option("--since", type=Moment(), required=True, help="An age like 2h, or a time.")
@click.option("--until", type=Moment(), help="Up to here: an age, or a time; else: to the end.")
@click.option(
    "--against", default=CHAMPION, show_default=True, help="Alias or version to compare with."
)
@click.option(
    "--tolerance-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between two alerts of a vehicle that are taken for the same.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_settings(None, "kafka")
def replay_command(
    config: Config,
    *,
    version: str,
    name: str,
    since: int,
    until: int | None,
    against: str,
    tolerance_s: float,
    as_json: bool,
) -> None:
    """Run a version over a stretch of the log, and say what would have changed.

    VERSION is a version, an alias, or NAME@VERSION. Both models read the same telemetry as the
    scorer would have; nothing is written. Where vehicle.labels tells of faults in that time, it
    is said which of them each model found.
    """
    candidate = ModelRef.parse(version) if "@" in version else ModelRef(name, version)
    with needs("cloud"):
        from cloud.replay import ReplayTask, replay
        from cloud.replay_lines import replay_lines

        report = replay(
            ReplayTask(
                candidate,
                ModelRef(candidate.name, against),
                since_ms=since,
                until_ms=until,
                tolerance_s=tolerance_s,
            ),
            config.section(KafkaSettings),
            on_progress=lambda text: click.echo(text, err=True),
        )
    for line in [json.dumps(report.to_json())] if as_json else replay_lines(report):
        click.echo(line)
