"""`motorcade dead-letters`: what could not be processed, and sending it back."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.exits import Exit
from motorcade.extras import needs
from motorcade.moments import Moment
from motorcade.options import with_settings
from motorcade.running import emit
from schemas.errors import ContractError, Reason
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from cloud.redrive import Letter, LetterId

Command = Callable[..., Any]

_json_flag = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


@click.group(
    cls=ExampleGroup,
    example="motorcade dead-letters list --since 1h\nmotorcade dead-letters redrive 17 --dry-run",
    short_help="Look at what could not be processed, and send it back.",
)
def command() -> None:
    """Messages on dead-letters: whole, with who refused them and why.

    A letter's id is its offset, or PARTITION:OFFSET where the topic has several partitions.
    """


def _filters(function: Command) -> Command:
    """Options that choose letters."""
    options = (
        click.option("--since", type=Moment(), help="From here on: an age like 5m, or a time."),
        click.option("--reason", type=click.Choice([each.value for each in Reason]), help="Why."),
        click.option("--component", help="Who refused it: gateway, scorer, server."),
        click.option("--topic", help="Where the message came from."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _parsed(texts: tuple[str, ...]) -> "list[LetterId]":
    from cloud.redrive import LetterId

    try:
        return [LetterId.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(
            f"{', '.join(texts)}: an id is an offset, or PARTITION:OFFSET"
        ) from error


def _passed_over(where: "LetterId", error: ContractError) -> None:
    click.echo(f"passed over {where}: {error}", err=True)


@command.command(
    "list",
    example="motorcade dead-letters list --since 1h\n"
    "motorcade dead-letters list --reason unknown-schema-id --topic vehicle.telemetry --json",
)
@_filters
@_json_flag
@with_settings(None, "kafka")
def list_(
    config: Config,
    *,
    since: int | None,
    reason: str | None,
    component: str | None,
    topic: str | None,
    as_json: bool,
) -> None:
    """Dead letters, oldest first: id, when, who, why, where from."""
    with needs("cloud"):
        from cloud.dead_letter_desk import LetterFilter, letters
        from cloud.letter_lines import letter_json, letter_line

        wanted = LetterFilter((), since, reason, component, topic)
        for letter in letters(config.section(KafkaSettings), wanted, on_broken=_passed_over):
            click.echo(letter_json(letter) if as_json else letter_line(letter))


@command.command(example="motorcade dead-letters show 17")
@click.argument("letter_id", metavar="ID")
@_json_flag
@with_settings(None, "kafka")
def show(config: Config, letter_id: str, as_json: bool) -> None:
    """A dead letter whole: key, headers, and its payload decoded and in hex."""
    with needs("cloud"):
        from cloud.dead_letter_desk import LetterFilter, letters
        from cloud.letter_lines import letter_json, letter_lines

        wanted = LetterFilter(_parsed((letter_id,)))
        for letter in letters(config.section(KafkaSettings), wanted, on_broken=_passed_over):
            lines = [letter_json(letter, decoded=True)] if as_json else letter_lines(letter)
            for line in lines:
                click.echo(line)


@command.command(
    example="motorcade dead-letters redrive 17 18 --dry-run\n"
    "motorcade dead-letters redrive --reason unknown-schema-id --since 1h --per-second 50"
)
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@_filters
@click.option("--to", help="Topic to send all of them to; needed for what came from MQTT.")
@click.option(
    "--per-second",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="Most messages in a second.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@_json_flag
@with_settings(None, "kafka")
def redrive(
    config: Config,
    *,
    letter_ids: tuple[str, ...],
    since: int | None,
    reason: str | None,
    component: str | None,
    topic: str | None,
    to: str | None,
    per_second: float,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Send messages back to the Kafka topic that they came from: payload, key and headers.

    Needs ids, or at least one filter. A payload that was cut is refused, and so is a message
    that was sent back three times already: each time adds a header redriven-from. Nothing
    remembers what was sent, so asking twice sends twice. Ends with status 1 if any was refused.
    """
    if not letter_ids and (since, reason, component, topic) == (None, None, None, None):
        raise click.UsageError("which ones? give ids, or a filter such as --since 1h")
    with needs("cloud"):
        from cloud.dead_letter_desk import LetterFilter, letters
        from cloud.dead_letter_desk import redrive as send_back

        kafka = config.section(KafkaSettings)
        wanted = LetterFilter(_parsed(letter_ids), since, reason, component, topic)
        # The end of the log is taken at the start: what fails again is not met in the same run.
        outcome = send_back(
            kafka,
            letters(kafka, wanted, on_broken=_passed_over),
            to=to,
            per_second=per_second,
            dry_run=dry_run,
            on_sent=lambda letter, target: _said(letter, target, dry_run, as_json),
        )
    for where, why in outcome.refused:
        click.echo(f"refused {where}: {why}", err=True)
    if as_json:
        emit({"redriven": outcome.sent, "refused": len(outcome.refused), "dry_run": dry_run})
    else:
        done = "would be redriven" if dry_run else "redriven"
        click.echo(f"{outcome.sent} {done}, {len(outcome.refused)} refused")
    return int(Exit.FAILED if outcome.refused else Exit.DONE)


def _said(letter: "Letter", target: str, dry_run: bool, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{letter.id} {'would go' if dry_run else 'sent'} to {target}")
