"""The remote scorer against a real gRPC server, good and bad."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from model_server import ModelServer
from numpy.typing import NDArray
from scorer_fleet import small_bundle

from cloud.remote.asking import Ask, Described, NotReadyError, Tensor, cut, face_of
from cloud.remote.breaker import Breaker
from cloud.remote.grpc_v2 import GrpcV2Asker
from cloud.remote.hold import GivenUpError, StopHold
from cloud.remote.patience import Patience, PatientAsker
from cloud.remote.remote_scorer import RemoteScorer
from schemas.errors import ContractError, SettingsError, TransientError
from scoring.bundle import Bundle
from scoring.scorer import BatchScorer

HASTY = Patience(backoff_min_s=0.001, backoff_max_s=0.01, refused_s=0.2)
Array = NDArray[np.float32]


class CountingHold(StopHold):
    """Remembers what was waited for."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(stop)
        self.whys: list[str] = []
        self.overs = 0
        self.on_pump: Callable[[], None] = lambda: None

    def pump(self, wait_s: float, why: str) -> None:
        self.whys.append(why)
        self.on_pump()
        super().pump(wait_s, why)

    def over(self) -> None:
        self.overs += 1


@contextmanager
def asking(
    server: ModelServer, *, timeout_s: float = 30.0, request_bytes: int | None = None
) -> Iterator[tuple[PatientAsker, CountingHold, threading.Event]]:
    stop = threading.Event()
    hold = CountingHold(stop)
    asker = GrpcV2Asker(server.target, timeout_s=timeout_s)
    asker.request_bytes = request_bytes or asker.request_bytes
    breaker = Breaker(failures_max=3, open_s=0.01, open_max_s=0.05)
    patient = PatientAsker(asker, hold, HASTY, breaker=breaker, rng=random.Random(1))
    patient.start()
    try:
        yield patient, hold, stop
    finally:
        patient.close()


def rows_of(bundle: Bundle, rows: int, *, seed: int = 1, absent: float = 0.1) -> Array:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    mean, scale = np.array(bundle.manifest.mean), np.array(bundle.manifest.scale)
    values = mean + 3 * scale * rng.standard_normal((rows, len(mean)))
    values[rng.random(values.shape) < absent] = np.nan
    return values.astype(np.float32)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("request_bytes", [None, 40, 4_000])
def test_it_gives_the_same_bits_as_in_the_process(bare: bool, request_bytes: int | None) -> None:
    bundle = small_bundle()
    rows = rows_of(bundle, 700, absent=0.4)
    local = BatchScorer(bundle)
    with (
        ModelServer(bundle, bare=bare) as server,
        asking(server, request_bytes=request_bytes) as (
            patient,
            _,
            _,
        ),
    ):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        assert scorer.bundle is bundle
        assert scorer.score(rows).tobytes() == local.score(rows).tobytes()
        assert scorer.explain(rows[:20], top=2) == local.explain(rows[:20], top=2)
        assert scorer.score(rows[:0]).shape == (0,)
        assert scorer.explain(rows[:0]) == []
        assert set(server.versions) == {bundle.manifest.version}
        if request_bytes is not None:
            assert max(server.rows[1:]) * rows.shape[1] * 4 <= request_bytes
    assert np.isnan(local.score(rows)).any()


def test_rows_of_another_width_are_refused_here() -> None:
    bundle = small_bundle()
    with ModelServer(bundle) as server, asking(server) as (patient, _, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        with pytest.raises(ContractError):
            scorer.score(np.zeros((2, 3), np.float32))


def test_a_server_that_does_not_know_the_version_is_not_ready() -> None:
    old, new = small_bundle("1"), small_bundle("2")
    with ModelServer(old) as server, asking(server) as (patient, _, _):
        with pytest.raises(NotReadyError, match=r"does not serve anomaly 2 yet: .*no version 2"):
            RemoteScorer(new, patient, model="anomaly")
        server.bundles["2"] = new
        assert RemoteScorer(new, patient, model="anomaly").bundle is new


def test_a_server_that_is_not_there_is_not_ready() -> None:
    server = ModelServer(small_bundle())
    with server:
        pass
    with asking(server) as (patient, _, _), pytest.raises(NotReadyError, match="UNAVAILABLE"):
        RemoteScorer(small_bundle(), patient, model="anomaly")


def other_network() -> Bundle:
    """The same shape, other numbers: a mean that is off moves every input of the network."""
    bundle = small_bundle("other")
    manifest = bundle.manifest
    shifted = tuple(m + 2 * s for m, s in zip(manifest.mean, manifest.scale, strict=True))
    return Bundle(replace(manifest, mean=shifted), bundle.model)


def test_a_server_with_another_model_under_the_name_is_not_ready() -> None:
    with (
        ModelServer(other_network()) as server,
        asking(server) as (patient, _, _),
        pytest.raises(NotReadyError, match="as another network would"),
    ):
        RemoteScorer(small_bundle(), patient, model="anomaly", with_version=False)


def test_a_bare_network_that_is_changed_unseen_is_noticed() -> None:
    bundle, rows = small_bundle(), rows_of(small_bundle(), 40)
    local = BatchScorer(bundle)
    with (
        ModelServer(bundle, bare=True) as server,
        asking(server, request_bytes=400) as (
            patient,
            _,
            _,
        ),
    ):
        scorer = RemoteScorer(bundle, patient, model="anomaly", with_version=False)
        assert set(server.versions) == {""}
        assert scorer.score(rows).tobytes() == local.score(rows).tobytes()
        assert scorer.explain(rows[:3]) == local.explain(rows[:3])

        def another(response: Any) -> Any:
            values = np.frombuffer(response.raw_output_contents[0], np.float32)
            response.raw_output_contents[0] = (values + np.float32(0.5)).tobytes()
            return response

        server.spoil = another
        with pytest.raises(SettingsError, match="as another network would"):
            scorer.score(rows)


@pytest.mark.parametrize(
    "described",
    [
        Described((Tensor("features", "FP32", (-1, 5)),), ()),
        Described((Tensor("x", "FP32", (-1, 3)),), (Tensor("y", "FP32", (-1, 3)),)),
        Described((Tensor("x", "FP64", (-1, 5)),), (Tensor("y", "FP32", (-1, 5)),)),
        Described((Tensor("x", "FP32", (8, 5)),), (Tensor("y", "FP32", (-1, 5)),)),
        Described((Tensor("x", "FP32", (-1, 5)),) * 2, (Tensor("y", "FP32", (-1, 5)),)),
        Described((Tensor("x", "FP32", (-1, 5)),), (Tensor("y", "FP32", (-1,)),)),
    ],
)
def test_a_model_of_neither_kind_is_refused(described: Described) -> None:
    with pytest.raises(ContractError, match="wanted is one FP32 input"):
        face_of(described, 5)


def wrong_version(response: Any) -> Any:
    response.model_version = "7"
    return response


def wrong_hash(response: Any) -> Any:
    response.parameters["sha256"].string_param = "0" * 64
    return response


def one_row_less(response: Any) -> Any:
    output = response.outputs[0]
    output.shape[0] -= 1
    response.raw_output_contents[0] = response.raw_output_contents[0][:-4]
    return response


def shape_that_lies(response: Any) -> Any:
    response.outputs[0].shape[0] += 5
    return response


def half_a_number(response: Any) -> Any:
    response.raw_output_contents[0] += b"x"
    return response


def wrong_type(response: Any) -> Any:
    response.outputs[0].datatype = "INT32"
    return response


def other_output(response: Any) -> Any:
    response.outputs[0].name = "sum"
    return response


def no_contents(response: Any) -> Any:
    del response.raw_output_contents[:]
    return response


def nonsense(_: Any) -> bytes:
    return b"\xff\xff\xff"


def all_of(value: float) -> Callable[[Any], Any]:
    def spoil(response: Any) -> Any:
        count = len(response.raw_output_contents[0]) // 4
        response.raw_output_contents[0] = np.full(count, value, np.float32).tobytes()
        return response

    return spoil


SPOILS = [
    wrong_version,
    wrong_hash,
    one_row_less,
    shape_that_lies,
    half_a_number,
    wrong_type,
    other_output,
    no_contents,
    nonsense,
    all_of(-1.0),
    all_of(1e9),
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_wrong_answer_is_never_a_score(spoil: Callable[[Any], Any]) -> None:
    bundle = small_bundle()
    rows = rows_of(bundle, 50)
    with ModelServer(bundle) as server, asking(server) as (patient, hold, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.spoil = spoil
        with pytest.raises(SettingsError, match=r"has refused rows .*no offset was moved"):
            scorer.score(rows)
        assert hold.overs
        # A server that is mended in time is no reason to end.
        good = threading.Timer(0.02, lambda: setattr(server, "spoil", None))
        good.start()
        assert scorer.score(rows).tobytes() == BatchScorer(bundle).score(rows).tobytes()
        good.join()


@pytest.mark.parametrize("bare", [False, True])
def test_a_nan_that_is_not_due_is_asked_again_and_then_counts(bare: bool) -> None:
    bundle = small_bundle()
    rows = rows_of(bundle, 50, absent=0)
    with ModelServer(bundle, bare=bare) as server, asking(server) as (patient, _, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.spoil, before = all_of(np.nan), server.asked
        assert np.isnan(scorer.score(rows)).all()
        assert server.asked - before == 3
        server.spoil = None
        assert scorer.score(rows).tobytes() == BatchScorer(bundle).score(rows).tobytes()


@pytest.mark.parametrize(
    "status",
    [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED],
)
def test_a_request_that_is_refused_ends_in_words_and_not_in_a_loop(
    status: grpc.StatusCode,
) -> None:
    bundle = small_bundle()
    with ModelServer(bundle) as server, asking(server) as (patient, _, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.refuse = status, "no such rows"
        with pytest.raises(SettingsError, match=f"{status.name}: no such rows"):
            scorer.score(rows_of(bundle, 5))


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
    ],
)
def test_trouble_is_waited_out_for_longer_than_a_refusal(status: grpc.StatusCode) -> None:
    bundle = small_bundle()
    rows = rows_of(bundle, 5)
    with ModelServer(bundle) as server, asking(server) as (patient, hold, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.refuse = status, "not now"
        over = threading.Timer(3 * HASTY.refused_s, lambda: setattr(server, "refuse", None))
        over.start()
        assert scorer.score(rows).tobytes() == BatchScorer(bundle).score(rows).tobytes()
        over.join()
        assert any(f"{status.name}: not now" in why for why in hold.whys)


def test_an_answer_that_does_not_come_in_time_is_asked_for_again() -> None:
    bundle = small_bundle()
    rows = rows_of(bundle, 5)
    with ModelServer(bundle) as server, asking(server, timeout_s=0.2) as (patient, hold, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.hang.clear()

        def go_on_after_a_time_out() -> None:
            if "DEADLINE" in hold.whys[-1]:
                server.hang.set()

        hold.on_pump = go_on_after_a_time_out
        assert scorer.score(rows).tobytes() == BatchScorer(bundle).score(rows).tobytes()
        assert any("DEADLINE_EXCEEDED" in why for why in hold.whys)


def test_a_stop_ends_the_wait_at_once() -> None:
    bundle = small_bundle()
    with ModelServer(bundle) as server, asking(server) as (patient, hold, stop):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.hang.clear()
        hold.on_pump = stop.set
        with pytest.raises(GivenUpError):
            scorer.score(rows_of(bundle, 5))


def test_a_server_that_was_away_is_found_again() -> None:
    bundle = small_bundle()
    rows = rows_of(bundle, 400)
    server = ModelServer(bundle).start()
    with asking(server, request_bytes=400) as (patient, hold, _):
        scorer = RemoteScorer(bundle, patient, model="anomaly")
        server.stop()
        back: list[ModelServer] = []

        def come_back() -> None:
            if len(hold.whys) == 20:
                back.append(server.start())

        hold.on_pump = come_back
        assert scorer.score(rows).tobytes() == BatchScorer(bundle).score(rows).tobytes()
        assert back
    server.stop()


def test_a_closed_connection_is_said_to_be_closed() -> None:
    bundle = small_bundle()
    with ModelServer(bundle) as server:
        with asking(server) as (patient, _, _):
            scorer = RemoteScorer(bundle, patient, model="anomaly")
        with pytest.raises(TransientError, match="closed"):
            scorer.score(rows_of(bundle, 5))
        ask = Ask("anomaly", "1", "features", rows_of(bundle, 1))
        with pytest.raises(TransientError, match="closed"):
            patient.asker.ask(ask)


def test_cuts_cover_every_row_once_within_the_limit() -> None:
    rng = random.Random(3)
    for _ in range(500):
        rows, row_bytes, limit = rng.randrange(3000), rng.randrange(4, 100), rng.randrange(1, 9000)
        pieces = cut(rows, row_bytes, limit)
        assert [row for p in pieces for row in range(p.start, p.stop)] == list(range(rows))
        assert all((p.stop - p.start) * row_bytes <= max(limit, row_bytes) for p in pieces)
