"""The Kafka door against a real Kafka: what it answers, and where what it cannot answer goes."""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from confluent_kafka import admin
from door_ground import NAME, Ground, running, wait_until
from numpy.typing import NDArray
from serving_models import catalog_of, release, rows

from cloud.serving.repository import ModelRepository, Served
from deploy.stack import Stack
from schemas.errors import ContractError, MotorcadeError, Reason
from schemas.records import confluent_header, encode_body
from schemas.requests import Envelope, encode_requests
from scoring.scorer import BatchScorer
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Splitter, Traffic
from transport.kafka import KafkaSettings, Message, Outgoing, ensure_topics, make_consumer
from transport.kafka_models import KafkaModelClient, ModelClientSettings

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("exactly_once", [False, True], ids=["acked", "transactions"])


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


def request_of(
    ground: Ground,
    number: int,
    features: NDArray[np.float32],
    *,
    vehicle: str = "",
    deadline_ms: int = 0,
    **envelope: Any,
) -> bytes:
    [payload] = encode_requests(
        Envelope(**({"model": NAME} | envelope)),
        correlation_ids=[b"c-%06d" % number],
        vehicle_ids=[vehicle.encode()],
        deadline_ms=np.array([deadline_ms]),
        rows=np.array([len(features)]),
        values=features,
        schema_id=ground.ids.id_of(ground.topics.requests),
    )
    return payload


def answers(ground: Ground) -> dict[str, dict[str, Any]]:
    """Responses by correlation id; each request has one."""
    found = {record["correlation_id"]: record for record in ground.records(ground.topics.responses)}
    assert len(found) == len(ground.messages(ground.topics.responses))
    return found


@BOTH
def test_a_matrix_is_scored_to_the_bit(ground: Ground, exactly_once: bool) -> None:
    features = rows(20_000)
    settings = ModelClientSettings(ground.reply_topics, request_bytes=50_000)
    with (
        running(ground, exactly_once=exactly_once),
        KafkaModelClient(ground.kafka, settings) as client,
    ):
        answer = client.score(features, model=NAME, deadline_s=60.0)
        full = client.score(
            features[:3000], model=NAME, version="1", reconstruction=True, deadline_s=60.0
        )
        none = client.score(features[:0], model=NAME, deadline_s=60.0)
    scores, outputs = BatchScorer(release("1")).score_and_reconstruct(features)
    np.testing.assert_array_equal(answer.scores, scores)
    np.testing.assert_array_equal(full.scores, scores[:3000])
    assert full.reconstruction is not None
    np.testing.assert_array_equal(full.reconstruction, outputs[:3000])
    assert (answer.version, answer.arm, full.arm) == ("1", "champion", "pinned")
    assert answer.sha256 == release("1").manifest.model_sha256
    assert none.scores.size == 0


@BOTH
def test_what_is_wrong_is_answered_or_buried_and_disturbs_nothing(
    ground: Ground, exactly_once: bool
) -> None:
    features = rows(40)
    good = [request_of(ground, n, features[n : n + 1]) for n in range(40)]
    past_ms = time.time_ns() // 1_000_000 - 1000
    answered = {
        Reason.UNKNOWN_MODEL: request_of(ground, 100, features[:1], model="nobody"),
        Reason.WRONG_SHAPE: request_of(ground, 101, features[:1, :-1]),
        Reason.DEADLINE: request_of(ground, 102, features[:1], deadline_ms=past_ms),
        Reason.IDENTITY: request_of(ground, 103, features[:1], vehicle="x" * 129),
    }
    schema_id = ground.ids.id_of(ground.topics.requests)
    buried = {
        Reason.TRUNCATED: good[0][:-3],
        Reason.MALFORMED: good[0] + b"x",
        Reason.NOT_AVRO: b"nonsense",
        Reason.UNKNOWN_SCHEMA_ID: confluent_header(schema_id + 1000) + good[0][5:],
        Reason.UNKNOWN_REPLY_TOPIC: request_of(ground, 104, features[:1], reply_topic="secrets"),
        Reason.OUT_OF_RANGE: request_of(ground, 105, features[:1], reply_partition=-7),
    }
    payloads = list(good)
    for place, bad in enumerate([*answered.values(), *buried.values()]):
        payloads.insert(3 * place + 2, bad)
    ground.write(
        [Outgoing(ground.topics.requests.name, payload, b"key") for payload in payloads]
        + [Outgoing(ground.topics.requests.name, None, b"tombstone")]
    )
    with running(ground, exactly_once=exactly_once) as door:
        door.wait_for(lambda stats: stats.requests == len(payloads) + 1)
        assert (door.stats.errors, door.stats.expired) == (len(answered), 1)
        assert door.stats.dead_letters == len(buried) + 1
    found = answers(ground)
    expected = BatchScorer(release("1")).score(features)
    for number in range(40):
        np.testing.assert_array_equal(
            np.array(found.pop(f"c-{number:06d}")["scores"], np.float32), expected[[number]]
        )
    assert sorted(record["reason"] for record in found.values()) == sorted(answered)
    assert all(record["scores"] == [] and record["error"] for record in found.values())
    letters = {letter["payload"]: letter for letter in ground.records(ground.topics.dead_letters)}
    assert letters.pop(None)["key"] == b"tombstone"
    for reason, payload in buried.items():
        letter = letters.pop(payload)
        assert (letter["reason"], letter["key"]) == (reason, b"key")
        assert (letter["topic"], letter["component"]) == (ground.topics.requests.name, "server")
    assert letters == {}


def test_nan_and_infinity_are_scored_as_in_the_process(ground: Ground) -> None:
    features = rows(4)
    features[0, :] = np.nan
    features[1, 0] = np.inf
    features[2, 1] = -np.inf
    with (
        running(ground),
        KafkaModelClient(ground.kafka, ModelClientSettings(ground.reply_topics)) as client,
    ):
        answer = client.score(features, model=NAME, deadline_s=60.0)
    np.testing.assert_array_equal(answer.scores, BatchScorer(release("1")).score(features))
    assert np.isnan(answer.scores[0])


@BOTH
@pytest.mark.parametrize("with_headers", [False, True])
def test_responses_of_a_key_keep_its_order_its_key_and_its_headers(
    ground: Ground, exactly_once: bool, with_headers: bool
) -> None:
    features = rows(1)
    keys = [b"car-%d" % (number % 7) for number in range(300)]
    requests = []
    for number, key in enumerate(keys):
        version = "9" if number % 5 == 0 else ""  # Errors and scores are mixed.
        headers: Sequence[tuple[str, bytes | None]] = ()
        if with_headers and number % 3:
            headers = [("traceparent", b"t-%d" % number), ("odd", None)]
        payload = request_of(ground, number, features, version=version)
        requests.append(Outgoing(ground.topics.requests.name, payload, key, headers=headers))
    ground.write(requests)
    with running(ground, exactly_once=exactly_once, poll_messages=40) as door:
        door.wait_for(lambda stats: stats.requests == len(keys))
    schema = ground.topics.responses
    order: dict[bytes, list[int]] = defaultdict(list)
    for message, record in zip(ground.messages(schema), ground.records(schema), strict=True):
        number = int(record["correlation_id"].removeprefix("c-"))
        assert message.key() == keys[number]
        assert headers_of(message) == list(requests[number].headers)
        assert record["reason"] == ("unknown-model" if number % 5 == 0 else "")
        order[keys[number]].append(number)
    assert sum(map(len, order.values())) == len(keys)
    assert all(numbers == sorted(numbers) for numbers in order.values())


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    return list(message.headers() or [])  # type: ignore[arg-type]


def test_a_client_names_where_it_is_answered(ground: Ground) -> None:
    own = replace(ground.topics.responses, name=f"{ground.topics.responses.name}.own", partitions=2)
    ensure_topics(ground.kafka, [own])
    missing = f"{own.name}.missing"
    with running(ground) as door:
        ground.ask(
            [
                request_of(ground, 1, rows(1), reply_topic=own.name, reply_partition=1),
                request_of(ground, 2, rows(1), reply_topic=own.name, reply_partition=2),
                request_of(ground, 3, rows(1), reply_topic=missing),
            ]
        )
        door.wait_for(lambda stats: stats.requests == 3)
        assert door.stats.dead_letters == 2
        # A topic that is made later is found.
        ensure_topics(ground.kafka, [replace(own, name=missing)])
        ground.ask([request_of(ground, 4, rows(1), reply_topic=missing)])
        door.wait_for(lambda stats: stats.requests == 4)
        assert door.stats.dead_letters == 2
    [message] = ground.messages(own)
    assert message.partition() == 1
    assert len(ground.messages(replace(own, name=missing))) == 1
    letters = ground.records(ground.topics.dead_letters)
    assert {letter["reason"] for letter in letters} == {"unknown-reply-topic"}
    assert any("no partition 2" in letter["error"] for letter in letters)


def test_a_response_that_is_too_large_is_an_error(ground: Ground) -> None:
    features = rows(1)
    count = 900_000 // features[0].nbytes
    payload = request_of(ground, 1, np.repeat(features, count, axis=0), reconstruction=True)
    with running(ground) as door:
        ground.ask([payload])
        door.wait_for(lambda stats: stats.requests == 1)
    [record] = answers(ground).values()
    assert (record["reason"], record["scores"]) == ("oversized", [])
    assert "fewer rows" in record["error"]


def test_json_is_answered_in_json(ground: Ground) -> None:
    features = rows(2, missing=0.0)
    tensor = {
        "name": "features",
        "shape": list(features.shape),
        "datatype": "FP32",
        "data": features.reshape(-1).tolist(),
    }
    parameters = {"model": NAME, "version": "1"}
    good = {"id": "one", "inputs": [tensor], "parameters": parameters}
    wrong = {"id": "two", "inputs": [tensor | {"shape": [2, 2]}], "parameters": parameters}
    with running(ground) as door:
        ground.ask([json.dumps(good).encode(), json.dumps(wrong).encode(), b'{"id": "three"'])
        door.wait_for(lambda stats: stats.requests == 3)
    values = [json.loads(m.value() or b"") for m in ground.messages(ground.topics.responses)]
    found = {each["id"]: each for each in values}
    expected = BatchScorer(release("1")).score(features)
    [output] = found["one"]["outputs"]
    np.testing.assert_array_equal(np.array(output["data"], np.float32), expected)
    assert (found["one"]["model_version"], found["one"]["parameters"]["arm"]) == ("1", "pinned")
    assert found["two"]["parameters"]["reason"] == "wrong-shape"
    [letter] = ground.records(ground.topics.dead_letters)
    assert (letter["reason"], letter["payload"]) == ("malformed", b'{"id": "three"')


def test_traffic_chooses_the_arm_of_each_vehicle(ground: Ground) -> None:
    experiment = Experiment(
        "trial",
        Mode.AB,
        "salt",
        0,
        (Arm(CHAMPION, "1", 0.5), Arm("other", "2", 0.5)),
    )
    traffic = Traffic(NAME, aliases={CHAMPION: "1"}, experiment=experiment)
    repository = ModelRepository()
    repository.update(catalog_of(release("1"), release("2")).with_traffic(traffic))
    vehicles = [f"car-{number}" for number in range(60)]
    named = [
        Outgoing(
            ground.topics.requests.name, request_of(ground, n, rows(1), vehicle=vehicle), b"other"
        )
        for n, vehicle in enumerate(vehicles)
    ]
    keyed = [
        Outgoing(ground.topics.requests.name, request_of(ground, 60 + n, rows(1)), vehicle.encode())
        for n, vehicle in enumerate(vehicles)
    ]
    ground.write([*named, *keyed])
    with running(ground, repository) as door:
        door.wait_for(lambda stats: stats.requests == 120)
    splitter = Splitter(experiment)
    arms = [splitter.arms[n] for n in splitter.choose([v.encode() for v in vehicles]).tolist()]
    assert {arm.name for arm in arms} == {CHAMPION, "other"}
    found = answers(ground)
    one, two = (BatchScorer(release(version)).score(rows(1)) for version in ("1", "2"))
    for number in range(120):
        record, arm = found[f"c-{number:06d}"], arms[number % 60]
        assert (record["arm"], record["version"]) == (arm.name, arm.version)
        expected = one if arm.version == "1" else two
        assert np.float32(record["scores"][0]) == expected[0]


def test_a_version_that_takes_over_between_two_polls_answers_at_once(ground: Ground) -> None:
    repository = ModelRepository()
    repository.update(catalog_of(release("1")))
    settings = ModelClientSettings(ground.reply_topics, request_bytes=20_000)
    features = rows(5_000)
    with (
        running(ground, repository, poll_messages=2),
        KafkaModelClient(ground.kafka, settings) as client,
    ):
        before = client.score(features, model=NAME, deadline_s=60.0)
        repository.update(catalog_of(release("1"), release("2")))
        after = client.score(features, model=NAME, deadline_s=60.0)
        pinned = client.score(features, model=NAME, version="1", deadline_s=60.0)
    assert (before.version, after.version, pinned.version) == ("1", "2", "1")
    np.testing.assert_array_equal(after.scores, BatchScorer(release("2")).score(features))
    np.testing.assert_array_equal(pinned.scores, before.scores)


class Witness:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.rows = 0
        self.requests = 0
        self.failures: list[tuple[str, MotorcadeError]] = []

    def observed(
        self,
        served: Served,
        features: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        queue_us: Sequence[int],
        compute_us: int,
        deployment: str,
    ) -> None:
        assert deployment == "kafka"
        assert len(features) == len(scores)
        assert compute_us >= 0 <= min(queue_us)
        self.rows += len(scores)
        self.requests += len(queue_us)

    def failed(self, model: str, error: MotorcadeError, *, deployment: str) -> None:
        self.failures.append((model, error))


def test_the_observer_is_told_of_every_request(ground: Ground) -> None:
    witness = Witness()
    with running(ground, observer=witness) as door:
        ground.ask([request_of(ground, n, rows(3)) for n in range(20)])
        ground.ask([request_of(ground, 20, rows(1), model="nobody"), b"nonsense"])
        door.wait_for(lambda stats: stats.requests == 22)
    assert (witness.requests, witness.rows) == (20, 60)
    assert sorted(model for model, _ in witness.failures) == ["", "nobody"]


def test_the_client_raises_what_the_server_says(ground: Ground) -> None:
    with (
        running(ground),
        KafkaModelClient(ground.kafka, ModelClientSettings(ground.reply_topics)) as client,
    ):
        with pytest.raises(ContractError) as caught:
            client.score(rows(1), model="nobody", deadline_s=60.0)
        assert caught.value.reason is Reason.UNKNOWN_MODEL
        with pytest.raises(ContractError) as caught:
            client.score(rows(1)[:, :-1], model=NAME, deadline_s=60.0)
        assert caught.value.reason is Reason.WRONG_SHAPE
        assert client.score(rows(1), model=NAME, deadline_s=60.0).scores.size == 1


def test_schemas_of_the_door_are_what_other_writers_write(ground: Ground) -> None:
    """A request that fastavro wrote, features in two blocks, as some Avro writers do."""
    schema_id = ground.ids.id_of(ground.topics.requests)
    record = {
        "model": NAME,
        "version": "",
        "reply_topic": "",
        "reply_partition": -1,
        "reconstruction": False,
        "correlation_id": "c-000001",
        "vehicle_id": "",
        "deadline": 0,
        "rows": 1,
        "features": [],
    }
    features = rows(1)
    head = confluent_header(schema_id) + encode_body("ModelRequest", record)[:-1]
    width = features.shape[1]
    split = head + b"\x02" + features[0, :1].tobytes()
    split += bytes([2 * (width - 1)]) + features[0, 1:].tobytes() + b"\x00"
    with running(ground) as door:
        ground.ask([split])
        wait_until(lambda: door.stats.requests == 1, lambda: door.stats)
    [answer] = answers(ground).values()
    assert np.float32(answer["scores"][0]) == BatchScorer(release("1")).score(features)[0]


@BOTH
def test_no_more_is_under_way_than_allowed(ground: Ground, exactly_once: bool) -> None:
    ground.ask([request_of(ground, n, rows(1)) for n in range(300)])
    with running(ground, exactly_once=exactly_once, poll_messages=7, in_flight_messages=1) as door:
        door.wait_for(lambda stats: stats.requests == 300)
    assert len(answers(ground)) == 300


@BOTH
def test_offsets_wait_for_a_dead_letter_that_cannot_be_written(
    ground: Ground, exactly_once: bool
) -> None:
    limit_records(ground, ground.topics.dead_letters.name, 100)
    bad = request_of(ground, 1, rows(1))[:-1]
    with running(ground, exactly_once=exactly_once) as door:
        ground.ask([request_of(ground, 0, rows(1)), bad], key=b"one partition")
        door.wait_for(lambda stats: stats.aborts > 0 or stats.state.startswith("waiting"))
        ground.ask([request_of(ground, 2, rows(1))], key=b"one partition")
        assert door.stats.dead_letters == 0
        assert committed(ground) <= 1
        limit_records(ground, ground.topics.dead_letters.name, 1_000_000)
        door.wait_for(lambda stats: stats.dead_letters == 1)
        wait_until(lambda: committed(ground) == 3, lambda: door.stats)
    [letter] = ground.records(ground.topics.dead_letters)
    assert letter["payload"] == bad
    found = {record["correlation_id"] for record in ground.records(ground.topics.responses)}
    assert found == {"c-000000", "c-000002"}


def limit_records(ground: Ground, topic: str, bytes_max: int) -> None:
    """Have the brokers refuse larger batches of a topic."""
    library: Any = admin  # Its types do not tell of all that it holds.
    entry = library.ConfigEntry(
        "max.message.bytes",
        str(bytes_max),
        incremental_operation=library.AlterConfigOpType.SET,
    )
    resource = library.ConfigResource("topic", topic, incremental_configs=[entry])
    client = library.AdminClient({"bootstrap.servers": ground.kafka.bootstrap_servers})
    [future] = client.incremental_alter_configs([resource]).values()
    future.result(60)


def committed(ground: Ground) -> int:
    """Requests that the group has behind it."""
    name = ground.topics.requests.name
    with make_consumer(ground.kafka, ground.settings().group_id) as consumer:
        found = consumer.committed([(name, p) for p in range(ground.topics.requests.partitions)])
    return sum(offset or 0 for offset in found.values())
