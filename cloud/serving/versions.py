"""The version of this installation."""

from functools import cache
from importlib.metadata import version


@cache
def server_version() -> str:
    """As the package states it."""
    return version("motorcade")
