"""What a request asks for, free of its protocol, and how many of them are answered at once.

Requests that wait together are scored together: their rows are joined by model version, scored as
one matrix, and cut apart again. A row's score depends on the row alone, bit for bit, so nobody can
tell from an answer what it was scored with.

Hot path: one pass over the requests, arrays for the rows.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.serving.observer import ServingObserver
from cloud.serving.repository import RepositoryView, Served
from schemas.errors import ContractError, MotorcadeError, Reason
from scoring.scorer import BatchScorer
from scoring.traffic import CHAMPION

RPC = "rpc"
NS_PER_US = 1000


@dataclass(slots=True, eq=False)
class Ask:
    """Rows to be scored.

    Attributes:
        model: Name.
        selector: Version or alias; empty: as the traffic says for the vehicle, else the champion.
        features: Shape (R, F'), in the order and units of the manifest, NaN where absent; whether
            F' is the model's F is found out when it is scored.
        vehicle_ids: None; or one for all rows; or R of them.
        reconstruction: Whether to give back what the network made of the rows.
        deadline_ns: Of `time.monotonic_ns`, not worth answering after it; 0: none.
        received_ns: Of `time.monotonic_ns`.
    """

    model: str
    selector: str
    features: NDArray[np.float32]
    vehicle_ids: Sequence[bytes] | None = None
    reconstruction: bool = False
    deadline_ns: int = 0
    received_ns: int = 0


@dataclass(slots=True, eq=False)
class Answer:
    """What became of an ask.

    Attributes:
        scores: Shape (R,).
        reconstruction: Shape (R, F), normalised; None where nobody asked.
        served: Model and arm of each row; a single one where all rows have the same.
    """

    scores: NDArray[np.float32]
    reconstruction: NDArray[np.float32] | None
    served: list[Served]


Outcome = Answer | MotorcadeError


@dataclass(slots=True, eq=False)
class _Part:
    """Rows of one ask that one version scores; `rows` is None where it is all of them."""

    number: int
    served: Served
    features: NDArray[np.float32]
    rows: NDArray[np.int64] | None


def answer_all(
    view: RepositoryView,
    asks: Sequence[Ask],
    observer: ServingObserver,
    *,
    deployment: str = RPC,
) -> list[Outcome]:
    """Score requests together, on the thread that the view belongs to.

    Returns:
        For each an answer, or why there is none: UNKNOWN_MODEL, WRONG_SHAPE, DEADLINE, or
        MODEL_INVALID where the model failed.
    """
    return _Round(view, asks, observer, deployment).outcomes()


class _Round:
    """Requests that are answered together."""

    def __init__(
        self,
        view: RepositoryView,
        asks: Sequence[Ask],
        observer: ServingObserver,
        deployment: str,
    ) -> None:
        self._view = view
        self._asks = asks
        self._observer = observer
        self._deployment = deployment
        self._now_ns = time.monotonic_ns()
        self._outcomes: list[Outcome | None] = [None] * len(asks)

    def outcomes(self) -> list[Outcome]:
        groups: dict[tuple[BatchScorer, bool], list[_Part]] = {}
        for number, ask in enumerate(self._asks):
            try:
                for part in self._parts(number, ask):
                    key = (part.served.scorer, ask.reconstruction)
                    groups.setdefault(key, []).append(part)
            except ContractError as error:
                self._fail(number, error)
        for (scorer, reconstruction), parts in groups.items():
            self._score(scorer, reconstruction, parts)
        return [_settled(outcome) for outcome in self._outcomes]

    def _parts(self, number: int, ask: Ask) -> list[_Part]:
        if ask.deadline_ns and self._now_ns > ask.deadline_ns:
            raise ContractError(Reason.DEADLINE, "the deadline passed before the rows were scored")
        features = ask.features
        if ask.selector or not ask.vehicle_ids:
            served = [self._view.pinned(ask.model, ask.selector or CHAMPION)]
        else:
            served = self._view.routed(ask.model, ask.vehicle_ids)
        for each in set(served):
            _check_columns(features, each)
        if all(each is served[0] for each in served):
            return [_Part(number, served[0], features, None)]
        if len(served) != len(features):
            raise ContractError(
                Reason.WRONG_SHAPE, f"{len(served)} vehicle ids for {len(features)} rows"
            )
        places = {each: [i for i, s in enumerate(served) if s is each] for each in set(served)}
        return [
            _Part(number, each, features[rows], np.array(rows)) for each, rows in places.items()
        ]

    def _score(self, scorer: BatchScorer, reconstruction: bool, parts: list[_Part]) -> None:
        """Score the parts of one version, keep the answers, and tell the observer."""
        one = len(parts) == 1
        features = parts[0].features if one else np.concatenate([p.features for p in parts])
        begun_ns = time.monotonic_ns()
        outputs: NDArray[np.float32] | None = None
        try:
            if reconstruction:
                scores, outputs = scorer.score_and_reconstruct(features)
            else:
                scores = scorer.score(features)
        except ContractError as error:
            for part in parts:
                self._fail(part.number, error)
            return
        compute_us = (time.monotonic_ns() - begun_ns) // NS_PER_US
        at = 0
        for part in parts:
            end = at + len(part.features)
            self._put(part, scores[at:end], None if outputs is None else outputs[at:end])
            at = end
        self._tell(parts, features, scores, compute_us)

    def _fail(self, number: int, error: ContractError) -> None:
        self._outcomes[number] = error
        self._observer.failed(self._asks[number].model, error, deployment=self._deployment)

    def _put(
        self, part: _Part, scores: NDArray[np.float32], outputs: NDArray[np.float32] | None
    ) -> None:
        if part.rows is None:
            self._outcomes[part.number] = Answer(scores, outputs, [part.served])
            return
        answer = self._outcomes[part.number]
        if answer is None:
            answer = _empty_answer(self._asks[part.number], part.served)
            self._outcomes[part.number] = answer
        if not isinstance(answer, Answer):  # Another arm's model failed.
            return
        answer.scores[part.rows] = scores
        if answer.reconstruction is not None and outputs is not None:
            answer.reconstruction[part.rows] = outputs
        for row in part.rows.tolist():
            answer.served[row] = part.served

    def _tell(
        self,
        parts: list[_Part],
        features: NDArray[np.float32],
        scores: NDArray[np.float32],
        compute_us: int,
    ) -> None:
        """Tell of each arm; a version may be that of several (champion, and pinned)."""
        for served in dict.fromkeys(part.served for part in parts):
            mine = [part for part in parts if part.served is served]
            rows = slice(None) if len(mine) == len(parts) else _rows_of(parts, served)
            self._observer.observed(
                served,
                features[rows],
                scores[rows],
                queue_us=[
                    (self._now_ns - self._asks[part.number].received_ns) // NS_PER_US
                    for part in mine
                ],
                compute_us=compute_us,
                deployment=self._deployment,
            )


def _settled(outcome: Outcome | None) -> Outcome:
    assert outcome is not None  # Each ask failed or is part of a group.
    return outcome


def _check_columns(features: NDArray[np.float32], served: Served) -> None:
    wanted = served.scorer.columns
    if features.shape[1] != wanted:
        manifest = served.bundle.manifest
        raise ContractError(
            Reason.WRONG_SHAPE,
            f"features of shape {list(features.shape)} for model {manifest.name} "
            f"{manifest.version}, which takes [-1, {wanted}]",
        )


def _empty_answer(ask: Ask, served: Served) -> Answer:
    rows = len(ask.features)
    outputs = np.empty_like(ask.features) if ask.reconstruction else None
    return Answer(np.empty(rows, np.float32), outputs, [served] * rows)


def _rows_of(parts: list[_Part], served: Served) -> NDArray[np.bool_]:
    """Which rows of the joined matrix an arm scored."""
    return np.repeat(
        [part.served is served for part in parts], [len(part.features) for part in parts]
    )
