"""What people do to models: look, publish, promote, roll back, delete; each deed is an event."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from schemas.errors import ContractError, MotorcadeError, Reason
from schemas.topics import MODEL_EVENTS, RELEASES
from scoring.bundle import Bundle
from scoring.catalog import Catalog, ModelRef
from scoring.events import EventKind, ModelEvent
from scoring.traffic import CHALLENGER, CHAMPION, Arm, Traffic
from transport.catalog import NEEDED_ONLY, CatalogFollower, delete_version, write_traffic
from transport.events import publish_events
from transport.kafka import require_topics
from transport.releases import publish_release
from transport.settings import KafkaSettings

READ_TIMEOUT_S = 30.0

Change = Callable[[Catalog, Traffic], Traffic]


@dataclass(frozen=True, slots=True)
class Deed:
    """Who does something, and why.

    Attributes:
        by: A person or a component.
        reason: In a sentence.
    """

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A version as a list shows it.

    Attributes:
        name: Model.
        version: Of it.
        created_time_ms: Since the epoch.
        aliases: What it is called, 'champion' first.
        arms: Arms of the running experiment that it has.
        sha256: Of its bytes, 64 hex digits.
        sound: Whether its bytes are all there, as far as was looked.
    """

    name: str
    version: str
    created_time_ms: int
    aliases: tuple[str, ...]
    arms: tuple[Arm, ...]
    sha256: str
    sound: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A version with all that there is to say of it.

    Attributes:
        bundle: The release.
        row: As a list shows it.
        traffic: Of its model.
    """

    bundle: Bundle
    row: ModelRow
    traffic: Traffic


def list_models(kafka: KafkaSettings, name: str | None = None) -> list[ModelRow]:
    """All versions of all models or of one, by name, oldest first.

    Raises:
        ContractError: UNKNOWN_MODEL: there is no model of that name.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """
    require_topics(kafka, [RELEASES.name])
    with _follower(kafka, name) as follower:
        catalog = follower.read_to_end(READ_TIMEOUT_S)
        rows = _rows(catalog, follower)
    if name is not None and not rows:
        raise ContractError(Reason.UNKNOWN_MODEL, f"no model {name!r}")
    return rows


def find(kafka: KafkaSettings, ref: ModelRef) -> Found:
    """The version behind a name and an alias or a version.

    Raises:
        ContractError: UNKNOWN_MODEL, or what is wrong with the release.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """
    require_topics(kafka, [RELEASES.name])
    with _follower(kafka, ref.name) as follower:
        catalog = follower.read_to_end(READ_TIMEOUT_S)
        version = _version(catalog, ref)
        if not any(entry.key == (ref.name, version) for entry in follower.entries()):
            catalog.resolve(ref)  # says what there is
        bundle = follower.fetch(ref.name, version)
        row = next(row for row in _rows(catalog, follower) if row.version == version)
    return Found(bundle, row, catalog.traffic(ref.name))


def publish(kafka: KafkaSettings, bundle: Bundle, deed: Deed, *, over: bool = False) -> None:
    """Publish a bundle. Publishing again what is there already makes it the newest.

    Args:
        kafka: Where to.
        bundle: Verified here.
        deed: Who and why.
        over: Whether it may take the place of another model of the same name and version.

    Raises:
        MotorcadeError: Another model has that name and version.
        ContractError: The bundle does not verify.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """
    manifest = bundle.manifest
    require_topics(kafka, [RELEASES.name, MODEL_EVENTS.name])
    if not over:
        _refuse_other(kafka, bundle)
    publish_release(kafka, bundle)
    event = ModelEvent(
        EventKind.PUBLISHED,
        manifest.name,
        f"{manifest.name}@{manifest.version} published: {deed.reason}",
        deed.by,
        _now_ms(),
        model_version=manifest.version,
        values={"model_bytes": len(bundle.model)},
    )
    publish_events(kafka, [event])


def promote(
    kafka: KafkaSettings, ref: ModelRef, deed: Deed, *, alias: str, stop_experiment: bool = False
) -> Traffic:
    """Give a version an alias. A challenger that becomes champion is challenger no more.

    Args:
        kafka: Where the log is.
        ref: Which version.
        deed: Who and why.
        alias: 'champion', or any other.
        stop_experiment: End a running experiment with it; otherwise a champion is not changed
            under one, because its arms are measured against it.

    Raises:
        ContractError: UNKNOWN_MODEL.
        MotorcadeError: An experiment runs.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """

    def change(catalog: Catalog, traffic: Traffic) -> Traffic:
        version = _version(catalog, ref)
        if alias != CHAMPION:
            return traffic.with_alias(alias, version)
        ended = _without_experiment(traffic, stop_experiment)
        if ended.aliases.get(CHALLENGER) == version:
            ended = ended.with_alias(CHALLENGER, None)
        return ended.promoted(version, champion_now=catalog.champion(ref.name))

    return _changed(kafka, ref.name, change, deed=deed, kind=EventKind.PROMOTED, alias=alias)


def unset_alias(kafka: KafkaSettings, name: str, alias: str, deed: Deed) -> Traffic:
    """Take an alias away; without 'champion' the newest release is it again.

    Raises:
        MotorcadeError: There is no such alias, or an experiment runs and it is the champion.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """

    def change(_: Catalog, traffic: Traffic) -> Traffic:
        if alias not in traffic.aliases:
            known = ", ".join(sorted(traffic.aliases)) or "none"
            raise MotorcadeError(f"model {name} has no alias {alias!r}; there are: {known}")
        if alias == CHAMPION:
            _without_experiment(traffic, stop=False)
        return traffic.with_alias(alias, None)

    return write_traffic(kafka, name, change, by=deed.by, reason=deed.reason)


def roll_back(
    kafka: KafkaSettings, name: str, deed: Deed, *, stop_experiment: bool = False
) -> Traffic:
    """Make the former champion champion again; repeated, the one before it.

    Raises:
        MotorcadeError: No former champion is known, or an experiment runs.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """

    def change(catalog: Catalog, traffic: Traffic) -> Traffic:
        former = catalog.former_champions(name)
        if not former:
            raise MotorcadeError(
                f"model {name} has no former champion to go back to; "
                f"`motorcade models promote {name}@VERSION` names one"
            )
        return _without_experiment(traffic, stop_experiment).rolled_back(former)

    return _changed(kafka, name, change, deed=deed, kind=EventKind.ROLLED_BACK, alias=CHAMPION)


def delete(kafka: KafkaSettings, name: str, version: str, deed: Deed) -> None:
    """Take a version out of the log that nobody uses.

    Raises:
        ContractError: UNKNOWN_MODEL.
        MotorcadeError: An alias or an experiment uses it.
        TransientError, SettingsError: Kafka or the registry did not answer, or refuses.
    """
    delete_version(
        kafka,
        name,
        version,
        event=lambda: ModelEvent(
            EventKind.DELETED,
            name,
            f"{name}@{version} deleted: {deed.reason}",
            deed.by,
            _now_ms(),
            model_version=version,
        ),
    )


def _changed(
    kafka: KafkaSettings,
    name: str,
    change: Change,
    *,
    deed: Deed,
    kind: EventKind,
    alias: str,
) -> Traffic:
    def describe(before: Traffic, after: Traffic) -> list[ModelEvent]:
        version, was = after.aliases[alias], before.aliases.get(alias)
        events = [
            ModelEvent(
                kind,
                name,
                f"{name}@{version} is {alias}, {was or 'nobody'} was: {deed.reason}",
                deed.by,
                after.changed_time_ms,
                model_version=version,
                values={"generation": after.generation},
            )
        ]
        if before.experiment is not None and after.experiment is None:
            experiment = before.experiment.id
            events.append(
                ModelEvent(
                    EventKind.EXPERIMENT_STOPPED,
                    name,
                    f"experiment {experiment} ended by another champion: {deed.reason}",
                    deed.by,
                    after.changed_time_ms,
                    experiment=experiment,
                )
            )
        return events

    return write_traffic(kafka, name, change, by=deed.by, reason=deed.reason, describe=describe)


def _without_experiment(traffic: Traffic, stop: bool) -> Traffic:
    """Refuse to change the champion under an experiment, unless that ends with it."""
    if traffic.experiment is not None and not stop:
        raise MotorcadeError(
            f"experiment {traffic.experiment.id} of model {traffic.name} runs; stop it first, "
            "or with --stop-experiment"
        )
    return replace(traffic, experiment=None)


def _version(catalog: Catalog, ref: ModelRef) -> str:
    """The version that is meant; whether it is there is for others to see."""
    if ref.selector == CHAMPION:
        return catalog.resolve(ref).manifest.version
    return catalog.traffic(ref.name).aliases.get(ref.selector, ref.selector)


def _refuse_other(kafka: KafkaSettings, bundle: Bundle) -> None:
    manifest = bundle.manifest
    with _follower(kafka, manifest.name) as follower:
        follower.read_to_end(READ_TIMEOUT_S)
        if not follower.holds(manifest.name, manifest.version):
            return
        try:
            there = follower.fetch(manifest.name, manifest.version)
        except ContractError:
            return  # what is broken may be replaced
    if there != bundle:
        raise MotorcadeError(
            f"another model is published as {manifest.name}@{manifest.version}; "
            "give this one a version of its own, or --over"
        )


def _rows(catalog: Catalog, follower: CatalogFollower) -> list[ModelRow]:
    rows = [
        ModelRow(
            name=name,
            version=version,
            created_time_ms=entry.created_time_ms,
            aliases=catalog.aliases_of(name, version),
            arms=_arms(catalog.traffic(name), version),
            sha256=entry.sha256,
            sound=follower.holds(name, version),
        )
        for entry in follower.entries()
        for name, version in [entry.key]
    ]
    return sorted(rows, key=lambda row: row.name)


def _arms(traffic: Traffic, version: str) -> tuple[Arm, ...]:
    experiment = traffic.experiment
    return () if experiment is None else tuple(a for a in experiment.arms if a.version == version)


def _follower(kafka: KafkaSettings, name: str | None) -> CatalogFollower:
    return CatalogFollower(kafka, None if name is None else {name}, limits=NEEDED_ONLY)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
