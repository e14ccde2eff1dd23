"""From a scorer that refuses to one that scores what was sent back, on a real Kafka."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from scorer_fleet import Ground, Models, drive, small_bundle, wait_until
from scorer_thread import running

from cloud.dead_letter_desk import LetterFilter, Redriven, letters, redrive
from cloud.redrive import REDRIVEN_HEADER, Letter, LetterId
from deploy.stack import Stack
from schemas.errors import ContractError, MotorcadeError, SettingsError
from transport.kafka import KafkaSettings, Outgoing, SchemaIds, read_to_end

pytestmark = pytest.mark.integration


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url), partitions=2)


def found(ground: Ground, wanted: LetterFilter | None = None) -> list[Letter]:
    broken: list[tuple[LetterId, ContractError]] = []
    read = list(
        letters(
            ground.kafka,
            wanted or LetterFilter(),
            on_broken=lambda where, error: broken.append((where, error)),
            source=ground.topics.dead_letters.name,
        )
    )
    assert broken == []
    return read


def sent_back(
    ground: Ground, read: Sequence[Letter], *, dry_run: bool = False, to: str | None = None
) -> Redriven:
    return redrive(
        ground.kafka,
        read,
        to=to,
        per_second=1_000,
        dry_run=dry_run,
        on_sent=lambda _letter, _topic: None,
    )


def refuse(ground: Ground, messages: int) -> None:
    """A scorer that does not know the schema id of the telemetry."""
    other = {**ground.ids.by_topic, ground.topics.telemetry.name: 2**30}
    with running(replace(ground, ids=SchemaIds(other)), Models(small_bundle())) as scorer:
        scorer.wait_for(lambda stats: stats.dead_letters == messages)


def test_what_was_refused_is_scored_once_it_can_be_read(ground: Ground) -> None:
    batches = drive(ground, vehicles=4, batches=5)
    ground.write([out._replace(headers=[("boot_id", b"5")]) for out in batches])
    refuse(ground, len(batches))
    read = found(ground)
    assert len(read) == len(batches)
    assert sent_back(ground, read, dry_run=True) == Redriven(sent=len(batches))
    assert sent_back(ground, read) == Redriven(sent=len(batches))
    with running(ground, Models(small_bundle())) as scorer:
        scorer.wait_for(lambda stats: stats.messages == len(batches))
    scores = ground.scores()
    assert len(scores) == len(batches)
    sources = {
        (message.partition(), message.offset()): message
        for batch in read_to_end(ground.kafka, ground.topics.telemetry.name)
        for message in batch
    }
    assert len(sources) == 2 * len(batches)
    for letter in read:
        before = sources[letter.record["partition"], letter.record["offset"]]
        again = next(
            message
            for at, message in sources.items()
            if at in scores and message.value() == before.value()
        )
        assert (again.key(), again.partition()) == (before.key(), before.partition())
        assert again.headers() == [
            ("boot_id", b"5"),
            (REDRIVEN_HEADER, str(f"{letter.id.partition}:{letter.id.offset}").encode()),
        ]


def test_what_is_refused_again_and_again_stays_where_it_is(ground: Ground) -> None:
    hopeless = Outgoing(ground.topics.telemetry.name, b"junk", b"car", 0)
    ground.write([hopeless])
    with running(ground, Models(small_bundle())) as scorer:
        for times in range(4):
            wait_until(lambda: len(found(ground)) > times, lambda: scorer.stats)  # noqa: B023
            newest = found(ground)[-1]
            assert newest.redrives == times
            outcome = sent_back(ground, [newest])
            assert outcome.sent == (1 if times < 3 else 0)
    assert outcome.refused == [(newest.id, "it came back 3 times already")]


def test_letters_are_chosen_by_id_and_by_what_they_say(ground: Ground) -> None:
    good = drive(ground, vehicles=2, batches=1)
    ground.write([Outgoing(ground.topics.telemetry.name, b"junk", b"car", 0), good[0]])
    ground.write([good[1]._replace(value=(good[1].value or b"")[:-2])])
    with running(ground, Models(small_bundle())) as scorer:
        scorer.wait_for(lambda stats: stats.dead_letters == 2)
    one, other = found(ground)
    assert found(ground, LetterFilter([other.id])) == [other]
    assert found(ground, LetterFilter(reason=one.record["reason"])) == [one]
    assert found(ground, LetterFilter(component="scorer", topic=one.topic)) == [one, other]
    assert found(ground, LetterFilter(component="gateway")) == []
    assert found(ground, LetterFilter(since_ms=4_000_000_000_000)) == []
    with pytest.raises(MotorcadeError, match="no dead letter 1:99"):
        found(ground, LetterFilter([LetterId(1, 99)]))
    with pytest.raises(SettingsError, match="there is no topic nowhere"):
        sent_back(ground, [one], to="nowhere")
