"""The Kafka door against a real Kafka."""

import numpy as np
import pytest
from door_ground import NAME, Ground, running
from serving_models import release, rows

from deploy.stack import Stack
from scoring.scorer import BatchScorer
from transport.kafka import KafkaSettings
from transport.kafka_models import KafkaModelClient, ModelClientSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def ground(stack: Stack) -> Ground:
    ends = stack.endpoints
    return Ground.new(KafkaSettings(ends.kafka_bootstrap, ends.registry_url))


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_matrix_is_scored_to_the_bit(ground: Ground, exactly_once: bool) -> None:
    features = rows(20_000)
    settings = ModelClientSettings(ground.reply_topics, request_bytes=50_000)
    with (
        running(ground, exactly_once=exactly_once),
        KafkaModelClient(ground.kafka, settings) as client,
    ):
        answer = client.score(features, model=NAME, deadline_s=60.0)
        full = client.score(features, model=NAME, version="1", reconstruction=True, deadline_s=60.0)
    scores, outputs = BatchScorer(release("1")).score_and_reconstruct(features)
    np.testing.assert_array_equal(answer.scores, scores)
    np.testing.assert_array_equal(full.scores, scores)
    assert full.reconstruction is not None
    np.testing.assert_array_equal(full.reconstruction, outputs)
    assert (answer.version, answer.arm, full.arm) == ("1", "champion", "pinned")
    assert answer.sha256 == release("1").manifest.model_sha256
