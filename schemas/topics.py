"""Every topic name, declared once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic and what it holds.

    Attributes:
        name: Topic name. Its value subject in the registry is `{name}-value`.
        record: Avro record of the values.
        partitions: Partitions that the local stack makes. Topics keyed by vehicle and written by
            one scorer task are co-partitioned with `vehicle.telemetry`.
        compacted: Keeps the newest value of a key.
        doc: One line for people.
    """

    name: str
    record: str
    partitions: int
    compacted: bool
    doc: str


VEHICLE_PARTITIONS = 4

TELEMETRY = Topic(
    "vehicle.telemetry", "TelemetryBatch", VEHICLE_PARTITIONS, False, "What vehicles measured"
)
SCORES = Topic(
    "vehicle.scores",
    "ScoreBatch",
    VEHICLE_PARTITIONS,
    False,
    "One score a reading; late also where it came out of order and was scored without memory",
)
ALERTS = Topic(
    "vehicle.alerts", "Alert", VEHICLE_PARTITIONS, False, "Anomalies as they open and close"
)
ALERTS_STATE = Topic(
    "vehicle.alerts.state", "Alert", VEHICLE_PARTITIONS, True, "Open alerts; a tombstone closes"
)
LABELS = Topic(
    "vehicle.labels", "VehicleLabel", VEHICLE_PARTITIONS, False, "What was truly the matter"
)
RELEASES = Topic("model.releases", "ModelRelease", 1, True, "Models, newest of a version")
CHUNKS = Topic("model.chunks", "ModelChunk", 1, True, "Bytes of models too large for one record")
TRAFFIC = Topic("model.traffic", "ModelTraffic", 1, True, "Aliases and experiment of each model")
REQUESTS = Topic("model.requests", "ModelRequest", 4, False, "Rows to score, for the model server")
RESPONSES = Topic(
    "model.responses", "ModelResponse", 4, False, "What the model server made of them"
)
MODEL_STATS = Topic("model.stats", "ModelStats", 1, False, "Counts and histograms of each arm")
MODEL_EVENTS = Topic("model.events", "ModelEvent", 1, False, "Promotions, rollbacks, drift")
SHADOW_SCORES = Topic(
    "vehicle.scores.shadow", "ScoreBatch", VEHICLE_PARTITIONS, False, "Scores of shadow arms"
)
SHADOW_ALERTS = Topic(
    "vehicle.alerts.shadow", "Alert", VEHICLE_PARTITIONS, False, "Alerts that a shadow would raise"
)
SHADOW_ALERTS_STATE = Topic(
    "vehicle.alerts.shadow.state",
    "Alert",
    VEHICLE_PARTITIONS,
    True,
    "Open alerts of shadow arms; a tombstone closes",
)
GATEWAY_STATUS = Topic("gateway.status", "GatewayStatus", 1, False, "Heartbeats of gateways")
GATEWAY_POSITIONS = Topic(
    "gateway.positions", "GatewayPosition", 1, True, "How far spools are forwarded"
)
GAPS = Topic(
    "vehicle.gaps", "GatewayGap", VEHICLE_PARTITIONS, False, "What gateways had to give up"
)
CLOCKS = Topic(
    "vehicle.clocks",
    "VehicleClock",
    VEHICLE_PARTITIONS,
    True,
    "True times of boots that began without a clock",
)
EDGE_SCORES = Topic(
    "vehicle.scores.edge",
    "ScoreBatch",
    VEHICLE_PARTITIONS,
    False,
    "A sample of the gateways' scores, to compare with the cloud's",
)
DEAD_LETTERS = Topic("dead-letters", "DeadLetter", 1, False, "What could not be processed")

TOPICS: tuple[Topic, ...] = (
    TELEMETRY,
    SCORES,
    ALERTS,
    ALERTS_STATE,
    LABELS,
    RELEASES,
    CHUNKS,
    TRAFFIC,
    REQUESTS,
    RESPONSES,
    MODEL_STATS,
    MODEL_EVENTS,
    SHADOW_SCORES,
    SHADOW_ALERTS,
    SHADOW_ALERTS_STATE,
    GATEWAY_STATUS,
    GATEWAY_POSITIONS,
    GAPS,
    CLOCKS,
    EDGE_SCORES,
    DEAD_LETTERS,
)


def subject(topic: Topic) -> str:
    """Registry subject of a topic's values (Confluent's TopicNameStrategy)."""
    return f"{topic.name}-value"


def alert_state_key(origin: str, vehicle_id: bytes, code: str) -> bytes:
    """Key in `vehicle.alerts.state`: edge and cloud each hold their own alert of a vehicle.

    A vehicle id holds no `/`. The key's hash would choose another partition than the vehicle's,
    so a writer states the partition of the vehicle's telemetry.
    """
    return b"/".join((origin.encode(), vehicle_id, code.encode()))


MQTT_ROOT = "v1"


def mqtt_telemetry(fleet: str, vehicle_id: str) -> str:
    """Vehicle to gateway: TelemetryBatch, QoS 1."""
    return f"{MQTT_ROOT}/{fleet}/{vehicle_id}/telemetry"


def mqtt_label(fleet: str, vehicle_id: str) -> str:
    """Simulator or workshop to gateway: VehicleLabel, QoS 1."""
    return f"{MQTT_ROOT}/{fleet}/{vehicle_id}/label"


def mqtt_ack(fleet: str, vehicle_id: str) -> str:
    """Gateway to vehicle: Ack, QoS 0; a lost one is made good by the next."""
    return f"{MQTT_ROOT}/{fleet}/{vehicle_id}/ack"


def mqtt_alert(fleet: str, vehicle_id: str, code: str) -> str:
    """Gateway to all who watch: Alert, QoS 1, retained; emptied when it closes."""
    return f"{MQTT_ROOT}/{fleet}/{vehicle_id}/alert/{code}"


def mqtt_link_state(fleet: str, vehicle_id: str) -> str:
    """Retained `online`, or `offline` as will."""
    return f"{MQTT_ROOT}/{fleet}/{vehicle_id}/state/link"


def mqtt_health(fleet: str, component_id: str) -> str:
    """Gateway to all who watch: GatewayStatus, QoS 1, retained."""
    return f"{MQTT_ROOT}/{fleet}/{component_id}/state/health"


def mqtt_shared(group: str, topic_filter: str) -> str:
    """The filter by which those of a group get each message once among them; without one, all.

    Example:
        >>> mqtt_shared("depot", "v1/f/+/label"), mqtt_shared("", "v1/f/+/label")
        ('$share/depot/v1/f/+/label', 'v1/f/+/label')
    """
    return f"$share/{group}/{topic_filter}" if group else topic_filter
