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
        spool_path: Where what is not yet in Kafka is kept. Never on a RAM disk.
        models_path: Directory of the installed model and its predecessors.
        model_name: Which model of `model.releases` to follow.
        spool_bytes_max: Bytes of the disk that the spool may take. When full, the oldest
            telemetry goes first; alerts and gap records never do.
        disk_free_min_bytes: Free space on that disk below which the oldest telemetry goes as well.
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
        backlog_after_s: What is not in Kafka after so long is backlog: it goes behind live data.
        backlog_rate: Messages of the backlog forwarded a second at most; 0: no limit.
        history_min_s: Forwarded telemetry is kept at least this long, to rebuild features from.
        history_messages_max: Forwarded messages kept at most, whatever their age.
        status_interval_s: Time between heartbeats on `gateway.status`.
        shared_group: Share the fleet with other gateways of this group, by an MQTT shared
            subscription; empty: this gateway takes all of it.
        control_path: Socket by which `motorcade gateway status`, `models`, `install-model` and
            `rollback` talk to a gateway that runs.
        trusted_keys_path: Directory of public keys (`*.pub`) whose signatures count.
        signatures_required: Refuse releases without a trusted signature. A signature that is
            there and does not fit is always refused.
        model_min_version: Refuse versions older than this one; empty: none. Numbers in versions
            count as numbers.
        models_inbox: Directory, such as of a USB stick, whose `*.motorcade` files are installed
            when they appear; None: none.
        trial_timeout_s: Longest time that a new model may take on the recorded inputs.
        agreement_share: Share of the scored batches whose scores are sent to be compared with the
            cloud's, 0..1.
    """

    gateway_id: str = "gateway-1"
    spool_path: Path = Path(".motorcade/gateway/spool.db")
    models_path: Path = Path(".motorcade/gateway/models")
    model_name: str = "anomaly"
    spool_bytes_max: int = 4 * 1024**3
    disk_free_min_bytes: int = 256 * 1024**2
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
    backlog_after_s: float = 30.0
    backlog_rate: float = 5_000.0
    history_min_s: float = 300.0
    history_messages_max: int = 2_000_000
    status_interval_s: float = 10.0
    shared_group: str = ""
    control_path: Path = Path(".motorcade/gateway/control.sock")
    trusted_keys_path: Path = Path(".motorcade/gateway/keys")
    signatures_required: bool = False
    model_min_version: str = ""
    models_inbox: Path | None = None
    trial_timeout_s: float = 60.0
    agreement_share: float = 0.01

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
