"""The command line: finds the command, and turns errors into one line and an exit status."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from motorcade.examples import ExampleGroup
from motorcade.exits import Exit, exit_of
from schemas.errors import MotorcadeError

# Command to the module under `motorcade.commands` that holds it, and its one line of help.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Show the whole mission on this machine in about a minute and a half."),
    "stack": ("stack", "Start, stop and look at local brokers."),
    "topics": ("topics", "Topics and schemas on brokers of your own."),
    "simulate": ("simulate", "Drive a simulated or recorded fleet over MQTT."),
    "gateway": ("gateway", "The edge gateway: store, score, alert, forward."),
    "train": ("train", "Train a model on a stretch of the Kafka log and publish it."),
    "models": ("models", "List, publish, promote, roll back and compare models."),
    "keys": ("keys", "Keys that sign models, and those that a gateway trusts."),
    "experiments": ("experiments", "Try a version on a part of the fleet: A/B, canary, shadow."),
    "score": ("score", "Score the fleet's readings in Kafka, exactly once."),
    "serve": ("serve", "Serve the models of the log over REST, gRPC and Kafka."),
    "request": ("request", "Ask the model server for scores, over Kafka."),
    "monitor": ("monitor", "Watch drift, quality and experiments; roll back and promote."),
    "dead-letters": (
        "dead_letters",
        "Look at what could not be processed, and send it back.",
    ),
    "watch": ("watch", "Look at what comes out."),
    "bench": ("bench", "Measure this machine."),
    "doctor": ("doctor", "Say what is missing on this machine, with the fix."),
}


class LazyGroup(ExampleGroup):
    """Imports a command's module when it is asked for, and lists the others without."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"motorcade.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands for `--help`, from COMMANDS alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    example="motorcade demo --vehicles 50 --duration 60",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="motorcade", message="%(version)s")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file; default: MOTORCADE_CONFIG, else motorcade.toml here.",
)
@click.option("--debug", is_flag=True, envvar="MOTORCADE_DEBUG", help="Show tracebacks.")
def cli(config: Path | None, debug: bool) -> None:
    """Streaming machine learning for connected cars, from the vehicle to the cloud."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command; errors made on purpose become one line on stderr.

    Returns:
        The exit status, see `motorcade.exits`.
    """
    try:
        result: Any = cli.main(arguments, prog_name="motorcade", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return int(Exit.SETTINGS)
    except (click.Abort, KeyboardInterrupt):
        return int(Exit.INTERRUPTED)
    except MotorcadeError as error:
        if _debug(arguments):
            raise
        click.echo(f"motorcade: {error}", err=True)
        return int(exit_of(error))
    except BrokenPipeError:
        # The reader of a pipe went away (`motorcade watch alerts | head`): nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.DONE)
    return int(result) if isinstance(result, int) else int(Exit.DONE)


def _debug(arguments: list[str]) -> bool:
    return "--debug" in arguments or os.environ.get("MOTORCADE_DEBUG", "") not in ("", "0", "false")
