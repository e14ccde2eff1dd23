"""Numbers, texts and blobs in a row of bytes, little-endian; for what is no hot path."""

import struct
from collections.abc import Sequence

_U8 = struct.Struct("<B")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")
_NONE = 0xFFFF_FFFF


class Packer:
    """Collects values; `done` joins them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> None:
        """A number in 0..255."""
        self._parts.append(_U8.pack(value))

    def u32(self, value: int) -> None:
        """A number in 0..2^32-1."""
        self._parts.append(_U32.pack(value))

    def i64(self, *values: int) -> None:
        """Numbers in -2^63..2^63-1."""
        self._parts += [_I64.pack(value) for value in values]

    def i64s(self, values: Sequence[int]) -> None:
        """A list of numbers."""
        self.u32(len(values))
        self._parts.append(struct.pack(f"<{len(values)}q", *values))

    def blob(self, value: bytes | None) -> None:
        """Bytes, or None."""
        self.u32(_NONE if value is None else len(value))
        if value:
            self._parts.append(value)

    def text(self, value: str | None) -> None:
        """A text, or None."""
        self.blob(None if value is None else value.encode())

    def done(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


class Unpacker:
    """The inverse of `Packer`. Its input has passed a checksum, so it is taken as it is."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def _take(self, layout: struct.Struct) -> int:
        (value,) = layout.unpack_from(self._data, self.at)
        self.at += layout.size
        return int(value)

    def u8(self) -> int:
        """See `Packer`."""
        return self._take(_U8)

    def u32(self) -> int:
        """See `Packer`."""
        return self._take(_U32)

    def i64(self) -> int:
        """See `Packer`."""
        return self._take(_I64)

    def i64s(self) -> tuple[int, ...]:
        """See `Packer`."""
        count = self.u32()
        values = struct.unpack_from(f"<{count}q", self._data, self.at)
        self.at += 8 * count
        return values

    def blob(self) -> bytes | None:
        """See `Packer`."""
        length = self.u32()
        if length == _NONE:
            return None
        value = self._data[self.at : self.at + length]
        self.at += length
        return value

    def bytes_(self) -> bytes:
        """A blob that is there."""
        return self.blob() or b""

    def text_or_none(self) -> str | None:
        """See `Packer`."""
        value = self.blob()
        return None if value is None else value.decode()

    def text(self) -> str:
        """A text that is there."""
        return self.bytes_().decode()
