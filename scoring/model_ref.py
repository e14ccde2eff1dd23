"""How people name a model. Light: settings and command lines import it."""

from dataclasses import dataclass

from schemas.errors import ContractError, Reason

CHAMPION = "champion"
"""Alias of the version that scores where nothing else is said."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as people name it: `anomaly`, `anomaly@champion`, `anomaly@20261124-1200`.

    Attributes:
        name: Model name.
        selector: Alias or version; 'champion' where none is given.
    """

    name: str
    selector: str = CHAMPION

    @staticmethod
    def parse(text: str) -> "ModelRef":
        """Read `name` or `name@selector`.

        Raises:
            ContractError: MALFORMED: an empty part.

        Example:
            >>> ModelRef.parse("anomaly@challenger")
            ModelRef(name='anomaly', selector='challenger')
        """
        name, at, selector = text.partition("@")
        if not name or (at and not selector):
            raise ContractError(
                Reason.MALFORMED, f"model {text!r}; it may be NAME or NAME@ALIAS or NAME@VERSION"
            )
        return ModelRef(name, selector or CHAMPION)

    def __str__(self) -> str:
        return f"{self.name}@{self.selector}"
