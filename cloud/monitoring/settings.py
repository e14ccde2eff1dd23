"""Settings of the monitor, without anything that needs an extra."""

from dataclasses import dataclass

from schemas.errors import SettingsError


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What the monitor compares, and how far it looks back.

    Attributes:
        group_id: Monitors of one group stand in for each other; one of them acts.
        drift_window_s: Length of the windows that are compared with the reference.
        drift_open_windows: Drift is told when so many windows in a row show it.
        drift_close_windows: It is over when so many windows in a row are clear of it.
        drift_alpha: Probability that one comparison of a window exceeds its limit by chance.
        psi_min: A population stability index below it is no drift, however certain.
        ks_min: A Kolmogorov-Smirnov distance below it is none either.
        label_horizon_s: A label that comes later than this after what it is about changes no
            figure any more; the sequential test waits so long.
        guard_window_s: Stretch of time that guards look at.
        lookback_s: Stretch of the log that is read again after a start.
        entries_max: Alerts and labels held; beyond it the oldest is dropped and counted.
        interval_s: Time between two decisions.
        session_timeout_s: After so long a silence another monitor takes over.
        agreement_tolerance: By how much the scores of a gateway and of the cloud may differ,
            relative to the greater one; 0: not at all.
        agreement_window_s: A gateway's score waits so long for the cloud's.
        agreement_delay_s: The cloud's scores are read so long after they were written, so that
            those of gateways are known by then.
    """

    group_id: str = "motorcade-monitor"
    drift_window_s: float = 60.0
    drift_open_windows: int = 2
    drift_close_windows: int = 2
    drift_alpha: float = 0.001
    psi_min: float = 0.2
    ks_min: float = 0.1
    label_horizon_s: float = 21_600.0
    guard_window_s: float = 300.0
    lookback_s: float = 86_400.0
    entries_max: int = 200_000
    interval_s: float = 2.0
    session_timeout_s: float = 10.0
    agreement_tolerance: float = 0.001
    agreement_window_s: float = 300.0
    agreement_delay_s: float = 20.0

    def __post_init__(self) -> None:
        for name in ("drift_window_s", "guard_window_s", "label_horizon_s", "interval_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"monitor {name} is {getattr(self, name)}; above 0")
        if not 0 < self.drift_alpha < 0.5:
            raise SettingsError(f"monitor drift_alpha is {self.drift_alpha}; above 0, below 0.5")
        if self.drift_open_windows < 1 or self.drift_close_windows < 1:
            raise SettingsError("monitor drift_open_windows and drift_close_windows: at least 1")
        if self.lookback_s < self.label_horizon_s:
            raise SettingsError("monitor lookback_s is below label_horizon_s")
        if self.entries_max < 1_000:
            raise SettingsError(f"monitor entries_max is {self.entries_max}; at least 1000")
        if self.session_timeout_s < 6:
            raise SettingsError("monitor session_timeout_s is below 6, the least that brokers take")
        if self.agreement_tolerance < 0:
            raise SettingsError("monitor agreement_tolerance is below 0")
        if not 0 <= self.agreement_delay_s < self.agreement_window_s:
            raise SettingsError("monitor agreement_delay_s: from 0 to below agreement_window_s")
