"""Changes to what a model is used for, by one writer at a time.

The writers of a model share a transactional id. Each takes it over before it reads, so whoever
read an older state is fenced and writes nothing; it begins anew from what it reads then. So no
change is written over one that it did not see.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    Reason,
    TransientError,
)
from schemas.records import encode_confluent
from schemas.topics import CHUNKS, MODEL_EVENTS, RELEASES, TRAFFIC
from scoring.catalog import Catalog
from scoring.events import ModelEvent
from scoring.traffic import Traffic
from transport.backoff import backoff_s
from transport.catalog.follower import CatalogFollower
from transport.catalog.shelf import NEEDED_ONLY, Key, Limits, references
from transport.chunks import tombstones
from transport.events import event_record
from transport.kafka import (
    AbortNeededError,
    Outgoing,
    ProducerLostError,
    SchemaIds,
    TransactionalProducer,
    latest_offsets,
    make_consumer,
    register_schemas,
    require_topics,
)
from transport.release_records import PARTITION, release_key
from transport.settings import KafkaSettings

ATTEMPTS_MAX = 10
"""Times that a change is begun before it is said that others are in the way."""
BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 5.0
TRANSACTION_TIMEOUT_S = 10.0
"""After it the brokers abort what a writer that died left open."""
SETTLE_TIMEOUT_S = 15.0
"""Longest wait for other models' writers to end their transactions."""
READ_TIMEOUT_S = 30.0
_SETTLE_PAUSE_S = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class State:
    """What a writer reads before it decides.

    Attributes:
        catalog: Models and traffic.
        follower: Knows also what is beyond the limits of the catalog.
        ids: Schema ids of all topics that are written.
    """

    catalog: Catalog
    follower: CatalogFollower
    ids: SchemaIds


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """What a writer decides.

    Attributes:
        result: For its caller.
        records: To write in one transaction; none: it is so already.
        is_done: Whether a state shows that they were written.
    """

    result: T
    records: tuple[Outgoing, ...]
    is_done: Callable[[State], bool]


def write_traffic(
    settings: KafkaSettings,
    name: str,
    change: Callable[[Catalog, Traffic], Traffic],
    *,
    by: str,
    reason: str,
    describe: Callable[[Traffic, Traffic], Sequence[ModelEvent]] = lambda _before, _after: (),
) -> Traffic:
    """Change a model's aliases or experiment, based on the newest state, or not at all.

    Args:
        settings: Where Kafka and the registry are.
        name: Model.
        change: Given catalog and traffic as they are, gives the traffic to be. Called again
            where another writer was faster; what it raises goes up. Where it changes nothing,
            nothing is written.
        by: Who changes it, for the record.
        reason: Why, for the record.
        describe: Given the traffic before and after: events to write in the same transaction.

    Returns:
        The traffic as it is now, with its new generation.

    Raises:
        ContractError: UNKNOWN_MODEL: an alias or an arm would name a version that is not there.
        TransientError: Kafka did not answer in time, or other writers were always faster.
        SettingsError: A topic is missing, or Kafka refuses this client.
    """

    def plan(state: State) -> Plan[Traffic]:
        before = state.catalog.traffic(name)
        wanted = change(state.catalog, before)
        if wanted == before:
            return Plan(before, (), lambda _: True)
        _refuse_unknown(state, before, wanted)
        after = wanted.changed(now_ms=_now_ms(), by=by, reason=reason)
        value = encode_confluent(TRAFFIC.record, state.ids.id_of(TRAFFIC), after.to_record())
        return Plan(
            after,
            (
                Outgoing(TRAFFIC.name, value, name.encode(), PARTITION),
                *(event_record(event, state.ids) for event in describe(before, after)),
            ),
            lambda state: state.catalog.traffic(name) == after,
        )

    return _written(settings, name, plan, names={name}, limits=Limits())


def delete_version(
    settings: KafkaSettings, name: str, version: str, *, event: Callable[[], ModelEvent]
) -> None:
    """Take a version out of the log, with those of its chunks that no other version uses.

    Args:
        settings: Where Kafka and the registry are.
        name: Model.
        version: Of it.
        event: What to tell on `model.events`.

    Raises:
        ContractError: UNKNOWN_MODEL: there is no such version.
        MotorcadeError: An alias or an experiment uses it, or it is the champion because it is the
            newest and others would follow it.
        TransientError, SettingsError: As `write_traffic`.
    """
    key = (name, version)

    def plan(state: State) -> Plan[None]:
        entries = {entry.key: entry for entry in state.follower.entries()}
        _refuse_used(state.catalog, entries, key)
        records = [Outgoing(RELEASES.name, None, release_key(name, version), PARTITION)]
        sha256 = entries[key].sha256
        if [entry.key for entry in entries.values() if entry.sha256 == sha256] == [key]:
            records += tombstones(settings, sha256)
        records.append(event_record(event(), state.ids))
        return Plan(None, tuple(records), lambda state: key not in _keys(state))

    _written(settings, name, plan, names=None, limits=NEEDED_ONLY)


def _refuse_unknown(state: State, before: Traffic, wanted: Traffic) -> None:
    """Refuse what newly refers to versions that are not there."""
    for name, version in sorted(references(wanted) - references(before)):
        if not state.follower.holds(name, version):
            known = ", ".join(state.catalog.versions(name)) or "none"
            raise ContractError(
                Reason.UNKNOWN_MODEL, f"model {name} has no version {version!r}; there are: {known}"
            )


def _refuse_used(catalog: Catalog, there: Collection[Key], key: Key) -> None:
    """Refuse to delete what is not there, or is in use."""
    name, version = key
    if key not in there:
        raise ContractError(Reason.UNKNOWN_MODEL, f"model {name} has no version {version!r}")
    traffic = catalog.traffic(name)
    aliases = sorted(alias for alias, held in traffic.aliases.items() if held == version)
    if aliases:
        raise MotorcadeError(
            f"{name}@{version} is {', '.join(aliases)}; name another or unset it first"
        )
    experiment = traffic.experiment
    if experiment is not None and version in {arm.version for arm in experiment.arms}:
        raise MotorcadeError(f"{name}@{version} has an arm of experiment {experiment.id}")
    alone = [each for each in there if each[0] == name] == [key]
    if traffic.champion is None and catalog.champion(name) == version and not alone:
        raise MotorcadeError(
            f"{name}@{version} is the champion, being the newest; promote another first"
        )


def _keys(state: State) -> set[Key]:
    return {entry.key for entry in state.follower.entries()}


def _written(
    settings: KafkaSettings,
    name: str,
    decide: Callable[[State], Plan[T]],
    *,
    names: Collection[str] | None,
    limits: Limits,
) -> T:
    """Decide and write as the only writer of a model; begins anew where another one was faster."""
    require_topics(settings, [RELEASES.name, TRAFFIC.name, MODEL_EVENTS.name])
    ids = register_schemas(settings, [RELEASES, CHUNKS, TRAFFIC, MODEL_EVENTS])
    rng = random.Random()
    plan: Plan[T] | None = None
    for attempt in range(ATTEMPTS_MAX):
        if attempt:
            time.sleep(
                backoff_s(attempt, minimum_s=BACKOFF_MIN_S, maximum_s=BACKOFF_MAX_S, rng=rng)
            )
        with (
            _only_writer(settings, name) as producer,
            CatalogFollower(settings, names, limits=limits) as follower,
        ):
            _await_settled(settings)
            state = State(follower.read_to_end(READ_TIMEOUT_S), follower, ids)
            # Who was fenced or lost while it committed cannot tell whether it did.
            if plan is not None and plan.is_done(state):
                return plan.result
            plan = decide(state)
            if not plan.records or _commit(producer, plan.records):
                return plan.result
    raise TransientError(
        f"others keep changing model {name}; nothing was written in {ATTEMPTS_MAX} attempts"
    )


@contextmanager
def _only_writer(settings: KafkaSettings, name: str) -> Iterator[TransactionalProducer]:
    producer = TransactionalProducer(
        settings, f"motorcade-model-{name}", transaction_timeout_s=TRANSACTION_TIMEOUT_S
    )
    producer.start()
    try:
        yield producer
    finally:
        producer.close()


def _commit(producer: TransactionalProducer, records: Sequence[Outgoing]) -> bool:
    """Write records in a transaction; whether they count, as far as this writer can tell."""
    try:
        with producer.transaction():
            for record in records:
                producer.produce(record)
    except (FencedError, AbortNeededError, ProducerLostError):
        return False
    return True


def _await_settled(settings: KafkaSettings) -> None:
    """Wait until readers see what was committed: another model's open transaction hides it."""
    with make_consumer(
        settings, f"{settings.client_id}-ends", isolation_level="read_uncommitted"
    ) as consumer:
        ends = {
            topic: consumer.watermarks((topic, PARTITION))[1]
            for topic in (RELEASES.name, TRAFFIC.name)
        }
    until_s = time.monotonic() + SETTLE_TIMEOUT_S
    for topic, end in ends.items():
        while latest_offsets(settings, topic)[PARTITION] < end:
            if time.monotonic() > until_s:
                raise TransientError(f"a transaction on {topic} is open")
            time.sleep(_SETTLE_PAUSE_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
