"""How many bytes of requests all clients together may have in the server's memory."""

from types import TracebackType
from typing import Self

from cloud.serving.refusals import OverloadError

UNCOUNTED_BYTES = 1 << 13
"""Of each request; what is beyond counts."""


class ByteBudget:
    """Counts bytes against a limit; for one thread.

    Args:
        bytes_max: Of all requests together, whole or still arriving.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._taken = 0

    def take(self, size: int) -> bool:
        """Take room for `size` bytes, if there is any; `give` it back."""
        if self._taken + size > self._bytes_max:
            return False
        self._taken += size
        return True

    def give(self, size: int) -> None:
        """Room that is free again."""
        self._taken -= size


class Room:
    """The room of one request, free again at the end of a `with`."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._budget.give(self._held)
        self._held = 0

    def hold(self, size: int) -> None:
        """Have room for a request that has `size` bytes by now.

        Raises:
            OverloadError: The requests of all clients take too much memory.
        """
        more = size - UNCOUNTED_BYTES - self._held
        if more > 0:
            if not self._budget.take(more):
                raise OverloadError("the requests under way take all memory")
            self._held += more
