"""Calls over gRPC with our errors; the only module of the clients that imports grpc."""

import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from cloud.remote.asking import NotReadyError
from schemas.errors import ContractError, Reason, TransientError
from transport.tracing import carried

ANSWER_BYTES_MAX = 16_000_000
"""Largest answer taken; ours are cut far below that."""

_NOT_READY = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION})
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""Whatever is in neither set may be another answer the next time."""

Call = Callable[[bytes, float], bytes]
"""One method: request and time-out in seconds to response."""


class GrpcChannel:
    """One connection to a server. Calls may come from several threads.

    Args:
        target: `host:port`.
        tls: Whether with the system's certificates, or in the clear.
    """

    def __init__(self, target: str, *, tls: bool = False) -> None:
        self._target = target
        self._tls = tls
        self._channel: Any = None
        self._methods: dict[str, Any] = {}

    def start(self) -> None:
        """Make the channel; connects with the first call."""
        options = [
            ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
            # A server that comes back is found within a second, and one that went silent is
            # noticed; the library's own back-off grows to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]
        if self._tls:
            self._channel = grpc.secure_channel(
                self._target, grpc.ssl_channel_credentials(), options
            )
        else:
            self._channel = grpc.insecure_channel(self._target, options)

    def close(self) -> None:
        """Ends what is under way."""
        channel, self._channel = self._channel, None
        self._methods.clear()
        if channel is not None:
            channel.close()

    def call(self, path: str, request: bytes, timeout_s: float) -> bytes:
        """Call a method.

        Raises:
            NotReadyError: The server does not know the model, or not yet.
            ContractError: MALFORMED: the server refuses the request.
            TransientError: No answer in time, or trouble at the server.
        """
        method = self._methods.get(path)
        if method is None:
            channel = self._channel
            if channel is None:
                raise TransientError(f"{self._target}: the connection is closed")
            method = self._methods[path] = channel.unary_unary(path)
        try:
            return bytes(method(request, timeout=timeout_s, metadata=carried()))
        except grpc.RpcError as error:
            raise translate(error) from error
        except ValueError as error:  # what grpc says of a channel that another thread closed
            raise TransientError(f"{self._target}: {error}") from error


def translate(error: grpc.RpcError) -> TransientError | ContractError:
    """An error of the library as ours."""
    code, details = grpc.StatusCode.UNKNOWN, str(error)
    with contextlib.suppress(AttributeError):
        code, details = error.code(), error.details() or ""
    text = f"{code.name}: {details}"
    if code in _NOT_READY:
        return NotReadyError(text)
    if code in _REFUSED:
        return ContractError(Reason.MALFORMED, text)
    return TransientError(text)
