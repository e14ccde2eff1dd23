"""A thread beside the event loop for work that would hold the loop up: large requests."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from cloud.serving.refusals import FaultError, OverloadError
from cloud.serving.repository import ModelRepository, RepositoryView
from schemas.errors import MotorcadeError

_log = logging.getLogger("motorcade.serve")

T = TypeVar("T")
Work = Callable[[RepositoryView], T]

JOBS_MAX = 64
STOP_TIMEOUT_S = 30.0


class BackRoom:
    """Runs jobs one after the other, with a view of its own. `start` and `stop` on the loop.

    Args:
        repository: Whose models.
        jobs_max: Jobs that may wait; one more is refused.
    """

    def __init__(self, repository: ModelRepository, *, jobs_max: int = JOBS_MAX) -> None:
        self._repository = repository
        self._jobs: queue.Queue[Callable[[RepositoryView], None] | None] = queue.Queue(jobs_max)
        self._thread = threading.Thread(target=self._run, name="serve-back-room", daemon=True)

    def start(self) -> None:
        """Take up work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, and end."""
        self._jobs.put(None, timeout=STOP_TIMEOUT_S)
        self._thread.join(STOP_TIMEOUT_S)

    def submit(self, work: Work[T], done: Callable[[T | MotorcadeError], None]) -> None:
        """Have work done in the back room and `done` called on this loop with what it gave.

        An error that the work raises is given instead; one that nobody foresaw is logged and given
        as a FaultError.

        Raises:
            OverloadError: Too many jobs wait.
        """
        loop = asyncio.get_running_loop()

        def job(view: RepositoryView) -> None:
            loop.call_soon_threadsafe(done, _outcome(work, view))

        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise OverloadError(f"{self._jobs.maxsize} large requests are waiting") from None

    async def call(self, work: Work[T]) -> T:
        """As `submit`, for a coroutine; errors are raised here."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: T | MotorcadeError) -> None:
            if future.done():  # Whoever waited went away.
                return
            if isinstance(result, MotorcadeError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit(work, settle)
        return await future

    def _run(self) -> None:
        view = self._repository.view()
        while (job := self._jobs.get()) is not None:
            job(view)
            del job


def _outcome(work: Work[T], view: RepositoryView) -> T | MotorcadeError:
    try:
        return work(view)
    except MotorcadeError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whoever asked must hear of it, and the thread live
        return fault(error)


def fault(error: Exception) -> FaultError:
    """What a client is told of an error that nobody foresaw; the log has all of it."""
    _log.error("a request met a fault of the server", exc_info=error)
    return FaultError(f"the server failed: {type(error).__name__}")
