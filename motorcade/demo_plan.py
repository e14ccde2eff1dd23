"""When what happens in the demo. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import MotorcadeError, SettingsError

OUTAGE_S = 10.0
DURATION_MIN_S = 60.0
TRAINING_MAX_S = 180.0


class Phase(StrEnum):
    """What the demo shows at the moment."""

    STARTING = "starting the brokers"
    HEALTHY = "healthy driving"
    TRAINING = "training on the log"
    MODEL = "the model drives along"
    FAULTS = "faults injected"
    OUTAGE = "Kafka is down"
    RECOVERED = "backlog delivered"
    DRAINING = "emptying the buffers"
    COUNTING = "counting"


@dataclass(frozen=True, slots=True)
class Plan:
    """Times of a demo, in seconds since the fleet began to drive.

    Attributes:
        train_s: The trainer starts, on what was driven until then.
        faults_s: Earliest injection of faults. They wait for the model, until `model_by_s`.
        model_by_s: Without a model loaded by then the demo has failed.
        outage_after_s: From the injection of faults to Kafka's stop.
        outage_s: How long Kafka is down.
        rest_s: From the injection of faults to the end, at least.
        end_s: The fleet stops measuring, at the earliest.
    """

    train_s: float
    faults_s: float
    model_by_s: float
    outage_after_s: float
    outage_s: float
    rest_s: float
    end_s: float


def plan(duration_s: float) -> Plan:
    """Lay the phases out over a drive of `duration_s`.

    A third is for learning; training takes ten to twenty seconds; the outage comes when the first
    faults have had time to show, and ends early enough that its backlog is seen to arrive. On a
    machine that trains slowly everything behind the training comes later, and so does the end.

    Raises:
        SettingsError: Shorter than `DURATION_MIN_S`: the phases would not fit.

    Example:
        >>> plan(90.0).train_s
        30.0
    """
    if duration_s < DURATION_MIN_S:
        raise SettingsError(
            f"a demo of {duration_s:g} s is too short: the outage alone takes {OUTAGE_S:g} s; "
            f"wanted at least {DURATION_MIN_S:g}"
        )
    return Plan(
        train_s=duration_s / 3,
        faults_s=duration_s / 2,
        model_by_s=duration_s / 3 + TRAINING_MAX_S,
        outage_after_s=duration_s * 0.06,
        outage_s=OUTAGE_S,
        rest_s=duration_s * 0.45,
        end_s=duration_s,
    )


class Step(StrEnum):
    """What the demo does once each, in this order."""

    TRAIN = "train"
    INJECT = "inject"
    STOP_KAFKA = "stop-kafka"
    FINISH = "finish"


def due(
    plan: Plan, done: Mapping[Step, float], *, elapsed_s: float, model_loaded: bool
) -> Step | None:
    """The step to take now, if any.

    Args:
        plan: Times.
        done: Steps taken, and when.
        elapsed_s: Since the fleet began to drive.
        model_loaded: Whether gateway and scorer both score with the trained model.

    Raises:
        MotorcadeError: There is no model after `model_by_s`.
    """
    if Step.TRAIN not in done:
        return Step.TRAIN if elapsed_s >= plan.train_s else None
    if Step.INJECT not in done:
        if not model_loaded and elapsed_s >= plan.model_by_s:
            raise MotorcadeError(f"no model after {elapsed_s:.0f} s of driving; see trainer.log")
        return Step.INJECT if model_loaded and elapsed_s >= plan.faults_s else None
    if Step.STOP_KAFKA not in done:
        return Step.STOP_KAFKA if elapsed_s >= done[Step.INJECT] + plan.outage_after_s else None
    if Step.FINISH not in done:
        end_s = max(plan.end_s, done[Step.INJECT] + plan.rest_s)
        return Step.FINISH if elapsed_s >= end_s else None
    return None
