"""What a gateway can be told, with units and limits."""

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import SettingsError

GROUP_COMMIT_MS_MAX = 500


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of one gateway; constructing it checks nothing, `validate` does.

    Attributes:
        gateway_id: Name of this gateway, also its Kafka `transactional.id`. Two gateways with the
            same id fence each other.
        spool_path: SQLite file that keeps what is not yet in Kafka. Never on a RAM disk.
        models_path: Directory of the installed model and its predecessor.
        model_name: Which model of `model.releases` to follow.
        group_commit_ms: Longest wait for more messages before a commit; bounds what a power cut
            can take, all of it unacknowledged. 0..500.
        group_commit_max: Messages in a commit at most.
        queue_messages_max: Received messages waiting for a commit. When full, reading from MQTT
            stops, and the broker keeps what comes.
        queue_bytes_max: The same in bytes of payload.
        max_payload_bytes: A greater message is a dead letter.
        max_vehicles: Vehicles whose state is kept in memory; others are read from the spool
            (identity) or start afresh (features).
        ack_interval_ms: An end-to-end acknowledgement per vehicle at most this often.
        forward_messages_max: Messages in a Kafka transaction at most.
        forward_bytes_max: Payload bytes in a Kafka transaction at most (one message more).
        score_messages_max: Messages in a scoring batch at most.
        history_min_s: Forwarded telemetry is kept at least this long, to rebuild features from.
        history_messages_max: Forwarded messages kept at most, whatever their age.
        status_interval_s: Time between heartbeats on `gateway.status`.
    """

    gateway_id: str = "gateway-1"
    spool_path: Path = Path(".motorcade/gateway/spool.db")
    models_path: Path = Path(".motorcade/gateway/models")
    model_name: str = "anomaly"
    group_commit_ms: int = 20
    group_commit_max: int = 500
    queue_messages_max: int = 10_000
    queue_bytes_max: int = 32 * 1024 * 1024
    max_payload_bytes: int = 256 * 1024
    max_vehicles: int = 5_000
    ack_interval_ms: int = 500
    forward_messages_max: int = 10_000
    forward_bytes_max: int = 8 * 1024 * 1024
    score_messages_max: int = 5_000
    history_min_s: float = 300.0
    history_messages_max: int = 2_000_000
    status_interval_s: float = 10.0

    def validate(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            SettingsError: Names the setting and what it may be.
        """
        if not self.gateway_id or len(self.gateway_id.encode()) > 128:
            raise SettingsError("gateway_id: wanted 1 to 128 bytes of UTF-8")
        if not 0 <= self.group_commit_ms <= GROUP_COMMIT_MS_MAX:
            raise SettingsError(
                f"group_commit_ms: {self.group_commit_ms} is not in 0..{GROUP_COMMIT_MS_MAX}"
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name}: {getattr(self, name)} is not greater than 0")


_POSITIVE = (
    "group_commit_max",
    "queue_messages_max",
    "queue_bytes_max",
    "max_payload_bytes",
    "max_vehicles",
    "ack_interval_ms",
    "forward_messages_max",
    "forward_bytes_max",
    "score_messages_max",
    "history_messages_max",
    "status_interval_s",
)
