"""The schema registry as a part of the stack."""

import sys
from dataclasses import dataclass
from pathlib import Path

from deploy import probes


@dataclass(frozen=True)
class Registry:
    """Schema registry part of the stack.

    Attributes:
        directory: Its own directory.
        port: Port for HTTP.
    """

    directory: Path
    port: int
    name: str = "registry"
    program: str = "Motorcade schema registry"

    @property
    def ports(self) -> tuple[int, ...]:
        """For clients."""
        return (self.port,)

    @property
    def log(self) -> Path:
        """What went wrong in it."""
        return self.directory / "output.log"

    def prepare(self) -> None:
        """Make its directory."""
        self.directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Run the registry in the foreground."""
        return [
            sys.executable,
            "-m",
            "deploy.registry",
            "--port",
            str(self.port),
            "--file",
            str(self.directory / "schemas.sqlite"),
        ]

    def answers(self) -> bool:
        """Whether it lists its subjects."""
        return probes.registry_answers(self.port)
