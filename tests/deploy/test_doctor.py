"""The doctor says in words what is missing, and how to mend it."""

import socket
import tomllib
from pathlib import Path

import pytest

from deploy import doctor
from transport.checks import CheckResult, Verdict

CHECKOUT = Path(doctor.__file__).parents[1]


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 10), Verdict.FAIL),
        ((3, 11), Verdict.OK),
        ((3, 13), Verdict.OK),
        ((3, 14), Verdict.FAIL),
    ],
)
def test_python(version: tuple[int, int], verdict: Verdict) -> None:
    result = doctor.check_python(version)
    assert result.verdict is verdict
    assert bool(result.fix) is (verdict is Verdict.FAIL)


@pytest.mark.parametrize(
    ("system", "machine", "bits", "verdict", "says"),
    [
        ("Linux", "x86_64", 64, Verdict.OK, ""),
        ("Linux", "aarch64", 64, Verdict.OK, ""),
        ("Linux", "armv7l", 32, Verdict.FAIL, "64-bit Raspberry Pi OS"),
        # A 64-bit kernel under 32-bit programs, as on many older cards.
        ("Linux", "aarch64", 32, Verdict.FAIL, "64-bit"),
        ("Linux", "riscv64", 64, Verdict.WARN, "x86_64 or aarch64"),
        ("Darwin", "arm64", 64, Verdict.WARN, "Linux"),
    ],
)
def test_platform(system: str, machine: str, bits: int, verdict: Verdict, says: str) -> None:
    result = doctor.check_platform(system, machine, bits)
    assert result.verdict is verdict
    assert says in result.fix


def test_an_extra_that_is_absent_is_a_warning_and_the_bare_installation_a_failure() -> None:
    edge = doctor.check_extra("edge", {"paho-mqtt": "2.2.0", "confluent-kafka": None}, {})
    assert edge.verdict is Verdict.WARN
    assert "confluent-kafka" in edge.message
    assert "motorcade[edge]" in edge.fix
    assert doctor.check_extra("", {"click": None}, {}).verdict is Verdict.FAIL


def test_a_package_that_does_not_import_is_a_failure_with_its_error() -> None:
    result = doctor.check_extra("edge", {"x": "1"}, {"x": "ImportError: GLIBC_2.34 not found"})
    assert result.verdict is Verdict.FAIL
    assert "GLIBC_2.34" in result.message


def test_tflite_runtime_beside_numpy_2_is_a_failure() -> None:
    versions = {"tflite-runtime": "2.14.0", "numpy": "2.1.0"}
    result = doctor.check_extra("edge", versions, {})
    assert (result.verdict, result.fix) == (Verdict.FAIL, "pip install 'numpy<2'")
    versions["numpy"] = "1.26.4"
    assert doctor.check_extra("edge", versions, {}).verdict is Verdict.OK


def test_what_the_stack_needs() -> None:
    assert doctor.check_java("", "", "Java is missing").verdict is Verdict.WARN
    assert doctor.check_java("/j", "21", "").verdict is Verdict.OK
    absent = doctor.check_jars({"kafka": 45, "artemis": 0}, Path("/cache"))
    assert (absent.verdict, "45 of kafka" in absent.message) == (Verdict.WARN, True)
    assert doctor.check_jars({"kafka": 0}, Path("/cache")).verdict is Verdict.OK
    assert doctor.check_mosquitto(None).verdict is Verdict.OK
    assert "Artemis" in doctor.check_mosquitto(None).message


def test_room() -> None:
    assert doctor.check_disk(1 << 20, Path("x")).verdict is Verdict.WARN
    assert doctor.check_disk(1 << 40, Path("x")).verdict is Verdict.OK
    assert doctor.check_memory(1 << 20).verdict is Verdict.WARN
    assert doctor.check_memory(1 << 40).verdict is Verdict.OK
    assert doctor.check_memory(None).verdict is Verdict.WARN


def test_every_fault_has_a_fix_and_every_check_a_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        addresses = {
            "kafka": f"127.0.0.1:{server.getsockname()[1]}",
            "closed": "127.0.0.1:1",
            "odd": "nowhere",
            "beyond": "127.0.0.1:99999",
        }
        results = {r.name: r for r in doctor.examine(tmp_path / "not" / "there", addresses)}
    assert all(result.message for result in results.values())
    assert all(result.fix for result in results.values() if result.verdict is Verdict.FAIL)
    verdicts = {name: results[name].verdict for name in addresses}
    assert verdicts == {
        "kafka": Verdict.OK,
        "closed": Verdict.WARN,
        "odd": Verdict.WARN,
        "beyond": Verdict.WARN,
    }
    failed = [r for r in results.values() if r.verdict is Verdict.FAIL]
    assert failed == list[CheckResult]()


def test_a_module_that_fails_to_import_tells_why() -> None:
    assert doctor._import_error("json") == ""
    assert "No module named 'no_such_module'" in doctor._import_error("no_such_module")
    assert doctor._import_error("tensorflow") == ""


def test_the_doctor_knows_what_each_extra_brings() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {"": project["dependencies"], **project["optional-dependencies"]}
    del declared["dev"]
    other_python = {"tflite-runtime", "ai-edge-litert"} - {doctor._TFLITE[0]}
    for extra, requirements in declared.items():
        wanted = {bare_name(requirement) for requirement in requirements} - other_python
        assert {distribution for distribution, _ in doctor.PACKAGES[extra]} == wanted


def bare_name(requirement: str) -> str:
    for stop in "[<>=;":
        requirement = requirement.partition(stop)[0]
    return requirement
