"""What waits together, what is refused, and what happens when the server itself fails."""

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from serving_models import catalog_of, release, rows
from serving_server import Heard

from cloud.serving.asks import Answer, Ask, Outcome, answer_all
from cloud.serving.backroom import BackRoom
from cloud.serving.batcher import INLINE_ROWS, Batcher, BatchLimits
from cloud.serving.refusals import FaultError, OverloadError
from cloud.serving.repository import ModelRepository
from schemas.errors import ContractError, Reason
from scoring.catalog import Catalog
from scoring.scorer import BatchScorer
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Traffic


def two_versions() -> Catalog:
    arms = (Arm(CHAMPION, "1", 0.5), Arm("new", "2", 0.5))
    traffic = Traffic("anomaly", experiment=Experiment("trial", Mode.AB, "salt", 0, arms))
    return catalog_of(release("1"), release("2")).with_traffic(traffic)


def ask_of(features: Any, selector: str = "", **more: Any) -> Ask:
    return Ask("anomaly", selector, features, **more)


class Ground:
    """A batcher on a loop, with a back room."""

    def __init__(self, **limits: Any) -> None:
        self.repository = ModelRepository()
        self.repository.update(two_versions())
        self.heard = Heard()
        self.limits = BatchLimits(**limits)

    def run(self, work: Any) -> Any:
        return asyncio.run(self._run(work))

    async def _run(self, work: Any) -> Any:
        room = BackRoom(self.repository, jobs_max=1)
        room.start()
        try:
            loop = asyncio.get_running_loop()
            batcher = Batcher(loop, self.repository.view(), room, self.heard, self.limits)
            return await work(batcher, room)
        finally:
            await asyncio.to_thread(room.stop)


def scores_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Answer)
    return outcome.scores


def expected(features: Any, version: str = "1") -> Any:
    return BatchScorer(release(version)).score(features)


def test_what_comes_in_one_turn_is_one_batch_by_version() -> None:
    ground = Ground()
    features = rows(30)

    async def work(batcher: Batcher, _: BackRoom) -> list[Outcome]:
        asks = [ask_of(row[None], "12"[i % 2]) for i, row in enumerate(features)]
        return list(await asyncio.gather(*map(batcher.answer, asks)))

    outcomes = ground.run(work)
    assert (ground.heard.batches, ground.heard.requests) == (2, 30)
    for number, outcome in enumerate(outcomes):
        wanted = expected(features[number : number + 1], "12"[number % 2])
        np.testing.assert_array_equal(scores_of(outcome), wanted)


def test_large_batches_are_scored_aside_with_the_same_bits() -> None:
    ground = Ground()
    features = rows(INLINE_ROWS + 1)

    async def work(batcher: Batcher, _: BackRoom) -> Outcome:
        return await batcher.answer(ask_of(features))

    np.testing.assert_array_equal(scores_of(ground.run(work)), expected(features))


@pytest.mark.parametrize(
    ("limits", "rows_each", "answered"),
    [({"requests_max": 3}, 1, 3), ({"rows_max": 10}, 4, 2), ({"rows_max": 1}, 4, 1)],
)
def test_more_than_may_wait_is_refused(
    limits: dict[str, int], rows_each: int, answered: int
) -> None:
    """The first one always waits: a request alone is as large as it may be."""
    ground = Ground(**limits)

    async def work(batcher: Batcher, _: BackRoom) -> list[Any]:
        asks = [batcher.answer(ask_of(rows(rows_each))) for _ in range(5)]
        return list(await asyncio.gather(*asks, return_exceptions=True))

    outcomes = ground.run(work)
    assert [isinstance(each, Answer) for each in outcomes] == [i < answered for i in range(5)]
    assert all(isinstance(each, (Answer, OverloadError)) for each in outcomes)
    assert len(ground.heard.errors) == 5 - answered


def test_a_back_room_that_is_full_refuses() -> None:
    ground = Ground()

    async def work(batcher: Batcher, room: BackRoom) -> list[Outcome]:
        """One job holds the thread, one waits; the batch is one too many."""
        import threading

        go_on, begun = threading.Event(), threading.Event()

        def hold(_: Any) -> None:
            begun.set()
            go_on.wait()

        first = asyncio.ensure_future(room.call(hold))
        await asyncio.to_thread(begun.wait)
        second = asyncio.ensure_future(room.call(lambda _: None))
        await asyncio.sleep(0)
        outcome = await batcher.answer(ask_of(rows(INLINE_ROWS + 1)))
        go_on.set()
        await asyncio.gather(first, second)
        return [outcome]

    (outcome,) = ground.run(work)
    assert isinstance(outcome, OverloadError)


def test_a_fault_of_the_server_is_told_and_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An observer that raises stands for any fault of the program, on the loop and aside."""
    ground = Ground()

    class Faulty(Heard):
        def observed(self, *arguments: Any, **more: Any) -> None:
            raise ZeroDivisionError

    sound, ground.heard = ground.heard, Faulty()

    async def work(batcher: Batcher, room: BackRoom) -> list[Outcome]:
        outcomes = [await batcher.answer(ask_of(rows(n))) for n in (1, INLINE_ROWS + 1)]
        (alive,) = await room.call(lambda view: answer_all(view, [ask_of(rows(2))], sound))
        return [*outcomes, alive]

    with caplog.at_level(logging.CRITICAL):
        outcomes = ground.run(work)
    assert [type(each) for each in outcomes] == [FaultError, FaultError, Answer]
    assert "ZeroDivisionError" in str(outcomes[0])


def test_vehicles_of_several_arms_in_one_request_and_requests_beside_it() -> None:
    ground = Ground()
    view = ground.repository.view()
    features = rows(100)
    vehicles = [f"car-{i}".encode() for i in range(100)]
    mixed = ask_of(features, vehicle_ids=vehicles, reconstruction=True)
    pinned = ask_of(features[:7], "2")
    bad = ask_of(features[:, :-1])
    unknown = ask_of(features, "9")
    short = ask_of(features[:3], vehicle_ids=vehicles)
    outcomes = answer_all(view, [mixed, pinned, bad, unknown, short], ground.heard)
    whole, second, *refused = outcomes
    assert isinstance(whole, Answer)
    versions = [served.bundle.manifest.version for served in whole.served]
    assert {served.arm for served in whole.served} == {CHAMPION, "new"}
    both = {version: BatchScorer(release(version)) for version in "12"}
    for number, version in enumerate(versions):
        row = features[number : number + 1]
        scores, outputs = both[version].score_and_reconstruct(row)
        np.testing.assert_array_equal(whole.scores[number : number + 1], scores)
        assert whole.reconstruction is not None
        np.testing.assert_array_equal(whole.reconstruction[number : number + 1], outputs)
    np.testing.assert_array_equal(scores_of(second), expected(features[:7], "2"))
    reasons = [each.reason for each in refused if isinstance(each, ContractError)]
    assert reasons == [Reason.WRONG_SHAPE, Reason.UNKNOWN_MODEL, Reason.WRONG_SHAPE]
    assert ground.heard.arms["pinned"] == 7
    assert ground.heard.arms["new"] == versions.count("2")
    assert sum(ground.heard.arms.values()) == 107
