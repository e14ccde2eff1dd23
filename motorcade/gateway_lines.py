"""The status of a gateway, as lines for a person."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

Status = Mapping[str, Any]

_NAME_WIDTH = 12
_WHEN = "%Y-%m-%d %H:%M:%S"


def status_lines(status: Status) -> Iterator[str]:
    """What the control socket's `status` answered, one line a subject."""
    faults, notes = status["faults"], status["notes"]
    yield f"{status['gateway_id']}: {'healthy' if not faults else 'NOT HEALTHY'}"
    yield from (f"  ! {text}" for text in faults)
    yield from (f"  - {text}" for text in notes)
    rows = [
        ("up", duration_text(status["uptime_s"])),
        ("uplink", status["uplink"]),
        ("mqtt", "connected" if status["mqtt_connected"] else "away"),
        ("waiting", _waiting(status)),
        ("spool", _spool(status)),
        ("disk", _disk(status)),
        ("given up", _drops(status["drops"])),
        ("vehicles", f"{status['vehicle_drops']:,} batches given up by vehicles themselves"),
        ("counts", _counts(status)),
        ("model", _model(status)),
        ("scoring", status["scoring"]),
        ("clock", "known to be right" if status["clock_synced"] else "not known to be right"),
        ("board", _board(status)),
    ]
    yield from (f"{name:<{_NAME_WIDTH}}{text}" for name, text in rows)
    yield from _config(status.get("configuration"))
    yield from _problems(status["last_problems"])


def _waiting(status: Status) -> str:
    depth = status["spool_depth"]
    if not depth:
        return "nothing; all is in Kafka"
    age = duration_text(status["spool_oldest_age_s"])
    return f"{depth:,} records, the oldest since {age}; {status['backlog_depth']:,} of them backlog"


def _spool(status: Status) -> str:
    quota, allowed = status["spool_bytes_max"], status["spool_bytes_allowed"]
    share = 100.0 * status["spool_bytes"] / max(1, allowed)
    less = "" if allowed == quota else f" (quota {bytes_text(quota)}; the disk has not the room)"
    return (
        f"{status['spool']}; {bytes_text(status['spool_bytes'])} of {bytes_text(allowed)}, "
        f"{share:.0f} %{less}"
    )


def _disk(status: Status) -> str:
    free = status["disk_free_bytes"]
    if free < 0:
        return "does not tell how much is free"
    floor = bytes_text(status["disk_free_min_bytes"])
    return f"{bytes_text(free)} free, {floor} to stay free"


def _drops(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} by {reason}" for reason, count in sorted(drops.items())) or "none"


def _counts(status: Status) -> str:
    names = ("received", "stored", "duplicates", "dead_letters", "scored", "alerts", "forwarded")
    return ", ".join(f"{status[name]:,} {name.replace('_', ' ')}" for name in names)


def _model(status: Status) -> str:
    if status["model_version"] is None:
        return "none"
    sha256 = (status["model_sha256"] or "")[:12]
    back = status["model_rollback"]
    return (
        f"{status['model_name']} {status['model_version']}{f' ({sha256})' if sha256 else ''}"
        f"{f'; went back: {back}' if back else ''}"
    )


def _board(status: Status) -> str:
    celsius = status["temperature_celsius"]
    warmth = "no thermometer" if celsius is None else f"{celsius:.0f} °C"
    return f"{bytes_text(status['rss_bytes'])} of memory, {warmth}"


def _config(configuration: Mapping[str, Any] | None) -> Iterator[str]:
    if not configuration:
        return
    if refused := configuration["refused"]:
        yield f"{'settings':<{_NAME_WIDTH}}the last reload was refused: {refused}"
    if waiting := configuration["needs_restart"]:
        yield f"{'settings':<{_NAME_WIDTH}}changed, and waiting for a restart: {', '.join(waiting)}"


def _problems(problems: list[Status]) -> Iterator[str]:
    if problems:
        yield "last problems"
    for problem in problems:
        when = datetime.fromtimestamp(problem["time_ms"] / 1000.0, UTC).strftime(
            "%Y-%m-%d %H:%M:%S"
        )
        times = f" ({problem['count']:,} times)" if problem["count"] > 1 else ""
        yield f"  {when}Z  {problem['text']}{times}"


def duration_text(seconds: float) -> str:
    """A span as a person would say it.

    Example:
        >>> duration_text(93_784)
        '1 d 2 h'
        >>> duration_text(59.9)
        '59 s'
    """
    left = int(seconds)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def bytes_text(count: float) -> str:
    """A size as a person would say it.

    Example:
        >>> bytes_text(4 * 1024**3), bytes_text(1_500), bytes_text(-1)
        ('4.0 GiB', '1.5 KiB', 'unknown')
    """
    if count < 0:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
