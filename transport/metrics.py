"""Every metric of Motorcade, each declared once.

Recording needs no library, and does next to nothing unless `transport.exporter` serves the numbers
(`transport.metric_kinds` says how it is bounded).

The second word of a name is the part that tells it; docs/metrics.md is made from this module.
Labels: `model`, `version` and `arm` are those of the release and its arm in the traffic;
`deployment` is where the network ran: embedded, rpc, kafka, or edge for a gateway.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.columns import TelemetryColumns
from transport.metric_kinds import Counter, Gauge, Histogram, Metric

DURATION_EDGES_S = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""From 0.1 ms, which a small batch takes, to what a request may wait at most."""

AGE_EDGES_S = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 1_800.0, 7_200.0, 86_400.0, 604_800.0),
)
"""From a reading that went straight through to one of a car that was a week without a network."""

SIZE_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096, 16_384, 65_536)
"""Rows of a batch."""

_MODEL = ("model", "version", "arm", "deployment")

# What scores: the cloud's scorer, the model server, a gateway.

SCORE_QUEUE = Histogram(
    "motorcade_score_queue_seconds",
    "Time that messages or requests waited from their arrival until they were scored.",
    _MODEL,
    edges=DURATION_EDGES_S,
)
SCORE_COMPUTE = Histogram(
    "motorcade_score_compute_seconds",
    "Time to score one poll, batch or request, features and network together.",
    _MODEL,
    edges=DURATION_EDGES_S,
)
SCORE_AGE = Histogram(
    "motorcade_score_age_seconds",
    "Age of a message's newest reading when it was scored, where the vehicle's clock is right.",
    _MODEL,
    edges=AGE_EDGES_S,
)
SCORE_MESSAGES = Counter(
    "motorcade_score_messages_total", "Messages or requests scored, when committed.", _MODEL
)
SCORE_READINGS = Counter(
    "motorcade_score_readings_total", "Readings or rows scored, when committed.", _MODEL
)
SCORE_ERRORS = Counter(
    "motorcade_score_errors_total",
    "Requests that were refused; no model in the labels, for clients may name any.",
    ("deployment", "reason"),
)
SCORE_ALERTS = Counter(
    "motorcade_score_alerts_total",
    "Alerts, when committed; change is opened or closed.",
    (*_MODEL, "change"),
)
SCORE_MODEL = Gauge(
    "motorcade_score_model_info",
    "1 for each model in use; which one it is stands in the labels.",
    ("component", "model", "version", "arm", "sha256"),
)

# What could not be processed, wherever.

DEAD_LETTERS = Counter(
    "motorcade_dead_letters_total",
    "Dead letters made, by the component that refused; one made anew after an abort counts again.",
    ("component", "reason"),
)

# The cloud's scorer.

SCORER_BATCHES = Counter(
    "motorcade_scorer_batches_total", "Transactions with telemetry that were committed."
)
SCORER_BATCH_MESSAGES = Histogram(
    "motorcade_scorer_batch_messages", "Messages in a transaction.", edges=SIZE_EDGES
)
SCORER_ABORTS = Counter("motorcade_scorer_aborts_total", "Transactions whose work was done again.")
SCORER_REBUILDS = Counter(
    "motorcade_scorer_rebuilds_total", "Times that the vehicles' state was rebuilt from the log."
)
SCORER_SKIPPED = Counter(
    "motorcade_scorer_skipped_messages_total",
    "Messages that retention had removed before they were scored.",
)
SCORER_HELD = Counter(
    "motorcade_scorer_alerts_held_total", "Alerts that the guard against a storm held back."
)
SCORER_LAG = Gauge(
    "motorcade_scorer_lag_messages",
    "Offsets behind the end of a partition, as last heard from the brokers.",
    ("topic", "partition"),
)
SCORER_SCORING = Gauge(
    "motorcade_scorer_scoring",
    "1 while it scores, 0 while it waits for Kafka, a model or a server.",
)

# Asking a model server.

REMOTE_REQUESTS = Counter(
    "motorcade_remote_requests_total",
    "Requests to a model server; outcome is ok, refused (wrong answers among them) or failed.",
    ("target", "outcome"),
)
REMOTE_RETRIES = Counter(
    "motorcade_remote_retries_total", "Requests that have to be asked again.", ("target",)
)
REMOTE_SECONDS = Histogram(
    "motorcade_remote_request_seconds",
    "Time from a request to its answer, attempts that failed left out.",
    ("target",),
    edges=DURATION_EDGES_S,
)
REMOTE_BREAKER = Gauge(
    "motorcade_remote_breaker_state",
    "The circuit breaker: 0 closed, 1 open, 2 half open.",
    ("target",),
)

# The model server.

SERVER_REQUESTS = Counter(
    "motorcade_server_requests_total",
    "Requests answered; status is the protocol's, or ok, error or dead-letter of the Kafka door.",
    ("door", "status"),
)
SERVER_SECONDS = Histogram(
    "motorcade_server_request_seconds",
    "Time from a request's arrival to its answer; REST and gRPC.",
    ("door",),
    edges=DURATION_EDGES_S,
)
SERVER_BATCH_ROWS = Histogram(
    "motorcade_server_batch_rows", "Rows scored at once.", ("deployment",), edges=SIZE_EDGES
)
SERVER_QUEUE_ROWS = Gauge("motorcade_server_queue_rows", "Rows that wait to be scored, RPC.")
SERVER_LAG = Gauge(
    "motorcade_server_lag_messages", "Offsets that the Kafka door is behind, as last heard."
)
SERVER_REJECTIONS = Counter(
    "motorcade_server_rejections_total",
    "Requests turned away: no room in the queue (overload), or the deadline over.",
    ("deployment", "reason"),
)

# The gateway.

GATEWAY_RECEIVED = Counter(
    "motorcade_gateway_received_total", "MQTT messages that were decided on."
)
GATEWAY_STORED = Counter("motorcade_gateway_stored_total", "Telemetry batches put into the spool.")
GATEWAY_DUPLICATES = Counter(
    "motorcade_gateway_duplicates_total", "Batches that were there already."
)
GATEWAY_REFUSED = Counter(
    "motorcade_gateway_refused_total", "Messages and releases that became dead letters."
)
GATEWAY_ACKS = Counter(
    "motorcade_gateway_acks_total", "End-to-end acknowledgements sent to vehicles."
)
GATEWAY_FORWARDED = Counter(
    "motorcade_gateway_forwarded_total", "Rows of the spool committed to Kafka, both lanes."
)
GATEWAY_VEHICLE_DROPS = Counter(
    "motorcade_gateway_vehicle_drops_total", "Batches that vehicles gave up."
)
GATEWAY_DISK_REFUSALS = Counter(
    "motorcade_gateway_disk_refusals_total", "Writes to the spool that failed and were repeated."
)
GATEWAY_SPOOL_ROWS = Gauge(
    "motorcade_gateway_spool_rows", "Rows of the spool that are not known to be in Kafka."
)
GATEWAY_SPOOL_BYTES = Gauge(
    "motorcade_gateway_spool_bytes", "Bytes of the disk that the spool takes."
)
GATEWAY_SPOOL_ALLOWED = Gauge(
    "motorcade_gateway_spool_allowed_bytes",
    "Bytes that it may take: its quota, or less where the disk has not the room.",
)
GATEWAY_BACKLOG_ROWS = Gauge(
    "motorcade_gateway_backlog_rows", "Of the spool's rows, those that wait behind live data."
)
GATEWAY_DROPS = Counter(
    "motorcade_gateway_given_up_total",
    "Batches given up since the spool was made, each told by a gap record.",
    ("reason",),
)
GATEWAY_DISK_FREE = Gauge("motorcade_gateway_disk_free_bytes", "Room on the spool's disk.")
GATEWAY_TEMPERATURE = Gauge(
    "motorcade_gateway_board_celsius", "Of the board's hottest zone, where it has a thermometer."
)
GATEWAY_CLOCK = Gauge("motorcade_gateway_clock_synced", "1 while the clock is known to be right.")
GATEWAY_FAULTS = Gauge(
    "motorcade_gateway_faults", "What `motorcade gateway status` counts as wrong; 0: healthy."
)
GATEWAY_HANGING = Gauge(
    "motorcade_gateway_hanging_loops", "Loops without progress; the watchdog is not fed by then."
)
GATEWAY_UNSENT_AGE = Gauge(
    "motorcade_gateway_oldest_unsent_seconds",
    "Time since the oldest telemetry that is not in Kafka was received; 0 when all is.",
)
GATEWAY_CONNECTED = Gauge(
    "motorcade_gateway_connected", "1 while connected; peer is mqtt or kafka.", ("peer",)
)

# The monitor.

MONITOR_PSI = Gauge(
    "motorcade_monitor_drift_psi",
    "Population stability index against the model's reference, last window; a signal, or score.",
    ("model", "version", "signal"),
)
MONITOR_KS = Gauge(
    "motorcade_monitor_drift_ks",
    "Kolmogorov-Smirnov distance from the model's reference, last window; a signal, or score.",
    ("model", "version", "signal"),
)
MONITOR_DRIFTING = Gauge(
    "motorcade_monitor_drifting",
    "1 for each signal, or score, whose drift was told and is not over.",
    ("model", "version", "signal"),
)
MONITOR_EVENTS = Counter(
    "motorcade_monitor_events_total", "Events written to model.events.", ("model", "kind")
)
MONITOR_BROKEN = Counter("motorcade_monitor_broken_records_total", "Records that it could not use.")
MONITOR_PRECISION = Gauge(
    "motorcade_monitor_precision_ratio",
    "Share of the alerts that labels confirm.",
    ("model", "version", "arm"),
)
MONITOR_RECALL = Gauge(
    "motorcade_monitor_recall_ratio",
    "Share of the labelled faults that an alert found.",
    ("model", "version", "arm"),
)
MONITOR_P_VALUE = Gauge(
    "motorcade_monitor_experiment_p_value",
    "Of the sequential test of an arm against the champion; valid at every look.",
    ("model", "experiment", "arm"),
)
MONITOR_AGREEMENT = Counter(
    "motorcade_monitor_edge_scores_total",
    "Sampled scores of a gateway: agreed, disagreed, late, other-model, or not-found in the cloud.",
    ("model", "version", "gateway", "outcome"),
)


def declared() -> list[Metric[Any]]:
    """All of them, in the order of declaration."""
    return [each for each in globals().values() if isinstance(each, Metric)]


def poll_scored(
    ages_s: NDArray[np.float64],
    *,
    messages: int,
    queue_s: ArrayLike,
    compute_s: float,
    labels: Mapping[str, str],
) -> None:
    """A poll was scored, or the messages of one arm in it.

    Args:
        ages_s: Of the newest reading of each message; NaN is left out.
        messages: How many there were.
        queue_s: How long they waited. Shape (messages,), or one number for all.
        compute_s: How long scoring the poll took.
        labels: Model, version, arm and deployment.
    """
    waited_s = np.asarray(queue_s, np.float64)
    SCORE_QUEUE.observe(waited_s, times=1 if waited_s.ndim else messages, **labels)
    SCORE_COMPUTE.observe(compute_s, times=1, **labels)
    SCORE_AGE.observe(ages_s, times=1, **labels)


def ages_s(columns: TelemetryColumns, now_ms: int) -> NDArray[np.float64]:
    """Age of each message's newest reading; NaN where the clock is not known to be right."""
    newest_ms = columns.event_time_ms[columns.starts + columns.counts - 1]
    return np.where(columns.clock_synced, (now_ms - newest_ms) / 1000.0, np.nan)


def model_in_use(component: str, *, model: str, version: str, arm: str, sha256: str) -> None:
    """From now on a component scores with this model in this arm, and no longer with another."""
    SCORE_MODEL.clear(component=component, arm=arm)
    SCORE_MODEL.set(1, component=component, model=model, version=version, arm=arm, sha256=sha256)
