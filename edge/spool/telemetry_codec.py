"""Telemetry rows as frames: the hot path of storing and of reading back.

One `pack`, one checksum and two joins a row; nothing is decoded that the reader does not want.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge.rows import StoredTelemetry, Telemetry
from edge.spool.framing import BEGINS_GROUP, HEAD_BYTES, HINTS, MAGIC, ROW, Found, frame
from edge.spool.packing import Packer, Unpacker

_FIELDS = "qqqqqIHH"
_WHOLE = struct.Struct("<HHIQ" + _FIELDS)
_BODY = struct.Struct("<" + _FIELDS)
_BODY_BYTES = _BODY.size
_CRC = struct.Struct("<I")
_RECEIVED = struct.Struct("<q")
_RECEIVED_AT = 24

ROW_BYTES = HEAD_BYTES + _BODY_BYTES
"""What a row takes beside vehicle, payload and trace."""


class Identity(NamedTuple):
    """Who a stored batch is; `oldest_seq` as the vehicle said it then."""

    vehicle_id: str
    boot_id: int
    seq: int
    oldest_seq: int


def encode_rows(rows: Sequence[Telemetry], *, seed: int, position: int) -> bytes:
    """Frames of a group of rows, the first at a position, the others behind it."""
    parts: list[bytes] = []
    flags = ROW | BEGINS_GROUP
    pack, checksum, pack_crc = _WHOLE.pack, zlib.crc32, _CRC.pack
    for row in rows:
        vehicle_id, boot_id, seq, oldest_seq, received_ms, payload, traceparent, boot, mono = row
        vehicle = vehicle_id.encode()
        trace = b"" if traceparent is None else traceparent.encode()
        length = _BODY_BYTES + len(vehicle) + len(trace) + len(payload)
        rest = b"".join(
            (
                pack(
                    MAGIC, flags, length, position,
                    boot_id, seq, oldest_seq, received_ms, mono, boot, len(vehicle), len(trace),
                ),
                vehicle,
                trace,
                payload,
            )
        )  # fmt: skip
        parts += (pack_crc(checksum(rest, seed)), rest)
        position += 1
        flags = ROW
    return b"".join(parts)


def decode_row(found: Found) -> StoredTelemetry:
    """The row of a frame."""
    buffer, at = found.buffer, found.body
    boot_id, seq, _, received_ms, mono, boot, vehicle_bytes, trace_bytes = _BODY.unpack_from(
        buffer, at
    )
    at += _BODY_BYTES
    payload_at = at + vehicle_bytes + trace_bytes
    trace = buffer[at + vehicle_bytes : payload_at].decode() if trace_bytes else None
    return StoredTelemetry(
        found.position,
        buffer[at : at + vehicle_bytes].decode(),
        boot_id,
        seq,
        received_ms,
        buffer[payload_at : found.body + found.end - found.offset - HEAD_BYTES],
        trace,
        boot,
        mono,
    )


def identity_of(found: Found) -> Identity:
    """Who the row of a frame is."""
    boot_id, seq, oldest_seq, _, _, _, vehicle_bytes, _ = _BODY.unpack_from(
        found.buffer, found.body
    )
    at = found.body + _BODY_BYTES
    return Identity(found.buffer[at : at + vehicle_bytes].decode(), boot_id, seq, oldest_seq)


def received_ms_of(found: Found) -> int:
    """When the row of a frame was received."""
    return int(_RECEIVED.unpack_from(found.buffer, found.body + _RECEIVED_AT)[0])


def encode_hints(marks: Mapping[str, int], *, seed: int, position: int) -> bytes:
    """A frame of marks, behind the rows of a group."""
    packer = Packer()
    packer.u32(len(marks))
    for name, value in marks.items():
        packer.text(name)
        packer.i64(value)
    return frame(packer.done(), seed=seed, flags=HINTS, position=position)


def decode_hints(body: bytes) -> dict[str, int]:
    """The inverse of `encode_hints`."""
    unpacker = Unpacker(body)
    return {unpacker.text(): unpacker.i64() for _ in range(unpacker.u32())}
