"""The command reference, from the click tree; and whether a command line would be accepted."""

import inspect
import shlex
from collections.abc import Iterator

import click

from motorcade.cli import cli
from motorcade.examples import ExampleCommand, ExampleGroup
from motorcade.exits import EXIT_DOC

_OPERATORS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "2>", "<"})
_HEADER = """# Commands

Made by `python -m motorcade.docs write` from the code; do not edit.

Flags go over `MOTORCADE_…` variables, these over `motorcade.toml`
([configuration](configuration.md)). Secrets have no flag, only a flag for a file that holds them.
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every group and command with its full name, in the order of `--help`."""
    yield from _walk("motorcade", cli, None)


def _walk(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from _walk(f"{name} {child}", found, context)


def refusal(line: str) -> str:
    """Why the command line would refuse a line of shell; '' if it would accept it."""
    try:
        arguments = _words(line)
        _parse(arguments[1:])
    except (click.ClickException, ValueError) as error:
        return error.format_message() if isinstance(error, click.ClickException) else str(error)
    return ""


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    end = next((i for i, word in enumerate(words) if word in _OPERATORS), len(words))
    return words[:end]


def _parse(arguments: list[str]) -> None:
    """Parse down the tree, running nothing. Raises click's errors."""
    command: click.Command = cli
    name, parent = "motorcade", None
    while True:
        # Help and version would exit; everything else only parses.
        if {"--help", "-h", "--version"} & set(arguments):
            return
        context = command.make_context(name, list(arguments), parent=parent)
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        found, next_command, arguments = command.resolve_command(context, rest)
        if next_command is None:
            raise click.UsageError(f"no such command: {rest[0]}")
        name, command, parent = found or rest[0], next_command, context


def commands_page() -> str:
    """docs/commands.md."""
    sections = [_section(name, command) for name, command in commands()]
    return "\n".join([_HEADER, *sections, _exits()])


def _section(name: str, command: click.Command) -> str:
    lines = [f"## {name}", "", *_example(command), inspect.cleandoc(command.help or ""), ""]
    context = click.Context(command, info_name=name)
    rows = [_row(p, context) for p in command.params if isinstance(p, click.Option)]
    if rows:
        lines += ["| flag | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _example(command: click.Command) -> list[str]:
    if not isinstance(command, ExampleCommand | ExampleGroup):
        return []
    return ["```console", *command.example.splitlines(), "```", ""]


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    record = option.get_help_record(context)
    meaning = record[1] if record else ""
    return f"| {names} | {meaning.replace('|', '&#124;')} |"


def _exits() -> str:
    rows = [f"| {status.value} | {text} |" for status, text in EXIT_DOC.items()]
    return "\n".join(["## Exit status", "", "| status | meaning |", "| --- | --- |", *rows, ""])
