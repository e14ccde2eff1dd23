"""What a setting may be, declared at its key: one declaration for the check, the error, the page.

    group_commit_ms: Annotated[int, Between(0, 500, unit="ms"), LIVE] = 20

Pure. `check` refuses a settings dataclass; `motorcade.config` asks `limits_of` and knows the line
of the file as well.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from schemas.errors import SettingsError


@runtime_checkable
class Limit(Protocol):
    """What values a setting may have."""

    @property
    def text(self) -> str:
        """For a person, to stand behind 'it may be'."""

    def allows(self, value: Any) -> bool:
        """Whether it may be this; None, where a key can be without a value, is not asked."""


@dataclass(frozen=True, slots=True)
class Between:
    """A number in a range, both ends allowed.

    Attributes:
        minimum: Least value.
        maximum: Greatest value; None: no limit.
        unit: Of both.
        above: The least value itself is not allowed.

    Example:
        >>> Between(0, 500, unit="ms").text, Between(1).text, Between(0, 1, above=True).text
        ('0 to 500 ms', '1 or more', 'more than 0, up to 1')
    """

    minimum: float
    maximum: float | None = None
    unit: str = ""
    above: bool = False

    @property
    def text(self) -> str:
        """As of `Limit`."""
        unit = f" {self.unit}" if self.unit else ""
        low = f"more than {self.minimum:.12g}" if self.above else f"{self.minimum:.12g}"
        if self.maximum is None:
            return f"{low}{unit}" if self.above else f"{low}{unit} or more"
        return f"{low}{', up to' if self.above else ' to'} {self.maximum:.12g}{unit}"

    def allows(self, value: Any) -> bool:
        """As of `Limit`; never NaN."""
        low = value > self.minimum if self.above else value >= self.minimum
        return bool(low and (self.maximum is None or value <= self.maximum))


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few values.

    Example:
        >>> OneOf((4, 5)).text
        '4 or 5'
    """

    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        """As of `Limit`."""
        *most, last = (str(value) for value in self.values)
        return f"{', '.join(most)} or {last}" if most else last

    def allows(self, value: Any) -> bool:
        """As of `Limit`."""
        return value in self.values


@dataclass(frozen=True, slots=True)
class Words:
    """Text of a bounded length.

    Attributes:
        bytes_min: In UTF-8.
        bytes_max: In UTF-8.
        without: Characters that it may not have. Control characters it never may.
    """

    bytes_min: int
    bytes_max: int
    without: str = ""

    @property
    def text(self) -> str:
        """As of `Limit`."""
        without = f" without {' '.join(self.without)}" if self.without else ""
        return f"{self.bytes_min} to {self.bytes_max} bytes{without}"

    def allows(self, value: Any) -> bool:
        """As of `Limit`."""
        text = str(value)
        sound = text.isprintable() and not any(letter in self.without for letter in text)
        return sound and self.bytes_min <= len(text.encode()) <= self.bytes_max


class Live:
    """Marks a key that may change while the program runs."""


LIVE = Live()


def limits_of(kind: type[Any]) -> dict[str, Limit]:
    """The limit of each key of a settings dataclass that has one."""
    return {name: found[0] for name, found in _marks(kind, Limit).items()}


def live_keys(kind: type[Any]) -> frozenset[str]:
    """Keys of a settings dataclass that may change while the program runs."""
    return frozenset(_marks(kind, Live))


def fault(kind: type[Any], key: str, value: Any) -> str | None:
    """What is wrong with the value of a key, and what it may be; None if nothing is.

    Example:
        >>> @dataclass
        ... class Some:
        ...     port: Annotated[int, Between(1, 65_535)] = 1
        >>> fault(Some, "port", 0)
        'port is 0; it may be 1 to 65535'
    """
    return _fault(limits_of(kind).get(key), key, value)


def _fault(limit: Limit | None, key: str, value: Any) -> str | None:
    if limit is None or value is None or limit.allows(value):
        return None
    return f"{key} is {value!r}; it may be {limit.text}"


def check(settings: Any, *, of: str = "") -> None:
    """Refuse settings of which one is not among what it may be.

    Args:
        settings: Of a dataclass whose keys have limits.
        of: What to call them, such as 'mqtt'.

    Raises:
        SettingsError: Names each such key, its value, and what it may be.
    """
    limits = limits_of(type(settings))
    found = (_fault(limit, name, getattr(settings, name)) for name, limit in limits.items())
    wrong = [text for text in found if text is not None]
    if wrong:
        raise SettingsError(f"{of} {'; '.join(wrong)}".strip())


def _marks(kind: type[Any], wanted: type[Any]) -> dict[str, list[Any]]:
    """What is annotated to each key, of one kind; keys without are left out."""
    hints = get_type_hints(kind, include_extras=True)
    found = {
        field.name: [mark for mark in _metadata(hints[field.name]) if isinstance(mark, wanted)]
        for field in dataclasses.fields(kind)
    }
    return {name: marks for name, marks in found.items() if marks}


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
