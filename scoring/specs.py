"""The input columns of a model: which signal, and how a feature comes from it."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import ContractError, Reason
from schemas.signals import SIGNAL_BY_NAME

BUCKET_S = 5.0
"""Memory features look back in whole buckets of this many seconds; see `scoring.features`."""

WINDOW_S_MAX = 180.0
"""Longest look-back of a feature; bounds the state of a vehicle."""


class FeatureKind(StrEnum):
    """How a feature comes from a signal. The exact definitions stand in `scoring.features`."""

    VALUE = "value"
    """The reading itself; no memory."""
    MEAN = "mean"
    """Mean over the last `window_s`."""
    LAG = "lag"
    """The value of `window_s` ago."""
    RUN_LENGTH = "run"
    """Seconds since the value last changed, at most `window_s`."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One input column of a model.

    Attributes:
        signal: Name in `schemas.signals`.
        kind: How the feature comes from the signal.
        window_s: 0 for VALUE; otherwise a multiple of `BUCKET_S`, at most `WINDOW_S_MAX`.

    Raises:
        ContractError: MODEL_FEATURES: unknown signal, or a window that the kind does not allow.

    Example:
        >>> FeatureSpec("speed").name, FeatureSpec("speed", FeatureKind.MEAN, 30.0).name
        ('speed', 'speed:mean:30s')
    """

    signal: str
    kind: FeatureKind = FeatureKind.VALUE
    window_s: float = 0.0

    def __post_init__(self) -> None:
        if self.signal not in SIGNAL_BY_NAME:
            raise ContractError(Reason.MODEL_FEATURES, f"unknown signal {self.signal!r}")
        if self.kind is FeatureKind.VALUE:
            if self.window_s != 0:
                raise ContractError(Reason.MODEL_FEATURES, f"{self.signal}: a value has no window")
        elif not 0 < self.window_s <= WINDOW_S_MAX or self.window_s % BUCKET_S:
            raise ContractError(
                Reason.MODEL_FEATURES,
                f"{self.signal}:{self.kind}: window of {self.window_s} s is not a multiple of "
                f"{BUCKET_S:g} s up to {WINDOW_S_MAX:g} s",
            )

    @property
    def name(self) -> str:
        """Unique name, e.g. `speed`, `speed:mean:30s`, `coolant_temperature:lag:60s`."""
        if self.kind is FeatureKind.VALUE:
            return self.signal
        return f"{self.signal}:{self.kind}:{self.window_s:g}s"

    @property
    def unit(self) -> str:
        """Unit of the feature: the signal's, or seconds for a run length."""
        if self.kind is FeatureKind.RUN_LENGTH:
            return "s"
        return SIGNAL_BY_NAME[self.signal].unit

    @property
    def has_memory(self) -> bool:
        """Whether earlier readings of the vehicle are needed."""
        return self.kind is not FeatureKind.VALUE
