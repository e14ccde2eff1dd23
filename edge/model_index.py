"""What a gateway knows of its models, as one value: which is in use, and which it will not have.

It is one small JSON file, replaced whole, so every step from one model to another is one rename on
the disk. Pure: each method gives the index after a step.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from schemas.errors import ContractError, Reason
from scoring.strict import Fields
from scoring.versions import is_older

FORMAT = 1
REFUSED_MAX = 64
"""Refused releases that are remembered; the oldest is forgotten."""

JUDGED_MAX = 256
"""Files of an inbox that are remembered as judged; the oldest is forgotten."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """A release on the disk.

    Attributes:
        name: Of the model.
        version: Of it.
        release: SHA-256 of the release, 64 hex digits; names its file.
        model_sha256: Of the TFLite bytes.
        signer: Who signed it, in words.
        source: Where it came from, in words.
        since_ms: When it came to be what it is, by the gateway's clock.
        attempts: Trials that were begun with it; of the current one, crashes since it came.
    """

    name: str
    version: str
    release: str
    model_sha256: str
    signer: str
    source: str
    since_ms: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A release that this gateway will not have.

    Attributes:
        version: Of the model; empty where it could not be read.
        release: SHA-256 of the release, or of the file where that could not be read.
        reason: One of `schemas.errors.Reason`.
        detail: The same in a sentence.
        signer: Who signed it, in words; empty where that was not looked at.
        source: Where it came from.
        time_ms: When it was refused.
    """

    version: str
    release: str
    reason: str
    detail: str
    signer: str
    source: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Pin:
    """A choice made by hand, which the fleet's champion of that time does not undo.

    Attributes:
        champion: Release that was the champion then; empty: none was known.
        generation: Of the traffic then; -1: unknown.
    """

    champion: str = ""
    generation: int = -1


@dataclass(frozen=True, slots=True)
class Index:
    """All of it.

    Attributes:
        current: What scores; None: nothing.
        previous: What the gateway goes back to.
        staged: What is tried just now, or was when the gateway's life ended.
        refused: Oldest first.
        pin: While a choice by hand holds.
        champion: The champion that was seen last, and its generation.
        judged: SHA-256 of files of the inbox that were judged, oldest first.
        rolled_back: Why the gateway last went back by itself; empty: it never did.
    """

    current: Kept | None = None
    previous: Kept | None = None
    staged: Kept | None = None
    refused: tuple[Refusal, ...] = ()
    pin: Pin | None = None
    champion: Pin = Pin()
    judged: tuple[str, ...] = ()
    rolled_back: str = ""

    def refusal_of(self, release: str) -> Refusal | None:
        """Why a release was refused, if it was."""
        return next((each for each in self.refused if each.release == release), None)

    def trying(self, kept: Kept) -> "Index":
        """A release is on the disk and about to be tried."""
        before = self.staged
        tried = before.attempts if before is not None and before.release == kept.release else 0
        return replace(self, staged=replace(kept, attempts=tried + 1))

    def swapped(self, kept: Kept) -> "Index":
        """A release has passed: it is the current one, and that of before its predecessor.

        A model of another name is nobody's predecessor.
        """
        before = self.previous if _is(self.current, kept.release) else self.current
        return replace(
            self.allowing(kept.release),
            current=replace(kept, attempts=0),
            previous=before if before is not None and before.name == kept.name else None,
            staged=None,
        )

    def refusing(self, refusal: Refusal) -> "Index":
        """A release is refused, whatever it was until now."""
        others = self.allowing(refusal.release)
        return replace(
            others,
            refused=(*others.refused, refusal)[-REFUSED_MAX:],
            staged=_unless(self.staged, refusal.release),
            previous=_unless(self.previous, refusal.release),
        )

    def allowing(self, release: str) -> "Index":
        """A release is not refused any more."""
        return replace(self, refused=tuple(r for r in self.refused if r.release != release))

    def retreated(self, refusal: Refusal, *, told: str) -> "Index":
        """The current release is refused; its predecessor, if there is one, scores again."""
        return replace(self.without_current().refusing(refusal), rolled_back=told)

    def without_current(self) -> "Index":
        """The current release is unusable; its predecessor takes its place."""
        return replace(self, current=self.previous, previous=None)

    def crashed(self) -> "Index":
        """The gateway has crashed in the current release."""
        current = self.current
        if current is None:
            return self
        return replace(self, current=replace(current, attempts=current.attempts + 1))

    def turned_back(self, *, now_ms: int) -> "Index":
        """By hand to the predecessor, which changes places with the current one, and pinned."""
        previous = self.previous
        current = None if previous is None else replace(previous, since_ms=now_ms, attempts=0)
        return replace(self, current=current, previous=self.current).pinned()

    def pinned(self) -> "Index":
        """What is current was chosen by hand."""
        return replace(self, pin=self.champion)

    def is_pinned(self, release: str, version: str) -> bool:
        """Whether a choice by hand stands against the champion, which is this release.

        One made without knowledge of a champion gives way to a newer version only.
        """
        pin, current = self.pin, self.current
        if pin is None or _is(current, release):
            return False
        if pin.champion or current is None:
            return bool(pin.champion)
        return not is_older(current.version, version)

    def seeing(self, champion: Pin) -> "Index":
        """The fleet has this champion; a pin made for another one holds no more."""
        pin = self.pin
        if pin is not None and pin.champion:
            changed = pin.champion != champion.champion or pin.generation < champion.generation
            pin = None if changed else pin
        return replace(self, champion=champion, pin=pin)

    def judging(self, content: str) -> "Index":
        """A file of the inbox was judged."""
        return replace(self, judged=(*self.judged, content)[-JUDGED_MAX:])

    def to_json(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str) -> "Index":
        """Read what `to_json` wrote.

        Raises:
            ContractError: MODEL_INVALID: it is something else.
        """
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ContractError(Reason.MODEL_INVALID, f"no JSON: {error}") from error
        top = Fields(parsed, "index")
        if (version := top.integer("format")) != FORMAT:
            raise ContractError(Reason.MODEL_INVALID, f"index of format {version}, not {FORMAT}")
        index = Index(
            current=_optional(top.value("current"), _kept),
            previous=_optional(top.value("previous"), _kept),
            staged=_optional(top.value("staged"), _kept),
            refused=tuple(_refusal(each) for each in top.array("refused")),
            pin=_optional(top.value("pin"), _pin),
            champion=_pin(top.value("champion")),
            judged=tuple(str(each) for each in top.array("judged")),
            rolled_back=top.text("rolled_back"),
        )
        top.end()
        return index


def _is(kept: Kept | None, release: str) -> bool:
    return kept is not None and kept.release == release


def _unless(kept: Kept | None, release: str) -> Kept | None:
    return None if _is(kept, release) else kept


def _optional(value: object, read: Callable[[object], T]) -> T | None:
    return None if value is None else read(value)


def _kept(value: object) -> Kept:
    fields = Fields(value, "release")
    kept = Kept(
        **_texts(fields, "name", "version", "release", "model_sha256", "signer", "source"),
        since_ms=fields.integer("since_ms"),
        attempts=fields.integer("attempts"),
    )
    fields.end()
    return kept


def _refusal(value: object) -> Refusal:
    fields = Fields(value, "refusal")
    refusal = Refusal(
        **_texts(fields, "version", "release", "reason", "detail", "signer", "source"),
        time_ms=fields.integer("time_ms"),
    )
    fields.end()
    return refusal


def _pin(value: object) -> Pin:
    fields = Fields(value, "pin")
    pin = Pin(fields.text("champion"), fields.integer("generation"))
    fields.end()
    return pin


def _texts(fields: Fields, *names: str) -> dict[str, Any]:
    return {name: fields.text(name) for name in names}
