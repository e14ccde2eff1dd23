"""Experiments begun, changed and ended: from the traffic before to the traffic after. Pure."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from schemas.errors import ContractError, MotorcadeError, Reason
from scoring.catalog import Catalog, ModelRef
from scoring.traffic import (
    CHALLENGER,
    CHAMPION,
    WEIGHT_SLACK,
    Arm,
    Experiment,
    Guards,
    Mode,
    Traffic,
)

CANARY_WEIGHT_MAX = 0.5

_ARM = re.compile(r"([^=:]+)=([^=:]+):([^=:]+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """An arm as people ask for it: `challenger=20261124-1200:0.1`.

    Attributes:
        name: Of the arm.
        selector: Alias or version.
        weight: Share of the vehicles.
    """

    name: str
    selector: str
    weight: float

    @staticmethod
    def parse(text: str) -> "Asked":
        """Read `NAME=VERSION_OR_ALIAS:WEIGHT`; a weight may be a share or end with `%`.

        Raises:
            ContractError: MALFORMED.

        Example:
            >>> Asked.parse("new=challenger:5%")
            Asked(name='new', selector='challenger', weight=0.05)
        """
        match = _ARM.fullmatch(text)
        weight = weight_of(match.group(3)) if match else None
        if match is None or weight is None:
            raise ContractError(
                Reason.MALFORMED, f"arm {text!r}; it may be NAME=VERSION_OR_ALIAS:WEIGHT"
            )
        return Asked(match.group(1), match.group(2), weight)


def weight_of(text: str) -> float | None:
    """A share from '0.1' or '10%'; None where it is none."""
    number = text.removesuffix("%")
    try:
        weight = float(number)
    except ValueError:
        return None
    weight = weight / 100 if number != text else weight
    return weight if math.isfinite(weight) and 0 <= weight <= 1 else None


@dataclass(frozen=True, slots=True)
class Wish:
    """An experiment as people ask for it.

    Attributes:
        id: Its name.
        mode: What is done with the vehicles of its arms.
        arms: Those beside the champion; the champion has the rest.
        salt: Hashed with the vehicle id.
        started_time_ms: Since the epoch.
        auto_promote: Whether the arm that wins is promoted.
        alpha: Level of the sequential test.
        guards: Limits that are not the defaults.
    """

    id: str
    mode: Mode
    arms: tuple[Asked, ...]
    salt: str
    started_time_ms: int
    auto_promote: bool = False
    alpha: float = 0.05
    guards: Mapping[str, float] = field(default_factory=dict)


def started(catalog: Catalog, traffic: Traffic, wish: Wish) -> Traffic:
    """The traffic with a new experiment.

    Raises:
        MotorcadeError: An experiment runs already.
        ContractError: UNKNOWN_MODEL: no such alias or version; MALFORMED: arms, weights or guards
            that cannot be.
    """
    if traffic.experiment is not None:
        raise MotorcadeError(
            f"experiment {traffic.experiment.id} of model {traffic.name} runs; stop it first"
        )
    unknown = set(wish.guards) - set(Guards().to_map())
    if unknown:
        known = ", ".join(sorted(Guards().to_map()))
        raise ContractError(
            Reason.MALFORMED, f"no guard {sorted(unknown)[0]!r}; there are: {known}"
        )
    if not wish.arms or any(asked.name == CHAMPION for asked in wish.arms):
        raise ContractError(
            Reason.MALFORMED, "at least one arm beside the champion's, which has the rest"
        )
    arms = tuple(
        Arm(a.name, _version(catalog, ModelRef(traffic.name, a.selector)), a.weight)
        for a in wish.arms
    )
    experiment = Experiment(
        id=wish.id,
        mode=wish.mode,
        salt=wish.salt,
        started_time_ms=wish.started_time_ms,
        arms=_with_champion(arms, wish.mode, _version(catalog, ModelRef(traffic.name))),
        auto_promote=wish.auto_promote,
        alpha=wish.alpha,
        guards=Guards.from_map({**Guards().to_map(), **wish.guards}),
    )
    return replace(traffic, experiment=experiment)


def reweighted(traffic: Traffic, weights: Mapping[str, float]) -> Traffic:
    """The traffic with other weights of arms; the champion has the rest.

    Raises:
        MotorcadeError: No experiment runs, or it has no such arm.
        ContractError: MALFORMED: weights that cannot be.
    """
    experiment = running(traffic)
    for name in weights:
        arm_named(experiment, name)
    if CHAMPION in weights:
        raise ContractError(Reason.MALFORMED, "the champion has the rest; name the other arms")
    arms = tuple(
        replace(arm, weight=weights.get(arm.name, arm.weight))
        for arm in experiment.arms
        if arm.name != CHAMPION
    )
    champion = experiment.arm(CHAMPION)
    version = "" if champion is None else champion.version
    changed = replace(experiment, arms=_with_champion(arms, experiment.mode, version))
    return replace(traffic, experiment=changed)


def stopped(catalog: Catalog, traffic: Traffic, *, promote: str | None = None) -> Traffic:
    """The traffic without its experiment, with the version of an arm as champion if so asked.

    Raises:
        MotorcadeError: No experiment runs, or it has no such arm.
    """
    experiment = running(traffic)
    ended = replace(traffic, experiment=None)
    if promote is None:
        return ended
    version = arm_named(experiment, promote).version
    if ended.aliases.get(CHALLENGER) == version:
        ended = ended.with_alias(CHALLENGER, None)
    return ended.promoted(version, champion_now=catalog.champion(traffic.name))


def running(traffic: Traffic) -> Experiment:
    """The experiment. Raises MotorcadeError where none runs."""
    if traffic.experiment is None:
        raise MotorcadeError(f"model {traffic.name} has no running experiment")
    return traffic.experiment


def arm_named(experiment: Experiment, name: str) -> Arm:
    """An arm. Raises MotorcadeError where there is none of that name."""
    arm = experiment.arm(name)
    if arm is None:
        known = ", ".join(each.name for each in experiment.arms)
        raise MotorcadeError(f"experiment {experiment.id} has no arm {name!r}; it has: {known}")
    return arm


def _version(catalog: Catalog, ref: ModelRef) -> str:
    """The version that is meant; one that is not held is for the writer to refuse."""
    if ref.selector == CHAMPION:
        return catalog.resolve(ref).manifest.version
    return catalog.traffic(ref.name).aliases.get(ref.selector, ref.selector)


def _with_champion(arms: Sequence[Arm], mode: Mode, champion: str) -> tuple[Arm, ...]:
    total = math.fsum(arm.weight for arm in arms)
    if total > 1 + WEIGHT_SLACK:
        raise ContractError(Reason.MALFORMED, f"the arms' weights add up to {total:g}, over 1")
    if mode is Mode.SHADOW:
        return tuple(arms)
    if mode is Mode.CANARY and (len(arms) != 1 or arms[0].weight > CANARY_WEIGHT_MAX):
        raise ContractError(
            Reason.MALFORMED, f"a canary is one arm of at most {CANARY_WEIGHT_MAX:g}"
        )
    return (Arm(CHAMPION, champion, max(0.0, 1 - total)), *arms)
