"""What is due when in the demo, decided without a clock."""

import pytest

from motorcade.demo_plan import DURATION_MIN_S, Step, due, plan
from schemas.errors import MotorcadeError, SettingsError


@pytest.mark.parametrize("duration_s", [60.0, 90.0, 600.0])
def test_the_phases_fit_one_behind_the_other(duration_s: float) -> None:
    times = plan(duration_s)
    assert 0 < times.train_s < times.faults_s < times.end_s == duration_s
    assert times.outage_after_s + times.outage_s < times.rest_s
    assert times.faults_s + times.rest_s <= times.end_s


def test_too_short_a_demo_is_refused() -> None:
    with pytest.raises(SettingsError, match="too short"):
        plan(DURATION_MIN_S - 1)


def steps(loaded_s: float) -> dict[Step, float]:
    """Play a demo of 90 s in which the model is there after `loaded_s`."""
    times, done = plan(90.0), dict[Step, float]()
    for tenth in range(3000):
        elapsed_s = tenth / 10
        step = due(times, done, elapsed_s=elapsed_s, model_loaded=elapsed_s >= loaded_s)
        if step is not None:
            assert step not in done
            done[step] = elapsed_s
    return done


def test_with_a_quick_trainer_everything_comes_when_planned() -> None:
    times = plan(90.0)
    done = steps(loaded_s=40.0)
    assert list(done) == [Step.TRAIN, Step.INJECT, Step.STOP_KAFKA, Step.FINISH]
    assert done[Step.INJECT] == times.faults_s
    assert done[Step.FINISH] == times.end_s


def test_with_a_slow_trainer_the_rest_comes_later() -> None:
    times = plan(90.0)
    done = steps(loaded_s=80.0)
    assert done[Step.INJECT] == 80.0
    assert done[Step.STOP_KAFKA] == pytest.approx(80.0 + times.outage_after_s, abs=0.11)
    assert done[Step.FINISH] == pytest.approx(80.0 + times.rest_s, abs=0.11)


def test_no_model_at_all_is_a_failure_in_words() -> None:
    with pytest.raises(MotorcadeError, match="no model after"):
        steps(loaded_s=1e9)
