"""What the gRPC door asks of HTTP/2: whole requests, bounds, and input that makes no sense."""

import contextlib
import os
import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.bench_wire import GrpcWire
from cloud.serving.budget import ByteBudget
from cloud.serving.header_lists import LIST_BYTES_MAX, Headers
from cloud.serving.http2 import (
    CONNECTION_WINDOW,
    IDLE_FRAMES_MAX,
    RESETS_MAX,
    STREAMS_MAX,
    Http2Connection,
    Http2Error,
    Stream,
)

SEED = int(os.environ.get("MOTORCADE_SEED", "1"))

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
REFUSED_STREAM = 7
ENHANCE_YOUR_CALM = 11

OK: Headers = ((b":status", b"200"),)
TRAILERS: Headers = ((b"grpc-status", b"0"),)


class Echo:
    """Answers each request with its body."""

    def __init__(self, budget_bytes: int = 1 << 30) -> None:
        self.budget = ByteBudget(budget_bytes)
        self.connection = Http2Connection(self, self.budget)
        self.connection.open()
        self.completed: list[Stream] = []
        self.refused = 0
        self.hold = False
        self.refuses_early = False

    def complete(self, stream: Stream) -> None:
        self.completed.append(stream)
        if not self.hold:
            self.answer(stream)

    def answer(self, stream: Stream) -> None:
        self.connection.respond(stream, OK, bytes(stream.body), TRAILERS)

    def grew(self, stream: Stream) -> None:
        if self.refuses_early:
            self.refuse(stream)

    def no_room(self, stream: Stream) -> None:
        self.refuse(stream)

    def refuse(self, stream: Stream) -> None:
        self.refused += 1
        self.connection.refuse(stream, OK)

    def now_s(self) -> float:
        return 0.0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes, first: bytes = b"\x00") -> bytes:
    assert len(name) < 127 and len(value) < 127
    return first + bytes((len(name),)) + name + bytes((len(value),)) + value


def block(*more: tuple[bytes, bytes]) -> bytes:
    """Headers of a request, none of which goes into the table."""
    usual = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"))
    return b"".join(literal(name, value) for name, value in (*usual, *more))


HEAD = block()
OPENING = PREFACE + frame(SETTINGS, 0, 0, b"")


def u32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def frames_of(out: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of what was sent."""
    frames, at = [], 0
    while at < len(out):
        size = int.from_bytes(out[at : at + 3], "big")
        stream = int.from_bytes(out[at + 5 : at + 9], "big")
        frames.append((out[at + 3], out[at + 4], stream, out[at + 9 : at + 9 + size]))
        at += 9 + size
    assert at == len(out)
    return frames


def sent(out: bytes, kind: int) -> list[tuple[int, bytes]]:
    return [(stream, payload) for k, _, stream, payload in frames_of(out) if k == kind]


def session(*bodies: bytes) -> tuple[GrpcWire, bytes]:
    """A client, and what it sends for so many calls."""
    wire = GrpcWire("/a/b", bodies[0])
    sent = wire.opening()
    for _ in bodies:
        sent += wire.request()
    return wire, sent


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_requests_are_whole_however_they_are_cut(step: int) -> None:
    echo = Echo()
    wire, sent = session(b"hello" * 50, b"")
    answers = 0
    for at in range(0, len(sent), step):
        echo.connection.receive(sent[at : at + step])
        wire.feed(echo.connection.take_output())
        answers += wire.answered()
    assert [bytes(stream.body[5:]) for stream in echo.completed] == [b"hello" * 50] * 2
    assert wire.answer == b"hello" * 50
    assert not echo.connection.has_streams
    assert dict(echo.completed[0].headers)[b":path"] == b"/a/b"


def test_the_same_bytes_mean_other_headers_once_the_table_changed() -> None:
    """A block of one byte, an index into the table; before, between and behind what changes it."""
    insert, same = b"\x40\x01a\x01%d", b"\xbe"
    blocks: Sequence[tuple[bytes, Headers]] = (
        (HEAD + insert % 1, ((b"a", b"1"),)),
        (HEAD + same, ((b"a", b"1"),)),
        (HEAD + same, ((b"a", b"1"),)),
        (HEAD + insert % 2, ((b"a", b"2"),)),
        (HEAD + same, ((b"a", b"2"),)),
        (HEAD + b"\xbf", ((b"a", b"1"),)),
        (b"\x20\x3f\xe1\x1f" + HEAD, ()),  # The table is emptied and has its size again.
    )
    echo = Echo()
    echo.connection.receive(OPENING)
    for number, (payload, more) in enumerate(blocks):
        flags = END_HEADERS | END_STREAM
        echo.connection.receive(frame(HEADERS, flags, 2 * number + 1, payload))
        assert tuple(echo.completed[-1].headers[3:]) == more
    with pytest.raises(Http2Error):
        echo.connection.receive(frame(HEADERS, flags, 99, HEAD + same))


def test_many_blocks_are_forgotten_and_read_again() -> None:
    echo = Echo()
    echo.connection.receive(OPENING)
    for number in range(200):
        value = b"%d" % (number % 40)
        payload = block((b"grpc-timeout", value))
        echo.connection.receive(frame(HEADERS, 5, 2 * number + 1, payload))
        assert dict(echo.completed[-1].headers)[b"grpc-timeout"] == value


def test_a_client_that_wants_a_large_table_fills_none() -> None:
    """Every answer is written out, the same each time, behind what is said of the size once."""
    echo = Echo()
    echo.connection.receive(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 1 << 30)))
    payloads = []
    for number in (1, 3, 5):
        echo.connection.take_output()
        echo.connection.receive(frame(HEADERS, 5, number, HEAD))
        payloads.append([p for _, p in sent(echo.connection.take_output(), HEADERS)])
    assert b":status" not in payloads[0][0][:4]
    assert payloads[0][0].endswith(payloads[1][0])
    assert payloads[1] == payloads[2]
    assert payloads[0][1:] == payloads[1][1:]


def test_an_answer_waits_for_the_clients_window() -> None:
    """The client has a window of 65,535 bytes and opens it step by step."""
    echo = Echo()
    body = b"".join(frame(DATA, 0, 1, b"x" * 16_000) for _ in range(10)) + frame(DATA, 1, 1, b"")
    echo.connection.receive(OPENING + frame(HEADERS, END_HEADERS, 1, HEAD) + body)
    got = sum(len(p) for _, p in sent(echo.connection.take_output(), DATA))
    allowed = 65_535
    while echo.connection.has_streams:
        assert got == min(allowed, 160_000)
        echo.connection.receive(frame(WINDOW, 0, 0, u32(20_000)))
        assert not sent(echo.connection.take_output(), DATA)
        echo.connection.receive(frame(WINDOW, 0, 1, u32(20_000)))
        allowed += 20_000
        got += sum(len(p) for _, p in sent(echo.connection.take_output(), DATA))
    assert got == 160_000


def test_a_window_that_the_settings_open_lets_an_answer_go() -> None:
    echo = Echo()
    closed = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    echo.connection.receive(closed + frame(HEADERS, 4, 1, HEAD) + frame(DATA, 1, 1, b"x" * 100))
    assert not sent(echo.connection.take_output(), DATA)
    echo.connection.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 100)))
    assert sent(echo.connection.take_output(), DATA) == [(1, b"x" * 100)]
    assert not echo.connection.has_streams


def test_windows_open_again_for_a_client_that_sends_much() -> None:
    """Small requests are acknowledged together, a large one as it comes."""
    echo = Echo()
    echo.connection.receive(OPENING)
    size, given, spent = 1000, 0, 0
    for number in range(1, 2 * (3 * CONNECTION_WINDOW // size), 2):
        echo.connection.receive(
            frame(HEADERS, 4, number, HEAD) + frame(DATA, 1, number, b"x" * size)
        )
        spent += size
        for stream, payload in sent(echo.connection.take_output(), WINDOW):
            given += 0 if stream else int.from_bytes(payload, "big")
        echo.connection.receive(frame(WINDOW, 0, 0, u32(size)))
        assert spent - given < CONNECTION_WINDOW
    assert echo.completed[-1].body == b"x" * size


def test_a_body_beyond_the_budget_is_refused_and_its_room_is_free_again() -> None:
    echo = Echo(budget_bytes=150_000)
    sent = OPENING
    for number in (1, 3, 5):
        sent += frame(HEADERS, END_HEADERS, number, HEAD)
        sent += b"".join(frame(DATA, 0, number, b"x" * 15_000) for _ in range(8))
    echo.connection.receive(sent)
    assert echo.refused == 2
    echo.connection.receive(frame(RESET, 0, 1, u32(8)))
    body = b"".join(frame(DATA, 0, 7, b"x" * 15_000) for _ in range(4))
    echo.connection.receive(frame(HEADERS, 4, 7, HEAD) + body + frame(DATA, 1, 7, b"x"))
    assert [stream.id for stream in echo.completed] == [7]
    assert echo.budget.take(150_000)


def test_a_client_that_is_refused_early_is_told_to_stop_and_may_go_on_sending() -> None:
    echo = Echo()
    echo.refuses_early = True
    part = frame(DATA, 0, 1, b"x" * 10_000)
    echo.connection.receive(OPENING + frame(HEADERS, 4, 1, HEAD) + part)
    assert sent(echo.connection.take_output(), RESET) == [(1, u32(0))]
    echo.connection.receive(part * 3 + frame(DATA, 1, 1, b"x") + frame(HEADERS, 5, 3, HEAD))
    assert (echo.refused, [stream.id for stream in echo.completed]) == (1, [3])


def test_a_request_that_is_refused_and_given_up_at_once_ends_once() -> None:
    """The part that is refused, the end and the reset come together."""
    for end in (frame(DATA, 1, 1, b"x"), frame(RESET, 0, 1, u32(8))):
        echo = Echo()
        echo.refuses_early = True
        part = frame(DATA, 0, 1, b"x" * 100)
        echo.connection.receive(OPENING + frame(HEADERS, 4, 1, HEAD) + part + end)
        assert echo.refused == 1
        assert not echo.connection.has_streams


@pytest.mark.parametrize("settings", [b"", struct.pack(">HI", 3, 0)])
def test_what_is_given_up_before_it_is_answered_is_passed_over(settings: bytes) -> None:
    """At once, before the next request, and later; also for clients that take no streams of us."""
    echo = Echo()
    both = frame(HEADERS, 5, 1, HEAD) + frame(RESET, 0, 1, u32(8))
    echo.connection.receive(PREFACE + frame(SETTINGS, 0, 0, settings) + both)
    echo.connection.receive(both.replace(u32(1), u32(3)) + frame(HEADERS, 5, 5, HEAD))
    echo.hold = True
    echo.connection.receive(frame(HEADERS, 5, 7, HEAD))
    echo.connection.receive(frame(RESET, 0, 7, u32(8)))
    echo.answer(echo.completed[-1])
    assert [stream.id for stream in echo.completed] == [1, 3, 5, 7]
    out = echo.connection.take_output()
    assert {stream for stream, _ in sent(out, HEADERS)} == {5}
    assert not echo.connection.has_streams


def test_more_streams_than_may_be_are_refused() -> None:
    """A client may not know the limit yet; one that does breaks the protocol."""
    echo = Echo()
    echo.hold = True
    many = b"".join(frame(HEADERS, 5, 2 * i + 1, HEAD) for i in range(STREAMS_MAX + 3))
    echo.connection.receive(OPENING + many)
    assert len(echo.completed) == STREAMS_MAX
    out = echo.connection.take_output()
    refused = [2 * (STREAMS_MAX + i) + 1 for i in range(3)]
    assert sent(out, RESET) == [(number, u32(REFUSED_STREAM)) for number in refused]
    echo.connection.receive(frame(SETTINGS, ACK, 0, b""))
    with pytest.raises(Http2Error):
        echo.connection.receive(frame(HEADERS, 5, refused[-1] + 2, HEAD))
    assert not echo.connection.has_streams


def test_a_server_that_leaves_answers_what_is_under_way() -> None:
    echo = Echo()
    echo.hold = True
    echo.connection.receive(OPENING + frame(HEADERS, 4, 1, HEAD))
    echo.connection.take_output()
    echo.connection.leave()
    echo.connection.leave()
    ((_, goodbye),) = sent(echo.connection.take_output(), GOAWAY)
    assert goodbye == u32(1, 0)
    echo.connection.receive(frame(DATA, 1, 1, b"late") + frame(HEADERS, 5, 3, HEAD))
    assert [stream.id for stream in echo.completed] == [1]
    echo.answer(echo.completed[0])
    out = echo.connection.take_output()
    assert sent(out, RESET) == [(3, u32(REFUSED_STREAM))]
    assert sent(out, DATA) == [(1, b"late")]
    assert not echo.connection.has_streams


def test_a_client_that_leaves_is_done() -> None:
    echo = Echo()
    echo.hold = True
    echo.connection.receive(OPENING + frame(HEADERS, 5, 1, HEAD))
    with pytest.raises(Http2Error):
        echo.connection.receive(frame(GOAWAY, 0, 0, u32(0, 0)))
    echo.answer(echo.completed[0])
    assert not sent(echo.connection.take_output(), DATA)


@pytest.mark.parametrize("opening", [b"", PREFACE[:10], PREFACE])
def test_a_client_that_sent_no_settings_is_not_open(opening: bytes) -> None:
    echo = Echo()
    echo.connection.receive(opening)
    assert not echo.connection.is_open
    echo.connection.receive(OPENING[len(opening) :])
    assert echo.connection.is_open


BROKEN = {
    "a frame too large": PREFACE + frame(DATA, 0, 1, b"x" * 100_000),
    "data of no stream": PREFACE + frame(DATA, 0, 1, b"x"),
    "an even stream": PREFACE + frame(HEADERS, 5, 2, HEAD),
    "a stream again": PREFACE + frame(HEADERS, 5, 3, HEAD) + frame(HEADERS, 5, 1, HEAD),
    "headers not ended": PREFACE + frame(HEADERS, 0, 1, HEAD) + frame(PING, 0, 0, b"x" * 8),
    "a continuation of nothing": PREFACE + frame(CONTINUATION, 4, 1, b""),
    "continuations without end": PREFACE
    + frame(HEADERS, 0, 1, b"")
    + frame(CONTINUATION, 0, 1, b"\x82" * 1000) * 100,
    "headers that are too large": PREFACE + frame(HEADERS, 5, 1, b"\x82" * (LIST_BYTES_MAX // 40)),
    "headers that expand": PREFACE
    + frame(HEADERS, 5, 1, b"\x40\x01a\x7f\x80\x1f" + b"x" * (127 + 0xF80))
    + frame(HEADERS, 5, 3, b"\xbe" * 10),
    "headers that cannot be read": PREFACE + frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "trailers that do not end": PREFACE + frame(HEADERS, 4, 1, HEAD) * 2,
    "a push": PREFACE + frame(PUSH, 4, 1, b"\x00\x00\x00\x02"),
    "a ping of seven bytes": PREFACE + frame(PING, 0, 0, b"x" * 7),
    "settings of five bytes": PREFACE + frame(SETTINGS, 0, 0, b"x" * 5),
    "a window too large": PREFACE + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "padding beyond the frame": PREFACE + frame(HEADERS, 4 | PADDED, 1, b"\xff"),
    "a reset of what never was": PREFACE + frame(RESET, 0, 0, u32(0)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_client_that_breaks_the_rules_is_told_goodbye(name: str) -> None:
    echo = Echo()
    echo.hold = True
    with pytest.raises(Http2Error):
        echo.connection.receive(BROKEN[name])
    assert not echo.connection.has_streams
    assert len(sent(echo.connection.take_output(), GOAWAY)) == 1


def test_what_is_no_http2_is_ended() -> None:
    for noise in (b"GET / HTTP/1.1\r\n\r\n", PREFACE[:10] + b"x", b"\x16\x03\x01"):
        with pytest.raises(Http2Error):
            Echo().connection.receive(noise)


USELESS = {
    "pings": frame(PING, 0, 0, b"x" * 8),
    "settings": frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 100)),
    "priorities": frame(PRIORITY, 0, 1, b"\x00\x00\x00\x00\x10"),
    "windows": frame(WINDOW, 0, 0, u32(1)),
    "data of no bytes": frame(DATA, 0, 1, b""),
    "frames of no kind": frame(99, 0, 0, b"x"),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_client_that_keeps_the_server_busy_with_nothing_is_ended(name: str) -> None:
    echo = Echo()
    echo.connection.receive(OPENING + frame(HEADERS, 4, 1, HEAD))
    with pytest.raises(Http2Error):
        echo.connection.receive(USELESS[name] * (2 * IDLE_FRAMES_MAX + 2000))
    (goodbye,) = sent(echo.connection.take_output(), GOAWAY)
    assert goodbye[1][4:8] == u32(ENHANCE_YOUR_CALM)


def test_a_client_that_works_may_ping_as_often_as_it_calls() -> None:
    echo = Echo()
    echo.connection.receive(OPENING)
    for number in range(IDLE_FRAMES_MAX):
        echo.connection.receive(
            frame(HEADERS, 5, 2 * number + 1, HEAD) + frame(PING, 0, 0, b"x" * 8) * 2
        )
    assert len(echo.completed) == IDLE_FRAMES_MAX


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_client_that_gives_up_without_end_is_ended(hold: bool, at_once: bool) -> None:
    """Whether the answer waits or is there at once, if the client never lets it come."""
    echo = Echo()
    echo.hold = hold
    echo.connection.receive(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    with pytest.raises(Http2Error):
        for number in range(1, 4 * RESETS_MAX, 2):
            parts = (
                frame(HEADERS, 4, number, HEAD) + frame(DATA, 1, number, b"x"),
                frame(RESET, 0, number, u32(8)),
            )
            for part in (b"".join(parts),) if at_once else parts:
                echo.connection.receive(part)
    assert not echo.connection.has_streams
    assert len(echo.completed) <= RESETS_MAX + 1


def test_a_client_that_makes_the_server_give_up_is_ended_too() -> None:
    echo = Echo()
    echo.hold = True
    echo.connection.receive(OPENING)
    with pytest.raises(Http2Error):
        for number in range(1, 4 * RESETS_MAX, 2):
            late = frame(DATA, 1, number, b"x")
            echo.connection.receive(frame(HEADERS, 5, number, HEAD) + late)
    assert not echo.connection.has_streams


def test_trailers_end_a_request() -> None:
    echo = Echo()
    echo.connection.receive(
        OPENING
        + frame(HEADERS, 4, 1, HEAD)
        + frame(DATA, 0, 1, b"x")
        + frame(HEADERS, 5, 1, literal(b"a", b"b"))
    )
    assert [bytes(stream.body) for stream in echo.completed] == [b"x"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_does_more_than_end_the_connection(noise: bytes) -> None:
    echo = Echo()
    with contextlib.suppress(Http2Error):
        echo.connection.receive(PREFACE + noise)


def mixed(dice: random.Random) -> bytes:
    """Frames of all kinds in any order, most of them right by themselves."""
    streams = [0, 1, 1, 3, 3, 5, 7]
    payloads = (b"", HEAD, b"x" * 8, u32(8), u32(1 << 20), b"\x00\x00\x00\x01\x10", b"x" * 300)
    return b"".join(
        frame(
            dice.randrange(12),
            dice.choice([0, 1, 4, 5, 5, dice.randrange(256)]),
            dice.choice(streams),
            dice.choice(payloads),
        )
        for _ in range(dice.randrange(1, 12))
    )


def damaged(session: bytes, dice: random.Random) -> bytes:
    bad = bytearray(session)
    for _ in range(dice.choice([1, 1, 2, 5])):
        bad[dice.randrange(len(PREFACE), len(bad))] = dice.randrange(256)
    return bytes(bad)


@pytest.mark.parametrize("hold", [True, False])
def test_bad_sessions_never_do_more_than_end_the_connection(hold: bool) -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    _, whole = session(b"x" * 3000, b"", b"")
    for number in range(3000):
        echo = Echo(1 << 14)
        echo.hold = hold
        echo.refuses_early = dice.random() < 0.2
        bad = damaged(whole, dice) if number % 2 else OPENING + mixed(dice)
        with contextlib.suppress(Http2Error):
            for at in range(0, len(bad), step := dice.choice([10, 1000, 10_000])):
                echo.connection.receive(bad[at : at + step])
        for stream in echo.completed:
            echo.answer(stream)
        frames_of(echo.connection.take_output())
        echo.connection.drop()
        assert not echo.connection.has_streams
        assert echo.budget.take(1 << 14)
