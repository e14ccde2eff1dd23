"""A strict walk over an Avro body, before fastavro is let near it.

fastavro is lenient where Avro is not: it wraps varints of any length, takes branch -1 of a union
and a boolean of 7. Such a body would pass a gateway and then stop every Java consumer of the
topic. It also reads as many array items as a count claims. This walk takes no
more memory than the body and at most one step a byte; a body that passes it is safe for any
Avro reader.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from schemas.errors import ContractError, Reason

Step = Callable[[bytes, int], int]
"""Given a body and the position of a value, the position behind it. Raises ContractError."""

_LONG_BITS = 64
_INT_BITS = 32


@cache
def walker(schema_json: str) -> Step:
    """The walk for one schema, given as JSON text; recursive schemas are not supported."""
    return _compile(json.loads(schema_json), {})[0]


def check_body(walk: Step, body: bytes) -> None:
    """Check that a body is one value of the schema, strictly, and nothing more.

    Raises:
        ContractError: TRUNCATED where it ends early, MALFORMED where it is no such value.
    """
    end = walk(body, 0)
    if end != len(body):
        raise _malformed(f"{len(body) - end} bytes behind the end")


def _malformed(detail: str) -> ContractError:
    return ContractError(Reason.MALFORMED, detail)


def _behind(body: bytes, end: int) -> int:
    if end > len(body):
        raise ContractError(Reason.TRUNCATED, f"ends after {len(body)} bytes")
    return end


def _varint(body: bytes, at: int, bits: int = _LONG_BITS) -> tuple[int, int]:
    """A zigzag varint and the position behind it."""
    coded = shift = 0
    while True:
        if at >= len(body):
            raise ContractError(Reason.TRUNCATED, f"ends after {len(body)} bytes")
        byte = body[at]
        at += 1
        coded |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= _LONG_BITS:
            raise _malformed("a varint of more than 10 bytes")
    if coded >> bits:
        raise _malformed(f"a number of more than {bits} bits")
    return (coded >> 1) ^ -(coded & 1), at


def _int(body: bytes, at: int) -> int:
    return _varint(body, at, _INT_BITS)[1]


def _long(body: bytes, at: int) -> int:
    return _varint(body, at)[1]


def _boolean(body: bytes, at: int) -> int:
    end = _behind(body, at + 1)
    if body[at] > 1:
        raise _malformed(f"a boolean of {body[at]}")
    return end


def _bytes(body: bytes, at: int) -> int:
    size, at = _varint(body, at)
    if size < 0:
        raise _malformed(f"a length of {size}")
    return _behind(body, at + size)


def _string(body: bytes, at: int) -> int:
    size, start = _varint(body, at)
    end = _bytes(body, at)
    try:
        body[start : start + size].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"a string that is not UTF-8: {error.reason}") from error
    return end


def _fixed(size: int) -> Step:
    return lambda body, at: _behind(body, at + size)


def _one_of(what: str, count: int) -> Callable[[bytes, int], tuple[int, int]]:
    def choose(body: bytes, at: int) -> tuple[int, int]:
        chosen, at = _varint(body, at)
        if not 0 <= chosen < count:
            raise _malformed(f"{what} {chosen} of {count}")
        return chosen, at

    return choose


def _enum(count: int) -> Step:
    choose = _one_of("symbol", count)
    return lambda body, at: choose(body, at)[1]


def _union(branches: list[Step]) -> Step:
    choose = _one_of("branch", len(branches))

    def walk(body: bytes, at: int) -> int:
        chosen, at = choose(body, at)
        return branches[chosen](body, at)

    return walk


def _record(fields: list[Step]) -> Step:
    def walk(body: bytes, at: int) -> int:
        for field in fields:
            at = field(body, at)
        return at

    return walk


def _array(item: Step, item_bytes_min: int) -> Step:
    def block(body: bytes, at: int, count: int) -> int:
        if count > (len(body) - at) // max(1, item_bytes_min):
            raise ContractError(Reason.TRUNCATED, f"{count} items in {len(body) - at} bytes")
        for _ in range(count):
            at = item(body, at)
        return at

    def walk(body: bytes, at: int) -> int:
        while True:
            count, at = _varint(body, at)
            if count == 0:
                return at
            if count > 0:
                at = block(body, at, count)
                continue
            size, start = _varint(body, at)
            at = block(body, start, -count)
            if at != start + size:
                raise _malformed(f"an array block of {at - start} bytes that claims {size}")

    return walk


_PRIMITIVES: dict[str, tuple[Step, int]] = {
    "null": (_fixed(0), 0),
    "boolean": (_boolean, 1),
    "int": (_int, 1),
    "long": (_long, 1),
    "float": (_fixed(4), 4),
    "double": (_fixed(8), 8),
    "bytes": (_bytes, 1),
    "string": (_string, 1),
}


def _compile(schema: Any, names: dict[str, tuple[Step, int]]) -> tuple[Step, int]:
    """The walk of a schema and the fewest bytes that a value can take."""
    if isinstance(schema, str):
        return _PRIMITIVES[schema] if schema in _PRIMITIVES else names[schema]
    if isinstance(schema, list):
        branches = [_compile(branch, names) for branch in schema]
        return _union([walk for walk, _ in branches]), 1 + min(size for _, size in branches)
    compiled = _compile_complex(schema, names)
    if "name" in schema:
        names[schema["name"]] = compiled
    return compiled


def _compile_complex(schema: Any, names: dict[str, tuple[Step, int]]) -> tuple[Step, int]:
    kind = schema["type"]
    if kind == "record":
        fields = [_compile(field["type"], names) for field in schema["fields"]]
        return _record([walk for walk, _ in fields]), sum(size for _, size in fields)
    if kind == "array":
        return _array(*_compile(schema["items"], names)), 1
    if kind == "map":  # on the wire an array of keys and values
        value, size = _compile(schema["values"], names)
        return _array(_record([_string, value]), 1 + size), 1
    if kind == "enum":
        return _enum(len(schema["symbols"])), 1
    if kind == "fixed":
        return _fixed(schema["size"]), schema["size"]
    return _compile(kind, names)
