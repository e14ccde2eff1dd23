"""Why a server does not answer a request that is sound."""

from schemas.errors import MotorcadeError, TransientError


class OverloadError(TransientError):
    """There is no room; the same request may be answered later."""


class FaultError(MotorcadeError):
    """The server itself failed; its log says how."""
