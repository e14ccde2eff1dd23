"""The spool keeps its promises through power cuts, and the crash points find one that does not."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_points import CrashPoints
from crash_test import main
from spool_driver import OpenSpool
from spool_promise import Wrong
from spool_shapes import SHAPES, small_spools
from wrong_files import WRONG, PassedFiles

from edge.spool import Spool
from edge.spool.files import Files

POINTS = 1_000
POINTS_A_ROUND = 50


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_spools():
        yield


@pytest.fixture
def seed() -> int:
    """A new one each time, printed when the test fails."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    return seed


def test_nothing_is_lost_or_repeated_after_a_power_cut(seed: int) -> None:
    crashes = CrashPoints(seed, SHAPES)
    crashes.run(range(POINTS))
    assert not crashes.failures, "\n".join(crashes.failures[0].told())


def wronged(open_spool: OpenSpool, wrong: type[PassedFiles]) -> OpenSpool:
    """The same spool with a mistake in it."""

    def open_wronged(files: Files, root: Path) -> Spool:
        return open_spool(wrong(files), root)

    return open_wronged


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_spool_with_a_mistake_is_found_out(wrong: type[PassedFiles], seed: int) -> None:
    crashes = CrashPoints(
        seed, [wronged(open_spool, wrong) for open_spool in SHAPES], recordings=len(SHAPES)
    )
    for first in range(0, POINTS, POINTS_A_ROUND):
        crashes.run(range(first, first + POINTS_A_ROUND))
        if crashes.count(Wrong.LOST) + crashes.count(Wrong.REPEATED) > 0:
            return
    pytest.fail(f"{POINTS} crash points did not find it")


def test_a_point_is_the_same_crash_whenever_it_is_asked_for(seed: int) -> None:
    crashes = CrashPoints(seed, [wronged(SHAPES[0], WRONG[1])], recordings=1)
    crashes.run(range(100))
    some = next(failure for failure in crashes.failures if failure.point is not None)
    again = CrashPoints(seed, [wronged(SHAPES[0], WRONG[1])], recordings=1)
    assert some.point is not None
    again.run([some.point])
    assert [(cut.at, cut.kind) for cut in again.failures[-1].cuts] == [
        (cut.at, cut.kind) for cut in some.cuts
    ]


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--points", "30", "--seed", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "30 crash points, lost 0, repeated 0, seed 7"
