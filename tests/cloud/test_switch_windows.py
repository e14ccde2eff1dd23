"""A windowed model behind the switch: every deployment gives the bits of the network in-process."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import serving_server
from scorer_fleet import Ground, Models, drive, small_bundle
from serving_models import WINDOW_PATH, catalog_of, window_release, windows
from switch_ground import beside, kafka_door, kafka_of, made, switched, tfserving_of

from cloud.deployment import Deployment
from cloud.remote.asking import Described, Face, Tensor, face_of
from cloud.remote.hold import StopHold
from deploy.stack import Stack
from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.scorer import BatchScorer, RowScorer
from scoring.traffic import Arm, Experiment, Mode, Traffic
from transport.settings import KafkaSettings


@contextmanager
def scorer_of(spec: str, bundle: Bundle) -> Iterator[RowScorer]:
    hold = StopHold(threading.Event())
    with Deployment.parse(spec).link(KafkaSettings(), hold) as link:
        yield link.make_scorer(bundle)


@pytest.mark.integration
def test_every_deployment_gives_the_same_scores_and_alerts_to_the_byte(stack: Stack) -> None:
    kafka = kafka_of(stack)
    ground = Ground.new(kafka)
    # A point model is the newest release: the exact version is asked for.
    bundle, point = window_release("20261124-1200"), small_bundle("20261124-1300")
    records = drive(ground, vehicles=12, batches=40, readings=3, seed=4)
    ground.write(records)
    results = {}
    with (
        serving_server.running(catalog_of(bundle, point)) as server,
        kafka_door(kafka, bundle, point),
    ):
        rest, grpc = f"127.0.0.1:{server.port}", f"127.0.0.1:{server.grpc_port}"
        for spec in (
            "embedded:small",
            f"rpc://{grpc}/small",
            f"rpc+http://{rest}/small",
            f"rpc+http://{rest}/small?binary=off",
            "kafka://small",
        ):
            own = beside(ground)
            with switched(own, Models(bundle), spec) as scorer:
                scorer.wait_for(lambda stats: stats.messages == len(records))
            results[spec] = made(own)
    expected = results["embedded:small"]
    assert len(expected.scores) == len(records)
    assert any(alert["state"] == "OPEN" for alert in expected.alerts)
    assert any(alert["signals"] for alert in expected.alerts)
    for spec, found in results.items():
        assert repr(found) == repr(expected), spec  # NaN is no NaN's equal.


@pytest.mark.integration
def test_arms_of_both_kinds_score_a_stream_and_start_again_with_the_same_bits(
    stack: Stack,
) -> None:
    kafka = kafka_of(stack)
    ground = Ground.new(kafka)
    point, lstm = small_bundle("point"), window_release("lstm")
    arms = (Arm("champion", "point", 0.5), Arm("lstm", "lstm", 0.5))
    traffic = Traffic("small", experiment=Experiment("kinds", Mode.AB, "pepper", 0, arms))
    records = drive(ground, vehicles=18, batches=40, readings=3, seed=5)
    half = len(records) // 2
    ground.write(records[:half])
    whole, halves = beside(ground), beside(ground)
    with switched(
        halves, Models(point, lstm, traffic=traffic), "embedded:small@champion"
    ) as scorer:
        scorer.wait_for(lambda stats: stats.messages == half)
    ground.write(records[half:])
    with switched(
        halves, Models(point, lstm, traffic=traffic), "embedded:small@champion"
    ) as scorer:
        scorer.wait_for(lambda stats: stats.messages == len(records) - half)
    with switched(whole, Models(point, lstm, traffic=traffic), "embedded:small@champion") as scorer:
        scorer.wait_for(lambda stats: stats.messages == len(records))
    found, expected = made(halves), made(whole)
    assert {record["model_version"] for record in expected.scores} == {"point", "lstm"}
    assert {alert["model_version"] for alert in expected.alerts} == {"point", "lstm"}
    assert repr(found) == repr(expected)


def test_a_server_describes_windows_as_flat_rows() -> None:
    bundle = window_release("1")
    columns = bundle.manifest.columns
    with serving_server.running(catalog_of(bundle)) as server:
        url = f"http://127.0.0.1:{server.port}/v2/models/small"
        with urllib.request.urlopen(url) as response:
            said = json.load(response)
        shapes = {each["name"]: each["shape"] for each in (*said["inputs"], *said["outputs"])}
        assert shapes["features"] == shapes["reconstruction"] == [-1, columns]
        assert said["parameters"]["window"] == bundle.manifest.window
        assert len(said["parameters"]["features"]) == len(bundle.manifest.features)
        local = BatchScorer(bundle)
        features = windows(300, bundle)
        with scorer_of(f"rpc://127.0.0.1:{server.grpc_port}/small", bundle) as scorer:
            assert scorer.score(features).tobytes() == local.score(features).tobytes()
            assert scorer.explain(features[:50]) == local.explain(features[:50])
        assert np.isnan(local.score(features)[-1])


def test_a_foreign_server_that_takes_windows_by_reading_stands_in() -> None:
    bundle = window_release("2")
    features = windows(2_000, bundle, missing=0.2)
    local = BatchScorer(bundle)
    with (
        tfserving_of(WINDOW_PATH) as address,
        scorer_of(f"tfserving://{address}/small", bundle) as scorer,
    ):
        # TensorFlow's own runtime may round otherwise; a NaN stays where it was.
        np.testing.assert_allclose(scorer.score(features), local.score(features), rtol=1e-4)
        names = [[s.name for s in row] for row in scorer.explain(features[:20])]
    assert names == [[s.name for s in row] for row in local.explain(features[:20])]


def described(*shape: int) -> Described:
    return Described((Tensor("x", "FP32", shape),), (Tensor("y", "FP32", shape),))


def test_bare_networks_take_windows_flat_or_by_reading() -> None:
    assert face_of(described(-1, 24), 6, window=4) == Face("x", None, "y")
    assert face_of(described(-1, 4, 6), 6, window=4) == Face("x", None, "y", (4, 6))
    assert face_of(Described(), 6, window=4).row == (4, 6)


@pytest.mark.parametrize("shape", [(-1, 6, 4), (-1, 6), (4, 4, 6), (-1, 4, 6, 1)])
def test_bare_networks_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError) as caught:
        face_of(described(*shape), 6, window=4)
    assert caught.value.reason is Reason.MODEL_FEATURES
    assert "[-1, 24] or [-1, 4, 6]" in caught.value.detail
