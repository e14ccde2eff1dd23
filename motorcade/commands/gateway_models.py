"""`motorcade gateway models`, `install-model`, `rollback`: the models of one gateway."""

import json
import time
from pathlib import Path

import click

from edge.settings import GatewaySettings
from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.gateway_model_lines import model_lines
from motorcade.options import only, with_settings

_MODELS = (
    "gateway_id",
    "spool_path",
    "models_path",
    "model_name",
    "control_path",
    "trusted_keys_path",
    "signatures_required",
    "model_min_version",
    "trial_timeout_s",
)
_OTHERS = only("gateway", *_MODELS)


@click.command(
    "models",
    cls=ExampleCommand,
    example="motorcade gateway models\nmotorcade gateway models --json | jq .current.version",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program.")
@with_settings("gateway", hide=only("gateway", "control_path", "models_path"))
def models(config: Config, *, as_json: bool) -> None:
    """The models of the gateway here: in use, before it, on trial, and refused, with reasons."""
    with needs("edge"):
        from edge.model_commands import list_models

        found = list_models(config.section(GatewaySettings))
    click.echo(json.dumps(found) if as_json else "\n".join(model_lines(found)))


@click.command(
    "install-model",
    cls=ExampleCommand,
    example="motorcade gateway install-model anomaly-7.motorcade\n"
    "motorcade gateway install-model /media/usb",
)
@click.argument("path", type=click.Path(path_type=Path))
@with_settings("gateway", hide=_OTHERS)
def install_model(config: Config, *, path: Path) -> None:
    """Install a release from a file, or the newest one of a directory, without any network.

    It is checked and tried as one that comes over the air. What is installed by hand stays until
    the fleet's champion is another one or is named anew. Also says so of a version that was
    refused before: this is another chance for it.
    """
    with needs("edge"):
        from edge.model_commands import install_model as install

        outcome = install(config.section(GatewaySettings), path, now_ms=_now_ms)
    click.echo(outcome["detail"])


@click.command(
    "rollback", cls=ExampleCommand, example="motorcade gateway rollback --gateway-id depot-7"
)
@with_settings("gateway", hide=_OTHERS)
def rollback(config: Config) -> None:
    """Go back to the model before, and stay there until the fleet's champion is another one."""
    with needs("edge"):
        from edge.model_commands import roll_back

        outcome = roll_back(config.section(GatewaySettings), now_ms=_now_ms)
    click.echo(outcome["detail"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
