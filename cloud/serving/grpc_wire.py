"""gRPC on top of HTTP/2: messages in bodies, deadlines in headers, statuses in trailers. Pure."""

import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum
from urllib.parse import quote_from_bytes

from cloud.serving.header_lists import Headers
from cloud.serving.tensors import malformed
from schemas.errors import ContractError, MotorcadeError, Reason, TransientError

PREFIX_BYTES = 5
DETAIL_BYTES_MAX = 1024


class Status(IntEnum):
    """Of a call, in the numbers of gRPC."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


_STATUS: Mapping[Reason, Status] = {
    Reason.UNKNOWN_MODEL: Status.NOT_FOUND,
    Reason.OVERSIZED: Status.RESOURCE_EXHAUSTED,
    Reason.DEADLINE: Status.DEADLINE_EXCEEDED,
    Reason.MODEL_INVALID: Status.INTERNAL,
}

HEAD: Headers = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,gzip"),
)
TRAILERS_OK: Headers = ((b"grpc-status", b"0"),)
NO_GRPC: Headers = ((b":status", b"415"),)

_UNITS_NS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1000,
    b"n": 1,
}


class UnimplementedError(MotorcadeError):
    """A method or an encoding that this server does not have."""


def status_of(error: MotorcadeError) -> Status:
    """The status of a call that cannot be answered; no room is RESOURCE_EXHAUSTED."""
    if isinstance(error, ContractError):
        return _STATUS.get(error.reason, Status.INVALID_ARGUMENT)
    if isinstance(error, UnimplementedError):
        return Status.UNIMPLEMENTED
    return Status.RESOURCE_EXHAUSTED if isinstance(error, TransientError) else Status.INTERNAL


def refusal(error: MotorcadeError) -> Headers:
    """The headers of a response that has no message."""
    detail = quote_from_bytes(
        str(error).encode()[:DETAIL_BYTES_MAX], safe=" !\"#$&'()*+,/:;<=>?@[]"
    )
    status = b"%d" % status_of(error)
    return (*HEAD, (b"grpc-status", status), (b"grpc-message", detail.encode("ascii")))


def framed(message: bytes) -> bytes:
    """A message as it stands in a body."""
    return struct.pack(">BI", 0, len(message)) + message


def check_size(body: bytes | bytearray, bytes_max: int) -> None:
    """Refuse a message that says that it is too large, or that more follow.

    Raises:
        ContractError: OVERSIZED.
    """
    if len(body) < PREFIX_BYTES:
        return
    stated = int.from_bytes(body[1:PREFIX_BYTES], "big")
    if stated > bytes_max:
        raise _oversized(stated, bytes_max)
    if len(body) > PREFIX_BYTES + stated:
        raise malformed("more than one message")


def message_of(body: bytes | bytearray, headers: Headers, bytes_max: int) -> bytes:
    """The one message of a request.

    Raises:
        ContractError: MALFORMED or OVERSIZED.
        UnimplementedError: It is compressed in a way that this server does not know.
    """
    check_size(body, bytes_max)
    if len(body) < PREFIX_BYTES or len(body) != PREFIX_BYTES + int.from_bytes(body[1:5], "big"):
        raise malformed("no whole message")
    message = bytes(memoryview(body)[PREFIX_BYTES:])
    if not body[0]:
        return message
    encoding = dict(headers).get(b"grpc-encoding", b"identity")
    if body[0] != 1 or encoding != b"gzip":
        raise UnimplementedError(f"encoding {encoding.decode('latin-1')!r}")
    return _unzipped(message, bytes_max)


def _unzipped(message: bytes, bytes_max: int) -> bytes:
    """At most `bytes_max` bytes come out, however much is in."""
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(message, bytes_max + 1)
    except zlib.error as error:
        raise malformed(f"no gzip: {error}") from None
    if len(plain) > bytes_max:
        raise _oversized(len(plain), bytes_max)
    if not unzip.eof:
        raise malformed("gzip that ends early")
    return plain


def _oversized(size: int, bytes_max: int) -> ContractError:
    return ContractError(Reason.OVERSIZED, f"a message of {size} bytes; at most {bytes_max}")


def timeout_ns(text: bytes) -> int:
    """What a `grpc-timeout` header says.

    Raises:
        ContractError: MALFORMED.

    Example:
        >>> timeout_ns(b"20m")
        20000000
    """
    unit = _UNITS_NS.get(text[-1:])
    if unit is None or not 2 <= len(text) <= 9 or not text[:-1].isdigit():
        raise malformed(f"grpc-timeout {text.decode('latin-1')!r}")
    return int(text[:-1]) * unit
