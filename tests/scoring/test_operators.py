"""Operators of a model, and which of them the runtime here lacks; the order of versions."""

import doctest
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest
from scoring_bundles import small_bundle

import scoring.operators
import scoring.versions
from scoring.flatbuffer import Operator, check_tflite, model_operators, model_ports
from scoring.operators import _NAMES, _is_there, _probe, in_words, lacking_operators
from scoring.versions import is_older

CUSTOM = 32


def test_a_model_names_its_operators_and_ports() -> None:
    bundle = small_bundle()
    names = [in_words(operator) for operator in model_operators(bundle.model)]
    assert "FULLY_CONNECTED version 1" in names
    (taken,), (given,) = model_ports(bundle.model)
    assert taken.shape[1:] == given.shape[1:] == (len(bundle.manifest.features),)
    assert taken.is_float32 and given.is_float32
    assert lacking_operators(bundle.model) == []


def test_the_runtime_is_asked_with_sound_bytes() -> None:
    for code in (0, 9, 126, 127, 128, 200):
        probe = _probe(code, 3)
        check_tflite(probe)
        assert model_operators(probe) == (Operator(code, 3),)


@pytest.mark.parametrize(
    ("operator", "there"),
    [
        (Operator(9, 1), True),
        (Operator(9, 99), False),
        (Operator(29, 1), False),
        (Operator(100_000, 1), False),
        (Operator(CUSTOM, 1, "FlexErf"), False),
    ],
)
def test_the_runtime_knows_what_it_has(operator: Operator, there: bool) -> None:
    assert _is_there(operator) is there


def test_names_are_those_of_the_schema() -> None:
    # Its module by its path: importing TensorFlow itself takes ten seconds.
    [home] = find_spec("tensorflow").submodule_search_locations  # type: ignore[union-attr,misc]
    spec = spec_from_file_location("schema", f"{home}/lite/python/schema_py_generated.py")
    assert spec is not None and spec.loader is not None
    schema = module_from_spec(spec)
    spec.loader.exec_module(schema)
    numbers = {name: n for name, n in vars(schema.BuiltinOperator).items() if isinstance(n, int)}
    assert {name: number for number, name in enumerate(_NAMES)} == numbers


def test_examples_run() -> None:
    for module in (scoring.operators, scoring.versions):
        failed, tried = doctest.testmod(module)
        assert tried and not failed


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("9", "10"),
        ("1.9", "1.10"),
        ("v2", "v11"),
        ("20261122T183012Z-ffff", "20261124T000000Z-0000"),
        ("2-rc1", "2-rc2"),
        ("1", "1.1"),
        ("1.0-rc", "1.0.1"),
    ],
)
def test_numbers_in_versions_count_as_numbers(older: str, newer: str) -> None:
    assert is_older(older, newer)
    assert not is_older(newer, older) and not is_older(older, older)
