"""`motorcade demo`: the whole mission on this machine."""

from pathlib import Path

import click

from motorcade.examples import ExampleCommand
from motorcade.extras import needs


@click.command(
    cls=ExampleCommand,
    example=(
        "motorcade demo\n"
        "motorcade demo --vehicles 500 --duration 120 --json result.json\n"
        "motorcade demo --replay simulator/data/kit_normal_small.csv.gz"
    ),
    short_help="Show the whole mission on this machine in about a minute and a half.",
)
@click.option(
    "--vehicles", type=click.IntRange(1, 20_000), default=200, show_default=True, help="Fleet size."
)
@click.option(
    "--duration", type=float, default=90.0, show_default=True, help="Seconds of driving, from 60."
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Recorded drives (CSV) instead of simulated ones.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the closing table as JSON here.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of fleet and training.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything lives; default: a temporary directory, kept only on failure.",
)
def command(
    *,
    vehicles: int,
    duration: float,
    replay: Path | None,
    json_path: Path | None,
    seed: int,
    directory: Path | None,
) -> int:
    """Real brokers, a fleet, a gateway, training on the log, faults, an outage, and a count.

    Exit status 1 if a reading was lost or is anywhere twice, 130 after Ctrl-C, which stops all
    that was started.
    """
    with needs("simulator", "edge", "cloud", "stack"):
        from motorcade.demo import DemoOptions, run

        options = DemoOptions(vehicles, duration, replay, json_path, seed, directory)
        return run(options)
