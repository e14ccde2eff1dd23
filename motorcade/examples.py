"""Commands whose `--help` starts with an example."""

from typing import Any

import click


def _write_example(example: str, formatter: click.HelpFormatter) -> None:
    with formatter.section("Example"):
        for line in example.splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class ExampleCommand(click.Command):
    """A command with an example.

    Attributes:
        example: Lines as typed into a shell.
    """

    def __init__(self, *arguments: Any, example: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example right behind the usage line, before all other words."""
        super().format_usage(ctx, formatter)
        _write_example(self.example, formatter)


class ExampleGroup(click.Group):
    """A group of commands with an example; its commands are ExampleCommands."""

    command_class = ExampleCommand

    def __init__(self, *arguments: Any, example: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example right behind the usage line, before all other words."""
        super().format_usage(ctx, formatter)
        _write_example(self.example, formatter)
