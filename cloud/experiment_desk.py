"""What people do to experiments: start, change weights, stop; each deed is an event."""

import time
from collections.abc import Callable, Mapping, Sequence

from cloud.model_desk import READ_TIMEOUT_S, Deed
from scoring.catalog import Catalog
from scoring.events import EventKind, ModelEvent
from scoring.traffic import Experiment, Traffic
from scoring.trial import Wish, reweighted, started, stopped
from transport.catalog import NEEDED_ONLY, CatalogFollower, write_traffic
from transport.settings import KafkaSettings


def start_experiment(kafka: KafkaSettings, name: str, wish: Wish, deed: Deed) -> Traffic:
    """Begin an experiment.

    Raises:
        MotorcadeError: One runs already.
        ContractError: UNKNOWN_MODEL; MALFORMED: arms, weights or guards that cannot be.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """

    def change(catalog: Catalog, traffic: Traffic) -> Traffic:
        return started(catalog, traffic, wish)

    return _written(kafka, name, change, deed, EventKind.EXPERIMENT_STARTED)


def set_weights(
    kafka: KafkaSettings, name: str, weights: Mapping[str, float], deed: Deed
) -> Traffic:
    """Give arms of the running experiment other weights; the champion has the rest.

    Raises:
        MotorcadeError: No experiment runs, or it has no such arm.
        ContractError: MALFORMED: weights that cannot be.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """

    def change(_: Catalog, traffic: Traffic) -> Traffic:
        return reweighted(traffic, weights)

    return _written(kafka, name, change, deed, EventKind.EXPERIMENT_CHANGED)


def stop_experiment(
    kafka: KafkaSettings, name: str, deed: Deed, *, promote: str | None = None
) -> Traffic:
    """End the running experiment, and promote the version of an arm if so asked.

    Raises:
        MotorcadeError: No experiment runs, or it has no such arm.
        ContractError: UNKNOWN_MODEL: the arm's version is gone.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """

    def change(catalog: Catalog, traffic: Traffic) -> Traffic:
        return stopped(catalog, traffic, promote=promote)

    return _written(kafka, name, change, deed, EventKind.EXPERIMENT_STOPPED)


def traffics(kafka: KafkaSettings, name: str | None = None) -> list[Traffic]:
    """What each model, or one of them, is used for; by name.

    Raises:
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """
    names = None if name is None else {name}
    with CatalogFollower(kafka, names, limits=NEEDED_ONLY) as follower:
        catalog = follower.read_to_end(READ_TIMEOUT_S)
    return [catalog.traffic(each) for each in ([name] if name else sorted(catalog.traffics))]


def described(experiment: Experiment) -> str:
    """Mode and arms in one phrase."""
    arms = ", ".join(f"{a.name} {a.version} {100 * a.weight:g} %" for a in experiment.arms)
    return f"{experiment.mode.value.lower()}: {arms}"


def _written(
    kafka: KafkaSettings,
    name: str,
    change: Callable[[Catalog, Traffic], Traffic],
    deed: Deed,
    kind: EventKind,
) -> Traffic:
    def describe(before: Traffic, after: Traffic) -> Sequence[ModelEvent]:
        experiment = after.experiment or before.experiment
        if experiment is None:
            return ()
        events = [
            ModelEvent(
                kind,
                name,
                f"experiment {experiment.id}, {described(experiment)}: {deed.reason}",
                deed.by,
                after.changed_time_ms,
                experiment=experiment.id,
                values={arm.name: arm.weight for arm in experiment.arms},
            )
        ]
        if after.champion is not None and after.champion != before.champion:
            events.append(
                ModelEvent(
                    EventKind.PROMOTED,
                    name,
                    f"{name}@{after.champion} is champion with the end of experiment "
                    f"{experiment.id}: {deed.reason}",
                    deed.by,
                    after.changed_time_ms,
                    model_version=after.champion,
                    experiment=experiment.id,
                )
            )
        return events

    return write_traffic(kafka, name, change, by=deed.by, reason=deed.reason, describe=describe)


def now_ms() -> int:
    """Since the epoch."""
    return time.time_ns() // 1_000_000
