"""Which version of a model scores which vehicle: aliases, experiments, and the hash that splits.

An arm is decided by a hash of the vehicle id and the experiment's salt, and by nothing else. So a
vehicle has the same arm across restarts, replicas and deployments, wherever it is asked. The arms
other than the champion's come first on the line from 0 to 1: when the weight of a canary grows,
the vehicles that had it keep it, and the new ones come from the champion.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring import model_ref

CHAMPION = model_ref.CHAMPION
CHALLENGER = "challenger"
PINNED = "pinned"
"""What a result calls its arm when the request named the version itself."""

PREVIOUS_MAX = 16
ARMS_MAX = 16
ALIASES_MAX = 64
WEIGHT_SLACK = 1e-9

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH_BYTES = 8
_LINE = 1 << 8 * _HASH_BYTES


class Mode(StrEnum):
    """What an experiment does with the vehicles of its arms."""

    AB = "AB"
    """Each vehicle is scored by its arm's version alone; the weights may be any."""
    CANARY = "CANARY"
    """As AB, with one small arm that guards may roll back."""
    SHADOW = "SHADOW"
    """The champion scores every vehicle; the arms score theirs beside it, and alarm nobody."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way that an experiment scores.

    Attributes:
        name: 'champion' or a name of its own.
        version: Version of the model.
        weight: Share of the vehicles, 0..1; 0 means none.
    """

    name: str
    version: str
    weight: float


@dataclass(frozen=True, slots=True)
class Guards:
    """Limits beyond which an arm is rolled back.

    Attributes:
        alert_ratio_max: Times the champion's alert rate.
        alerts_per_vehicle_hour_max: Whatever the champion does.
        min_alerts: Fewer openings of an arm never trip a guard.
        unscored_share_max: Readings without a score, beyond the champion's share.
        latency_ratio_max: Times the champion's 99th percentile of scoring time.
        min_readings: Fewer readings of an arm trip no guard but that of the alerts.
    """

    alert_ratio_max: float = 3.0
    alerts_per_vehicle_hour_max: float = 20.0
    min_alerts: float = 5
    unscored_share_max: float = 0.05
    latency_ratio_max: float = 5.0
    min_readings: float = 500

    def to_map(self) -> dict[str, float]:
        """As `ModelTraffic` holds them."""
        return {each.name: float(getattr(self, each.name)) for each in fields(self)}

    @staticmethod
    def from_map(values: Mapping[str, float]) -> "Guards":
        """Limits that are not given are the defaults; unknown ones are of a newer release."""
        known = {each.name for each in fields(Guards)}
        return Guards(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True, slots=True)
class Experiment:
    """A trial of versions against the champion.

    Attributes:
        id: Its name.
        mode: What is done with the vehicles of its arms.
        salt: Hashed with the vehicle id.
        started_time_ms: Since the epoch.
        arms: With AB and CANARY one of them is the champion and the weights add up to 1; with
            SHADOW none is, and each weight is a share of all vehicles.
        auto_promote: Whether the monitor promotes the arm that wins.
        alpha: Level of the sequential test.
        guards: Limits.

    Raises:
        ContractError: MALFORMED: the arms do not fit the mode.
    """

    id: str
    mode: Mode
    salt: str
    started_time_ms: int
    arms: tuple[Arm, ...]
    auto_promote: bool = False
    alpha: float = 0.05
    guards: Guards = field(default_factory=Guards)

    def __post_init__(self) -> None:
        _check_name("experiment", self.id)
        names = [arm.name for arm in self.arms]
        if not 1 <= len(names) <= ARMS_MAX or len(set(names)) != len(names):
            raise _malformed(f"experiment {self.id}: {len(names)} arms, or a name twice")
        for arm in self.arms:
            _check_name("arm", arm.name)
            _check_name("version", arm.version)
            if not (math.isfinite(arm.weight) and 0 <= arm.weight <= 1):
                raise _malformed(f"arm {arm.name}: weight {arm.weight} is not in 0..1")
        if not 0 < self.alpha < 1:
            raise _malformed(f"experiment {self.id}: alpha {self.alpha} is not between 0 and 1")
        self._check_mode(names)

    def _check_mode(self, names: Sequence[str]) -> None:
        if self.mode is Mode.SHADOW:
            if CHAMPION in names:
                raise _malformed("the champion cannot be its own shadow")
            return
        total = math.fsum(arm.weight for arm in self.arms)
        if CHAMPION not in names or abs(total - 1) > WEIGHT_SLACK:
            raise _malformed(
                f"experiment {self.id}: one arm must be 'champion' and the weights add up to 1; "
                f"arms {', '.join(names)} add up to {total:g}"
            )

    def arm(self, name: str) -> Arm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)


class Splitter:
    """Gives each vehicle its arm. Remembers up to `remembered_max` vehicles to be fast.

    Not for use by two threads at once.

    Args:
        experiment: Whose arms.
        remembered_max: Beyond it what is remembered is dropped; the arms stay the same.

    Attributes:
        arms: In the order of the numbers that `choose` gives.
    """

    def __init__(self, experiment: Experiment, *, remembered_max: int = 200_000) -> None:
        champion_last = sorted(experiment.arms, key=lambda arm: arm.name == CHAMPION)
        self.arms = tuple(champion_last)
        self._salt = experiment.salt.encode()
        self._edges = _edges([arm.weight for arm in champion_last])
        self._remembered_max = remembered_max
        self._known: dict[bytes, int] = {}

    def choose(self, vehicle_ids: Sequence[bytes]) -> NDArray[np.int64]:
        """Number of the arm of each vehicle; -1: none (a shadow whose weights are below 1)."""
        if len(self._known) > self._remembered_max:
            self._known.clear()
        known = self._known
        for vehicle_id in vehicle_ids:
            if vehicle_id not in known:
                known[vehicle_id] = self._place(vehicle_id)
        return np.fromiter((known[each] for each in vehicle_ids), np.int64, len(vehicle_ids))

    def _place(self, vehicle_id: bytes) -> int:
        point = hash_of(self._salt, vehicle_id)
        return next((i for i, edge in enumerate(self._edges) if point < edge), -1)


def hash_of(salt: bytes, vehicle_id: bytes) -> int:
    """A number in 0 .. 2^64 - 1, by BLAKE2b of both, the salt's length before it."""
    text = len(salt).to_bytes(4, "big") + salt + vehicle_id
    return int.from_bytes(hashlib.blake2b(text, digest_size=_HASH_BYTES).digest(), "big")


def _edges(weights: Sequence[float]) -> list[int]:
    """Upper end of each arm on the line 0 .. 2^64; weights that add up to 1 leave no gap."""
    sums = [math.fsum(weights[: i + 1]) for i in range(len(weights))]
    edges = [_LINE if s > 1 - WEIGHT_SLACK else int(s * _LINE) for s in sums]
    # An arm of weight 0 has an empty stretch, also where rounding would give it one.
    for i, weight in enumerate(weights):
        if weight == 0:
            edges[i] = edges[i - 1] if i else 0
    return edges


@dataclass(frozen=True, slots=True)
class Traffic:
    """What `model.traffic` says of one model; the newest record holds.

    Attributes:
        name: Model name.
        generation: One more with each change; 0: nobody said anything yet.
        aliases: Alias to version.
        previous: Former champions, newest first, at most `PREVIOUS_MAX`.
        experiment: Running one.
        changed_time_ms: Since the epoch.
        changed_by: A person or a component.
        reason: Why, in a sentence.
    """

    name: str
    generation: int = 0
    aliases: Mapping[str, str] = field(default_factory=dict)
    previous: tuple[str, ...] = ()
    experiment: Experiment | None = None
    changed_time_ms: int = 0
    changed_by: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        _check_name("model", self.name)
        if len(self.aliases) > ALIASES_MAX or len(self.previous) > PREVIOUS_MAX:
            raise _malformed(f"model {self.name}: too many aliases or former champions")
        for alias, version in self.aliases.items():
            _check_name("alias", alias)
            _check_name("version", version)

    @property
    def champion(self) -> str | None:
        """The champion's version, where one was named; otherwise the newest release is it."""
        return self.aliases.get(CHAMPION)

    def promoted(self, version: str, *, champion_now: str | None) -> "Traffic":
        """With another champion; `champion_now` is remembered for a rollback."""
        previous = self.previous
        if champion_now is not None and champion_now != version:
            previous = (champion_now, *(v for v in previous if v != champion_now))[:PREVIOUS_MAX]
        return replace(self, aliases={**self.aliases, CHAMPION: version}, previous=previous)

    def rolled_back(self, former: Sequence[str]) -> "Traffic":
        """With the first of the former champions again; the others are where to go next.

        The champion that is left is not remembered: a second rollback goes further back, not
        forth again.
        """
        return replace(
            self,
            aliases={**self.aliases, CHAMPION: former[0]},
            previous=tuple(former[1:])[:PREVIOUS_MAX],
        )

    def with_alias(self, alias: str, version: str | None) -> "Traffic":
        """With an alias set, or taken away where `version` is None."""
        kept = {name: held for name, held in self.aliases.items() if name != alias}
        return replace(self, aliases=kept if version is None else {**kept, alias: version})

    def changed(self, *, now_ms: int, by: str, reason: str) -> "Traffic":
        """The next generation, ready to be written."""
        return replace(
            self,
            generation=self.generation + 1,
            changed_time_ms=now_ms,
            changed_by=by,
            reason=reason,
        )

    def to_record(self) -> dict[str, Any]:
        """The `ModelTraffic` record."""
        experiment = self.experiment
        return {
            "name": self.name,
            "generation": self.generation,
            "changed_time": self.changed_time_ms,
            "changed_by": self.changed_by,
            "reason": self.reason,
            "aliases": dict(self.aliases),
            "previous": list(self.previous),
            "experiment": None if experiment is None else _experiment_record(experiment),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Traffic":
        """Read a `ModelTraffic` record.

        Raises:
            ContractError: MALFORMED: names, weights or arms that cannot be.
        """
        experiment = record["experiment"]
        return Traffic(
            name=record["name"],
            generation=record["generation"],
            aliases=dict(record["aliases"]),
            previous=tuple(record["previous"]),
            experiment=None if experiment is None else _experiment_from(experiment),
            changed_time_ms=epoch_ms(record["changed_time"]),
            changed_by=record["changed_by"],
            reason=record["reason"],
        )


def even_weights(arms: Iterable[str]) -> dict[str, float]:
    """The same share for each arm."""
    names = list(arms)
    return {name: 1 / len(names) for name in names}


def _experiment_record(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "mode": experiment.mode.value,
        "salt": experiment.salt,
        "started_time": experiment.started_time_ms,
        "arms": [
            {"name": arm.name, "version": arm.version, "weight": arm.weight}
            for arm in experiment.arms
        ],
        "auto_promote": experiment.auto_promote,
        "alpha": experiment.alpha,
        "guards": experiment.guards.to_map(),
    }


def _experiment_from(record: Mapping[str, Any]) -> Experiment:
    return Experiment(
        id=record["id"],
        mode=Mode(record["mode"]),
        salt=record["salt"],
        started_time_ms=epoch_ms(record["started_time"]),
        arms=tuple(Arm(arm["name"], arm["version"], arm["weight"]) for arm in record["arms"]),
        auto_promote=record["auto_promote"],
        alpha=record["alpha"],
        guards=Guards.from_map(record["guards"]),
    )


def epoch_ms(time: Any) -> int:
    """Avro readers give timestamps as datetime or as milliseconds."""
    if isinstance(time, datetime):
        return round((time - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)
    return int(time)


def _check_name(what: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise _malformed(f"{what} {text!r} is not a plain name")


def _malformed(detail: str) -> ContractError:
    return ContractError(Reason.MALFORMED, detail)
