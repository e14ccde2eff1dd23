"""What the demo shows while it runs: a live panel on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cloud.alert_lines import clock_time, signal_text
from motorcade.demo_plan import Phase
from schemas.records import Record

ALERTS_SHOWN = 6
PLAIN_INTERVAL_S = 5.0
RATE_WINDOW_S = 5.0
STAGES = (
    "measured",
    "acknowledged",
    "forwarded (messages)",
    "scored at the edge",
    "scored in the cloud",
)


class Rate:
    """A counter's growth per second over the last RATE_WINDOW_S. Pure; given the time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, now_s: float, count: int) -> None:
        """The counter stands at `count` now."""
        self._seen.append((now_s, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - RATE_WINDOW_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float:
        """Growth per second; 0 before two updates."""
        if len(self._seen) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


@dataclass(slots=True)
class Scene:
    """All that is shown, written by the demo's loop.

    Attributes:
        phase: What happens.
        elapsed_s: Since the fleet began to drive.
        duration_s: How long it drives.
        counts: Readings so far at each of STAGES.
        spool_depth: Records that wait for Kafka.
        uplink: The gateway's way to Kafka, in its words.
        edge_model: Version that scores at the edge; None: none yet.
        cloud_model: The same in the cloud.
        faults: Faults injected so far.
        edge_alerts: Openings seen on MQTT.
        cloud_alerts: Openings seen on Kafka.
        alerts: The last lines of both.
    """

    duration_s: float
    phase: Phase = Phase.STARTING
    elapsed_s: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    rates: dict[str, Rate] = field(default_factory=lambda: {stage: Rate() for stage in STAGES})
    spool_depth: int = 0
    uplink: str = "-"
    edge_model: str | None = None
    cloud_model: str | None = None
    faults: int = 0
    edge_alerts: int = 0
    cloud_alerts: int = 0
    alerts: deque[str] = field(default_factory=lambda: deque(maxlen=ALERTS_SHOWN))

    def count(self, now_s: float, stage: str, readings: int) -> None:
        """A stage has handled so many readings by now."""
        self.counts[stage] = readings
        self.rates[stage].update(now_s, readings)


def panel(scene: Scene) -> RenderableType:
    """The live panel."""
    title = f"{scene.phase}   {scene.elapsed_s:.0f} of {scene.duration_s:.0f} s"
    bar = ProgressBar(total=scene.duration_s, completed=min(scene.elapsed_s, scene.duration_s))
    return Group(
        Panel(Group(bar, _stages(scene), _states(scene)), title=title, title_align="left"),
        Panel(_alerts(scene), title="last alerts", title_align="left"),
    )


def _stages(scene: Scene) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("readings")
    table.add_column("so far", justify="right")
    table.add_column("per second", justify="right")
    for stage in STAGES:
        table.add_row(stage, f"{scene.counts[stage]:,}", f"{scene.rates[stage].per_s:,.0f}")
    return table


def _states(scene: Scene) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    down = scene.uplink not in ("-", "connected")
    table.add_row("uplink", Text(scene.uplink, style="bold red" if down else "green"))
    table.add_row("spool", f"{scene.spool_depth:,} records wait for Kafka")
    table.add_row("model", f"edge {scene.edge_model or '-'}   cloud {scene.cloud_model or '-'}")
    table.add_row("faults", f"{scene.faults} injected")
    table.add_row(
        "alerts", f"{scene.edge_alerts} from the edge, {scene.cloud_alerts} from the cloud"
    )
    return table


def _alerts(scene: Scene) -> RenderableType:
    if not scene.alerts:
        return Text("none so far", style="dim")
    return Text("\n".join(scene.alerts))


def alert_text(alert: Record) -> str:
    """An alert in about a line: who, what, how far off, since when, by which model."""
    leading = signal_text(alert["signals"][0]) if alert["signals"] else "no single signal"
    since = clock_time(alert["since"]).partition(" ")[2]
    origin = alert["origin"].lower()
    return f"{origin:<5} {alert['vehicle_id']}  {leading}  since {since}  {alert['model_version']}"


def plain_line(scene: Scene) -> str:
    """All numbers on one line, for a log."""
    counts = "  ".join(f"{stage} {scene.counts[stage]}" for stage in STAGES)
    return (
        f"{scene.elapsed_s:5.0f} s  {scene.phase}: {counts}  spool {scene.spool_depth}  "
        f"uplink {scene.uplink}  model edge {scene.edge_model or '-'} cloud "
        f"{scene.cloud_model or '-'}  faults {scene.faults}  alerts edge {scene.edge_alerts} "
        f"cloud {scene.cloud_alerts}"
    )


class Display:
    """Shows a scene: repaints on a terminal, else prints a line at times and each alert once.

    Args:
        console: Where to.
        scene: What; `update` shows it as it is then.
        monotonic_s: Source of elapsed time.
    """

    def __init__(
        self,
        console: Console,
        scene: Scene,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._scene = scene
        self._monotonic_s = monotonic_s
        self._live: Live | None = None
        self._printed_s = float("-inf")
        self._printed_phase: Phase | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(panel(self._scene), console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Show the scene as it is now."""
        if self._live is not None:
            self._live.update(panel(self._scene), refresh=True)
        elif self._is_due():
            self._console.print(plain_line(self._scene), soft_wrap=True, highlight=False)

    def alert(self, line: str) -> None:
        """An alert came."""
        self._scene.alerts.append(line)
        if self._live is None:
            self._console.print(f"        {line}", soft_wrap=True, highlight=False, markup=False)

    def _is_due(self) -> bool:
        now_s = self._monotonic_s()
        if self._scene.phase is self._printed_phase and now_s - self._printed_s < PLAIN_INTERVAL_S:
            return False
        self._printed_s, self._printed_phase = now_s, self._scene.phase
        return True
