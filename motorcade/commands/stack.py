"""`motorcade stack`: local brokers that stay until they are told to go."""

from typing import TYPE_CHECKING

import click

from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.options import with_settings
from motorcade.stack_settings import StackSettings
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from deploy.stack import PartStatus, Stack


@click.group(
    cls=ExampleGroup,
    example="motorcade stack up\nmotorcade stack status\nmotorcade stack down",
    short_help="Start, stop and look at local brokers.",
)
def command() -> None:
    """Apache Kafka, an MQTT broker and a schema registry on the loopback, without Docker."""


@command.command(example="motorcade stack up --mqtt artemis")
@with_settings("stack")
def up(config: Config) -> None:
    """Start what does not run, wait until it answers, and make the topics.

    The parts go on running until `motorcade stack down`; their data stays in the directory.
    """
    with needs("stack"):
        from transport.kafka import ensure_topics, register_schemas

        stack = _stack(config, choose=True)
        stack.start()
        ends = stack.endpoints
        kafka = KafkaSettings(
            bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url
        )
        ensure_topics(kafka)
        register_schemas(kafka)
    click.echo(f"kafka     {ends.kafka_bootstrap}")
    click.echo(f"mqtt      {ends.mqtt_host}:{ends.mqtt_port}")
    click.echo(f"registry  {ends.registry_url}")


@command.command(example="motorcade stack down")
@with_settings("stack")
def down(config: Config) -> None:
    """Stop all parts in order. Their data stays."""
    with needs("stack"):
        _stack(config).stop()


@command.command(example="motorcade stack status")
@with_settings("stack")
def status(config: Config) -> int:
    """Say which parts run and answer. Exit status 1 if one does not."""
    with needs("stack"):
        parts = _stack(config).status()
    if not parts:
        click.echo("never started here; see `motorcade stack up`")
        return 1
    for part in parts:
        click.echo(_line(part))
    return 0 if all(part.answers for part in parts) else 1


def _line(part: "PartStatus") -> str:
    state = "answers" if part.answers else ("running, no answer" if part.pid else "stopped")
    pid = f"pid {part.pid}" if part.pid else "-"
    return f"{part.name:<9} {state:<18} {pid:<11} port {part.port:<6} {part.program}  {part.log}"


@command.command(example="motorcade stack logs kafka --lines 20")
@click.argument("part", type=click.Choice(["kafka", "mqtt", "registry"]))
@click.option("--lines", default=50, show_default=True, help="How many, from the end.")
@with_settings("stack")
def logs(config: Config, part: str, lines: int) -> None:
    """Show the end of a part's log."""
    with needs("stack"):
        click.echo("\n".join(_stack(config).logs(part, lines)))


def _stack(config: Config, *, choose: bool = False) -> "Stack":
    from deploy.ports import Ports
    from deploy.stack import Stack

    settings = config.section(StackSettings)
    ports = Ports(
        settings.kafka_port, settings.controller_port, settings.mqtt_port, settings.registry_port
    )
    return Stack(
        settings.directory,
        ports=ports if choose else None,
        mqtt=settings.mqtt if choose else "auto",
        detached=True,
    )
