"""The keeper of shadows, with processes that do nothing."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from scorer_fleet import small_bundle

from cloud import shadow_keeper
from cloud.settings import ScorerSettings
from cloud.shadow import ShadowTask
from cloud.shadow_keeper import ShadowKeeper, shadowed
from scoring.catalog import Catalog, ModelRef
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Traffic
from transport.settings import KafkaSettings, TlsSettings

REF = ModelRef("small")


def catalog_of(experiment: Experiment | None) -> Catalog:
    traffic = Traffic("small", 1, experiment=experiment)
    return Catalog().with_release(small_bundle("1")).with_traffic(traffic)


def trial(name: str = "trial", *, weight: float = 0.5, started_time_ms: int = 0) -> Experiment:
    return Experiment(name, Mode.SHADOW, "salt", started_time_ms, (Arm("new", "1", weight),))


@dataclass
class Process:
    """Runs until told otherwise."""

    experiment: str
    number: int
    code: int | None = None
    ended: bool = False

    @property
    def pid(self) -> int:
        return self.number

    def status(self) -> int | None:
        return self.code

    def end(self) -> None:
        self.ended = True


@dataclass
class Started:
    """All processes that a keeper asked for."""

    processes: list[Process] = field(default_factory=list)
    refuse: int = 0

    def __call__(self, experiment: str) -> Process:
        if self.refuse:
            self.refuse -= 1
            raise OSError("no process for you")
        self.processes.append(Process(experiment, 1000 + len(self.processes)))
        return self.processes[-1]

    @property
    def running(self) -> list[str]:
        return [p.experiment for p in self.processes if p.code is None and not p.ended]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_keeper, "LOOK_S", 0.01)
    monkeypatch.setattr(shadow_keeper, "BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(shadow_keeper, "BACKOFF_MAX_S", 0.05)


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        threading.Event().wait(0.005)


def test_only_an_experiment_in_the_dark_with_vehicles_wants_a_shadow() -> None:
    assert shadowed(catalog_of(trial(started_time_ms=7)), REF) == ("trial", 7)
    assert shadowed(catalog_of(None), REF) is None
    assert shadowed(catalog_of(trial(weight=0)), REF) is None
    assert shadowed(catalog_of(trial()), ModelRef("small", "challenger")) is None
    arms = Arm(CHAMPION, "1", 0.5), Arm("new", "1", 0.5)
    assert shadowed(catalog_of(replace(trial(), mode=Mode.AB, arms=arms)), REF) is None


def test_a_shadow_runs_while_its_experiment_does_and_is_started_again_when_it_dies() -> None:
    started = Started(refuse=2)
    with ShadowKeeper(REF, started) as keeper:
        assert keeper.pid is None
        keeper.follow(catalog_of(trial()))
        wait_until(lambda: started.running == ["trial"])
        for number in range(1, 4):
            started.processes[-1].code = 1
            wait_until(lambda: len(started.processes) == number + 1)  # noqa: B023
        keeper.follow(catalog_of(trial(weight=0.9)))
        keeper.follow(catalog_of(trial("other")))
        wait_until(lambda: started.running == ["other"])
        keeper.follow(catalog_of(trial("other", started_time_ms=9)))
        wait_until(lambda: len(started.processes) == 6 and started.running == ["other"])
        keeper.follow(catalog_of(None))
        wait_until(lambda: started.running == [])
        keeper.follow(catalog_of(trial()))
        wait_until(lambda: started.running == ["trial"])
    assert started.running == []
    assert all(process.ended for process in started.processes)


def test_a_task_survives_its_way_to_the_shadow() -> None:
    task = ShadowTask(
        "trial",
        ScorerSettings(group_id="g", transactional_id="m", model="embedded:small", poll_messages=7),
        KafkaSettings("k:1", tls=TlsSettings(ca="ca.pem"), username="me", password="secret"),
    )
    assert ShadowTask.from_line(task.to_line()) == task
    assert task.settings.group_id == "g-shadow-trial"
    assert task.settings.member_id == "m-shadow-trial"
    assert task.settings.poll_messages == 7
