"""Where releases come from, and what becomes of them: the values that `edge.updates` speaks in."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.topics import RELEASES

CATALOG = RELEASES.name


class Came(StrEnum):
    """What became of a release."""

    INSTALLED = "installed"
    SAME = "same"
    REFUSED = "refused"
    PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a release, for whoever brought it.

    Attributes:
        came: In a word.
        version: Of the model.
        detail: In a sentence.
        mendable: Whether other settings or keys would change it.
    """

    came: Came
    version: str
    detail: str
    mendable: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where a release comes from.

    Attributes:
        text: In words, for people.
        by_hand: Whether somebody chose it for this very gateway.
        content: SHA-256 of the inbox's file; empty for others.
        again: Whether it is to be tried although it was refused before.
    """

    text: str = CATALOG
    by_hand: bool = False
    content: str = ""
    again: bool = False
