"""Parts that tests of several rooms use.

`stack` is one real stack for the whole run: tests that share it take topic names, fleets and
subjects of their own, and stop nothing. A test that kills brokers asks `fresh_stack` for its own.
With `MOTORCADE_REQUIRE_PARTS=1`, as in CI, a test that skips fails instead, unless its reason
begins with `not here:` (say, it is for another Python).
"""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from mosquitto_broker import MOSQUITTO, MosquittoBroker

from deploy import artifacts
from deploy.stack import MqttChoice, Stack
from schemas.errors import TransientError

REQUIRE_PARTS = os.environ.get("MOTORCADE_REQUIRE_PARTS") == "1"
EXCUSE = "not here:"

FreshStack = Callable[..., Stack]


LONGEST_FIRST = ("integration", "deploy", "cloud", "edge", "transport", "motorcade")
"""Rooms whose tests wait the most; what is begun last should be short, as two run at a time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first; the order within a file stays."""
    place = {room: number for number, room in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.parent.name, len(place)))


@pytest.fixture(scope="session")
def java_artifacts() -> None:
    """The locked jars are in the cache; fetched if they are not."""
    for program in artifacts.PROGRAMS:
        try:
            artifacts.fetch(program)
        except TransientError as error:
            pytest.skip(f"the jars of {program} cannot be had: {error}")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, java_artifacts: None) -> Iterator[Stack]:
    """A started Kafka, MQTT broker and schema registry, shared by the whole run."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def kafka_endpoint(stack: Stack) -> str:
    """`host:port` of the shared Kafka."""
    return stack.endpoints.kafka_bootstrap


@pytest.fixture(scope="session")
def mqtt_endpoint(stack: Stack) -> tuple[str, int]:
    """Host and port of the shared MQTT broker."""
    return stack.endpoints.mqtt_host, stack.endpoints.mqtt_port


@pytest.fixture(scope="session")
def registry_endpoint(stack: Stack) -> str:
    """Base address of the shared schema registry."""
    return stack.endpoints.registry_url


@pytest.fixture
def fresh_stack(tmp_path: Path, java_artifacts: None) -> Iterator[FreshStack]:
    """Makes started stacks of this test's own: `fresh_stack(mqtt="auto", name="stack")`."""
    made: list[Stack] = []

    def make(mqtt: MqttChoice = "auto", name: str = "stack") -> Stack:
        made.append(Stack(tmp_path / name, mqtt=mqtt))
        made[-1].start()
        return made[-1]

    yield make
    for stack in made:
        stack.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[MosquittoBroker]:
    """A running Mosquitto of this test's own."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    directory = tmp_path / "mosquitto"
    directory.mkdir()
    broker = MosquittoBroker(directory)
    broker.start()
    yield broker
    broker.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what skips for want of a part, where parts are required."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip as a whole."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not REQUIRE_PARTS or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(EXCUSE):
        report.outcome = "failed"
        report.longrepr = f"skipped, but every part is required here: {reason}"
