"""What the training data looked like, so that what comes later can be compared. Pure.

It stands in the manifest: of each feature a histogram over bins of its own, of the scores one
over `sketch.SCORE_BINS`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason
from scoring.sketch import SCORE_BINS, Counts
from scoring.strict import Fields

BINS = 20
"""Bins of equal share that a feature's training data is cut into."""

EDGES_MAX = 256
COUNT_MAX = 1 << 53
SCORE_LEVELS = (0.5, 0.9, 0.99, 0.999)
"""Shares of the training readings whose scores stand in the manifest for people."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """One feature of the training data.

    Attributes:
        edges: Upper ends of the bins but the last, ascending, as float32. Bin i holds what is
            above edge i-1 and not above edge i; below the least and above the greatest training
            value are bins of their own. Empty where the feature was never present.
        counts: Training rows in each bin: one more than edges.
        absent: Training rows without it.

    Raises:
        ContractError: MODEL_INVALID.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    absent: int

    def __post_init__(self) -> None:
        if len(self.edges) > EDGES_MAX or len(self.counts) != len(self.edges) + 1:
            raise _invalid(f"{len(self.counts)} counts for {len(self.edges)} edges")
        if not all(math.isfinite(edge) for edge in self.edges) or any(
            low >= high for low, high in itertools.pairwise(self.edges)
        ):
            raise _invalid("edges are not finite and ascending")
        _check_counts((*self.counts, self.absent))


@dataclass(frozen=True, slots=True)
class Reference:
    """The training data of a model. F is the number of its features.

    Attributes:
        vehicles: Vehicles behind it, >= 1: rows of one vehicle are not independent.
        features: In the order of the manifest's. F.
        scores: Readings by score / threshold, bins of `sketch.SCORE_BINS`.
        score_quantiles: Scores at `SCORE_LEVELS`; finite, ascending.

    Raises:
        ContractError: MODEL_INVALID.
    """

    vehicles: int
    features: tuple[FeatureReference, ...]
    scores: tuple[int, ...]
    score_quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.vehicles <= COUNT_MAX:
            raise _invalid(f"of {self.vehicles} vehicles")
        if len(self.scores) != len(SCORE_BINS):
            raise _invalid(f"{len(self.scores)} counts of scores, not {len(SCORE_BINS)}")
        _check_counts(self.scores)
        levels = self.score_quantiles
        if len(levels) != len(SCORE_LEVELS) or not all(
            math.isfinite(level) and level >= 0 for level in levels
        ):
            raise _invalid("score_quantiles are not so many finite numbers")

    def to_object(self) -> dict[str, Any]:
        """As it stands in a manifest's JSON."""
        return {
            "vehicles": self.vehicles,
            "scores": list(self.scores),
            "score_quantiles": list(self.score_quantiles),
            "features": [
                {
                    "edges": list(feature.edges),
                    "counts": list(feature.counts),
                    "absent": feature.absent,
                }
                for feature in self.features
            ],
        }

    @staticmethod
    def from_object(parsed: object) -> "Reference":
        """Read what `to_object` gave.

        Raises:
            ContractError: MODEL_INVALID; unknown and missing keys, too.
        """
        top = Fields(parsed, "reference")
        reference = Reference(
            vehicles=top.integer("vehicles"),
            scores=_integers(top, "scores"),
            score_quantiles=_numbers(top, "score_quantiles"),
            features=tuple(_feature_from(item) for item in top.array("features")),
        )
        top.end()
        return reference


def reference_of(
    features: Float32, scores: Float32, *, threshold: float, vehicles: int
) -> Reference:
    """Summarise training data.

    Args:
        features: Shape (R, F), units of the manifest; NaN where absent.
        scores: As of a model that did not see the row's vehicle; NaN where there is none.
            Shape (R,).
        threshold: Of the model.
        vehicles: Vehicles that the rows come from.
    """
    known = scores[np.isfinite(scores)]
    levels = np.quantile(known, SCORE_LEVELS) if len(known) else np.zeros(len(SCORE_LEVELS))
    ratio = known / np.float32(threshold)
    return Reference(
        vehicles=max(vehicles, 1),
        features=tuple(_feature_reference(column) for column in features.T),
        scores=tuple(SCORE_BINS.count(ratio).tolist()),
        score_quantiles=tuple(levels.tolist()),
    )


class FeatureCounter:
    """Counts rows into the bins of a reference. F is the number of its features.

    Args:
        reference: Whose bins.
    """

    def __init__(self, reference: Reference) -> None:
        self._edges = [np.array(each.edges, np.float32) for each in reference.features]
        self.counts: list[Counts] = []
        self.absent: Counts = np.zeros(len(self._edges), np.int64)
        self.rows = 0
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.counts = [np.zeros(len(edges) + 1, np.int64) for edges in self._edges]
        self.absent = np.zeros(len(self._edges), np.int64)
        self.rows = 0

    def add(self, rows: Float32) -> None:
        """Count rows of shape (N, F); NaN where absent."""
        self.rows += len(rows)
        for column, edges in enumerate(self._edges):
            counts, absent = count_column(np.ascontiguousarray(rows[:, column]), edges)
            self.counts[column] += counts
            self.absent[column] += absent


def count_column(values: Float32, edges: Float32) -> tuple[Counts, int]:
    """Rows of one feature by bin, and how many are NaN."""
    # NaN sorts behind every edge; it is taken out of the last bin again.
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    absent = int(np.isnan(values).sum())
    counts[-1] -= absent
    return counts.astype(np.int64), absent


def _feature_reference(column: Float32) -> FeatureReference:
    present = column[np.isfinite(column)]
    edges = _edges(present)
    counts, _ = count_column(present, edges)
    return FeatureReference(
        edges=tuple(float(str(edge)) for edge in edges),  # shortest text that is that float32
        counts=tuple(counts.tolist()),
        absent=len(column) - len(present),
    )


def _edges(present: Float32) -> Float32:
    """Data values at equal shares, each once, with the least and the greatest.

    A value that many rows share is the upper end of a bin and so is told from its neighbours; a
    feature on few levels has a bin a level.
    """
    if not len(present):
        return np.empty(0, np.float32)
    shares = np.arange(1, BINS) / BINS
    inner = np.quantile(present, shares, method="inverted_cdf").astype(np.float32)
    below = np.nextafter(present.min(), np.float32(-np.inf), dtype=np.float32)
    ends = np.concatenate(([below], inner, [present.max()])).astype(np.float32)
    return np.asarray(np.unique(ends), np.float32)


def _feature_from(item: object) -> FeatureReference:
    fields = Fields(item, "reference of a feature")
    feature = FeatureReference(
        edges=_numbers(fields, "edges"),
        counts=_integers(fields, "counts"),
        absent=fields.integer("absent"),
    )
    fields.end()
    return feature


def _numbers(fields: Fields, key: str) -> tuple[float, ...]:
    return tuple(float(_number(each, key)) for each in fields.array(key))


def _integers(fields: Fields, key: str) -> tuple[int, ...]:
    items = fields.array(key)
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in items):
        raise _invalid(f"{key} are not whole numbers")
    return tuple(int(_number(each, key)) for each in items)


def _number(item: object, key: str) -> int | float:
    if isinstance(item, bool) or not isinstance(item, int | float) or abs(item) > COUNT_MAX:
        raise _invalid(f"{key} holds something that is no number, or too large a one")
    return item


def _check_counts(counts: Sequence[int]) -> None:
    if not all(0 <= count <= COUNT_MAX for count in counts):
        raise _invalid("a count below zero or too large")


def _invalid(detail: str) -> ContractError:
    return ContractError(Reason.MODEL_INVALID, f"reference: {detail}")
