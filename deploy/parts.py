"""What the stack needs to know of a part."""

from pathlib import Path
from typing import Protocol


class Part(Protocol):
    """One program of the local stack: it says how to run it, and never runs it."""

    @property
    def name(self) -> str:
        """`kafka`, `mqtt` or `registry`."""
        ...

    @property
    def program(self) -> str:
        """What runs, for people."""
        ...

    @property
    def directory(self) -> Path:
        """Its own directory, where its data lives."""
        ...

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that must be free before it starts; the one clients use comes first."""
        ...

    @property
    def log(self) -> Path:
        """Its log file."""
        ...

    def prepare(self) -> None:
        """Write its settings, and make its store if there is none yet. May take seconds.

        Raises:
            SettingsError: Something it needs is missing.
            TransientError: Its store could not be made.
        """
        ...

    def command(self) -> list[str]:
        """The command line that runs it in the foreground."""
        ...

    def answers(self) -> bool:
        """Whether it answers a client now; takes two seconds at most."""
        ...
