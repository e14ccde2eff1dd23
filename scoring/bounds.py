"""What a model may cost and do: the limits under which a gateway keeps it."""

import math
from dataclasses import dataclass
from typing import Any

from schemas.errors import ContractError, Reason
from scoring.strict import Fields


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits at which a gateway goes back to the model before; None: no limit.

    Attributes:
        alerts_per_vehicle_hour_max: Openings for each vehicle and hour of its readings. >= 0.
        alerts_per_vehicle_hour_min: The same, from below. >= 0, at most the maximum.
        reading_ms_max: Time to score, for each reading of a batch, 99th percentile. > 0.

    Raises:
        ContractError: MODEL_INVALID: a value outside of these.
    """

    alerts_per_vehicle_hour_max: float | None = None
    alerts_per_vehicle_hour_min: float | None = None
    reading_ms_max: float | None = None

    def __post_init__(self) -> None:
        for name in ("alerts_per_vehicle_hour_max", "alerts_per_vehicle_hour_min"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ContractError(Reason.MODEL_INVALID, f"bounds: {name} is {value}")
        low, high = self.alerts_per_vehicle_hour_min, self.alerts_per_vehicle_hour_max
        if low is not None and high is not None and low > high:
            raise ContractError(Reason.MODEL_INVALID, f"bounds: {low} to {high} alerts is no range")
        budget = self.reading_ms_max
        if budget is not None and not (math.isfinite(budget) and budget > 0):
            raise ContractError(Reason.MODEL_INVALID, f"bounds: reading_ms_max is {budget}")

    def to_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "alerts_per_vehicle_hour_max": self.alerts_per_vehicle_hour_max,
            "alerts_per_vehicle_hour_min": self.alerts_per_vehicle_hour_min,
            "reading_ms_max": self.reading_ms_max,
        }

    @staticmethod
    def from_object(parsed: object) -> "Bounds":
        """Read what `to_object` gave. Raises ContractError (MODEL_INVALID)."""
        fields = Fields(parsed, "bounds")
        bounds = Bounds(
            alerts_per_vehicle_hour_max=fields.number_or_null("alerts_per_vehicle_hour_max"),
            alerts_per_vehicle_hour_min=fields.number_or_null("alerts_per_vehicle_hour_min"),
            reading_ms_max=fields.number_or_null("reading_ms_max"),
        )
        fields.end()
        return bounds
