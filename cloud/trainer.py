"""The trainer: a stretch of the Kafka log in, a published release out.

    Kafka ─► gathering ─► readings ─► fitting ─► bundle ─► model.releases
                                         │
                              training (TensorFlow's process)

TensorFlow is imported by a process of its own while Kafka is read. The release is read back from
the log and compared before `train` returns.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from cloud.fitting import Source, fit_bundle
from cloud.gathering import Gathered, gather
from cloud.model_desk import Deed, promote, publish
from cloud.settings import TrainSettings
from cloud.training import TrainingProcess
from schemas.errors import MotorcadeError
from schemas.topics import TELEMETRY
from scoring.bundle import Bundle
from scoring.catalog import ModelRef
from scoring.signing import SigningKey
from transport.releases import newest_release
from transport.settings import KafkaSettings

Progress = Callable[[str], None]


def train(
    settings: TrainSettings, kafka: KafkaSettings, *, on_progress: Progress | None = None
) -> Bundle:
    """Train on a stretch of `vehicle.telemetry`, and publish what comes out.

    Args:
        settings: Which stretch, and what to aim at.
        kafka: Where the log and the releases are.
        on_progress: Told in a few words what was just done.

    Returns:
        The bundle as it was read back from `model.releases`.

    Raises:
        SettingsError: A topic is missing, TensorFlow is, the stretch has too little in it, or the
            key to sign with cannot be used.
        TransientError: Kafka or the registry did not answer.
        MotorcadeError: Training failed, another release overtook this one, or it was to be the
            champion while an experiment runs.
    """
    tell = on_progress or (lambda _: None)
    # Before the work, so that a key that cannot be used costs nothing.
    key = None if settings.sign_key is None else SigningKey.load(settings.sign_key)
    with TrainingProcess(timeout_s=settings.timeout_s) as process:
        gathered = gather(settings, kafka)
        tell(_gathered_text(gathered))
        bundle = fit_bundle(
            gathered.readings,
            settings,
            Source(TELEMETRY.name, gathered.offsets, _notes(settings, gathered)),
            process.fit,
            now_ms=time.time_ns() // 1_000_000,
        )
    if key is not None:
        bundle = replace(bundle, manifest=key.sign(bundle.manifest))
    tell(f"trained {bundle.manifest.name} {bundle.manifest.version}")
    published = _publish(kafka, bundle, settings.alias)
    called = f" as {settings.alias}" if settings.alias else ""
    tell(f"published {bundle.manifest.name} {bundle.manifest.version}{called}")
    return published


def _publish(kafka: KafkaSettings, bundle: Bundle, alias: str) -> Bundle:
    """Publish, read back what followers will see, and give it its alias.

    Raises:
        MotorcadeError: The newest release is another one: somebody else published meanwhile.
    """
    manifest = bundle.manifest
    deed = Deed("trainer", f"trained on {manifest.provenance.readings} readings")
    publish(kafka, bundle, deed)
    found = newest_release(kafka, manifest.name)
    if found != bundle:
        newest = found.manifest.version if found else "none"
        raise MotorcadeError(
            f"published {manifest.version}, but the newest release of {manifest.name} is {newest}"
        )
    if alias:
        promote(kafka, ModelRef(manifest.name, manifest.version), deed, alias=alias)
    return found


def _gathered_text(gathered: Gathered) -> str:
    text = f"read {gathered.seen_readings} readings of {gathered.readings.vehicles} vehicles"
    if gathered.faulty:
        text += f", left out {len(gathered.faulty)} labelled faulty"
    return text


def _notes(settings: TrainSettings, gathered: Gathered) -> dict[str, str]:
    notes = {
        "seen_readings": str(gathered.seen_readings),
        "faulty_vehicles": str(len(gathered.faulty)),
        "dropped_vehicles": str(gathered.dropped_vehicles),
        "rejected_messages": str(gathered.rejected),
        "false_alerts_per_hour_wanted": f"{settings.false_alerts_per_hour:g}",
    }
    times = gathered.readings.event_time_ms
    if len(times):
        notes["event_time_ms"] = f"{int(times.min())}..{int(times.max())}"
    for name in ("since_ms", "until_ms"):
        if getattr(settings, name) is not None:
            notes[name] = str(getattr(settings, name))
    return notes
