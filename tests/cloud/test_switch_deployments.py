"""One switch: the same topic and release, scored by each deployment, gives the same records."""

import pytest
import serving_server
from scorer_fleet import Ground, Models, drive, small_bundle
from serving_models import catalog_of
from switch_ground import beside, kafka_door, kafka_of, made, switched

from deploy.stack import Stack

pytestmark = pytest.mark.integration


def test_every_deployment_gives_the_same_scores_and_alerts_to_the_byte(stack: Stack) -> None:
    kafka = kafka_of(stack)
    ground = Ground.new(kafka)
    bundle = small_bundle("20261124-1200")
    # Another release beside it: the exact version is asked for, not the champion.
    newer = small_bundle("20261124-1300", error_scale=tuple([2.0] * 9))
    records = drive(ground, vehicles=20, batches=100, readings=3, seed=4)
    ground.write(records)
    results = {}
    with (
        serving_server.running(catalog_of(bundle, newer)) as server,
        kafka_door(kafka, bundle, newer),
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
    assert {record["model_version"] for record in expected.scores} == {"20261124-1200"}
    assert any(alert["state"] == "OPEN" for alert in expected.alerts)
    for spec, found in results.items():
        assert found == expected, spec
