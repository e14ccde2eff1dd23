"""Settings of the cloud's parts, without anything that needs an extra."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloud.deployment import DEFAULT_MODEL, Deployment
from schemas.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """How the cloud scorer reads, scores and writes.

    Attributes:
        group_id: Consumer group. Members of one group share the partitions.
        transactional_id: Identity of this member, its own in the group and the same after a
            restart, which settles what the one before left open. Empty: group and host name.
        model: Which model scores, and where it runs: `embedded:NAME[@SELECTOR]`,
            `rpc://HOST:PORT/NAME[@SELECTOR]` (gRPC), `rpc+http://HOST:PORT/NAME[@SELECTOR]`
            (REST), `tfserving://HOST:PORT/NAME[@SELECTOR]`, `kafka://NAME[@SELECTOR]`; options
            behind it as in a URL: `?versions=off`, `?timeout_s=5`, `?refused_s=60`,
            `?signature=`, `?binary=off`.
        delivery: 'exactly-once' writes in transactions; 'at-least-once' without, which is sooner
            and may write some scores and alerts again after a failure.
        poll_messages: Most messages taken at once.
        poll_bytes: Payload bytes aimed at for one poll; large messages are taken fewer at once.
        max_vehicles: Vehicles whose state is kept; beyond it the longest unseen is forgotten.
        late_after_s: A message whose readings are older than this when scored is marked late.
        rewind_margin_s: Log read again beyond the model's own history after an assignment.
        rewind_messages: Most messages of a partition read again after an assignment.
        session_timeout_s: After so long a silence the other members take over the partitions.
        poll_interval_max_s: So long the member may be busy between two looks at its group.
        transaction_timeout_s: After it the brokers abort what a dead member left open.
        backoff_max_s: Longest pause before trying again when Kafka is down.
        stats_interval_s: Time between two reports.
    """

    group_id: str = "motorcade-scorer"
    transactional_id: str = ""
    model: str = DEFAULT_MODEL
    delivery: Literal["exactly-once", "at-least-once"] = "exactly-once"
    poll_messages: int = 20_000
    poll_bytes: int = 24_000_000
    max_vehicles: int = 100_000
    late_after_s: float = 30.0
    rewind_margin_s: float = 60.0
    rewind_messages: int = 500_000
    session_timeout_s: float = 10.0
    poll_interval_max_s: float = 300.0
    transaction_timeout_s: float = 30.0
    backoff_max_s: float = 30.0
    stats_interval_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.poll_messages <= 100_000:
            raise SettingsError(f"scorer poll_messages is {self.poll_messages}; 1 to 100000")
        if self.session_timeout_s < 6:
            raise SettingsError("scorer session_timeout_s is below 6, the least that brokers take")
        if self.poll_interval_max_s < self.session_timeout_s:
            raise SettingsError("scorer poll_interval_max_s is below session_timeout_s")
        Deployment.parse(self.model)

    @property
    def deployment(self) -> Deployment:
        """What `model` says."""
        return Deployment.parse(self.model)

    @property
    def member_id(self) -> str:
        """`transactional_id`, or what stands for it where it is empty."""
        return self.transactional_id or f"{self.group_id}-{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the model server serves, where, and within which bounds.

    Attributes:
        host: Address to listen on.
        port: Of REST; 0: any free one.
        grpc_port: Of gRPC; 0: any free one.
        models: Names to serve, separated by commas; empty: all.
        models_dir: Folder that keeps the models for a start without Kafka; none: nothing is kept.
        versions_max: Versions held ready at once; champions, aliases and arms always are.
        request_bytes_max: A larger request is refused.
        requests_bytes_max: Of the large requests of all clients together; more are refused.
        rows_max: A request of more rows is refused.
        queue_requests_max: Requests that may wait to be scored; more are refused.
        queue_rows_max: Rows that may wait to be scored; more are refused.
        batch_delay_ms: Longest wait of a request for others to be scored with.
        connections_max: Open connections of each RPC door; more are refused.
        head_timeout_s: For the head of a request, from its first byte.
        body_timeout_s: For its body, and for a response that the client does not read.
        idle_timeout_s: An unused connection is closed after it.
        drain_timeout_s: Longest wait for requests under way when the server stops.
        kafka_door: Whether to answer `model.requests`, too.
        group_id: Consumer group of the Kafka door. Replicas of one group share the requests.
        exactly_once: Answer in Kafka in transactions that carry the offsets: each request has one
            response among the committed ones. Otherwise a server that dies may answer some twice.
        transactional_id: Identity of this replica where exactly_once is on, its own in the group
            and the same after a restart. Empty: group and host name.
        reply_topics: Regular expression; a request in Kafka may name these topics for its response.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 8001
    models: str = ""
    models_dir: Path | None = None
    versions_max: int = 16
    request_bytes_max: int = 16_000_000
    requests_bytes_max: int = 256_000_000
    rows_max: int = 100_000
    queue_requests_max: int = 1024
    queue_rows_max: int = 65_536
    batch_delay_ms: float = 0.0
    connections_max: int = 512
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0
    kafka_door: bool = True
    group_id: str = "motorcade-server"
    exactly_once: bool = False
    transactional_id: str = ""
    reply_topics: str = r"model\.responses(\..+)?"

    def __post_init__(self) -> None:
        for name in ("port", "grpc_port"):
            if not 0 <= getattr(self, name) < 65_536:
                raise SettingsError(f"server {name} is {getattr(self, name)}; 0 to 65535")
        for name in (
            "versions_max",
            "request_bytes_max",
            "requests_bytes_max",
            "rows_max",
            "queue_requests_max",
            "queue_rows_max",
            "connections_max",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(f"server {name} is {getattr(self, name)}; at least 1")
        for name in ("head_timeout_s", "body_timeout_s", "idle_timeout_s", "drain_timeout_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"server {name} is {getattr(self, name)}; above 0")
        if not 0 <= self.batch_delay_ms <= 1000:
            raise SettingsError(f"server batch_delay_ms is {self.batch_delay_ms}; 0 to 1000")

    @property
    def names(self) -> frozenset[str]:
        """Names to serve; empty: all."""
        return frozenset(name.strip() for name in self.models.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Which stretch of the log to train on, and how.

    Attributes:
        name: Model name; the scorer and the gateways follow releases of it.
        kind: 'autoencoder' looks at one reading at a time, 'lstm' at the last `window` of them.
        window: Readings that an LSTM is shown at once, 2 to 128.
        alias: What the release is called from now on, such as challenger. Empty: nothing; it is
            the champion where nobody named another.
        since_ms: Read telemetry whose record time is at least this, milliseconds since the epoch;
            None: from the first record.
        until_ms: Up to before this record time; None: to the end.
        offsets: Read these offsets instead, `partition:first-end` separated by commas, the end
            excluded: `0:100-2000,1:0-500`.
        min_readings: Fewer than these are too few to train on.
        max_readings: Readings held at most; beyond it whole vehicles are left out, by seeded lot.
        exclude_labelled: Leave out vehicles that `vehicle.labels` calls faulty in that time.
        signal_presence: Share of the readings that must hold a signal for it to be used.
        feature_presence: Share of the readings at which a feature with memory must be ready.
        memory_features: Most features with memory.
        validation_share: Share of the vehicles kept for validation.
        false_alerts_per_hour: Budget of false alerts per vehicle-hour that the threshold aims at.
        threshold_margin: Factor on the threshold where there is too little normal driving to
            measure it, so that it is extrapolated.
        alerts_bound: A gateway goes back from the release when it alerts more than so many times
            as often as `false_alerts_per_hour`. True alerts count, too, so leave room for them.
            0: no bound.
        reading_ms_bound: The same when a reading takes more milliseconds of processor time to
            score. 0: no bound.
        sign_key: File of the private key to sign the release with; None: it is not signed.
        policy_k: An alert opens when so many of the last `policy_n` scores exceed the threshold.
        policy_n: Scores that the policy looks at, 1..64.
        epochs: Most passes over the training readings.
        seed: Of split, sample and training; the same log and seed give the same model.
        threads: Cores that training may use.
        timeout_s: Longest time for the training itself.
    """

    name: str = "anomaly"
    kind: Literal["autoencoder", "lstm"] = "autoencoder"
    window: int = 32
    alias: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    offsets: str = ""
    min_readings: int = 500
    max_readings: int = 500_000
    exclude_labelled: bool = True
    signal_presence: float = 0.99
    feature_presence: float = 0.5
    memory_features: int = 6
    validation_share: float = 0.25
    false_alerts_per_hour: float = 1.0
    threshold_margin: float = 1.1
    alerts_bound: float = 20.0
    reading_ms_bound: float = 50.0
    sign_key: Path | None = None
    policy_k: int = 6
    policy_n: int = 10
    epochs: int = 120
    seed: int = 1
    threads: int = 2
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.offsets and (self.since_ms is not None or self.until_ms is not None):
            raise SettingsError("trainer: give either offsets or since_ms and until_ms")
        if not 2 <= self.window <= 128:
            raise SettingsError(f"trainer window is {self.window}; 2 to 128")
        for name in ("signal_presence", "feature_presence", "validation_share"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(f"trainer {name} is {getattr(self, name)}; above 0, at most 1")
        if not self.validation_share <= 0.5:
            raise SettingsError(f"trainer validation_share is {self.validation_share}; at most 0.5")
        if self.min_readings < 100:
            raise SettingsError(f"trainer min_readings is {self.min_readings}; at least 100")
        if self.max_readings < self.min_readings:
            raise SettingsError("trainer max_readings is below min_readings")
        if not self.false_alerts_per_hour > 0 or not self.threshold_margin >= 1:
            raise SettingsError("trainer: false_alerts_per_hour > 0 and threshold_margin >= 1")
        if not (self.alerts_bound == 0 or self.alerts_bound >= 1) or not self.reading_ms_bound >= 0:
            raise SettingsError("trainer: alerts_bound is 0, or 1 at least; reading_ms_bound >= 0")
        if not 1 <= self.policy_k <= self.policy_n <= 64:
            raise SettingsError("trainer needs 1 <= policy_k <= policy_n <= 64")
        if not 0 <= self.memory_features <= 64:
            raise SettingsError(f"trainer memory_features is {self.memory_features}; 0 to 64")
