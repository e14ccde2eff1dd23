"""What is compatible, by level."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.registry_rules import LEVELS, RegistryError, canonical, incompatibilities


def record(**fields: Any) -> str:
    def field(name: str, kind: Any) -> dict[str, Any]:
        default = {"default": None} if isinstance(kind, list) else {}
        return {"name": name, "type": kind, **default}

    return json.dumps(
        {"type": "record", "name": "R", "fields": [field(*item) for item in fields.items()]}
    )


A = record(a="int")
A_OPTIONAL_B = record(a="int", b=["null", "int"])
A_B = record(a="int", b="int")
A_LONG = record(a="long")


@pytest.mark.parametrize(
    ("level", "earlier", "candidate", "fits"),
    [
        ("BACKWARD", [A], A_OPTIONAL_B, True),
        ("BACKWARD", [A], A_B, False),
        ("BACKWARD", [A_B], A, True),
        ("BACKWARD", [A], A_LONG, True),
        ("BACKWARD", [A_LONG], A, False),
        ("BACKWARD", [A_LONG, A], A, True),
        ("BACKWARD_TRANSITIVE", [A_LONG, A], A, False),
        ("FORWARD", [A], A_B, True),
        ("FORWARD", [A_B], A, False),
        ("FORWARD", [A_B, A], A, True),
        ("FORWARD_TRANSITIVE", [A_B, A], A, False),
        ("FULL", [A], A_OPTIONAL_B, True),
        ("FULL", [A], A_B, False),
        ("FULL", [A_B], A, False),
        ("FULL_TRANSITIVE", [A_B, A], A, False),
        ("NONE", [A], '"string"', True),
    ],
)
def test_levels(level: str, earlier: list[str], candidate: str, fits: bool) -> None:
    assert (incompatibilities(candidate, earlier, level) == []) is fits


@pytest.mark.parametrize("level", LEVELS)
def test_the_first_schema_and_the_same_again_fit_always(level: str) -> None:
    assert incompatibilities(A, [], level) == []
    assert incompatibilities(A, [A], level) == []


def test_blanks_and_order_of_attributes_make_no_other_schema_but_documentation_does() -> None:
    shuffled = json.dumps(dict(reversed(json.loads(A).items())), indent=2)
    assert canonical(shuffled) == canonical(A)
    assert canonical(json.dumps({**json.loads(A), "doc": "x"})) != canonical(A)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "size", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values.map(json.dumps) | st.text(max_size=40))
def test_whatever_is_offered_as_a_schema_is_taken_or_refused_by_code(text: str) -> None:
    try:
        canonical(text)
    except RegistryError as error:
        assert error.code == 42201
