"""How many bytes of requests all clients together may have in the server's memory."""


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
