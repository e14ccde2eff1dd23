"""Exit statuses, one a family of errors, so that a supervisor can tell what to do next."""

from enum import IntEnum

from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    SettingsError,
    TransientError,
)


class Exit(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    SETTINGS = 2
    FENCED = 3
    TRANSIENT = 4
    CONTRACT = 5
    INTERRUPTED = 130


EXIT_DOC: dict[Exit, str] = {
    Exit.DONE: "Done.",
    Exit.FAILED: "It ran and failed: readings lost or repeated, a check not passed.",
    Exit.SETTINGS: "The settings or the installation cannot work; change them.",
    Exit.FENCED: "Another process took over this identity; do not restart this one.",
    Exit.TRANSIENT: "A broker or the network was in the way; start again later.",
    Exit.CONTRACT: "The input broke the contract; starting again will not help.",
    Exit.INTERRUPTED: "Stopped by Ctrl-C.",
}

_FAMILIES: tuple[tuple[type[MotorcadeError], Exit], ...] = (
    (SettingsError, Exit.SETTINGS),
    (FencedError, Exit.FENCED),
    (TransientError, Exit.TRANSIENT),
    (ContractError, Exit.CONTRACT),
)


def exit_of(error: MotorcadeError) -> Exit:
    """The exit status that tells a supervisor what kind of error ended a command."""
    return next((status for family, status in _FAMILIES if isinstance(error, family)), Exit.FAILED)
