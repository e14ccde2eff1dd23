"""The references of settings and of topics, from the dataclasses and the Avro schemas."""

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motorcade.config import env_name
from motorcade.options import default_text
from motorcade.sections import SECTIONS, Key, Section, keys_of, members, secret_files
from schemas.records import fingerprint, schema_json
from schemas.topics import TOPICS, Topic, subject

_CONFIGURATION_HEADER = """# Configuration

Made by `python -m motorcade.docs write` from the code; do not edit.

One file, `motorcade.toml`, in the working directory or where `--config` or `MOTORCADE_CONFIG`
says. A variable `MOTORCADE_<SECTION>_<KEY>` goes over the file, a flag over both. An unknown key,
and a value that its key may not have, are refused with file and line and what is allowed; nothing
starts with half of a file. Keys marked *Live* change while the program runs, when it is told to
read its file again (`motorcade gateway reload`, or SIGHUP). A table in a section (`[mqtt.tls]`) has
one variable, which takes JSON. A key that ends in `password` can come from a file instead: its
name with `_file` behind it holds the path.

```toml
[mqtt]
host = "broker.example.org"
username = "gateway-17"
password_file = "/etc/motorcade/mqtt.password"

[kafka]
bootstrap_servers = "kafka-1.example.org:9092,kafka-2.example.org:9092"
registry_url = "https://registry.example.org"
```
"""

_TOPICS_HEADER = """# Topics and schemas

Made by `python -m motorcade.docs write` from the code; do not edit.

Keys of `vehicle.*` topics are vehicle ids in UTF-8. Values are Avro in the Confluent wire format;
the subject of a topic's values is its name with `-value`. Partitions are what `motorcade topics
create` makes where a topic is missing; those of the `vehicle.*` topics that one scorer reads and
writes must be equal in number.
"""

_MQTT = """## MQTT

| topic | payload | way |
| --- | --- | --- |
| `v1/{fleet}/{vehicle}/telemetry` | `TelemetryBatch` | vehicle to gateway, QoS 1 |
| `v1/{fleet}/{vehicle}/label` | `VehicleLabel` | ground truth to gateway, QoS 1 |
| `v1/{fleet}/{vehicle}/ack` | `Ack` | gateway to vehicle: what is on its disk |
| `v1/{fleet}/{vehicle}/alert/{code}` | `Alert` | gateway to all, retained; emptied when it closes |
| `v1/{fleet}/{vehicle}/state/link` | `online`, `offline` | retained; `offline` as will |
| `v1/{fleet}/{gateway}/state/link` | `online`, `offline` | the same of a gateway |
| `v1/{fleet}/{gateway}/state/health` | `GatewayStatus` | gateway to all, QoS 1, retained |

Payloads are Avro single objects: `C3 01`, the fingerprint below, the body.
"""


def configuration_page() -> str:
    """docs/configuration.md."""
    return "\n".join([_CONFIGURATION_HEADER, *(_section(section) for section in SECTIONS)])


def _section(section: Section) -> str:
    rows = "\n".join(_key_rows(section.name, section.kind()))
    table = "| key | type | default | variable | meaning |\n| --- | --- | --- | --- | --- |"
    return f"## [{section.name}]\n\n{section.doc}\n\n{table}\n{rows}\n"


def _key_rows(name: str, kind: type[Any], prefix: str = "") -> Iterator[str]:
    keys = keys_of(kind)
    for key in keys:
        if key.table:
            yield from _key_rows(name, key.table, f"{prefix}{key.name}.")
        else:
            yield _key_row(name, key, prefix)
    for file in secret_files(keys):
        variable = f"`{env_name(name, file)}`" if not prefix else ""
        yield f"| `{prefix}{file}` | path | | {variable} | File that holds the secret. |"


def _key_row(section: str, key: Key, prefix: str) -> str:
    # Below the first level there is one variable for the whole table, as JSON.
    variable = env_name(section, prefix.rstrip(".") or key.name)
    default = "required" if key.default is dataclasses.MISSING else _default(key.default)
    kind = type_text(key.annotation) + (f": {key.allowed}" if key.allowed else "")
    doc = f"{key.doc} *Live.*" if key.live else key.doc
    cells = [f"`{prefix}{key.name}`", kind, default, f"`{variable}`", doc]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if value is None else f"`{default_text(value)}`"


_TYPE_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}


def type_text(annotation: Any) -> str:
    """A type as a person would name it."""
    return " or ".join(_member_text(member) for member in members(annotation))


def _member_text(member: Any) -> str:
    if typing.get_origin(member) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(member))
    if typing.get_origin(member) is tuple:
        return f"list of {type_text(typing.get_args(member)[0])}"
    if hasattr(member, "__members__"):
        return ", ".join(f"`{value.value}`" for value in member)
    return _TYPE_NAMES.get(member, getattr(member, "__name__", str(member)))


def topics_page() -> str:
    """docs/topics.md."""
    head = "| topic | value | partitions | kept | holds |\n| --- | --- | --- | --- | --- |"
    rows = "\n".join(_topic_row(topic) for topic in TOPICS)
    records = sorted({topic.record for topic in TOPICS} | {"Ack"})
    schemas = [_record(json.loads(schema_json(name))) for name in records]
    return "\n".join([_TOPICS_HEADER, "## Kafka", "", head, rows, "", _MQTT, *schemas])


def _topic_row(topic: Topic) -> str:
    kept = "newest of a key" if topic.compacted else "by time"
    record = f"[{topic.record}](#{topic.record.lower()})"
    assert subject(topic) == f"{topic.name}-value"  # what the header says
    return f"| `{topic.name}` | {record} | {topic.partitions} | {kept} | {topic.doc} |"


def _record(schema: dict[str, Any]) -> str:
    name = schema["name"]
    lines = [f"## {name}", "", schema.get("doc", ""), ""]
    lines += [f"Fingerprint `{fingerprint(name).hex()}`, as on the wire.", ""]
    lines += ["| field | type | meaning |", "| --- | --- | --- |", *_field_rows(schema), ""]
    return "\n".join(lines)


def _field_rows(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for field in schema["fields"]:
        yield f"| `{prefix}{field['name']}` | {_avro_text(field['type'])} | {_field_doc(field)} |"
        inner = _inner_record(field["type"])
        if inner is not None:
            yield from _field_rows(inner, f"{prefix}{field['name']}[].")


def _field_doc(field: dict[str, Any]) -> str:
    if "vss" not in field:
        return str(field.get("doc", "")).replace("|", "&#124;")
    limits = f"{field['min']:g} … {field['max']:g} {field['unit']}"
    return f"`{field['vss']}`, {limits} ({field['vss_catalog']})"


def _inner_record(avro: Any) -> dict[str, Any] | None:
    if isinstance(avro, list):
        return next((found for found in map(_record_or_inner, avro) if found is not None), None)
    if isinstance(avro, dict) and avro.get("type") == "array":
        items = avro["items"]
        return items if isinstance(items, dict) and items.get("type") == "record" else None
    return None


def _record_or_inner(avro: Any) -> dict[str, Any] | None:
    """A record that a union may hold, or one that an array in it holds."""
    if isinstance(avro, dict) and avro.get("type") == "record":
        return avro
    return _inner_record(avro)


def _avro_text(avro: Any) -> str:
    if isinstance(avro, list):
        return " or ".join(_avro_text(member) for member in avro)
    if isinstance(avro, str):
        return avro
    kind = avro["type"]
    if kind == "array":
        return f"array of {_avro_text(avro['items'])}"
    if kind == "map":
        return f"map to {_avro_text(avro['values'])}"
    if kind == "enum":
        return ", ".join(f"`{symbol}`" for symbol in avro["symbols"])
    if kind in ("record", "fixed"):
        return str(avro["name"])
    return f"{kind} ({avro['logicalType']})" if "logicalType" in avro else str(kind)
