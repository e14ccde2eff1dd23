"""The same car has the same arm wherever it is asked: in the scorer and in the model server."""

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_models import catalog_of, release

from cloud.serving.repository import ModelRepository
from schemas.columns import TelemetryColumns
from scoring.arms import ArmedScorer
from scoring.catalog import Catalog, ModelRef
from scoring.lineup import lineup_of
from scoring.traffic import CHAMPION, Arm, Experiment, Mode, Splitter, Traffic

FLEET = [b"vehicle-%d" % number for number in range(100_000)]
ARMS = (Arm(CHAMPION, "1", 0.65), Arm("small", "2", 0.05), Arm("large", "3", 0.3))


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Nobody named a champion, so the newest, 4, would be it; the experiment is against 1."""
    trial = Experiment("trial", Mode.AB, "pepper", 0, ARMS)
    every = catalog_of(*(release(version) for version in "1234"))
    return every.with_traffic(Traffic("anomaly", 1, experiment=trial))


def columns(signals: tuple[str, ...], seq: int) -> TelemetryColumns:
    """A reading of each vehicle."""
    n = len(FLEET)
    ones = np.ones(n, np.int64)
    return TelemetryColumns(
        index=np.arange(n),
        vehicle_ids=FLEET,
        boot_id=ones,
        seq=seq * ones,
        oldest_seq=ones,
        uptime_ms=seq * 1000 * ones,
        clock_synced=np.ones(n, np.bool_),
        counts=ones,
        starts=np.arange(n),
        event_time_ms=seq * 1000 * ones,
        values=np.full((len(signals), n), 50.0, np.float32).T,
        signals=signals,
        rejected=[],
    )


def by_scorer(catalog: Catalog) -> list[str]:
    """The arms that a scorer which was just started gives."""
    scorer = ArmedScorer(lineup_of(catalog, ModelRef("anomaly")), max_vehicles=len(FLEET))
    scored = scorer.process(columns(scorer.signals, 1), now_ms=0)
    return [scored.lane(message).arm for message in range(len(FLEET))]


def by_server(catalog: Catalog) -> tuple[list[str], list[str]]:
    """The arms and the versions that a server which was just started gives."""
    repository = ModelRepository()
    repository.update(catalog)
    served = repository.view().routed("anomaly", FLEET)
    return [each.arm for each in served], [each.bundle.manifest.version for each in served]


def test_the_fleet_is_split_by_the_weights_and_alike_everywhere_over_restarts(
    catalog: Catalog,
) -> None:
    experiment = catalog.traffic("anomaly").experiment
    assert experiment is not None
    for _ in range(3):
        splitter = Splitter(experiment)
        arms = [splitter.arms[number].name for number in splitter.choose(FLEET).tolist()]
        for arm in ARMS:
            assert abs(arms.count(arm.name) / len(FLEET) - arm.weight) < 0.005
        assert by_scorer(catalog) == arms
        served, versions = by_server(catalog)
        assert served == arms
        of = {arm.name: arm.version for arm in ARMS}
        assert versions == [of[name] for name in arms]


def shares(arms: list[str]) -> NDArray[np.bool_]:
    return np.array([name != CHAMPION for name in arms])


def test_an_arm_of_weight_0_has_no_car(catalog: Catalog) -> None:
    arms = (Arm(CHAMPION, "1", 1.0), Arm("none", "2", 0.0))
    traffic = Traffic("anomaly", 2, experiment=Experiment("off", Mode.AB, "pepper", 0, arms))
    changed = catalog.with_traffic(traffic)
    assert not shares(by_scorer(changed)).any()
    assert not shares(by_server(changed)[0]).any()
