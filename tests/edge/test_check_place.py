"""Looks at a gateway's own machine, and the budget that it states."""

import os
import socket
from pathlib import Path

import pytest

from edge.budget import BLOCK_BYTES, BLOCKS_A_COMMIT, DAY_S, Load, budget
from edge.check_place import (
    look_at_board,
    look_at_budget,
    look_at_control,
    look_at_disk,
    look_at_keys,
    spool_bytes_allowed,
)
from edge.rows import Telemetry
from edge.settings import GatewaySettings
from edge.spool.telemetry_codec import encode_rows
from schemas.errors import SettingsError


def place(directory: Path, **settings: object) -> GatewaySettings:
    wanted = {
        "spool_path": directory / "spool",
        "trusted_keys_path": directory / "keys",
        "disk_free_min_bytes": 0,
    }
    return GatewaySettings(**(wanted | settings))  # type: ignore[arg-type]


def test_a_row_takes_what_the_budget_says() -> None:
    load = Load(message_bytes=300)
    row = Telemetry("v" * 12, 1, 1, 1, 0, bytes(300), None)
    assert len(encode_rows([row], seed=0, position=1)) == load.row_bytes


@pytest.mark.parametrize(
    ("vehicles", "commit_ms", "rows"),
    [(1, 0, 1.0), (1, 500, 1.5), (100, 20, 3.0), (10**6, 500, 500)],
)
def test_group_commits_share_their_blocks(vehicles: int, commit_ms: int, rows: float) -> None:
    load = Load(vehicles, 1.0, 300)
    settings = GatewaySettings(group_commit_ms=commit_ms, group_commit_max=500)
    found = budget(settings, load, spool_bytes_allowed=10**9)
    assert found.loss_ms == commit_ms
    assert found.commits_hz == pytest.approx(vehicles / rows)
    a_day = DAY_S * vehicles * (load.row_bytes + BLOCKS_A_COMMIT * BLOCK_BYTES / rows)
    assert found.flash_bytes_a_day == pytest.approx(a_day)
    assert found.offline_s == pytest.approx(10**9 / (vehicles * load.row_bytes))


def test_the_budget_is_stated_in_words(tmp_path: Path) -> None:
    text = look_at_budget(place(tmp_path, group_commit_ms=35), Load(40, 2.0))
    assert "at most 35 ms of unacknowledged data" in text
    assert "40 vehicles x 2 messages/s x 300 bytes" in text
    assert "offline, the spool holds" in text


def test_a_quota_that_the_disk_has_no_room_for_is_told(tmp_path: Path) -> None:
    settings = place(tmp_path, spool_bytes_max=1 << 60)
    assert "but there is room for" in look_at_disk(settings)
    assert spool_bytes_allowed(settings) < 1 << 60
    assert "but there is" not in look_at_disk(place(tmp_path, spool_bytes_max=1 << 20))
    with pytest.raises(SettingsError, match="wanted"):
        look_at_disk(place(tmp_path, disk_free_min_bytes=1 << 60))


@pytest.mark.parametrize(("machine", "bits"), [("armv7l", 64), ("armv6l", 32), ("aarch64", 32)])
def test_a_32_bit_system_is_refused_in_words(machine: str, bits: int) -> None:
    with pytest.raises(SettingsError, match="install a 64-bit system"):
        look_at_board(machine, bits=bits)
    assert "aarch64" in look_at_board("aarch64")


def test_required_signatures_want_a_key(tmp_path: Path) -> None:
    assert "unsigned models are taken" in look_at_keys(place(tmp_path))
    with pytest.raises(SettingsError, match="every model would be refused"):
        look_at_keys(place(tmp_path, signatures_required=True))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "fleet.pub").write_text("x")
    assert "1 trusted: fleet" in look_at_keys(place(tmp_path, signatures_required=True))


def test_the_place_of_the_control_socket_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "c"
    assert "will be made" in look_at_control(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gateway:
        gateway.bind(os.fspath(path))
        assert "left by an earlier one" in look_at_control(path)
        gateway.listen()
        assert "a gateway listens" in look_at_control(path)
    path.unlink()
    path.write_text("x")
    with pytest.raises(SettingsError, match="no socket"):
        look_at_control(path)
