"""`motorcade bench`: measure this machine."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.options import with_settings
from transport.settings import KafkaSettings


@click.group(
    cls=ExampleGroup, example="motorcade bench score --json", short_help="Measure this machine."
)
def command() -> None:
    """Measure this machine. Nothing here is a test: figures depend on it and on its load."""


@command.command(example="motorcade bench score --memory --sizes 1,10 --json")
@click.option("--sizes", default="1,10,100", show_default=True, help="Readings a message.")
@click.option("--vehicles", default=10_000, show_default=True, help="Vehicles that send in turn.")
@click.option("--readings", type=int, help="Readings of each run; default: some seconds' worth.")
@click.option("--memory", is_flag=True, help="A model that also has features with memory.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--brokers-of-settings",
    is_flag=True,
    help="Measure on the brokers of [kafka] instead of a temporary stack.",
)
@with_settings(None, "kafka")
def score(config: Config, brokers_of_settings: bool, as_json: bool, **options: Any) -> None:
    """Scored readings a second from a topic to the scores and alerts topics, exactly once.

    Beside it two bare loops over the same topic in the same run: consume only, and consume and
    produce one for one in transactions.
    """
    with needs("cloud"):
        from cloud.bench import bench_score
    given = contextlib.nullcontext(config.section(KafkaSettings))
    with given if brokers_of_settings else _own_brokers() as kafka:
        rows = bench_score(
            kafka,
            readings_per_message=_sizes(options["sizes"]),
            vehicles=options["vehicles"],
            memory=options["memory"],
            readings=options["readings"],
            on_progress=_said,
        )
    click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))


@command.command(example="motorcade bench deployments --chart deployments.svg --json")
@click.option(
    "--deployments",
    default="embedded,rpc,kafka",
    show_default=True,
    help="Which, separated by commas.",
)
@click.option("--messages", default=400_000, show_default=True, help="Readings for throughput.")
@click.option("--rate", default=1_000, show_default=True, help="Readings/s of the live load.")
@click.option("--seconds", default=15.0, show_default=True, help="Time that latency is measured.")
@click.option("--outage-s", default=10.0, show_default=True, help="Time that the server is gone.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw them: SVG or PNG.")
def deployments(as_json: bool, chart: Path | None, deployments: str, **options: Any) -> None:
    """The three ways to deploy a model, side by side on one stack: embedded, RPC, Kafka-native.

    Throughput, latency, what exactly-once costs, what happens when the model server is killed and
    when a new version arrives, and memory. Takes about five minutes.
    """
    from motorcade.bench_chart import draw, table

    with needs("cloud"), needs("stack"):
        from motorcade.bench_deployments import DEPLOYMENTS, Plan, bench_deployments
    chosen = tuple(deployments.split(","))
    if unknown := set(chosen) - set(DEPLOYMENTS):
        raise click.BadParameter(f"no deployment {', '.join(unknown)}", param_hint="deployments")
    result = bench_deployments(Plan(deployments=chosen, **options), on_progress=_said)
    if chart is not None:
        draw(result, chart)
    click.echo(json.dumps(result, indent=2) if as_json else table(result))


@command.command(example="motorcade bench shadow --rounds 5 --json")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each kind.")
@click.option("--seconds", default=15.0, show_default=True, help="Length of a round.")
@click.option("--rate", default=1_000, show_default=True, help="Readings/s.")
@click.option("--share", default=0.5, show_default=True, help="Of the vehicles that it scores.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def shadow(as_json: bool, **options: Any) -> None:
    """The champion's latency with a shadow beside it and without, by turns."""
    with needs("cloud"), needs("stack"):
        from motorcade.bench_shadow import ShadowPlan, bench_shadow, shadow_table
    result = bench_shadow(ShadowPlan(**options), on_progress=_said)
    click.echo(json.dumps(result, indent=2) if as_json else shadow_table(result))


@command.command(example="motorcade bench gateway --rounds 3 --json")
@click.option("--messages", default=60_000, show_default=True, help="Messages of a round.")
@click.option("--readings", default=10, show_default=True, help="Readings of a message.")
@click.option("--vehicles", default=1_000, show_default=True, help="Vehicles that send in turn.")
@click.option("--rounds", default=2, show_default=True, help="Rounds of each kind.")
@click.option("--rate", default=1_000, show_default=True, help="Messages/s while alerts are timed.")
@click.option("--seconds", default=15.0, show_default=True, help="Time that alerts are timed.")
@click.option(
    "--mqtt",
    type=click.Choice(["auto", "mosquitto", "artemis"]),
    default="auto",
    show_default=True,
    help="Which broker.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def gateway(as_json: bool, **options: Any) -> None:
    """Messages a second that a gateway takes on one core, beside paho alone on the same stream.

    The gateway stores, scores and forwards everything; a message counts when all of that is done.
    Then how long an alert takes at a steady rate, memory, and what a reading costs the flash.
    """
    with needs("edge"), needs("cloud"), needs("stack"):
        from motorcade.bench_gateway import GatewayPlan, bench_gateway
    result = bench_gateway(GatewayPlan(**options), on_progress=_said)
    click.echo(json.dumps(result, indent=2) if as_json else _figures(result))


@command.command(
    example="motorcade bench backlog --json\nmotorcade bench backlog --rate 200 --hours 1"
)
@click.option("--rate", default=10.0, show_default=True, help="Messages/s of the fleet.")
@click.option("--hours", default=24.0, show_default=True, help="That it drove without an uplink.")
@click.option(
    "--backlog-rate", default=5_000.0, show_default=True, help="Of the gateway; 0: no limit."
)
@click.option("--readings", default=1, show_default=True, help="Of a message.")
@click.option(
    "--seconds", default=30.0, show_default=True, help="Of live data without a backlog, twice."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def backlog(as_json: bool, **options: Any) -> None:
    """How quickly the backlog of a day drains, and what live data notice of it.

    Each live message is timed from MQTT to a consumer of committed records in Kafka, beside the
    backlog and without it, in the same run.
    """
    with needs("edge"), needs("cloud"), needs("stack"):
        from motorcade.bench_backlog import BacklogPlan, bench_backlog
    result = bench_backlog(BacklogPlan(**options), on_progress=_said)
    click.echo(json.dumps(result, indent=2) if as_json else _figures(result))


def _figures(result: dict[str, Any]) -> str:
    return "\n".join(f"{name:<36} {value:>12,}" for name, value in result.items())


def _said(text: str) -> None:
    """Progress; standard output is for the figures."""
    click.echo(text, err=True)


@command.command(example="motorcade bench serving --json")
@click.option("--rounds", default=3, show_default=True, help="Times that all is measured.")
@click.option("--duration", "duration_s", default=2.0, show_default=True, help="Seconds of a run.")
@click.option("--peer/--no-peer", default=True, show_default=True, help="Measure MLServer too.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def serving(rounds: int, duration_s: float, peer: bool, as_json: bool) -> None:
    """Requests a second and latencies of the model server over REST and gRPC.

    Beside it MLServer in its fastest configuration, with the same client in the same run; its
    environment is made the first time.
    """
    with needs("cloud"):
        from cloud.bench_serving import table
        from motorcade.bench_serving import bench_serving
    result = bench_serving(
        rounds=rounds,
        duration_s=duration_s,
        peer=peer,
        on_progress=_said,
    )
    click.echo(json.dumps(result, indent=2) if as_json else table(result))


@command.command(example="motorcade bench requests\nmotorcade bench requests --rate 500 --json")
@click.option("--saturation-s", default=10.0, show_default=True, help="Seconds at full load.")
@click.option("--latency-s", default=20.0, show_default=True, help="Seconds at the fixed rate.")
@click.option("--rate", default=1_000, show_default=True, help="Requests a second at that rate.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--brokers-of-settings",
    is_flag=True,
    help="Measure on the brokers of [kafka] instead of a temporary stack.",
)
@with_settings(None, "kafka")
def requests(config: Config, brokers_of_settings: bool, as_json: bool, **options: Any) -> None:
    """Single-row requests a second through the model server's Kafka door, and how long one takes.

    At least once and exactly once, each beside a bare loop that writes the requests back; broker,
    server and client on this machine.
    """
    with needs("cloud"):
        from cloud.bench_requests import RequestsBench, bench_requests
    given = contextlib.nullcontext(config.section(KafkaSettings))
    with given if brokers_of_settings else _own_brokers() as kafka:
        rows = bench_requests(
            kafka,
            RequestsBench(options["saturation_s"], options["latency_s"], options["rate"]),
            on_progress=_said,
        )
    click.echo(json.dumps(rows, indent=2) if as_json else _requests_table(rows))


def _requests_table(rows: list[dict[str, Any]]) -> str:
    lines = ["loop  delivery       requests/s  CPU us  p50 ms  p99 ms  p99.9 ms"]
    for row in rows:
        once = "exactly once" if row["exactly_once"] else "at least once"
        times = row["latency_ms"]
        lines.append(
            f"{row['loop']:<5} {once:<13} {row['requests_per_s']:>11,} "
            f"{row['cpu_us_per_request']:>7} {times['p50']:>7} {times['p99']:>7} {times['p999']:>9}"
        )
    return "\n".join(lines)


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of numbers", param_hint="sizes") from error


@contextlib.contextmanager
def _own_brokers() -> Iterator[KafkaSettings]:
    with needs("stack"):
        from deploy.stack import Stack

        with (
            tempfile.TemporaryDirectory(prefix="motorcade-bench-") as directory,
            Stack(Path(directory)) as stack,
        ):
            ends = stack.endpoints
            yield KafkaSettings(
                bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url
            )


_COLUMNS = (
    ("readings_per_message", "readings a message"),
    ("scored_readings_per_s", "scored readings/s"),
    ("bare_consume_messages_per_s", "bare consume msg/s"),
    ("bare_transactional_messages_per_s", "bare transactional msg/s"),
    ("ratio_to_bare_transactional", "ratio"),
)


def _table(rows: list[dict[str, Any]]) -> str:
    head = "  ".join(title for _, title in _COLUMNS)
    lines = ["  ".join(f"{row[key]:>{len(title)},}" for key, title in _COLUMNS) for row in rows]
    return "\n".join([head, *lines])
