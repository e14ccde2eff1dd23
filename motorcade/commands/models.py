"""`motorcade models`: what models there are, and which is used for what."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from motorcade.commands.models_replay import replay_command
from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.options import with_settings
from motorcade.release_options import Finish, with_finish
from schemas.errors import SettingsError
from scoring.catalog import ModelRef
from scoring.traffic import CHAMPION
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from cloud.model_desk import Deed
    from scoring.bundle import Bundle

Command = Callable[..., Any]

_json_flag = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")
_stop_flag = click.option(
    "--stop-experiment", is_flag=True, help="End a running experiment with it."
)


@click.group(
    cls=ExampleGroup,
    example="motorcade models list\n"
    "motorcade models promote anomaly@challenger --reason 'fewer alerts'",
    short_help="List, publish, promote, roll back and compare models.",
)
def command() -> None:
    """The models on model.releases, and what each is used for.

    A model is named NAME, NAME@VERSION or NAME@ALIAS; NAME alone is its champion. Where nobody
    named a champion, the newest release is it. Gateways, scorers and servers follow within
    seconds, without a restart.
    """


command.add_command(replay_command)


def deed_options(function: Command) -> Command:
    """Options that say who does it, and why."""
    by = click.option("--by", default=None, help="Who does it. [default: the user's name]")
    reason = click.option("--reason", default="no reason given", help="Why, for the record.")
    decorated: Command = reason(by(function))
    return decorated


def as_deed(by: str | None, reason: str) -> "Deed":
    """Who does it and why; the user where nobody is named."""
    from cloud.model_desk import Deed

    return Deed(by or _user(), reason)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "command line"


@command.command("list", example="motorcade models list\nmotorcade models list anomaly --json")
@click.argument("name", required=False)
@_json_flag
@with_settings(None, "kafka")
def list_(config: Config, name: str | None, as_json: bool) -> None:
    """All versions of all models, or of one, oldest first."""
    with needs("cloud"):
        from cloud.model_desk import list_models
        from cloud.model_lines import model_json, model_table

        rows = list_models(config.section(KafkaSettings), name)
    for line in map(model_json, rows) if as_json else model_table(rows):
        click.echo(line)


@command.command(example="motorcade models show anomaly@champion")
@click.argument("model")
@_json_flag
@with_settings(None, "kafka")
def show(config: Config, model: str, as_json: bool) -> None:
    """All about a version: features, threshold, policy, aliases, and what it was trained on."""
    with needs("cloud"):
        from cloud.model_desk import find
        from cloud.model_lines import found_json, found_lines

        found = find(config.section(KafkaSettings), ModelRef.parse(model))
    for line in [found_json(found)] if as_json else found_lines(found):
        click.echo(line)


@command.command(example="motorcade models get anomaly@challenger challenger.motorcade")
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_settings(None, "kafka")
def get(config: Config, model: str, file: Path) -> None:
    """Save a version as a bundle that `publish` takes."""
    with needs("cloud"):
        from cloud.model_desk import find

        bundle = find(config.section(KafkaSettings), ModelRef.parse(model)).bundle
    try:
        bundle.save(file)
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error}") from error
    click.echo(f"{bundle.manifest.name}@{bundle.manifest.version} saved as {file}")


@command.command(
    example="motorcade models publish anomaly-7.motorcade --reason 'tuned by hand'\n"
    "motorcade models publish anomaly-7.motorcade --sign-key release.key --alerts-max 3"
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--over", is_flag=True, help="Replace another model of the same name and version.")
@with_finish
@deed_options
@with_settings(None, "kafka")
def publish(
    config: Config, *, file: Path, over: bool, finish: Finish, by: str | None, reason: str
) -> None:
    """Publish a bundle. Where nobody named a champion, it is the champion from now on."""
    with needs("cloud"):
        from cloud import model_desk

        bundle = finish.of(_loaded(file))
        model_desk.publish(config.section(KafkaSettings), bundle, as_deed(by, reason), over=over)
    manifest = bundle.manifest
    signed = f", signed by {manifest.signature.key_id}" if manifest.signature else ""
    click.echo(
        f"{manifest.name}@{manifest.version} published, sha256 {manifest.model_sha256}{signed}"
    )


@command.command(
    example="motorcade models sign anomaly-7.motorcade --sign-key release.key\n"
    "motorcade models sign anomaly-7.motorcade --sign-key release.key --alerts-max 3"
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_finish
def sign(file: Path, finish: Finish) -> None:
    """Sign a bundle in its file, for gateways that take it from a file or a USB stick."""
    if finish.sign_key is None:
        raise SettingsError("which key? give --sign-key (`motorcade keys new` makes one)")
    with needs("edge", "cloud"):
        bundle = finish.of(_loaded(file))
    try:
        bundle.save(file)
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error}") from error
    manifest = bundle.manifest
    key_id = manifest.signature.key_id if manifest.signature else "nobody"
    click.echo(f"{manifest.name}@{manifest.version} signed by {key_id} in {file}")


def _loaded(file: Path) -> "Bundle":
    from scoring.bundle import Bundle

    try:
        return Bundle.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error}") from error


@command.command(
    example="motorcade models promote anomaly@20261124-1200 --reason 'better on labels'\n"
    "motorcade models promote anomaly@20261124-1200 --alias challenger"
)
@click.argument("model")
@click.option("--alias", default=CHAMPION, show_default=True, help="What it is to be called.")
@_stop_flag
@deed_options
@with_settings(None, "kafka")
def promote(
    config: Config,
    *,
    model: str,
    alias: str,
    stop_experiment: bool,
    by: str | None,
    reason: str,
) -> None:
    """Give a version an alias; as champion it scores from now on."""
    ref = ModelRef.parse(model)
    with needs("cloud"):
        from cloud import model_desk

        traffic = model_desk.promote(
            config.section(KafkaSettings),
            ref,
            as_deed(by, reason),
            alias=alias,
            stop_experiment=stop_experiment,
        )
    click.echo(f"{ref.name}@{traffic.aliases[alias]} is {alias}, generation {traffic.generation}")


@command.command(example="motorcade models unset anomaly challenger")
@click.argument("name")
@click.argument("alias")
@deed_options
@with_settings(None, "kafka")
def unset(config: Config, name: str, alias: str, by: str | None, reason: str) -> None:
    """Take an alias away; without a champion the newest release is it."""
    with needs("cloud"):
        from cloud import model_desk

        traffic = model_desk.unset_alias(
            config.section(KafkaSettings), name, alias, as_deed(by, reason)
        )
    click.echo(f"{name} has no {alias}, generation {traffic.generation}")


@command.command(example="motorcade models rollback anomaly --reason 'too many alerts'")
@click.argument("name")
@_stop_flag
@deed_options
@with_settings(None, "kafka")
def rollback(config: Config, name: str, stop_experiment: bool, by: str | None, reason: str) -> None:
    """Make the former champion champion again; repeated, it goes further back."""
    with needs("cloud"):
        from cloud import model_desk

        traffic = model_desk.roll_back(
            config.section(KafkaSettings),
            name,
            as_deed(by, reason),
            stop_experiment=stop_experiment,
        )
    click.echo(f"{name}@{traffic.champion} is {CHAMPION} again, generation {traffic.generation}")


@command.command(example="motorcade models delete anomaly 20261101-0900")
@click.argument("name")
@click.argument("version")
@deed_options
@with_settings(None, "kafka")
def delete(config: Config, name: str, version: str, by: str | None, reason: str) -> None:
    """Take a version out of the log; refused while an alias or an experiment uses it."""
    with needs("cloud"):
        from cloud import model_desk

        model_desk.delete(config.section(KafkaSettings), name, version, as_deed(by, reason))
    click.echo(f"{name}@{version} deleted")


@command.command(example="motorcade models diff anomaly@champion anomaly@challenger")
@click.argument("a")
@click.argument("b")
@_json_flag
@with_settings(None, "kafka")
def diff(config: Config, a: str, b: str, as_json: bool) -> None:
    """How two versions differ: features, threshold, policy, origin, normalisation."""
    with needs("cloud"):
        from cloud.model_desk import find
        from cloud.model_lines import diff_json, diff_lines
        from scoring.diff import diff_manifests

        kafka = config.section(KafkaSettings)
        one, other = (find(kafka, ModelRef.parse(text)).bundle.manifest for text in (a, b))
        found = diff_manifests(one, other)
    for line in [diff_json(a, b, found)] if as_json else diff_lines(found):
        click.echo(line)
