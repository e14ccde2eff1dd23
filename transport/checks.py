"""What a check of this machine, or of a part before it starts, found out."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was checked.

    Attributes:
        name: What was checked, in a word or two.
        verdict: FAIL if something will not work, WARN if it may not or is optional.
        message: What was found.
        fix: What to do about it; empty if nothing is.
    """

    name: str
    verdict: Verdict
    message: str
    fix: str = ""
