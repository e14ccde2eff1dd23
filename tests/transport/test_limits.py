"""What a setting may be: declared once, refused in words."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from schemas.errors import SettingsError
from transport.limits import LIVE, Between, Limit, OneOf, Words, check, limits_of, live_keys


@dataclass
class Some:
    rate: Annotated[float, Between(0, 2, unit="s", above=True), LIVE] = 1.0
    kind: Annotated[str | None, OneOf(("a", "b", "c"))] = None
    plain: int = -5


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        (Between(0, 500), (0, 500, 0.5), (-1, 501, float("nan"), float("inf"))),
        (Between(0, 1, above=True), (1e-9, 1), (0, 1.1, float("nan"))),
        (Between(3), (3, 1 << 80), (2,)),
        (OneOf((4, 5)), (4, 5), (3, 6)),
        (Words(1, 4, without="/"), ("a", "äö", "a b"), ("", "äöü", "a/b", "a\n", "\0")),
    ],
)
def test_what_is_allowed(limit: Limit, good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    assert all(limit.allows(value) for value in good)
    assert not any(limit.allows(value) for value in bad)
    assert limit.text


def test_a_declaration_is_read_from_the_dataclass() -> None:
    assert set(limits_of(Some)) == {"rate", "kind"}
    assert live_keys(Some) == {"rate"}
    check(Some())


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        check(Some(rate=0.0, kind="d"), of="some")
    assert str(raised.value) == (
        "some rate is 0.0; it may be more than 0, up to 2 s; kind is 'd'; it may be a, b or c"
    )
