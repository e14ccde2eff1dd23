"""How a gateway's heartbeat reads: one line for people, one JSON object for programs. Pure."""

import json
from collections.abc import Iterable, Iterator

from cloud.alert_lines import clock_time, duration
from schemas.records import Record

MIB = 1024**2


def gateway_line(status: Record) -> str:
    """When, which, uplink, what waits, given up, model, scoring, spool, room, clock.

    Example:
        >>> gateway_line({
        ...     "time": 0, "gateway_id": "g-7", "uplink": "connected", "spool_depth": 12,
        ...     "spool_oldest_age_s": 3.0, "drops": {}, "model_name": "a",
        ...     "model_version": "7", "scoring": "ok", "spool": "ok", "disk_free_bytes": -1,
        ...     "clock_synced": True, "mqtt_connected": True, "model_rollback": None,
        ... })
        '1970-01-01 00:00:00.0Z g-7: uplink connected, 12 wait since 3 s, a 7 scoring ok, spool ok'
    """
    model = "no model" if status["model_version"] is None else _model(status)
    parts = [
        f"uplink {status['uplink']}",
        f"{status['spool_depth']} wait since {duration(round(status['spool_oldest_age_s'] * 1000))}"
        if status["spool_depth"]
        else "nothing waits",
        f"{model} scoring {status['scoring'] or 'not told'}",
        f"spool {status['spool'] or 'not told'}",
        *_remarks(status),
    ]
    return f"{clock_time(status['time'])} {status['gateway_id']}: {', '.join(parts)}"


def _model(status: Record) -> str:
    return f"{status['model_name'] or 'model'} {status['model_version']}"


def _remarks(status: Record) -> Iterator[str]:
    if status["disk_free_bytes"] >= 0:
        yield f"{status['disk_free_bytes'] // MIB} MiB free"
    if given_up := sum(status["drops"].values()):
        yield f"{given_up} given up"
    if not status["mqtt_connected"]:
        yield "MQTT AWAY"
    if not status["clock_synced"]:
        yield "clock not known to be right"
    if status["model_rollback"]:
        yield f"went back: {status['model_rollback']}"


def gateway_json(status: Record) -> str:
    """The record as it is, its time in milliseconds."""
    return json.dumps(status)


def newest(statuses: Iterable[Record]) -> list[Record]:
    """The last heartbeat of each gateway, in order of their ids."""
    found = {status["gateway_id"]: status for status in statuses}
    return [found[gateway_id] for gateway_id in sorted(found)]


def changes(statuses: Iterable[Record]) -> Iterator[Record]:
    """Those heartbeats whose state is another than that of the gateway's last one."""
    known: dict[str, tuple[object, ...]] = {}
    for status in statuses:
        state = _state(status)
        if known.get(status["gateway_id"]) != state:
            known[status["gateway_id"]] = state
            yield status


def _state(status: Record) -> tuple[object, ...]:
    return (
        status["uplink"].partition(" since")[0],
        status["scoring"],
        status["spool"],
        status["model_version"],
        status["mqtt_connected"],
        status["clock_synced"],
        status["model_rollback"],
        tuple(sorted(status["drops"])),
    )
