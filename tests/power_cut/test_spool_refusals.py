"""A disk that refuses at any operation: nothing is acknowledged, nothing is lost, it goes on after.

The same course is driven again and again, each time with a disk that refuses at another of its
operations, once or until it is healed; every call that returns is judged against the model.
"""

import errno
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_faults import AppointedPlan, Fault, FaultPlan
from faulting_files import RealDisk
from memory_files import Kernel
from spool_course import SpoolCourse
from spool_driver import Disk, OpenSpool, SpoolDriver
from spool_promise import identity
from spool_shapes import SHAPES, UNLIMITED, small_spools

from edge.rows import Telemetry
from edge.spool import SpoolError

SEED = 11
STEPS = 12
ENDLESS = 1 << 30
REFUSALS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
SHARES = (0.0, 0.6, 1.0)


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_spools():
        yield


def begun(disk: Disk, open_spool: OpenSpool, plan: FaultPlan) -> SpoolDriver:
    """A spool that is open, however often the disk refuses that."""
    driver = SpoolDriver(disk, open_spool)
    for _ in range(10):
        try:
            driver.open(plan)
        except SpoolError:
            plan.heal()
        else:
            return driver
    raise AssertionError("cannot be opened on a disk that is well")


def driven(disk: Disk, open_spool: OpenSpool, plan: FaultPlan) -> SpoolDriver:
    """The course, with one disk's mood; then a clean end, a beginning, and a look at everything."""
    driver = begun(disk, open_spool, plan)
    course = SpoolCourse(driver, random.Random(SEED), plan)
    course.run(STEPS, faults=0.0, kills=0.0)
    while not driver.save(identities=True):
        plan.heal()
    driver.close()
    driver.open()
    driver.close()
    return driver


def fresh(root: Path) -> RealDisk:
    """A directory of the real disk."""
    root.mkdir()
    return RealDisk(root)


def operations(disk: Disk, open_spool: OpenSpool) -> int:
    """How many operations of the course a disk could refuse."""
    plan = AppointedPlan(passing=ENDLESS, refusing=1)
    driven(disk, open_spool, plan)
    return ENDLESS - plan.passing


def moods(count: int, *, lasting: bool) -> Iterator[FaultPlan]:
    """A plan for each operation, with the errors and the shares of an append by turns."""
    faults = itertools.cycle(Fault(*pair) for pair in itertools.product(REFUSALS, SHARES))
    for passing in range(count):
        yield AppointedPlan(passing, ENDLESS if lasting else 1, next(faults))


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "until healed"])
@pytest.mark.parametrize("open_spool", [UNLIMITED, SHAPES[2]], ids=["no quota", "quota"])
def test_a_refusal_at_any_operation_loses_and_repeats_nothing(
    open_spool: OpenSpool, lasting: bool
) -> None:
    count = operations(Kernel(), open_spool)
    assert count > 60
    for plan in moods(count, lasting=lasting):
        at = plan.passing
        driven(Kernel(), open_spool, plan)
        assert plan.refused, f"operation {at} was never refused"


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "until healed"])
def test_the_same_on_real_files(tmp_path: Path, lasting: bool) -> None:
    count = operations(fresh(tmp_path / "well"), UNLIMITED)
    for number, plan in enumerate(itertools.islice(moods(count, lasting=lasting), 0, None, 7)):
        driven(fresh(tmp_path / f"{number}"), UNLIMITED, plan)
        assert plan.refused


@pytest.mark.parametrize("number", [*REFUSALS, errno.EDQUOT])
def test_nothing_is_acknowledged_while_the_disk_refuses(number: int) -> None:
    plan = FaultPlan()
    driver = begun(Kernel(), UNLIMITED, plan)
    plan.refusing, plan.fault = ENDLESS, Fault(number, 1.0)
    before = driver.promise
    row = Telemetry("car", 1, 1, 1, 1_000, b"batch")
    driver.admit(row)
    for _ in range(20):
        assert not driver.store((row,), ())
    assert driver.promise.settled == before.settled == frozenset()
    plan.heal()
    assert driver.store((row,), ())
    assert driver.promise.settled == {identity(row)}
