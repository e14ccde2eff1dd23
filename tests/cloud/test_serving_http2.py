"""HTTP/2 and HPACK under the gRPC door: the standard's examples, and input that makes no sense."""

import contextlib
import os
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.bench_wire import GrpcWire
from cloud.serving import hpack
from cloud.serving.budget import ByteBudget
from cloud.serving.http2 import Http2Connection
from cloud.serving.http2_frames import PREFACE, RESETS_MAX, STREAMS_MAX, Http2Error, Stream
from schemas.errors import ContractError

# RFC 7541, appendix C.4 and C.6: three requests with Huffman coding, then a table that evicts.
REQUESTS = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)


def test_the_standards_requests_are_read() -> None:
    decoder = hpack.Decoder()
    first, second, third = (decoder.decode(bytes.fromhex(block)) for block in REQUESTS)
    assert first == (
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    )
    assert second == (*first, (b"cache-control", b"no-cache"))
    assert third == (
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    )


def test_a_block_that_is_remembered_means_the_same_after_the_table_changed() -> None:
    """The same byte is another header once something was inserted before it."""
    decoder = hpack.Decoder()
    insert = b"\x40\x01a\x01%d"
    assert decoder.decode(insert % 1) == ((b"a", b"1"),)
    assert decoder.decode(b"\xbe") == decoder.decode(b"\xbe") == ((b"a", b"1"),)
    assert decoder.decode(insert % 2) == ((b"a", b"2"),)
    assert decoder.decode(b"\xbe") == ((b"a", b"2"),)
    assert decoder.decode(b"\xbf") == ((b"a", b"1"),)
    assert decoder.decode(b"\x20") == ()  # A table of no bytes.
    with pytest.raises(ContractError):
        decoder.decode(b"\xbe")


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=8))
def test_what_is_encoded_is_read_back(headers: list[tuple[bytes, bytes]]) -> None:
    assert hpack.Decoder().decode(hpack.encode(tuple(headers))) == tuple(headers)


@pytest.mark.parametrize(
    "block",
    [
        "80",  # index 0
        "ff8080808001",  # a number without end
        "c5",  # an index behind the table
        "4001",  # a text that ends early
        "3fe21f",  # a table of more than the maximum
        "8220",  # a table size behind a header
        "4081ff0161",  # a text of padding alone that is too long for padding
        "00" + "84" + "ffffffff" + "0161",  # the end mark
    ],
)
def test_blocks_that_break_the_rules_are_refused(block: str) -> None:
    with pytest.raises(ContractError):
        hpack.Decoder().decode(bytes.fromhex(block))


def test_headers_that_expand_without_end_are_refused() -> None:
    decoder = hpack.Decoder()
    decoder.decode(b"\x40\x01a" + b"\x7f\x80\x1f" + b"x" * (127 + 0xF80))
    with pytest.raises(ContractError):
        decoder.decode(b"\xbe" * 10)


class Echo:
    """Answers each request with its body."""

    def __init__(self, budget_bytes: int = 1 << 30) -> None:
        self.connection = Http2Connection(self, ByteBudget(budget_bytes))
        self.connection.open()
        self.completed: list[Stream] = []
        self.refused = 0
        self.hold = False

    def complete(self, stream: Stream) -> None:
        self.completed.append(stream)
        if not self.hold:
            self.connection.respond(stream, b"\x88", bytes(stream.body), hpack.encode(()))

    def grew(self, stream: Stream) -> None:
        pass

    def no_room(self, stream: Stream) -> None:
        self.refused += 1
        self.connection.refuse(stream, b"\x88")

    def now_s(self) -> float:
        return 0.0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + struct.pack(">I", stream) + payload


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


def test_an_answer_waits_for_the_clients_window() -> None:
    """The client has a window of 65,535 bytes and opens it step by step."""
    echo = Echo()
    opening = PREFACE + frame(4, 0, 0, b"")
    head = frame(1, 4, 1, hpack.encode(((b":path", b"/"),)))
    body = b"".join(frame(0, 0, 1, b"x" * 16_000) for _ in range(10)) + frame(0, 1, 1, b"")
    echo.connection.receive(opening + head + body)
    out = bytearray(echo.connection.take_output())
    while echo.connection.has_streams:
        assert out.count(b"x") < 160_000
        update = struct.pack(">I", 20_000)
        echo.connection.receive(frame(8, 0, 0, update) + frame(8, 0, 1, update))
        out += echo.connection.take_output()
    assert out.count(b"x") == 160_000


def test_a_body_beyond_the_budget_is_refused_and_its_room_is_free_again() -> None:
    echo = Echo(budget_bytes=150_000)
    sent = PREFACE + frame(4, 0, 0, b"")
    for number in (1, 3, 5):
        sent += frame(1, 4, number, hpack.encode(((b":path", b"/"),)))
        sent += b"".join(frame(0, 0, number, b"x" * 60_000) for _ in range(2))
    echo.connection.receive(sent)
    assert echo.refused == 2
    echo.connection.receive(frame(3, 0, 1, struct.pack(">I", 8)))
    echo.connection.receive(
        frame(1, 4, 7, hpack.encode(((b":path", b"/"),))) + frame(0, 1, 7, b"x" * 60_000)
    )
    assert [stream.id for stream in echo.completed] == [7]


def test_more_streams_than_may_be_are_refused() -> None:
    echo = Echo()
    echo.hold = True
    head = hpack.encode(((b":path", b"/"),))
    sent = PREFACE + b"".join(frame(1, 5, 2 * i + 1, head) for i in range(STREAMS_MAX + 3))
    echo.connection.receive(sent)
    assert len(echo.completed) == STREAMS_MAX
    assert echo.connection.take_output().count(frame(3, 0, 2 * STREAMS_MAX + 1, b"\0\0\0\7")) == 1


BROKEN = {
    "no preface": b"GET / HTTP/1.1\r\n\r\n",
    "a frame too large": PREFACE + frame(0, 0, 1, b"x" * 100_000)[:9],
    "data of no stream": PREFACE + frame(0, 0, 1, b"x"),
    "an even stream": PREFACE + frame(1, 5, 2, b""),
    "a stream again": PREFACE + frame(1, 5, 3, b"\x82") + frame(1, 5, 1, b"\x82"),
    "headers not ended": PREFACE + frame(1, 0, 1, b"\x82") + frame(6, 0, 0, b"x" * 8),
    "a continuation of nothing": PREFACE + frame(9, 4, 1, b""),
    "continuations without end": PREFACE
    + frame(1, 0, 1, b"")
    + frame(9, 0, 1, b"\x82" * 16_000) * 3,
    "a push": PREFACE + frame(5, 4, 1, b""),
    "a ping of seven bytes": PREFACE + frame(6, 0, 0, b"x" * 7),
    "settings of five bytes": PREFACE + frame(4, 0, 0, b"x" * 5),
    "a window too large": PREFACE + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "padding beyond the frame": PREFACE + frame(1, 4 | 8, 1, b"\xff"),
    "a reset of what never was": PREFACE + frame(3, 0, 9, b"\0\0\0\0"),
    "headers that cannot be read": PREFACE + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_client_that_breaks_the_rules_is_told_goodbye(name: str) -> None:
    echo = Echo()
    echo.hold = True
    with pytest.raises(Http2Error):
        echo.connection.receive(BROKEN[name])
    out = echo.connection.take_output()
    assert b"\x07\x00\x00\x00\x00\x00" in out  # GOAWAY


def test_a_client_that_gives_up_without_end_is_ended() -> None:
    echo = Echo()
    echo.hold = True
    head = hpack.encode(((b":path", b"/"),))
    echo.connection.receive(PREFACE)
    with pytest.raises(Http2Error):
        for number in range(1, 4 * RESETS_MAX, 2):
            echo.connection.receive(frame(1, 5, number, head) + frame(3, 0, number, b"\0\0\0\x08"))
    assert len(list(echo.connection.streams)) <= 1


def test_trailers_end_a_request() -> None:
    echo = Echo()
    head = hpack.encode(((b":path", b"/"),))
    echo.connection.receive(
        PREFACE + frame(1, 4, 1, head) + frame(0, 0, 1, b"x") + frame(1, 5, 1, head)
    )
    assert [bytes(stream.body) for stream in echo.completed] == [b"x"]


SEED = int(os.environ.get("MOTORCADE_SEED", "1"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_does_more_than_end_the_connection(noise: bytes) -> None:
    echo = Echo()
    with contextlib.suppress(Http2Error):
        echo.connection.receive(PREFACE + noise)


def test_damaged_sessions_never_do_more_than_end_the_connection() -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    _, sent = session(b"x" * 3000, b"", b"")
    for _ in range(1500):
        echo = Echo()
        damaged = bytearray(sent)
        for _ in range(dice.choice([1, 1, 2, 5])):
            damaged[dice.randrange(24, len(damaged))] = dice.randrange(256)
        with contextlib.suppress(Http2Error):
            echo.connection.receive(bytes(damaged))
        echo.connection.drop()
        assert not echo.connection.has_streams
