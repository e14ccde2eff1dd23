"""The systemd units: sound by `systemd-analyze verify`, and 2.0 or better by its `security`."""

import re
import shutil
from pathlib import Path

import pytest
from pi_files import SYSTEMD, need, run

SERVICES = ("motorcade-gateway.service", "mosquitto.service")
MOUNTS = ("media-motorcade.mount", "var-lib-motorcade.mount")
EXPOSURE_MAX = 2.0
BACKOFF_SINCE = 254

# As Debian ships it; the drop-in stands on it.
MOSQUITTO = """\
[Unit]
Description=Mosquitto MQTT Broker
After=network.target
Wants=network.target

[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
ExecStartPre=/bin/mkdir -m 740 -p /var/log/mosquitto

[Install]
WantedBy=multi-user.target
"""

# What the units wait for, so that nothing of this machine is needed.
TARGETS = (
    *("sysinit", "basic", "shutdown", "local-fs", "local-fs-pre", "multi-user", "umount"),
    *("network", "initrd-switch-root", "sockets", "timers", "paths", "slices"),
)


def systemd_version() -> int:
    found = re.match(r"systemd (\d+)", run(need("systemd-analyze"), "--version").stdout)
    assert found is not None
    return int(found[1])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with the units, and something at the places that they run."""
    root = tmp_path_factory.mktemp("units")
    vendor, units = root / "usr/lib/systemd/system", root / "etc/systemd/system"
    vendor.mkdir(parents=True)
    for name in TARGETS:
        (vendor / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n", "utf-8")
    (vendor / "mosquitto.service").write_text(MOSQUITTO, "utf-8")
    shutil.copytree(SYSTEMD, units)
    for path in ("opt/motorcade/current/bin/motorcade", "usr/sbin/mosquitto", "bin/kill"):
        program = root / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n", "utf-8")
        program.chmod(0o755)
    if systemd_version() < BACKOFF_SINCE:
        shutil.rmtree(units / "motorcade-gateway.service.d")
    return root


@pytest.mark.parametrize("unit", [*SERVICES, *MOUNTS])
def test_a_unit_is_sound(root: Path, unit: str) -> None:
    done = run(need("systemd-analyze"), "verify", f"--root={root}", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_exposes_little(root: Path, unit: str) -> None:
    done = run(
        need("systemd-analyze"),
        *("security", "--offline=true", f"--root={root}", "--no-pager", unit),
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+) ", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX


def test_verify_finds_what_is_wrong(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    unit = copy / "etc/systemd/system/motorcade-gateway.service"
    unit.write_text(unit.read_text("utf-8").replace("Restart=always", "Restart=sometimes"), "utf-8")
    analyze = need("systemd-analyze")
    done = run(analyze, "verify", f"--root={copy}", "--recursive-errors=no", unit.name)
    assert "sometimes" in done.stderr


def test_nothing_waits_for_a_network_or_a_clock() -> None:
    text = (SYSTEMD / "motorcade-gateway.service").read_text("utf-8")
    assert "online" not in text and "time-sync" not in text and "time-set" not in text
