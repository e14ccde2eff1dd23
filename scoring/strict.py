"""Reading of parsed JSON that takes nothing on trust."""

from schemas.errors import ContractError, Reason

ITEMS_MAX = 100_000


class Fields:
    """The keys of one JSON object, each to be taken once, with its type.

    Args:
        parsed: What the JSON parser gave.
        what: Names the object in error messages.

    Raises:
        ContractError: MODEL_INVALID, from the constructor and every method: no object, a key
            missing, a value of another type, or (`end`) a key that nobody took.
    """

    def __init__(self, parsed: object, what: str) -> None:
        if not isinstance(parsed, dict):
            raise ContractError(Reason.MODEL_INVALID, f"{what} is not an object")
        self._left: dict[str, object] = dict(parsed)
        self._what = what

    @property
    def names(self) -> tuple[str, ...]:
        """The keys not taken yet."""
        return tuple(self._left)

    def value(self, key: str) -> object:
        """Any value, null included."""
        if key not in self._left:
            raise ContractError(Reason.MODEL_INVALID, f"{self._what} has no {key!r}")
        return self._left.pop(key)

    def text(self, key: str) -> str:
        """A string."""
        value = self.value(key)
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def integer(self, key: str) -> int:
        """A whole number that fits 64 bits; `1.0` and `true` are none."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise self._wrong(key, "a whole number")
        return value

    def number(self, key: str) -> float:
        """A number; JSON's extensions NaN and Infinity pass here and fail where values count."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        try:
            return float(value)
        except OverflowError as error:
            raise self._wrong(key, "a number") from error

    def number_or_null(self, key: str) -> float | None:
        """A number, or None for null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.number(key)

    def array(self, key: str) -> list[object]:
        """An array of at most `ITEMS_MAX`."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) > ITEMS_MAX:
            raise self._wrong(key, "an array")
        return value

    def end(self) -> None:
        """All keys must have been taken."""
        if self._left:
            unknown = ", ".join(sorted(self._left))
            raise ContractError(Reason.MODEL_INVALID, f"{self._what}: unknown {unknown}")

    def _wrong(self, key: str, expected: str) -> ContractError:
        return ContractError(Reason.MODEL_INVALID, f"{self._what}: {key} is not {expected}")
