"""What becomes of groups of messages, and what is answered; without brokers."""

import pytest
from edge_parts import batch

from edge.acks import RANGES_TOLD_MAX, AckBook, ack_payload
from edge.admission import Admission, Admitted
from edge.identity import BootState, IdentityBook
from edge.intake import Inbound
from edge.rows import Kind
from schemas.errors import Reason
from schemas.records import decode_single_object, encode_single_object
from schemas.topics import mqtt_label, mqtt_telemetry

TRACED = f"00-{'a' * 32}-{'b' * 16}-01"
LABEL = {
    "vehicle_id": "car",
    "label": "x",
    "signal": None,
    "start_time": 0,
    "end_time": None,
    "severity": 1.0,
    "source": "test",
}


def inbound(payload: bytes, *, topic: str = "", boot_seq: str = "") -> Inbound:
    boot, _, seq = boot_seq.partition("/")
    properties = [("boot_id", boot), ("seq", seq)] if boot_seq else []
    return Inbound(topic or mqtt_telemetry("f", "car"), payload, properties, 1_000, 1)


@pytest.fixture
def book() -> IdentityBook:
    return IdentityBook(lambda _: {}, vehicles_max=10)


def admit(book: IdentityBook, *messages: Inbound) -> Admitted:
    admission = Admission(gateway_id="gw", fleet="f", max_payload_bytes=10_000)
    return admission.admit(messages, book)


def reasons(admitted: Admitted) -> list[str]:
    return [
        decode_single_object("DeadLetter", row.payload)["reason"]
        for row in admitted.priority
        if row.kind is Kind.DEAD_LETTER
    ]


def test_the_payload_stays_byte_for_byte(book: IdentityBook) -> None:
    payload = batch("car", 1)
    admitted = admit(book, inbound(payload))
    assert admitted.telemetry[0].payload is payload
    assert admitted.answer == [("car", 1, 1)]
    assert not admitted.settled_dead


def test_a_trace_goes_with_its_batch_and_a_broken_one_does_not(book: IdentityBook) -> None:
    traced = inbound(batch("car", 1), boot_seq="1/1")
    traced = traced._replace(user_properties=[*traced.user_properties, ("traceparent", TRACED)])
    odd = inbound(batch("car", 2))._replace(user_properties=[("traceparent", "00-nonsense")])
    admitted = admit(book, traced, odd, inbound(batch("car", 3)))
    assert [row.traceparent for row in admitted.telemetry] == [TRACED, None, None]


def test_a_duplicate_in_one_group_is_stored_once_and_answered_twice(book: IdentityBook) -> None:
    admitted = admit(book, inbound(batch("car", 1)), inbound(batch("car", 1)))
    assert len(admitted.telemetry) == admitted.duplicates == 1
    assert len(admitted.answer) == 2


def test_a_refused_value_settles_its_identity_without_user_properties(book: IdentityBook) -> None:
    bad = inbound(batch("car", 1, signals={"speed": -5.0}))
    admitted = admit(book, bad)
    assert reasons(admitted) == [Reason.OUT_OF_RANGE]
    assert admitted.settled_dead
    assert admitted.answer == [("car", 1, 1)]
    again = admit(book, bad)
    assert (again.priority, again.duplicates) == ([], 1)


@pytest.mark.parametrize("boot_seq", ["", "x/1", "1/0", "-1/5", f"1/{1 << 63}"])
def test_without_a_sound_identity_nothing_is_settled(book: IdentityBook, boot_seq: str) -> None:
    admitted = admit(book, inbound(b"rubbish", boot_seq=boot_seq))
    assert reasons(admitted) == [Reason.NOT_AVRO]
    assert admitted.answer == []
    assert not admitted.settled_dead


def test_a_batch_of_a_forgotten_boot_is_kept_as_a_dead_letter_and_settled(
    book: IdentityBook,
) -> None:
    for boot in (5, 6, 7, 8):
        admit(book, inbound(batch("car", 1, boot=boot)))
    admitted = admit(book, inbound(batch("car", 9, boot=4)))
    assert reasons(admitted) == [Reason.IDENTITY]
    assert admitted.answer == [("car", 4, 9)]
    assert admitted.telemetry == []


@pytest.mark.parametrize(
    "topic", ["v1/other/car/telemetry", "v1/f/car/nonsense", "v1/f//telemetry", "elsewhere"]
)
def test_a_strange_topic_is_refused(book: IdentityBook, topic: str) -> None:
    assert reasons(admit(book, inbound(batch("car", 1), topic=topic))) == [Reason.IDENTITY]


def test_labels_are_stored_or_refused(book: IdentityBook) -> None:
    topic = mqtt_label("f", "car")
    good = encode_single_object("VehicleLabel", LABEL)
    other = encode_single_object("VehicleLabel", LABEL | {"vehicle_id": "other"})
    admitted = admit(
        book,
        inbound(good, topic=topic),
        inbound(other, topic=topic),
        inbound(good[:-1], topic=topic),
        inbound(good + bytes(10_000), topic=topic),
    )
    assert [row.payload for row in admitted.priority if row.kind is Kind.LABEL] == [good]
    assert reasons(admitted) == [Reason.IDENTITY, Reason.TRUNCATED, Reason.OVERSIZED]


def told(payload: bytes) -> tuple[int, list[tuple[int, int]]]:
    ack = decode_single_object("Ack", payload)
    return ack["seq"], [(r["first"], r["last"]) for r in ack["ranges"]]


def test_an_ack_tells_ranges_up_to_a_limit_and_what_was_asked() -> None:
    state = BootState(3, [(5 + 2 * n, 5 + 2 * n) for n in range(100)])
    seq, ranges = told(ack_payload("gw", 1, state, {2, 5}))
    assert seq == 3
    assert ranges == state.ranges[:RANGES_TOLD_MAX]
    assert told(ack_payload("gw", 1, None, {7, 9})) == (0, [(7, 7), (9, 9)])


def test_acks_are_coalesced() -> None:
    acks = AckBook("gw", interval_s=lambda: 1.0)
    assert acks.wait_s(10.0, idle_s=0.25) == 0.25
    acks.add("car", 1, 1)
    acks.add("car", 1, 2)
    acks.add("other", 1, 1)
    sent = acks.due(10.0, lambda vehicle, boot: BootState(2))
    assert [vehicle for vehicle, _ in sent] == ["car", "other"]
    acks.add("car", 1, 3)
    assert acks.due(10.5, lambda vehicle, boot: BootState(3)) == []
    assert acks.wait_s(10.9, idle_s=0.25) == pytest.approx(0.1)
    assert len(acks.due(11.0, lambda vehicle, boot: BootState(3))) == 1
    assert acks.due(20.0, lambda vehicle, boot: BootState(3)) == []
