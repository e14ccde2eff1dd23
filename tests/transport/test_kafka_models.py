"""The client of the Kafka model server, against a server that answers as the test wants."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from deploy.stack import Stack
from schemas.errors import ContractError, Reason, TransientError
from schemas.requests import (
    Envelope,
    RequestColumns,
    Scored,
    Verdict,
    decode_requests,
    encode_responses,
)
from schemas.topics import REQUESTS, RESPONSES
from transport.kafka import (
    KafkaSettings,
    Outgoing,
    SchemaIds,
    ensure_topics,
    make_consumer,
    publish,
    read_to_end,
    register_schemas,
)
from transport.kafka_models import KafkaModelClient, ModelClientSettings
from transport.kafka_replies import ReplyTopics

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0
VERDICT = Verdict("anomaly", "1", "a" * 64, "champion")

Reply = Callable[[RequestColumns, int], list[Scored]]
"""Given requests and the number of one, what to answer: nothing, once, or more."""


@pytest.fixture
def kafka(stack: Stack) -> KafkaSettings:
    return KafkaSettings(stack.endpoints.kafka_bootstrap, stack.endpoints.registry_url)


@pytest.fixture
def topics(kafka: KafkaSettings) -> ReplyTopics:
    mark = uuid.uuid4().hex[:8]
    made = [replace(topic, name=f"{topic.name}.{mark}") for topic in (REQUESTS, RESPONSES)]
    ensure_topics(kafka, made)
    return ReplyTopics(*made)


def scored(columns: RequestColumns, number: int, **changes: object) -> Scored:
    """The first feature of each row as its score."""
    start, rows = columns.starts[number], int(columns.rows[number])
    values = columns.values[start : start + columns.counts[number]].reshape(rows, -1)
    base = Scored(
        verdict=VERDICT,
        correlation_ids=[columns.correlation_ids[number]],
        rows=np.array([rows]),
        scores=values[:, 0],
        reconstruction=values if _envelope(columns, number).reconstruction else values[:0, :0],
        score_time_ms=1,
        queue_us=2,
        compute_us=3,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def _envelope(columns: RequestColumns, number: int) -> Envelope:
    return columns.envelopes[int(columns.envelope[number])]


def refused(columns: RequestColumns, number: int, reason: str) -> Scored:
    none = np.empty(0, np.float32)
    return scored(
        columns,
        number,
        verdict=Verdict("anomaly", reason=reason, error="because"),
        rows=np.array([0]),
        scores=none,
        reconstruction=none.reshape(0, 0),
    )


class Server:
    """Answers each request as `reply` says, in a thread."""

    def __init__(self, kafka: KafkaSettings, topics: ReplyTopics, reply: Reply) -> None:
        self._kafka, self._topics, self._reply = kafka, topics, reply
        known = register_schemas(kafka, [REQUESTS, RESPONSES])
        self._ids: SchemaIds = known
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.keys: list[bytes | None] = []
        self.correlation_ids: list[bytes] = []
        self.payload_bytes: list[int] = []

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        name = self._topics.requests.name
        with make_consumer(self._kafka, f"test-{name}") as consumer:
            consumer.assign({(name, p): 0 for p in range(self._topics.requests.partitions)})
            while not self._stop.is_set():
                messages = consumer.consume(1, 0.05)
                values = [message.value() or b"" for message in messages]
                self.keys += [message.key() for message in messages]
                self.payload_bytes += map(len, values)
                self._answer(values)

    def _answer(self, values: list[bytes]) -> None:
        columns = decode_requests(values, schema_id=self._ids.id_of(REQUESTS))
        assert columns.rejected == []
        out = []
        for number in range(len(columns.index)):
            self.correlation_ids.append(columns.correlation_ids[number])
            envelope = _envelope(columns, number)
            for each in self._reply(columns, number):
                [value] = encode_responses(each, schema_id=self._ids.id_of(RESPONSES))
                out.append(Outgoing(envelope.reply_topic, value, None, envelope.reply_partition))
        publish(self._kafka, out)


@contextmanager
def asking(
    kafka: KafkaSettings, topics: ReplyTopics, reply: Reply, **how: object
) -> Iterator[tuple[KafkaModelClient, Server]]:
    settings = replace(ModelClientSettings(topics), **how)  # type: ignore[arg-type]
    with Server(kafka, topics, reply) as server, KafkaModelClient(kafka, settings) as client:
        yield client, server


def matrix(rows: int, width: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


def once(columns: RequestColumns, number: int) -> list[Scored]:
    return [scored(columns, number)]


def test_a_matrix_is_cut_and_put_together_again(kafka: KafkaSettings, topics: ReplyTopics) -> None:
    rows = matrix(1000)
    with asking(kafka, topics, once, request_bytes=1_200, in_flight=4) as (client, server):
        answer = client.score(rows, model="anomaly", vehicle_id=b"car-1", deadline_s=PATIENCE_S)
        full = client.score(rows[:50], model="anomaly", reconstruction=True, deadline_s=PATIENCE_S)
    np.testing.assert_array_equal(answer.scores, rows[:, 0])
    assert answer.reconstruction is None
    np.testing.assert_array_equal(full.reconstruction, rows[:50])  # type: ignore[arg-type]
    assert (answer.version, answer.sha256, answer.arm) == ("1", "a" * 64, "champion")
    assert len(server.keys) == 10 + 1
    assert set(server.keys[:10]) == {b"car-1"}
    assert max(server.payload_bytes) < 1_400


def test_a_request_that_was_lost_is_sent_again_by_its_id(
    kafka: KafkaSettings, topics: ReplyTopics
) -> None:
    seen: set[bytes] = set()

    def at_the_second_time(columns: RequestColumns, number: int) -> list[Scored]:
        correlation_id = columns.correlation_ids[number]
        if correlation_id not in seen:
            seen.add(correlation_id)
            return []
        return [scored(columns, number)]

    how = {"resend_after_s": 0.2, "request_bytes": 120}
    with asking(kafka, topics, at_the_second_time, **how) as (client, server):
        answer = client.score(matrix(100), model="anomaly", deadline_s=PATIENCE_S)
    np.testing.assert_array_equal(answer.scores, matrix(100)[:, 0])
    assert len(seen) == 10
    assert set(server.correlation_ids) == seen


def test_of_several_responses_the_first_counts_and_others_are_passed_over(
    kafka: KafkaSettings, topics: ReplyTopics
) -> None:
    def often(columns: RequestColumns, number: int) -> list[Scored]:
        other = scored(columns, number, correlation_ids=[b"of-another-client"])
        late = scored(columns, number, scores=columns.values[:1] * 0 - 1, rows=np.array([1]))
        return [other, scored(columns, number), late]

    with asking(kafka, topics, often, request_bytes=120) as (client, _):
        for _ in range(3):
            answer = client.score(matrix(60), model="anomaly", deadline_s=PATIENCE_S)
            np.testing.assert_array_equal(answer.scores, matrix(60)[:, 0])


def test_rows_of_two_versions_are_scored_again_by_the_newer(
    kafka: KafkaSettings, topics: ReplyTopics
) -> None:
    new = Verdict("anomaly", "2", "b" * 64, "champion")
    asked: list[str] = []

    def swapped(columns: RequestColumns, number: int) -> list[Scored]:
        asked.append(_envelope(columns, number).version)
        verdict = new if len(asked) > 3 else VERDICT
        scores = scored(columns, number).scores + (0.0 if verdict is VERDICT else 0.5)
        return [scored(columns, number, verdict=verdict, scores=scores.astype(np.float32))]

    with asking(kafka, topics, swapped, request_bytes=120, in_flight=1) as (client, _):
        answer = client.score(matrix(60), model="anomaly", deadline_s=PATIENCE_S)
    np.testing.assert_array_equal(answer.scores, matrix(60)[:, 0] + np.float32(0.5))
    assert (answer.version, answer.sha256, answer.arm) == ("2", "b" * 64, "champion")
    assert asked == [""] * 6 + ["2"] * 3


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("unknown-model", Reason.UNKNOWN_MODEL), ("of-a-newer-server", Reason.MALFORMED)],
)
def test_what_the_server_refuses_is_not_asked_again(
    kafka: KafkaSettings, topics: ReplyTopics, reason: str, expected: Reason
) -> None:
    def refuse(columns: RequestColumns, number: int) -> list[Scored]:
        return [refused(columns, number, reason)]

    with asking(kafka, topics, refuse) as (client, server):
        with pytest.raises(ContractError, match="because") as caught:
            client.score(matrix(2), model="anomaly", deadline_s=PATIENCE_S)
        assert caught.value.reason is expected
        assert len(server.correlation_ids) == 1


def test_a_deadline_that_the_server_missed_may_be_asked_again(
    kafka: KafkaSettings, topics: ReplyTopics
) -> None:
    def late(columns: RequestColumns, number: int) -> list[Scored]:
        return [refused(columns, number, "deadline")]

    with (
        asking(kafka, topics, late) as (client, _),
        pytest.raises(TransientError, match="too late"),
    ):
        client.score(matrix(2), model="anomaly", deadline_s=PATIENCE_S)


def test_a_response_of_another_size_is_refused(kafka: KafkaSettings, topics: ReplyTopics) -> None:
    def short(columns: RequestColumns, number: int) -> list[Scored]:
        return [scored(columns, number, scores=np.zeros(1, np.float32), rows=np.array([1]))]

    with (
        asking(kafka, topics, short) as (client, _),
        pytest.raises(ContractError, match="1 scores for 2 rows"),
    ):
        client.score(matrix(2), model="anomaly", deadline_s=PATIENCE_S)


def test_without_a_server_the_deadline_ends_it(kafka: KafkaSettings, topics: ReplyTopics) -> None:
    with KafkaModelClient(kafka, ModelClientSettings(topics)) as client:
        began_s = time.monotonic()
        with pytest.raises(TransientError, match="no model server answered 1 of 1"):
            client.score(matrix(2), model="anomaly", deadline_s=0.3)
        assert time.monotonic() - began_s >= 0.3
    [request] = [m for found in read_to_end(kafka, topics.requests.name) for m in found]
    ids = register_schemas(kafka, [REQUESTS])
    columns = decode_requests([request.value() or b""], schema_id=ids.id_of(REQUESTS))
    assert 0 < columns.deadline_ms[0] <= time.time_ns() // 1_000_000


def test_what_cannot_be_asked_is_said_at_once(kafka: KafkaSettings, topics: ReplyTopics) -> None:
    with KafkaModelClient(kafka, ModelClientSettings(topics, request_bytes=10)) as client:
        with pytest.raises(ContractError) as caught:
            client.score(matrix(1), model="anomaly", deadline_s=1.0)
        assert caught.value.reason is Reason.OVERSIZED
        with pytest.raises(ContractError) as caught:
            client.score(matrix(1)[0], model="anomaly", deadline_s=1.0)
        assert caught.value.reason is Reason.WRONG_SHAPE
    with pytest.raises(TransientError, match="not started, or is closed"):
        client.score(matrix(1), model="anomaly", deadline_s=1.0)


def test_topics_that_are_not_there_yet_are_transient(
    kafka: KafkaSettings, topics: ReplyTopics
) -> None:
    nowhere = replace(topics, responses=replace(topics.responses, name="nowhere-yet"))
    client = KafkaModelClient(kafka, ModelClientSettings(nowhere))
    with pytest.raises(TransientError, match="no such topic yet: nowhere-yet"):
        client.start()
    client.close()
    away = KafkaModelClient(KafkaSettings("127.0.0.1:1"), ModelClientSettings(start_timeout_s=0.5))
    with pytest.raises(TransientError):
        away.start()
