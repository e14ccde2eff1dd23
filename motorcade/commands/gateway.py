"""`motorcade gateway`: store, score, alert, forward."""

import dataclasses
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.announce import Announcer, Bounded
from edge.settings import GatewaySettings
from motorcade.commands.gateway_models import install_model, models, rollback
from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.gateway_lines import status_lines
from motorcade.observing import OBSERVED, observed
from motorcade.options import with_settings
from motorcade.running import emit, log_to_stderr
from motorcade.stopping import reload_on_hangup, stop_on_signals
from schemas.errors import TransientError
from transport.settings import KafkaSettings, MetricsSettings, MqttSettings, TracingSettings

if TYPE_CHECKING:
    from edge.gateway import Gateway
    from edge.reload import GatewayConfig

PROGRESS_S = 0.5
STATUS_S = 15.0
"""Longest wait for a status, which a sound gateway gives at once."""

NOT_THE_SOCKET = frozenset(
    f"gateway.{field.name}"
    for field in dataclasses.fields(GatewaySettings)
    if field.name != "control_path"
)
"""Settings that do not matter to whoever asks a gateway that runs."""


@click.group(
    cls=ExampleGroup,
    example="motorcade gateway check\nmotorcade gateway run --gateway-id depot-7",
    short_help="The edge gateway: store, score, alert, forward.",
)
def command() -> None:
    """The edge gateway: puts readings on its disk, scores them, alerts, forwards to Kafka."""


@command.command(example="motorcade gateway run --gateway-id depot-7 --mqtt-host broker.local")
@click.option("--progress", is_flag=True, help="Print counters as JSON lines.")
@with_settings("gateway", "mqtt", "kafka", *OBSERVED)
def run(config: Config, progress: bool) -> None:
    """Run until told to stop. Works without Kafka; forwards what waits when it is back.

    SIGHUP, or `motorcade gateway reload`, has it read its settings again. Under systemd it tells
    when it is ready, and feeds the watchdog while every part of it makes progress.
    """
    announcer = Announcer()
    log_to_stderr(bounds=Bounded(announcer))
    with observed(config, "motorcade-gateway", extra="edge"), needs("edge"):
        from edge.gateway import run as run_gateway
        from edge.notify import Notifier
        from edge.operations import Surroundings

        stop = stop_on_signals()
        found = _sections(config)
        around = Surroundings(
            load=lambda: _sections(config.again()),
            beside=found.beside,
            reload_asked=reload_on_hangup(),
            notifier=Notifier.of(os.environ),
            announcer=announcer,
        )
        run_gateway(
            found.gateway,
            found.mqtt,
            found.kafka,
            stop=stop,
            on_ready=(lambda gateway: _report(gateway, stop)) if progress else None,
            around=around,
        )


def _sections(config: Config) -> "GatewayConfig":
    from edge.reload import GatewayConfig

    return GatewayConfig(
        config.section(GatewaySettings),
        config.section(MqttSettings),
        config.section(KafkaSettings),
        (
            ("metrics", config.section(MetricsSettings)),
            ("tracing", config.section(TracingSettings)),
        ),
    )


def _report(gateway: "Gateway", stop: threading.Event) -> None:
    """Start to print counters; goes on until the stop."""

    def body() -> None:
        while True:
            ended = stop.wait(PROGRESS_S)
            health = gateway.health
            emit({**gateway.status(), "scored": health.scored, "alerts": health.alerts})
            if ended:
                return

    threading.Thread(target=body, name="progress", daemon=True).start()


@command.command(
    example="motorcade gateway check --gateway-id depot-7\n"
    "motorcade gateway check --vehicles 40 --rate 2 --message-bytes 300"
)
@click.option(
    "--local", is_flag=True, help="Before a start: ask no broker; fail only on what forbids one."
)
@click.option("--vehicles", type=click.IntRange(1), default=1, help="For the budget. [default: 1]")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Messages a second of each. [default: 1]",
)
@click.option(
    "--message-bytes", type=click.IntRange(1), default=300, help="Of a message. [default: 300]"
)
@with_settings("gateway", "mqtt", "kafka")
def check(config: Config, *, local: bool, vehicles: int, rate: float, message_bytes: int) -> int:
    """Say whether a gateway could run here, and what it costs. Exit status 1 if it could not.

    The budget says what a power cut takes at most, how much flash is written a day at the given
    load, and how long the spool lasts without an uplink.
    """
    with needs("edge"):
        from edge.budget import Load
        from edge.gateway import check as check_gateway

        results = check_gateway(
            config.section(GatewaySettings),
            config.section(MqttSettings),
            config.section(KafkaSettings),
            local=local,
            load=Load(vehicles, rate, message_bytes),
        )
    for result in results:
        click.echo(f"{'ok  ' if result.ok else 'FAIL'}  {result.name:<12} {result.text}")
    bad = [result for result in results if (result.stops if local else not result.ok)]
    return 1 if bad else 0


@command.command(
    example="motorcade gateway status\nmotorcade gateway status --json | jq .spool_depth"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program.")
@with_settings("gateway", hide=NOT_THE_SOCKET)
def status(config: Config, *, as_json: bool) -> int:
    """Say how the gateway that runs here is. Exit status 0: healthy; 1: not, or none runs.

    An uplink that is away is no fault: the gateway stores, scores and alerts without.
    """
    with needs("edge"):
        found = _ask_status(config.section(GatewaySettings).control_path)
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(status_lines(found) if "spool_depth" in found else found["faults"]))
    return 1 if found["faults"] else 0


def _ask_status(path: Path) -> dict[str, Any]:
    """What the gateway tells; of one that is not there or does not answer, that."""
    from edge.control_client import NotRunningError, ask

    try:
        return {"running": True, **ask(path, "status", answer_s=STATUS_S)}
    except NotRunningError as error:
        return {"running": False, "faults": [str(error)]}
    except TransientError as error:
        return {"running": True, "faults": [str(error)]}


@command.command(name="reload", example="motorcade gateway reload")
@with_settings("gateway", hide=NOT_THE_SOCKET)
def reload_settings(config: Config) -> None:
    """Have the gateway that runs here read its settings file again, whole or not at all.

    Keys marked Live in docs/configuration.md change at once, and nothing is dropped. Others are
    named, and wait for a restart. A file that is wrong is refused, and all stays as it was.
    """
    with needs("edge"):
        from edge.control_client import ask

        done = ask(config.section(GatewaySettings).control_path, "reload")
    changed = ", ".join(f"{key} = {value}" for key, value in done["changed"].items())
    click.echo(f"changed: {changed or 'nothing'}")
    if done["needs_restart"]:
        click.echo(f"waiting for a restart: {', '.join(done['needs_restart'])}")


@command.command(example="motorcade gateway drain --spool-path /mnt/old-card/spool")
@with_settings("gateway", "kafka")
def drain(config: Config) -> int:
    """Forward what a spool still holds, and end. Exit status 1 if it was stopped before the end.

    For a spool that is to be left: nothing is taken in, nothing is scored. No gateway may have it
    open meanwhile. When it ends by itself, all is in Kafka and the spool may be removed.
    """
    log_to_stderr()
    with needs("edge"):
        from edge.drain import drain as drain_spool

        left = drain_spool(
            config.section(GatewaySettings),
            config.section(KafkaSettings),
            stop=stop_on_signals(),
        )
    click.echo(f"{left} records left" if left else "all is in Kafka; the spool may be removed")
    return 1 if left else 0


for each in (models, install_model, rollback):
    command.add_command(each)
