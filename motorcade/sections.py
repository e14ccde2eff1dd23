"""The sections of the settings file: which dataclass of which room stands behind each."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from transport.limits import limits_of, live_keys

_ENTRY = re.compile(r"^    (\w+):\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        name: Key in the file.
        annotation: Its type, resolved.
        default: Its default; `dataclasses.MISSING` where it must be given.
        doc: What the dataclass's docstring says of it, on one line.
        allowed: What it may be, in words; empty where its type says all.
        live: Whether it may change while the program runs.
    """

    name: str
    annotation: Any
    default: Any
    doc: str
    allowed: str = ""
    live: bool = False

    @property
    def secret(self) -> bool:
        """Whether it must not stand in a process list or in a log."""
        return self.name.endswith(("password", "secret"))

    @property
    def table(self) -> type[Any] | None:
        """The dataclass behind a key that is a table of its own."""
        tables = (m for m in members(self.annotation) if isinstance(m, type))
        return next((table for table in tables if dataclasses.is_dataclass(table)), None)


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the settings file.

    Attributes:
        name: Table name, and the middle part of its variables.
        module: Where the dataclass is. A light module: reading settings must not import brokers'
            clients or TensorFlow.
        class_name: The frozen dataclass.
        doc: One line for people.
    """

    name: str
    module: str
    class_name: str
    doc: str

    def kind(self) -> type[Any]:
        """The dataclass."""
        kind: type[Any] = getattr(import_module(self.module), self.class_name)
        return kind

    def settings(self) -> tuple[Key, ...]:
        """Its settings, in the order of declaration."""
        return keys_of(self.kind())

    def required(self) -> tuple[str, ...]:
        """Keys without a default."""
        return tuple(key.name for key in self.settings() if key.default is dataclasses.MISSING)

    def secret_files(self) -> tuple[str, ...]:
        """Keys `<secret>_file` that this section takes beside its own."""
        return secret_files(self.settings())


SECTIONS: tuple[Section, ...] = (
    Section(
        "stack", "motorcade.stack_settings", "StackSettings", "The brokers of `motorcade stack`."
    ),
    Section("mqtt", "transport.settings", "MqttSettings", "The MQTT broker."),
    Section("kafka", "transport.settings", "KafkaSettings", "Kafka and the schema registry."),
    Section("simulator", "simulator.settings", "SimulatorSettings", "`motorcade simulate`."),
    Section("gateway", "edge.settings", "GatewaySettings", "`motorcade gateway`."),
    Section("scorer", "cloud.settings", "ScorerSettings", "`motorcade score`."),
    Section("server", "cloud.settings", "ServerSettings", "`motorcade serve`."),
    Section("trainer", "cloud.settings", "TrainSettings", "`motorcade train`."),
    Section("monitor", "cloud.monitoring.settings", "MonitorSettings", "`motorcade monitor`."),
    Section("metrics", "transport.settings", "MetricsSettings", "Metrics for Prometheus."),
    Section("tracing", "transport.settings", "TracingSettings", "Traces by OpenTelemetry."),
)


def section_of(kind: type[Any]) -> Section:
    """The section that a dataclass stands behind.

    Raises:
        KeyError: None does.
    """
    for section in SECTIONS:
        if section.kind() is kind:
            return section
    raise KeyError(kind.__name__)


def section_named(name: str) -> Section:
    """The section of that name. Raises KeyError."""
    for section in SECTIONS:
        if section.name == name:
            return section
    raise KeyError(name)


def secret_files(keys: Collection[Key]) -> tuple[str, ...]:
    """The `<secret>_file` keys that a table takes beside its own."""
    names = {key.name for key in keys}
    files = (f"{key.name}_file" for key in keys if key.secret)
    return tuple(name for name in files if name not in names)


def members(annotation: Any) -> tuple[Any, ...]:
    """What a union is made of, without None; other annotations as they are."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return tuple(m for m in typing.get_args(annotation) if m is not types.NoneType)
    return (annotation,)


def keys_of(kind: type[Any]) -> tuple[Key, ...]:
    """The settings of a dataclass, in the order of declaration."""
    hints = typing.get_type_hints(kind)
    docs = dict(attribute_docs(inspect.getdoc(kind) or ""))
    limits, live = limits_of(kind), live_keys(kind)
    return tuple(
        Key(
            field.name,
            hints[field.name],
            _default(field),
            docs.get(field.name, ""),
            limits[field.name].text if field.name in limits else "",
            field.name in live,
        )
        for field in dataclasses.fields(kind)
        if field.init
    )


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def attribute_docs(docstring: str) -> Iterator[tuple[str, str]]:
    r"""Name and text of each entry under `Attributes:` of a Google-style docstring.

    Example:
        >>> list(attribute_docs("X.\n\nAttributes:\n    port: Where it\n        listens."))
        [('port', 'Where it listens.')]
    """
    _, _, block = docstring.partition("Attributes:\n")
    name = ""
    words: list[str] = []
    for line in block.splitlines():
        if entry := _ENTRY.match(line):
            if name:
                yield name, " ".join(words)
            name, words = entry.group(1), [entry.group(2)]
        elif line.startswith("        "):
            words.append(line.strip())
        elif line.strip():
            break
    if name:
        yield name, " ".join(words)
