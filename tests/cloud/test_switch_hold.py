"""A model server that is away, slow, or behind: pause and hold, on a real Kafka."""

import threading
import time

import pytest
from model_server import ModelServer
from scorer_fleet import Ground, Models, drive, small_bundle
from switch_ground import beside, kafka_of, made, switched

from deploy.stack import Stack
from schemas.errors import SettingsError
from scoring.bundle import FeatureKind, FeatureSpec
from scoring.traffic import Arm, Experiment, Mode, Traffic

pytestmark = pytest.mark.integration


@pytest.fixture
def ground(stack: Stack) -> Ground:
    return Ground.new(kafka_of(stack))


def assert_as_embedded(ground: Ground, messages: int) -> None:
    """What was made is, record for record, what the model in the process makes."""
    own = beside(ground)
    with switched(own, Models(small_bundle()), "embedded:small") as scorer:
        scorer.wait_for(lambda stats: stats.messages == messages)
    assert made(ground) == made(own)
    assert made(ground).alerts, "the drive should cause alerts"


def test_a_server_that_dies_under_load_is_waited_for_and_nothing_is_lost_or_repeated(
    ground: Ground,
) -> None:
    records = drive(ground, vehicles=20, batches=200)
    ground.write(records[: len(records) // 2])
    server = ModelServer(small_bundle()).start()
    # The brokers put a member out that does not poll within the interval.
    with switched(
        ground, Models(small_bundle()), f"rpc://{server.target}/small", poll_interval_max_s=6.0
    ) as scorer:
        scorer.wait_for(lambda stats: stats.messages > 500)
        server.stop()
        ground.write(records[len(records) // 2 :])
        scorer.wait_for_state("waiting: model server")
        rebuilds, began_s = scorer.stats.rebuilds, time.monotonic()
        while time.monotonic() - began_s < 8.0:
            assert scorer.error is None
            time.sleep(0.05)
        assert scorer.stats.messages < len(records)
        server.start()
        scorer.wait_for(lambda stats: stats.messages == len(records))
        assert scorer.stats.rebuilds == rebuilds, "the member was put out of its group"
        assert scorer.stats.aborts == 0
        assert scorer.stats.state == "scoring"
    server.stop()
    assert_as_embedded(ground, len(records))


def test_partitions_that_change_hands_meanwhile_are_given_up_and_taken_anew(
    ground: Ground,
) -> None:
    records = drive(ground, vehicles=20, batches=200)
    ground.write(records)
    server = ModelServer(small_bundle()).start()
    models = Models(small_bundle()), Models(small_bundle())
    spec = f"rpc://{server.target}/small"
    with switched(ground, models[0], spec, "one") as one:
        one.wait_for(lambda stats: stats.messages > 500)
        server.stop()
        one.wait_for_state("waiting: model server")
        with (
            ModelServer(small_bundle()) as other,
            switched(ground, models[1], f"rpc://{other.target}/small", "two") as two,
        ):
            two.wait_for(lambda stats: stats.messages > 0)
            server.start()
            one.wait_for(lambda stats: stats.messages + two.stats.messages == len(records))
            assert one.stats.rebuilds > 1
    server.stop()
    assert_as_embedded(ground, len(records))


@pytest.mark.parametrize("hangs", [False, True])
def test_a_stop_is_answered_while_the_server_is_away(ground: Ground, hangs: bool) -> None:
    ground.write(drive(ground, vehicles=20, batches=100))
    with ModelServer(small_bundle()) as server:
        spec = f"rpc://{server.target}/small?timeout_s=600"
        with switched(ground, Models(small_bundle()), spec) as scorer:
            scorer.wait_for(lambda stats: stats.messages > 200)
            if hangs:
                server.hang.clear()
            else:
                server.stop()
            scorer.wait_for_state("waiting: model server")
        assert scorer.error is None
        assert scorer.stats.state == "stopped"


def test_without_a_server_at_the_start_it_waits_and_says_so(ground: Ground) -> None:
    records = drive(ground, vehicles=5, batches=20)
    ground.write(records)
    with ModelServer(small_bundle()) as server:
        pass
    with switched(ground, Models(small_bundle()), f"rpc://{server.target}/small") as scorer:
        scorer.wait_for_state(f"waiting: model server {server.target} does not serve small 1 yet")
        with server:
            scorer.wait_for(lambda stats: stats.messages == len(records))


@pytest.mark.parametrize("features_change", [False, True])
def test_a_release_is_used_from_when_the_server_knows_it(
    ground: Ground, features_change: bool
) -> None:
    old = small_bundle("1")
    new = small_bundle("2")
    if features_change:
        features = list(old.manifest.features)
        features[5] = FeatureSpec("speed", FeatureKind.MEAN, 45.0)
        new = small_bundle("2", features=tuple(features))
    records = drive(ground, vehicles=10, batches=300)
    third = len(records) // 3
    ground.write(records[:third])
    models = Models(old)
    with (
        ModelServer(old) as server,
        switched(ground, models, f"rpc://{server.target}/small") as scorer,
    ):
        scorer.wait_for(lambda stats: stats.messages == third)
        models.release(new)
        scorer.wait_for_state("a release is waiting: model server")
        ground.write(records[third : 2 * third])
        scorer.wait_for(lambda stats: stats.messages == 2 * third)
        assert set(server.versions) == {"1"}
        server.bundles["2"] = new
        scorer.wait_for(lambda stats: stats.state == "scoring")
        asked = len(server.versions)
        ground.write(records[2 * third :])
        scorer.wait_for(lambda stats: stats.messages == len(records))
        assert set(server.versions[asked:]) == {"2"}
    by_version: dict[str, int] = {}
    for _, _, record in ground.records(ground.topics.scores):
        assert record is not None
        version = record["model_version"]
        by_version[version] = by_version.get(version, 0) + 1
    assert by_version == {"1": 2 * third, "2": third}


def test_a_version_that_was_rolled_back_is_waited_for_no_longer(ground: Ground) -> None:
    versions = small_bundle("1"), small_bundle("2")
    arms = Arm("champion", "1", 0.5), Arm("canary", "2", 0.5)
    trial = Experiment("trial", Mode.AB, "salt", 0, arms)
    aliases = {"champion": "1"}
    models = Models(
        *versions, traffic=Traffic("small", generation=1, aliases=aliases, experiment=trial)
    )
    records = drive(ground, vehicles=20, batches=100)
    half = len(records) // 2
    ground.write(records[:half])
    with (
        ModelServer(*versions) as server,
        switched(ground, models, f"rpc://{server.target}/small") as scorer,
    ):
        scorer.wait_for(lambda stats: stats.messages == half)
        del server.bundles["2"]
        ground.write(records[half:])
        scorer.wait_for_state("waiting: model server")
        models.direct(Traffic("small", generation=2, aliases=aliases))
        scorer.wait_for(lambda stats: stats.messages == len(records))
    assert len(ground.scores()) == len(records)
    assert all(len(answers) == 1 for answers in ground.scores().values())


def test_a_server_that_refuses_for_too_long_ends_the_scorer_and_moves_no_offset(
    ground: Ground,
) -> None:
    records = drive(ground, vehicles=20, batches=200)
    ground.write(records)
    with ModelServer(small_bundle()) as server:
        spec = f"rpc://{server.target}/small?refused_s=0.5"
        with switched(ground, Models(small_bundle()), spec) as scorer:
            scorer.wait_for(lambda stats: stats.messages > 500)
            server.spoil = lambda _: b"\xff\xff"
            with pytest.raises(SettingsError, match="no offset was moved"):
                scorer.wait_for(lambda _: False)
        server.spoil = None
        with switched(ground, Models(small_bundle()), spec) as scorer:
            missing = len(records) - len(ground.scores())
            assert missing > 0
            scorer.wait_for(lambda stats: stats.messages == missing)
    assert_as_embedded(ground, len(records))


def test_threads_end_with_their_scorer(ground: Ground) -> None:
    ground.write(drive(ground, vehicles=5, batches=20))
    with (
        ModelServer(small_bundle()) as server,
        switched(ground, Models(small_bundle()), f"rpc://{server.target}/small") as scorer,
    ):
        scorer.wait_for(lambda stats: stats.messages == 100)
    names = [t.name for t in threading.enumerate()]
    assert not [name for name in names if name.startswith("ask-model-server")], names
