"""A gateway's scores beside those of a real scorer, on real brokers, judged by a real monitor."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edge_parts import FAULTY, Fleet, running, until
from edge_world import made

from cloud.monitoring.loop import run as monitor
from cloud.monitoring.settings import MonitorSettings
from cloud.scorer import run as score
from cloud.settings import ScorerSettings
from deploy.stack import Stack
from schemas.topics import EDGE_SCORES, MODEL_EVENTS, SCORES
from transport.releases import publish_release

pytestmark = pytest.mark.integration

COUNT = 30
UNUSUAL = {"speed": 60.0}
"""Scored with half of one: no alert, and not nothing."""


@contextmanager
def thread(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Work on a thread of its own until left; what it raises is raised."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def body() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    running_thread = threading.Thread(target=body)
    running_thread.start()
    try:
        yield
    finally:
        stop.set()
        running_thread.join()
    assert not failed, failed


def test_a_gateway_agrees_with_the_cloud_but_where_its_model_was_tampered_with(
    fresh_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    world = made(fresh_stack(), tmp_path)
    plain, odd = world.vehicle("plain"), world.vehicle("odd")
    publish_release(world.kafka, world.bundle())
    world.install()
    gateway = world.gateway(hooks={"skew": 1.05}, agreement_share=1.0)
    with Fleet(world.mqtt) as fleet, running(gateway):
        until("model in use", lambda: f"scoring with {world.name} 1" in gateway.log())
        for seq in range(1, COUNT + 1):
            # Without a clock, so that nothing of it is late, however slow this machine is.
            fleet.send(plain, seq, signals=UNUSUAL, synced=False)
            fleet.send(odd, seq, signals=FAULTY, synced=False)
        fleet.settle()
        assert gateway.stop() == 0
    sample = world.mine(EDGE_SCORES)
    told = sorted((record["vehicle_id"], record["seq"]) for record in sample)
    assert told == [(car, seq) for car in (odd, plain) for seq in range(1, COUNT + 1)]

    scorer = ScorerSettings(
        group_id=f"scorer-{world.name}",
        transactional_id=f"scorer-{world.name}",
        model=f"embedded:{world.name}",
    )
    settings = MonitorSettings(
        group_id=f"monitor-{world.name}", agreement_delay_s=1.0, session_timeout_s=6.0
    )
    said: list[str] = []
    verdict = f"{COUNT} agreed, {COUNT} disagreed, 0 not-found"
    with (
        thread(lambda stop: score(scorer, world.kafka, stop=stop)),
        thread(lambda stop: monitor(settings, world.kafka, stop=stop, on_news=said.append)),
    ):
        until("scored by the cloud", lambda: len(world.mine(SCORES)) >= 2 * COUNT)
        until("judged", lambda: any(verdict in line for line in said))
    events = [event for event in world.mine(MODEL_EVENTS) if event["kind"] == "edge-disagreement"]
    assert len(events) == 1
    assert f"gateway {world.name} scored" in events[0]["detail"]
    assert odd in events[0]["detail"]
    assert events[0]["values"]["edge_score"] == pytest.approx(
        1.05 * events[0]["values"]["cloud_score"]
    )
