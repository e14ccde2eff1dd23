"""The control socket: asked, told, refused, replaced."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.control import ControlServer, Handler
from edge.control_client import NotRunningError, ask
from edge.control_wire import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX
from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    Reason,
    SettingsError,
    TransientError,
)

ERRORS = (
    ContractError(Reason.MODEL_HASH, "wrong bytes"),
    SettingsError("no key"),
    TransientError("disk full"),
    FencedError("taken over"),
    MotorcadeError("something else"),
)


@contextmanager
def serving(path: Path, **handlers: Handler) -> Iterator[ControlServer]:
    server = ControlServer(path, handlers)
    server.start()
    try:
        yield server
    finally:
        server.close()


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"got": arguments}


def test_a_command_gets_its_arguments_and_its_result_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "made" / "control.sock"
    with serving(path, echo=echo):
        assert ask(path, "echo", word="a\nä", count=3) == {"got": {"word": "a\nä", "count": 3}}
        assert ask(path, "echo") == {"got": {}}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_raised_again_at_the_client(tmp_path: Path, error: MotorcadeError) -> None:
    def fail(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    path = tmp_path / "c"
    with serving(path, fail=fail, echo=echo):
        with pytest.raises(MotorcadeError) as raised:
            ask(path, "fail")
        assert type(raised.value) is type(error)
        assert str(raised.value) == str(error)
        assert ask(path, "echo") == {"got": {}}


def test_a_fault_of_a_handler_is_told_and_the_server_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("missing")

    path = tmp_path / "c"
    with serving(path, broken=broken, echo=echo):
        with pytest.raises(MotorcadeError, match="broken failed: KeyError"):
            ask(path, "broken")
        assert ask(path, "echo", a=1) == {"got": {"a": 1}}
    assert "broken failed" in caplog.text


def test_an_unknown_command_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "c", status=echo, reload=echo),
        pytest.raises(ContractError, match="'sattus'; there are: reload, status"),
    ):
        ask(tmp_path / "c", "sattus")


def test_without_a_gateway_nobody_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no gateway listens"):
        ask(tmp_path / "c", "status")


def test_a_socket_that_a_killed_gateway_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(os.fspath(path))
    with pytest.raises(NotRunningError):
        ask(path, "echo")
    with serving(path, echo=echo):
        assert ask(path, "echo") == {"got": {}}


def test_one_that_another_gateway_listens_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with serving(path, echo=echo):
        with pytest.raises(SettingsError, match="another gateway listens"):
            ControlServer(path, {}).start()
        assert ask(path, "echo") == {"got": {}}


def test_a_file_that_lies_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("precious")
    with pytest.raises(SettingsError, match="no socket"):
        ControlServer(path, {}).start()
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_survives_the_end_of_its_predecessor(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with serving(path, echo=echo):
        path.unlink()
        successor = ControlServer(path, {"echo": echo})
        successor.start()
    try:
        assert ask(path, "echo") == {"got": {}}
    finally:
        successor.close()


def test_a_path_too_long_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 108)
    with pytest.raises(SettingsError, match=r"control_path: .* bytes; .* may have 107"):
        ControlServer(path, {}).start()
    with pytest.raises(SettingsError, match="may have 107"):
        ask(path, "status")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"no json\n", "no JSON"),
        (b"[]\n", "no JSON object"),
        (b'{"command": 3}\n', "a request has a command"),
        (b'{"command": "echo", "arguments": []}\n', "a request has a command"),
        (b"x" * (REQUEST_BYTES_MAX + 70_000), "more than"),
    ],
)
def test_a_hostile_line_is_refused(tmp_path: Path, sent: bytes, said: str) -> None:
    path = tmp_path / "c"
    with (
        serving(path, echo=echo),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker,
    ):
        asker.connect(os.fspath(path))
        asker.settimeout(30)
        asker.sendall(sent)
        answer = asker.makefile("rb").readline().decode()
    assert '"contract"' in answer
    assert said in answer


def test_an_answer_too_long_is_refused_at_its_maker(tmp_path: Path) -> None:
    def long(_: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * (ANSWER_BYTES_MAX + 1)}

    with (
        serving(tmp_path / "c", long=long),
        pytest.raises(ContractError, match="oversized"),
    ):
        ask(tmp_path / "c", "long")


def test_a_long_command_does_not_keep_the_next_one_waiting(tmp_path: Path) -> None:
    path = tmp_path / "c"
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        return {"went": go_on.wait(60)}

    went: list[dict[str, Any]] = []
    with serving(path, slow=slow, echo=echo):
        asker = threading.Thread(target=lambda: went.append(ask(path, "slow")))
        asker.start()
        assert begun.wait(60)
        assert ask(path, "echo") == {"got": {}}
        with pytest.raises(TransientError, match="did not answer"):
            ask(path, "slow", answer_s=0.05)
        go_on.set()
        asker.join(60)
    assert went == [{"went": True}]


def test_silent_askers_and_those_who_hang_up_block_nobody(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with serving(path, echo=echo):
        for sent in (b"", b'{"command": "echo"}\n', b'{"comm'):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
                asker.connect(os.fspath(path))
                asker.sendall(sent)
        assert ask(path, "echo") == {"got": {}}
