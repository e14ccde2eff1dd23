"""Servers of others behind the switch: they host the bare network, and the scores are ours."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from scorer_fleet import SMALL, small_bundle
from serving_models import rows
from switch_ground import tfserving_of

from cloud.deployment import Deployment
from cloud.remote.asking import NotReadyError
from cloud.remote.hold import StopHold
from cloud.remote.tfserving import TfServingAsker
from deploy.mlserver_env import MlServer, Network, environment
from deploy.ports import Ports, choose_ports
from schemas.errors import TransientError
from scoring.bundle import Bundle
from scoring.scorer import BatchScorer, RowScorer
from transport.settings import KafkaSettings

pytestmark = pytest.mark.integration


@contextmanager
def scorer_of(spec: str, bundle: Bundle) -> Iterator[RowScorer]:
    hold = StopHold(threading.Event())
    with Deployment.parse(spec).link(KafkaSettings(), hold) as link:
        yield link.make_scorer(bundle)


def assert_ours(scorer: RowScorer, bundle: Bundle) -> None:
    """Scores and explanations are, to the bit, those of the network in this process."""
    features = rows(40_000, missing=0.3)
    local = BatchScorer(bundle)
    assert scorer.score(features).tobytes() == local.score(features).tobytes()
    assert scorer.explain(features[:50]) == local.explain(features[:50])
    assert scorer.score(features[:1]).tobytes() == local.score(features[:1]).tobytes()


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlServer]:
    """MLServer with the small network as versions 1 and 2."""
    try:
        python = environment()
    except TransientError as error:
        pytest.skip(f"MLServer cannot be had: {error}")
    bundle = small_bundle()
    columns = len(bundle.manifest.features)
    networks = [Network("small", version, bundle.model, columns) for version in ("1", "2")]
    ports = choose_ports(Ports())
    with MlServer(
        python,
        tmp_path_factory.mktemp("mlserver"),
        networks,
        http_port=ports.kafka,
        grpc_port=ports.mqtt,
        metrics_port=ports.registry,
    ) as server:
        yield server


@pytest.mark.parametrize("options", ["", "?versions=off"])
def test_mlserver_stands_in_over_grpc(mlserver: MlServer, options: str) -> None:
    bundle = small_bundle("2")
    spec = f"rpc://127.0.0.1:{mlserver.grpc_port}/small{options}"
    with scorer_of(spec, bundle) as scorer:
        assert_ours(scorer, bundle)


@pytest.mark.parametrize("options", ["", "?versions=off", "?binary=off"])
def test_mlserver_stands_in_over_rest(mlserver: MlServer, options: str) -> None:
    bundle = small_bundle("1")
    spec = f"rpc+http://127.0.0.1:{mlserver.http_port}/small{options}"
    with scorer_of(spec, bundle) as scorer:
        assert_ours(scorer, bundle)


@pytest.mark.parametrize("scheme", ["rpc", "rpc+http"])
def test_mlserver_that_has_no_such_version_is_not_ready(mlserver: MlServer, scheme: str) -> None:
    port = mlserver.grpc_port if scheme == "rpc" else mlserver.http_port
    for bundle, name in ((small_bundle("3"), "small"), (small_bundle("1"), "other")):
        spec = f"{scheme}://127.0.0.1:{port}/{name}"
        not_ready = pytest.raises(NotReadyError, match=f"does not serve {name}")
        with not_ready, scorer_of(spec, bundle):
            pass


@pytest.fixture(scope="module")
def tfserving() -> Iterator[str]:
    """Where the stand-in for TensorFlow Serving listens."""
    with tfserving_of(SMALL) as address:
        yield address


@pytest.mark.parametrize(
    ("version", "options"),
    [("2", ""), ("20261124-1200", ""), ("1", "?versions=on"), ("2", "?signature=serving_default")],
)
def test_a_server_of_tensorflow_serving_stands_in(
    tfserving: str, version: str, options: str
) -> None:
    bundle = small_bundle(version)
    features = rows(20_000, missing=0.3)
    local = BatchScorer(bundle)
    with scorer_of(f"tfserving://{tfserving}/small{options}", bundle) as scorer:
        # TensorFlow's own runtime may round otherwise; a NaN stays where it was.
        np.testing.assert_allclose(scorer.score(features), local.score(features), rtol=1e-4)
        names = [[s.name for s in row] for row in scorer.explain(features[:20])]
    assert names == [[s.name for s in row] for row in local.explain(features[:20])]


def test_what_tensorflow_serving_does_not_serve_is_not_ready(tfserving: str) -> None:
    for spec, version in (
        (f"tfserving://{tfserving}/other", "1"),
        (f"tfserving://{tfserving}/small?versions=on", "9"),
        (f"tfserving://{tfserving}/small?signature=other", "1"),
    ):
        with pytest.raises(NotReadyError), scorer_of(spec, small_bundle(version)):
            pass
    asker = TfServingAsker(tfserving, timeout_s=30.0)
    asker.start()
    assert asker.describe("small", "").inputs[0].name == "keras_tensor"
    asker.close()
