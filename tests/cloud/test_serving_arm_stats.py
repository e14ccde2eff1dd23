import threading
from dataclasses import replace

import numpy as np
from monitor_parts import fleet_rows, referenced, scores_of

from cloud.serving.arm_stats import HELD_ROWS_MAX, ArmCounter
from cloud.serving.repository import Served
from cloud.stats import StatsBook
from schemas.errors import ContractError, Reason
from scoring.scorer import BatchScorer

BUNDLE = referenced("1")
SCORER = BatchScorer(BUNDLE)


def test_every_batch_is_counted_from_whatever_thread_it_comes() -> None:
    book = StatsBook("server", "s")
    counter = ArmCounter(book)
    rows = fleet_rows(np.random.default_rng(1), 10, 10)
    scores = scores_of(rows)
    scores[3] = np.nan

    def serve(arm: str, batches: int, size: int) -> None:
        for _ in range(batches):
            counter.observed(
                Served(BUNDLE, arm, SCORER),
                rows[:size],
                scores[:size],
                queue_us=[5] * size,
                compute_us=80,
                deployment="rpc",
            )

    threads = [
        threading.Thread(target=serve, args=work)
        for work in (("champion", 2_000, 1), ("champion", 150, 100), ("canary", 30, 7))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counter.failed("no-such", ContractError(Reason.UNKNOWN_MODEL, "x"), deployment="rpc")
    counter.drain()
    closed = {window.key.arm: window.counts for window in book.close_window(5)}
    champion, canary = closed["champion"], closed["canary"]
    assert champion.readings == 2_000 + 150 * 100 > HELD_ROWS_MAX
    assert champion.unscored == 150
    assert champion.queue.sum() == champion.readings
    assert champion.compute.sum() == 2_150
    assert 0 < champion.sampled <= champion.readings
    assert (canary.readings, canary.unscored, canary.compute.sum()) == (210, 30, 30)
    assert closed[""].errors == 1


def test_a_version_that_is_published_again_is_counted_with_its_own_bins() -> None:
    book = StatsBook("server", "s")
    counter = ArmCounter(book)
    again = replace(BUNDLE, manifest=replace(BUNDLE.manifest, threshold=1e-6))
    rows = fleet_rows(np.random.default_rng(1), 5, 1)
    for bundle in (BUNDLE, again):
        counter.observed(
            Served(bundle, "champion", SCORER),
            rows,
            np.ones(5, np.float32),
            queue_us=[1],
            compute_us=1,
            deployment="kafka",
        )
    counter.drain()
    assert [window.counts.exceeding for window in book.close_window(5)] == [0, 5]
