"""Experiments on the small fleet, and what one scorer without any trouble makes of them."""

from dataclasses import replace

import numpy as np
from scorer_fleet import START_MS, At, Expected, Ground, Models, bits, small_bundle

from schemas.codec import Framing, decode_telemetry
from scoring.arms import ArmedScorer
from scoring.bundle import Bundle, FeatureKind, FeatureSpec
from scoring.catalog import Catalog, ModelRef
from scoring.lineup import Lineup, lineup_of
from scoring.traffic import CHAMPION, Arm, Experiment, Guards, Mode, Splitter, Traffic
from transport.kafka import read_to_end

UNGUARDED = Guards(min_alerts=10**9)


def challenger(version: str = "2", *, threshold: float | None = None) -> Bundle:
    """A model with another feature, so that its scores are others."""
    features = list(small_bundle().manifest.features)
    features[7] = FeatureSpec("coolant_temperature", FeatureKind.LAG, 30.0)
    changes = {} if threshold is None else {"threshold": threshold}
    return small_bundle(version, features=tuple(features), **changes)


def traffic_of(
    weight: float, *, mode: Mode = Mode.AB, guards: Guards = UNGUARDED, started_time_ms: int = 0
) -> Traffic:
    """Version 2 for that share of the vehicles, 1 for the rest."""
    arms = (Arm(CHAMPION, "1", 1 - weight), Arm("new", "2", weight))
    trial = Experiment("trial", mode, "pepper", started_time_ms, arms, guards=guards)
    return Traffic("small", 1, {CHAMPION: "1"}, experiment=trial)


def without(traffic: Traffic) -> Traffic:
    return replace(traffic, experiment=None, generation=traffic.generation + 1)


def models_of(traffic: Traffic, new: Bundle | None = None) -> Models:
    return Models(small_bundle("1"), new or challenger(), traffic=traffic)


def lineup(traffic: Traffic) -> Lineup:
    catalog = Catalog().with_release(small_bundle("1")).with_release(challenger())
    return lineup_of(catalog.with_traffic(traffic), ModelRef("small"))


def arm_of(traffic: Traffic, vehicle_id: str) -> str:
    assert traffic.experiment is not None
    splitter = Splitter(traffic.experiment)
    return splitter.arms[int(splitter.choose([vehicle_id.encode()])[0])].name


def expected_of(ground: Ground, traffic: Traffic) -> Expected:
    """What one scorer, without restarts, makes of the telemetry topic in the experiment."""
    scorer = ArmedScorer(lineup(traffic), max_vehicles=1000)
    scores: dict[At, list[tuple[float, ...]]] = {}
    alerts: list[tuple[str, str]] = []
    for messages in read_to_end(ground.kafka, ground.topics.telemetry.name, batch_messages=777):
        columns = decode_telemetry(
            [message.value() or b"" for message in messages],
            framing=Framing.CONFLUENT,
            schema_id=ground.ids.id_of(ground.topics.telemetry),
            signals=scorer.signals,
        )
        scored = scorer.process(columns, now_ms=START_MS).scored
        parts = np.split(scored.scores, columns.starts[1:])
        for index, part in zip(columns.index.tolist(), parts, strict=True):
            at = (messages[index].partition() or 0, messages[index].offset() or 0)
            scores[at] = [bits(part.tolist())]
        alerts += [(t.alert_id, t.state) for t in scored.transitions]
    opened = {alert.alert_id for alert in scorer.open_alerts.values()}
    return Expected(scores, sorted(alerts), opened)
