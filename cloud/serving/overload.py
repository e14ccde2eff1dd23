"""The error of a server that has no room."""

from schemas.errors import TransientError


class OverloadError(TransientError):
    """A queue is full; the same request may be answered later."""
