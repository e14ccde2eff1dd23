"""Points in time as people type them."""

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

_AGE = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd])$")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment_ms(text: str, *, now_ms: int) -> int:
    """Milliseconds since the epoch of an age ('5m', '90s', '2h', '1d') or an ISO 8601 time.

    A time without a zone is UTC.

    Raises:
        ValueError: It is neither.

    Example:
        >>> moment_ms("2m", now_ms=200_000)
        80000
        >>> moment_ms("1970-01-01T00:00:01", now_ms=0)
        1000
    """
    if age := _AGE.match(text):
        return now_ms - round(float(age.group(1)) * _UNIT_S[age.group(2)] * 1000)
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


if TYPE_CHECKING:
    _Base = click.ParamType[int]
else:  # older releases of click are not generic
    _Base = click.ParamType


class Moment(_Base):
    """A flag that takes what `moment_ms` does; its value is milliseconds since the epoch."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The time in milliseconds, or click's error."""
        try:
            return moment_ms(str(value), now_ms=time.time_ns() // 1_000_000)
        except ValueError:
            self.fail(f"{value!r} is no age like 5m, 2h or 1d, and no time like 2026-11-22T18:30Z")
