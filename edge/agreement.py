"""The sample of the gateway's scores that the cloud's are compared with. Pure.

Which batches it takes is a hash of their identity, so a restart takes the same ones. Left out is
what the two need not agree on: batches that came late or out of order, readings without a score,
and, for models with memory, readings whose history this gateway does not have in full: it began
too lately, or another gateway has a part of it.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.rows import Kind, Priority, StoredTelemetry
from schemas.columns import TelemetryColumns
from schemas.records import Record, encode_single_object
from schemas.topics import mqtt_telemetry
from scoring.bundle import Bundle, Manifest
from scoring.stream import Scored
from scoring.traffic import CHAMPION


def sampled(columns: TelemetryColumns, share: float) -> NDArray[np.bool_]:
    """Which messages belong to the sample. Shape (M,).

    Args:
        columns: A poll.
        share: Of all batches, 0..1.
    """
    vehicles = np.fromiter(
        map(zlib.crc32, columns.vehicle_ids), np.uint64, count=len(columns.vehicle_ids)
    )
    boots, seqs = columns.boot_id.astype(np.uint64), columns.seq.astype(np.uint64)
    mixed = _mixed(_mixed(_mixed(vehicles) ^ boots) ^ seqs)
    # A float's 53 bits: the greatest share takes all.
    return (mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a value in every bit of the result: the finaliser of SplitMix64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def has_memory(manifest: Manifest) -> bool:
    """Whether a score depends on earlier readings."""
    return manifest.window > 1 or any(spec.has_memory for spec in manifest.features)


@dataclass(frozen=True, slots=True)
class AgreementSample:
    """Makes the records of the sample.

    Attributes:
        share: Of the batches, 0..1.
        fleet: Second level of the MQTT topics.
        shared: Whether other gateways get a part of each vehicle's batches; then models with
            memory are not compared.
    """

    share: float
    fleet: str
    shared: bool

    def letters(
        self,
        bundle: Bundle,
        columns: TelemetryColumns,
        rows: Sequence[StoredTelemetry],
        scored: Scored,
        *,
        now_ms: int,
    ) -> list[Priority]:
        """The sampled scores of a poll as rows of the priority lane.

        Args:
            bundle: The model that scored.
            columns: What was scored, M messages.
            rows: Theirs, M of them.
            scored: Their scores.
            now_ms: When they were scored.
        """
        if self.share <= 0 or (self.shared and has_memory(bundle.manifest)):
            return []
        wanted = sampled(columns, self.share) & ~scored.late & ~scored.stale
        letters = []
        for message in np.flatnonzero(wanted).tolist():
            start = int(columns.starts[message])
            part = slice(start, start + int(columns.counts[message]))
            if comparable(bundle.manifest, scored, part):
                record = _record(bundle, rows[message], scored.scores[part].tolist())
                record |= {
                    "input_topic": mqtt_telemetry(self.fleet, rows[message].vehicle_id),
                    "score_time": now_ms,
                    "event_time": int(columns.event_time_ms[start]),
                }
                payload = encode_single_object("ScoreBatch", record)
                letters.append(Priority(Kind.SCORE, rows[message].vehicle_id, now_ms, payload))
        return letters


def comparable(manifest: Manifest, scored: Scored, part: slice) -> bool:
    """Whether all readings of a message have a score, and the history behind it is whole.

    Features that look back say so themselves: they are absent until their history reaches back
    far enough (`scoring.features`); those that look back furthest are the last to come. Of a
    window that is to be so at its first reading.
    """
    if not np.isfinite(scored.scores[part]).all():
        return False
    furthest_s = max(spec.window_s for spec in manifest.features)
    if furthest_s == 0:
        return True
    last = [i for i, spec in enumerate(manifest.features) if spec.window_s == furthest_s]
    matrices = scored.oldest or scored.features
    features = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
    return bool(np.isfinite(features[part][:, last]).any(axis=1).all())


def _record(bundle: Bundle, row: StoredTelemetry, scores: list[float]) -> Record:
    manifest = bundle.manifest
    return {
        "origin": "EDGE",
        "model_name": manifest.name,
        "model_version": manifest.version,
        "model_sha256": bundle.sha256,
        "arm": CHAMPION,
        "threshold": manifest.threshold,
        "input_partition": -1,
        "input_offset": row.position,
        "vehicle_id": row.vehicle_id,
        "boot_id": row.boot_id,
        "seq": row.seq,
        "late": False,
        "scores": scores,
    }
