"""What a gateway can be told, with units and limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edge.control_wire import check_path
from transport.limits import LIVE, Between, Words, check


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of one gateway; constructing it checks nothing, `validate` does.

    What is marked LIVE may change while the gateway runs, so whoever uses it asks for it each time.

    Attributes:
        gateway_id: Name of this gateway, also its Kafka `transactional.id`. Two gateways with the
            same id fence each other.
        spool_path: Directory where what is not yet in Kafka is kept. Never on a RAM disk. An
            SQLite spool of an earlier program that lies there, or beside it as `spool.db`, is
            taken over.
        models_path: Directory of the installed model and its predecessors.
        model_name: Which model of `model.releases` to follow.
        spool_bytes_max: Bytes of the disk that the spool may take. When full, the oldest
            telemetry goes first; alerts and gap records never do.
        disk_free_min_bytes: Free space on that disk below which the oldest telemetry goes as well.
        group_commit_ms: Longest wait for more messages before a commit; bounds what a power cut
            can take, all of it unacknowledged.
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
            cloud's.
    """

    gateway_id: Annotated[str, Words(1, 128, without="/+#")] = "gateway-1"
    spool_path: Path = Path(".motorcade/gateway/spool")
    models_path: Path = Path(".motorcade/gateway/models")
    model_name: Annotated[str, Words(1, 128)] = "anomaly"
    spool_bytes_max: Annotated[int, Between(1024**2, unit="bytes"), LIVE] = 4 * 1024**3
    disk_free_min_bytes: Annotated[int, Between(0, unit="bytes"), LIVE] = 256 * 1024**2
    group_commit_ms: Annotated[int, Between(0, 500, unit="ms"), LIVE] = 5
    group_commit_max: Annotated[int, Between(1, 100_000), LIVE] = 500
    queue_messages_max: Annotated[int, Between(1, 1_000_000)] = 10_000
    queue_bytes_max: Annotated[int, Between(1, 1024**3, unit="bytes")] = 32 * 1024 * 1024
    max_payload_bytes: Annotated[int, Between(1, 16 * 1024**2, unit="bytes")] = 256 * 1024
    max_vehicles: Annotated[int, Between(1, 1_000_000)] = 5_000
    ack_interval_ms: Annotated[int, Between(1, 60_000, unit="ms"), LIVE] = 500
    forward_messages_max: Annotated[int, Between(1, 250_000), LIVE] = 4_000
    forward_bytes_max: Annotated[int, Between(1, 1024**3, unit="bytes")] = 2 * 1024 * 1024
    score_messages_max: Annotated[int, Between(1, 100_000), LIVE] = 1_000
    backlog_after_s: Annotated[float, Between(0, 86_400, unit="s"), LIVE] = 30.0
    backlog_rate: Annotated[float, Between(0), LIVE] = 5_000.0
    history_min_s: Annotated[float, Between(0, unit="s"), LIVE] = 300.0
    history_messages_max: Annotated[int, Between(1), LIVE] = 2_000_000
    status_interval_s: Annotated[float, Between(0.1, 3_600, unit="s"), LIVE] = 10.0
    shared_group: Annotated[str, Words(0, 128, without="/+#")] = ""
    control_path: Path = Path(".motorcade/gateway/control.sock")
    trusted_keys_path: Path = Path(".motorcade/gateway/keys")
    signatures_required: Annotated[bool, LIVE] = False
    model_min_version: Annotated[str, Words(0, 64), LIVE] = ""
    models_inbox: Path | None = None
    trial_timeout_s: Annotated[float, Between(0, 240, unit="s", above=True), LIVE] = 60.0
    agreement_share: Annotated[float, Between(0, 1), LIVE] = 0.01

    def validate(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            SettingsError: Names each such setting and what it may be.
        """
        check(self, of="gateway")
        check_path(self.control_path)
