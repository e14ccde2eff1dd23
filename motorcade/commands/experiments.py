"""`motorcade experiments`: try a version on a part of the fleet."""

import json
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cloud.monitoring.settings import MonitorSettings
from motorcade.commands.models import as_deed, deed_options
from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.options import with_settings
from schemas.errors import ContractError, Reason
from scoring.traffic import Mode
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from scoring.trial import Asked

_name = click.option("--name", default="anomaly", show_default=True, help="Model.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


@click.group(
    cls=ExampleGroup,
    example="motorcade experiments start trial-7 --mode canary --arm new=challenger:10%\n"
    "motorcade experiments status",
    short_help="Try a version on a part of the fleet: A/B, canary, shadow.",
)
def command() -> None:
    """Experiments on the stream: each vehicle is scored by its arm's version.

    The arm is a hash of the vehicle id: the same car keeps it, whatever restarts. Scorers and
    servers follow within seconds.
    """


@command.command(
    example="motorcade experiments start trial-7 --mode canary --arm new=challenger:0.1 "
    "--guard alert_ratio_max=3\n"
    "motorcade experiments start ab-1 --mode ab --arm b=20261124-1200:50% --auto-promote"
)
@click.argument("experiment")
@_name
@click.option(
    "--mode",
    type=click.Choice([mode.value.lower() for mode in Mode]),
    required=True,
    help="ab: arms of any weight; canary: one small arm; shadow: beside the champion, unheard.",
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    required=True,
    help="ARM=VERSION_OR_ALIAS:WEIGHT, a share or a percentage; the champion has the rest.",
)
@click.option("--auto-promote", is_flag=True, help="Promote the arm that wins.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Level of the sequential test.",
)
@click.option("--guard", "guards", multiple=True, help="NAME=LIMIT that is not the default.")
@click.option("--salt", help="The same salt gives the same vehicles. [default: a new one]")
@deed_options
@with_settings(None, "kafka")
def start(
    config: Config,
    *,
    experiment: str,
    name: str,
    mode: str,
    arms: Sequence[str],
    guards: Sequence[str],
    salt: str | None,
    by: str | None,
    reason: str,
    **options: Any,
) -> None:
    """Begin an experiment of a model; one at a time."""
    with needs("cloud"):
        from cloud.experiment_desk import described, now_ms, start_experiment
        from scoring.trial import Wish, running

        wish = Wish(
            id=experiment,
            mode=Mode(mode.upper()),
            arms=_asked(arms),
            salt=salt or secrets.token_hex(8),
            started_time_ms=now_ms(),
            guards=_limits(guards),
            **options,
        )
        traffic = start_experiment(config.section(KafkaSettings), name, wish, as_deed(by, reason))
        text = described(running(traffic))
    click.echo(f"experiment {experiment} of {name} runs, {text}, generation {traffic.generation}")


@command.command(
    "set-weight", example="motorcade experiments set-weight new=25% --reason 'looks well'"
)
@click.argument("weights", nargs=-1, required=True)
@_name
@deed_options
@with_settings(None, "kafka")
def set_weight(
    config: Config, *, weights: Sequence[str], name: str, by: str | None, reason: str
) -> None:
    """Give arms another share, ARM=WEIGHT; an arm that grows keeps its vehicles."""
    with needs("cloud"):
        from cloud.experiment_desk import described, set_weights
        from scoring.trial import running

        traffic = set_weights(
            config.section(KafkaSettings), name, _weights(weights), as_deed(by, reason)
        )
        text = described(running(traffic))
    click.echo(f"{text}, generation {traffic.generation}")


@command.command(example="motorcade experiments stop --promote new --reason 'finds more faults'")
@_name
@click.option("--promote", metavar="ARM", help="Make this arm's version the champion.")
@deed_options
@with_settings(None, "kafka")
def stop(config: Config, *, name: str, promote: str | None, by: str | None, reason: str) -> None:
    """End the running experiment; its vehicles are the champion's again."""
    with needs("cloud"):
        from cloud.experiment_desk import stop_experiment

        traffic = stop_experiment(
            config.section(KafkaSettings), name, as_deed(by, reason), promote=promote
        )
    champion = traffic.champion or "the newest release"
    click.echo(f"no experiment of {name} runs; {champion} is champion")


@command.command(example="motorcade experiments status\nmotorcade experiments status --json")
@_name
@_json
@with_settings(None, "kafka")
def status(config: Config, *, name: str, as_json: bool) -> None:
    """Arms, weights, versions, the figures that decide, and what was told.

    Each arm's alerts, scores and time, precision and recall by vehicle.labels, and the p value of
    the sequential test against the champion: valid whenever you look.
    """
    with needs("cloud"):
        from cloud.experiment_lines import status_lines
        from cloud.experiment_status import experiment_status

        found = experiment_status(
            config.section(KafkaSettings), name, config.section(MonitorSettings)
        )
    for line in [json.dumps(found.to_json())] if as_json else status_lines(found):
        click.echo(line)


@command.command("list", example="motorcade experiments list")
@_json
@with_settings(None, "kafka")
def list_(config: Config, *, as_json: bool) -> None:
    """The running experiments of all models."""
    with needs("cloud"):
        from cloud.experiment_desk import traffics
        from cloud.experiment_lines import listed

        found = [t for t in traffics(config.section(KafkaSettings)) if t.experiment is not None]
    for traffic in found:
        click.echo(json.dumps(traffic.to_record()) if as_json else listed(traffic))


def _asked(texts: Sequence[str]) -> "tuple[Asked, ...]":
    from scoring.trial import Asked

    return tuple(map(Asked.parse, texts))


def _weights(texts: Sequence[str]) -> dict[str, float]:
    from scoring.trial import weight_of

    found = {}
    for text in texts:
        arm, _, weight = text.partition("=")
        share = weight_of(weight)
        if not arm or share is None:
            raise ContractError(Reason.MALFORMED, f"{text!r}; it may be ARM=WEIGHT, as new=25%")
        found[arm] = share
    return found


def _limits(texts: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, limit = text.partition("=")
        try:
            found[name] = float(limit)
        except ValueError as error:
            raise ContractError(
                Reason.MALFORMED, f"guard {text!r}; it may be NAME=LIMIT, as alert_ratio_max=3"
            ) from error
    return found
