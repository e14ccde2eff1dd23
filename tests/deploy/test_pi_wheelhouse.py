"""What goes into a wheelhouse, and an installer that refuses in words."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from pi_files import FILES, certificates, need, run

from deploy import debian_package, wheelhouse
from deploy.wheel_lock import MACHINES, PYTHONS, Locked, Platform, locked_for
from schemas.errors import SettingsError

SCRIPTS = sorted(FILES.glob("*.sh"))
MAINTAINER_SCRIPTS = [FILES / "debian" / name for name in ("postinst", "prerm", "postrm")]
HASH = "0" * 64

LOCK = f"""\
# made by a lock
old==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:{HASH} \\
    --hash=sha256:{"1" * 64}
new==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:{HASH}
arm-only==3.0 ; platform_machine == 'aarch64' \\
    --hash=sha256:{HASH}
windows==4.0 ; sys_platform == 'win32' \\
    --hash=sha256:{HASH}
Every_Where==5.0 \\
    --hash=sha256:{HASH}
"""


@pytest.mark.parametrize(
    ("machine", "python", "names"),
    [
        ("aarch64", "3.11", {"old", "arm-only", "every-where"}),
        ("aarch64", "3.13", {"new", "arm-only", "every-where"}),
        ("x86_64", "3.12", {"new", "every-where"}),
    ],
)
def test_markers_are_decided_for_the_other_machine(
    machine: str, python: str, names: set[str]
) -> None:
    assert set(locked_for(LOCK, Platform(machine, python))) == names


def test_an_entry_keeps_all_its_hashes() -> None:
    entry = locked_for(LOCK, Platform("x86_64", "3.11"))["old"]
    assert entry == Locked("old", "1.0", (f"sha256:{HASH}", f"sha256:{'1' * 64}"))
    assert entry.line().count("--hash=sha256:") == 2


@pytest.mark.parametrize("entry", ["free>=1 --hash=sha256:" + HASH, "bare==1.0"])
def test_what_is_not_locked_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="no version or no hash"):
        locked_for(entry, Platform("x86_64", "3.11"))


@pytest.mark.parametrize(
    ("machine", "python", "words"),
    [
        ("armv7l", "3.11", "32-bit ARM"),
        ("riscv64", "3.11", "aarch64 or x86_64"),
        ("aarch64", "3.10", "3.11, 3.12, 3.13"),
    ],
)
def test_a_machine_that_has_no_wheels_is_refused_in_words(
    machine: str, python: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        Platform(machine, python)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_real_locks_hold_what_an_edge_needs(machine: str, python: str) -> None:
    names = {entry.name for entry in wheelhouse.locked(Platform(machine, python))}
    runtime = "tflite-runtime" if python == "3.11" else "ai-edge-litert"
    assert {"numpy", "confluent-kafka", "paho-mqtt", "cryptography", runtime} <= names
    assert not names & {"setuptools", "tensorflow", "colorama"}
    assert ("ai-edge-litert" in names) != ("tflite-runtime" in names)


def test_the_projects_wheel_is_made_from_this_checkout_and_repeatable(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for place in (first, second):
        place.mkdir()
        wheelhouse.build_project(place)
    wheel = next(first.glob("*.whl"))
    assert wheel.read_bytes() == (second / wheel.name).read_bytes()
    names = zipfile.ZipFile(wheel).namelist()
    assert "edge/gateway.py" in names and "schemas/avsc/Ack.avsc" in names
    assert not [name for name in names if "raspberry-pi" in name or name.startswith("tests/")]


def test_requirements_name_the_very_files(tmp_path: Path) -> None:
    (tmp_path / "some_library-1.2-py3-none-any.whl").write_bytes(b"wheel")
    text = wheelhouse.requirements_of(tmp_path)
    assert re.fullmatch(r"some_library==1\.2 --hash=sha256:[0-9a-f]{64}\n", text)


# --- the installer


def house(tmp_path: Path, machine: str = "aarch64", python: str = "3.11") -> Path:
    """A wheelhouse without wheels, for what is refused before they are looked at."""
    place = tmp_path / "house"
    place.mkdir()
    shutil.copy(FILES / "install.sh", place)
    facts = f"machine={machine}\npython={python}\nrelease=0.1.0-x\n"
    (place / "platform").write_text(facts, "utf-8")
    return place


def refusal(tmp_path: Path, place: Path, *order: str, **programs: str) -> str:
    """What the installer says on a machine whose programs answer so; it must refuse."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for tool in ("sed", "dirname", "id", "sha256sum", "grep"):
        (fakes / tool).symlink_to(need(tool))
    for name, body in {"id": "echo 0", **programs}.items():
        path = fakes / name.replace("_", ".")
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        path.chmod(0o755)
    done = run("/bin/sh", str(place / "install.sh"), *order, PATH=str(fakes))
    assert done.returncode != 0
    return done.stderr


def python_of(version: str, *, bits: int = 64) -> str:
    """A program that says which Python it is."""
    return f"""case "$2" in
*version_info*) echo {version} ;;
*maxsize*) exit {int(bits == 32)} ;;
esac"""


@pytest.mark.parametrize("machine", ["armv6l", "armv7l"])
def test_32_bit_arm_is_refused_in_words(tmp_path: Path, machine: str) -> None:
    fakes = {"uname": f"echo {machine}", "python3": python_of("3.11")}
    assert "64-bit Raspberry Pi OS" in refusal(tmp_path, house(tmp_path), **fakes)


def test_a_32_bit_system_on_a_64_bit_kernel_is_refused(tmp_path: Path) -> None:
    fakes = {"uname": "echo aarch64", "python3": python_of("3.11", bits=32)}
    told = refusal(tmp_path, house(tmp_path), **fakes)
    assert "the system is 32-bit" in told


def test_another_machine_is_told_what_to_make(tmp_path: Path) -> None:
    fakes = {"uname": "echo x86_64", "python3": python_of("3.11")}
    told = refusal(tmp_path, house(tmp_path), **fakes)
    assert "make wheelhouse ARCH=x86_64 PYTHON=3.11" in told


def test_another_python_is_told_what_to_make(tmp_path: Path) -> None:
    told = refusal(tmp_path, house(tmp_path), python3=python_of("3.13"), uname="echo aarch64")
    assert "make wheelhouse ARCH=aarch64 PYTHON=3.13" in told


def test_a_damaged_copy_is_refused(tmp_path: Path) -> None:
    place = house(tmp_path)
    (place / "SHA256SUMS").write_text(f"{HASH}  platform\n", "utf-8")
    told = refusal(tmp_path, place, uname="echo aarch64", python3=python_of("3.11"))
    assert "damaged or missing" in told


def test_who_is_not_root_and_what_is_unknown_is_refused(tmp_path: Path) -> None:
    place = house(tmp_path)
    assert "needs root" in refusal(tmp_path, place, id="echo 1000")
    shutil.rmtree(tmp_path / "fakes")
    assert "install.sh back" in refusal(tmp_path, place, "sideways")


@pytest.mark.parametrize("script", [*SCRIPTS, *MAINTAINER_SCRIPTS], ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    done = run(need("shellcheck"), "--shell=sh", str(script))
    assert (done.returncode, done.stdout) == (0, "")


def test_a_package_needs_dpkg_deb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="dpkg-deb is not here"):
        debian_package.make_package(Platform("aarch64", "3.11"), Path("unused"))


# --- certificates


def test_certificates_are_valid_where_the_clock_was_never_set(tmp_path: Path) -> None:
    authority = certificates(tmp_path, ("server", "pi.local", "192.168.4.1"), ("vehicle", "car-1"))
    openssl = need("openssl")
    at_2021 = ["-attime", "1609459200", "-CAfile", str(authority / "ca.crt")]
    checked = ["-x509_strict", "-crl_check", "-CRLfile", str(authority / "revoked.crl")]
    for name in ("server", "car-1"):
        leaf = str(authority / "issued" / f"{name}.crt")
        done = run(openssl, "verify", *at_2021, *checked, leaf)
        assert done.returncode == 0, done.stderr
    text = run(openssl, "x509", "-in", leaf.replace("car-1", "server"), "-noout", "-text").stdout
    for name in ("DNS:localhost", "IP Address:127.0.0.1", "DNS:pi.local", "192.168.4.1"):
        assert name in text


@pytest.mark.parametrize("name", ["gateway", "server", "a/b", "a+b", "#", "", ".hidden", "x" * 65])
def test_a_name_that_is_no_vehicles_gets_no_certificate(tmp_path: Path, name: str) -> None:
    script = str(FILES / "certificates.sh")
    need("openssl")
    assert run("/bin/sh", script, "authority", str(tmp_path / "a")).returncode == 0
    assert run("/bin/sh", script, "vehicle", str(tmp_path / "a"), name).returncode == 1
    assert not list((tmp_path / "a" / "issued").iterdir())
