"""`motorcade simulate`: a fleet drives."""

import dataclasses
import signal
import threading
from typing import TYPE_CHECKING

import click

from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.observing import traced
from motorcade.options import with_settings
from motorcade.running import emit, log_to_stderr
from motorcade.stopping import stop_on_signals
from simulator.settings import SimulatorSettings
from transport.settings import MqttSettings

if TYPE_CHECKING:
    from simulator.run import Progress


@click.command(
    cls=ExampleCommand,
    example=(
        "motorcade simulate --vehicles 200 --duration-s 60\n"
        "motorcade simulate --replay simulator/data/kit_normal_small.csv.gz"
    ),
    short_help="Drive a simulated or recorded fleet over MQTT.",
)
@click.option("--progress", is_flag=True, help="Print counters as JSON lines.")
@with_settings("simulator", "mqtt", "tracing")
def command(config: Config, progress: bool) -> None:
    """Publish what a seeded fleet measures, and hold it until a gateway has it on its disk.

    SIGUSR1 injects faults. Measuring ends after the duration, at the end of the recording, on
    SIGUSR2, or when told to stop; then what is still held is delivered.
    """
    log_to_stderr()
    with traced(config, "motorcade-simulate"), needs("simulator"):
        from simulator.run import run

        ledger = run(
            config.section(SimulatorSettings),
            config.section(MqttSettings),
            stop=stop_on_signals(),
            inject=_event_on(signal.SIGUSR1),
            finish=_event_on(signal.SIGUSR2),
            on_progress=_tell if progress else _keep_quiet,
        )
    if not progress:
        click.echo(
            f"measured {ledger.measured} readings, acknowledged {ledger.acknowledged}, "
            f"dropped {ledger.dropped}, held {ledger.held}, faults {len(ledger.faults)}"
        )


def _event_on(number: signal.Signals) -> threading.Event:
    """An event that the signal sets."""
    event = threading.Event()
    signal.signal(number, lambda _number, _frame: event.set())
    return event


def _tell(progress: "Progress") -> None:
    emit(dataclasses.asdict(progress))


def _keep_quiet(_: "Progress") -> None:
    """Nobody asked for progress."""
