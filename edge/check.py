"""Whether a gateway could run here: looked at, one thing at a time, changing nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.budget import Load
from edge.check_place import (
    look_at_board,
    look_at_budget,
    look_at_clock,
    look_at_control,
    look_at_disk,
    look_at_keys,
)
from edge.clock import SystemClock
from edge.disk_kind import MOUNTS, memory_behind
from edge.frames import WRITTEN_TOPICS
from edge.models import ModelStore
from edge.settings import GatewaySettings
from edge.spool.look import describe
from edge.trial_inputs import built_in
from edge.trial_process import run_trial
from schemas.errors import MotorcadeError, SettingsError, TransientError
from transport.kafka import KafkaSettings, partition_counts, register_schemas
from transport.mqtt import MqttClient, SessionSettings
from transport.settings import MqttSettings

ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether a gateway can work with it.
        text: What was found, or what is wrong, in words.
    """

    name: str
    ok: bool
    text: str

    @property
    def stops(self) -> bool:
        """Whether a gateway must not even start.

        A full disk, a bad model, a broker that is away: it can deal with them, so they stop none.
        """
        return not self.ok and self.name in _STOPPING


_STOPPING = frozenset({"settings", "place", "spool"})


def check(
    settings: GatewaySettings,
    mqtt: MqttSettings,
    kafka: KafkaSettings,
    *,
    local: bool = False,
    load: Load | None = None,
) -> list[CheckResult]:
    """Look at settings, disk, model and brokers; takes some seconds when they do not answer.

    May be run beside a gateway that works. Kafka, the registry and a model may be missing for a
    gateway to start; it then stores, and waits for them.

    Args:
        settings: Of the gateway.
        mqtt: The broker near it.
        kafka: Where it forwards to.
        local: Leave the brokers alone; what can be seen from here keeps nobody waiting.
        load: What the gateway is to carry, for its budget; None: one vehicle, once a second.
    """
    looks: list[tuple[str, Callable[[], str]]] = [
        ("settings", lambda: _settings(settings)),
        ("place", lambda: _place(settings.spool_path.parent)),
        ("board", look_at_board),
        ("disk", lambda: look_at_disk(settings)),
        ("budget", lambda: look_at_budget(settings, load or Load())),
        ("spool", lambda: describe(settings.spool_path)),
        ("model", lambda: _model(settings)),
        ("keys", lambda: look_at_keys(settings)),
        ("clock", lambda: look_at_clock(SystemClock())),
        ("control", lambda: look_at_control(settings.control_path)),
    ]
    brokers: list[tuple[str, Callable[[], str]]] = [
        ("mqtt", lambda: _mqtt(settings, mqtt)),
        ("kafka", lambda: _kafka(kafka)),
        ("registry", lambda: _registry(kafka)),
    ]
    return [_result(name, look) for name, look in (looks if local else looks + brokers)]


def _result(name: str, look: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, True, look())
    except (MotorcadeError, OSError) as error:
        return CheckResult(name, False, str(error))


def _settings(settings: GatewaySettings) -> str:
    settings.validate()
    text = f"gateway {settings.gateway_id}, model {settings.model_name}"
    return text + (_SHARES.format(settings.shared_group) if settings.shared_group else "")


_SHARES = (
    "; shares the fleet in the group {}: it scores, and alerts by, no more than its own part of "
    "each vehicle's readings, unless the broker keeps a vehicle with one gateway"
)


def _place(directory: Path) -> str:
    """The spool does not lie on memory."""
    if memory := memory_behind(directory.resolve(), MOUNTS.read_text("utf-8")):
        raise SettingsError(f"{directory} is memory ({memory}): a power cut would take the spool")
    return f"{directory} is on a disk"


def _model(settings: GatewaySettings) -> str:
    """The model in use runs, in a process of its own: one that crashes must not stop the start."""
    directory = settings.models_path
    store = ModelStore(directory)
    current = store.peek().current
    if current is None:
        return f"no model yet in {directory}; it stores and forwards until one comes"
    bundle = store.read(current)
    run_trial(store.path_of(current), built_in(), timeout_s=settings.trial_timeout_s)
    return f"{bundle.manifest.name} {bundle.manifest.version} runs"


def _mqtt(settings: GatewaySettings, mqtt: MqttSettings) -> str:
    session = SessionSettings(f"motorcade-check-{settings.gateway_id}", clean_start=True)
    with MqttClient(mqtt, session) as client:
        client.wait_connected(ANSWER_S)
    return f"{mqtt.host}:{mqtt.port} accepts this client; fleet {mqtt.fleet}"


def _kafka(kafka: KafkaSettings) -> str:
    names = [topic.name for topic in WRITTEN_TOPICS]
    counts = partition_counts(kafka, names, timeout_s=ANSWER_S)
    missing = [name for name, count in counts.items() if count == 0]
    if missing:
        return f"{kafka.bootstrap_servers} answers; topics to be made: {', '.join(missing)}"
    return f"{kafka.bootstrap_servers} answers; all {len(names)} topics are there"


def _registry(kafka: KafkaSettings) -> str:
    try:
        register_schemas(kafka, WRITTEN_TOPICS)
    except TransientError as error:
        raise TransientError(f"{error}; nothing is forwarded until it answers") from error
    return f"{kafka.registry_url} knows the schemas"
