"""`motorcade watch`: what comes out."""

import click

from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.moments import Moment
from motorcade.options import with_settings
from motorcade.stopping import stop_on_signals
from transport.settings import KafkaSettings


@click.group(
    cls=ExampleGroup,
    example="motorcade watch alerts --since 5m",
    short_help="Look at what comes out.",
)
def command() -> None:
    """Look at what comes out."""


@command.command(
    example="motorcade watch alerts --since 5m\nmotorcade watch alerts --vehicle car-17 --json"
)
@click.option("--vehicle", help="Only of this vehicle.")
@click.option("--since", type=Moment(), help="From here on: an age like 5m, or a time; else: now.")
@click.option("--follow/--no-follow", default=True, help="Go on with what comes. [default: yes]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_settings(None, "kafka")
def alerts(
    config: Config, *, vehicle: str | None, since: int | None, follow: bool, as_json: bool
) -> None:
    """Alerts of edge and cloud as they open and close, until told to stop.

    Each line says when, which vehicle, which signals, how far off, since when, which model.
    """
    with needs("cloud"):
        from cloud.alert_lines import alert_json, alert_line
        from cloud.watch import AlertFilter, watch_alerts

        found = watch_alerts(
            AlertFilter(vehicle_id=vehicle, since_ms=since, follow=follow),
            config.section(KafkaSettings),
            stop=stop_on_signals(),
            on_broken=lambda error: click.echo(f"passed over: {error}", err=True),
        )
        for alert in found:
            click.echo(alert_json(alert) if as_json else alert_line(alert))


@command.command(
    example="motorcade watch events --since 1h\nmotorcade watch events --model anomaly --json"
)
@click.option("--model", help="Only of this model.")
@click.option("--since", type=Moment(), help="From here on: an age like 5m, or a time; else: now.")
@click.option("--follow/--no-follow", default=True, help="Go on with what comes. [default: yes]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_settings(None, "kafka")
def events(
    config: Config, *, model: str | None, since: int | None, follow: bool, as_json: bool
) -> None:
    """What happens to models: releases, promotions, experiments, drift, guards, until told to stop.

    Each line says when, how grave, what, which model, why, and who did or found it.
    """
    with needs("cloud"):
        from cloud.event_lines import event_json, event_line
        from cloud.watch import EventFilter, watch_events

        found = watch_events(
            EventFilter(model=model, since_ms=since, follow=follow),
            config.section(KafkaSettings),
            stop=stop_on_signals(),
            on_broken=lambda error: click.echo(f"passed over: {error}", err=True),
        )
        for event in found:
            click.echo(event_json(event) if as_json else event_line(event))


@command.command(
    example="motorcade watch gateways\nmotorcade watch gateways --since 1d --follow --json"
)
@click.option("--gateway", help="Only of this gateway.")
@click.option("--since", type=Moment(), default="5m", help="An age, or a time. [default: 5m]")
@click.option("--follow/--no-follow", default=False, help="Go on, with each change. [default: no]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_settings(None, "kafka")
def gateways(
    config: Config, *, gateway: str | None, since: int, follow: bool, as_json: bool
) -> None:
    """How the fleet's gateways are: the last heartbeat of each that told of itself since then.

    One that is missing has no uplink; on its own broker `state/health` and, on its own machine,
    `motorcade gateway status` still tell. With --follow: each change of a state as it comes.
    """
    with needs("cloud"):
        from cloud.gateway_lines import changes, gateway_json, gateway_line, newest
        from cloud.watch import GatewayFilter, watch_gateways

        found = watch_gateways(
            GatewayFilter(gateway_id=gateway, since_ms=since, follow=follow),
            config.section(KafkaSettings),
            stop=stop_on_signals(),
            on_broken=lambda error: click.echo(f"passed over: {error}", err=True),
        )
        for status in changes(found) if follow else newest(found):
            click.echo(gateway_json(status) if as_json else gateway_line(status))
