"""The scorer's pure parts."""

import numpy as np
import pytest
from confluent_kafka import Message
from scorer_fleet import small_bundle

from cloud.bench_fleet import MEMORY, SIGNALS, Fleet
from cloud.dead_letters import PAYLOAD_BYTES_MAX, Refused, Undertaker
from cloud.polls import Poll, PollSize
from cloud.scorer_stats import ScorerStats, StatsBoard
from cloud.settings import ScorerSettings
from schemas.codec import Framing, decode_telemetry
from schemas.errors import ContractError, Reason, SettingsError
from schemas.records import decode_confluent
from scoring.lineup import Lane, Lineup


def message(partition: int, offset: int, value: bytes | None = b"x") -> Message:
    return Message("t", partition, offset, b"key", value)


def test_a_poll_knows_where_to_go_on_in_each_partition() -> None:
    at = [(1, 5), (1, 6), (0, 9), (1, 8), (2, 3)]
    poll = Poll.of([message(partition, offset) for partition, offset in at])
    assert poll.next_offsets() == {0: 10, 1: 9, 2: 4}
    assert poll.partition.tolist() == [1, 1, 0, 1, 2]
    assert Poll.of([]).next_offsets() == {}


def test_a_tombstone_is_an_empty_payload() -> None:
    poll = Poll.of([message(0, 0, None), message(0, 1, b"abc")])
    assert poll.payloads == [b"", b"abc"]
    assert poll.payload_bytes == 3


@pytest.mark.parametrize(
    ("messages", "payload_bytes", "expected"),
    [(100, 10_000, 20_000), (100, 1_200_000, 2_000), (1, 90_000_000, 1), (10, 0, 20_000)],
)
def test_polls_are_sized_by_bytes(messages: int, payload_bytes: int, expected: int) -> None:
    size = PollSize(messages_max=20_000, bytes_wanted=24_000_000)
    size.learn(messages, payload_bytes)
    assert size.messages == expected
    size.learn(0, 0)
    assert size.messages == expected


@pytest.mark.parametrize("length", [0, 10, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1])
def test_a_dead_letter_is_whole_unless_it_would_not_fit(length: int) -> None:
    refused = Refused("t", 1, 2, b"k", [("h", None), ("i", b"1")], bytes(length))
    out = Undertaker("scorer", "me", 9).letter(
        refused, ContractError(Reason.NOT_AVRO, "why"), now_ms=5, model_version=None
    )
    record = decode_confluent("DeadLetter", 9, out.value or b"")
    assert record["payload"] == bytes(min(length, PAYLOAD_BYTES_MAX))
    assert record["payload_bytes"] == length
    assert (record["reason"], record["error"]) == ("not-avro", "why")
    assert (out.topic, out.key) == ("dead-letters", b"k")
    assert len(out.value or b"") < 1_000_000


def test_a_refused_message_keeps_what_it_came_with() -> None:
    refused = Refused.of(Message("t", 3, 4, b"k", b"v", [("a", b"1"), ("b", None)]))
    assert refused == Refused("t", 3, 4, b"k", [("a", b"1"), ("b", None)], b"v")


def lineup(version: str, *remarks: str) -> Lineup:
    return Lineup((Lane("champion", small_bundle(version)),), None, remarks)


def test_changes_of_state_are_told_once() -> None:
    told: list[ScorerStats] = []
    board = StatsBoard(told.append, 1000.0)
    board.lineup(lineup("1"))
    board.state("scoring")
    board.state("scoring")
    board.lineup(lineup("1"))
    board.lineup(lineup("2", "arm new is missing"))
    board.add(aborts=2)
    board.state("stopped")
    assert [(s.state, s.model_version, s.remark) for s in told] == [
        ("starting", "1", ""),
        ("scoring", "1", ""),
        ("scoring", "2", "arm new is missing"),
        ("stopped", "2", "arm new is missing"),
    ]
    assert told[-1].aborts == 2
    assert not board.is_due


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingsError, match="poll_messages"):
        ScorerSettings(poll_messages=0)
    with pytest.raises(SettingsError, match="session_timeout_s"):
        ScorerSettings(session_timeout_s=5)
    assert ScorerSettings(group_id="g").member_id.startswith("g-")
    assert ScorerSettings(transactional_id="me").member_id == "me"


def test_the_benchmarks_telemetry_keeps_the_contract() -> None:
    fleet = Fleet(vehicles=7, readings_per_message=3, messages=50, partitions=4)
    chunks = list(fleet.records(1, chunk=20))
    values = [each["value"] for records in chunks for some in records.values() for each in some]
    columns = decode_telemetry(values, framing=Framing.CONFLUENT, schema_id=1, signals=SIGNALS)
    assert not columns.rejected
    assert columns.counts.tolist() == [3] * 50
    assert np.isfinite(columns.values).all()
    assert {spec.signal for spec in MEMORY} <= set(SIGNALS)
    seqs = dict.fromkeys(columns.vehicle_ids, 0)
    by_seq = sorted(zip(columns.vehicle_ids, columns.seq.tolist(), strict=True))
    for vehicle, seq in by_seq:
        assert seq == seqs[vehicle] + 1
        seqs[vehicle] = seq
