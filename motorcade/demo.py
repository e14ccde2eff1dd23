"""The demo: the whole mission on this machine, counted at the end.

    options ─► stage (brokers, children, watchers) ─► drive (loop of 10 Hz) ─► count ─► table, JSON

`motorcade.demo_plan` decides what is due; this module does it. Everything it starts ends with it.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cloud.audit_reader import read_found
from deploy.stack import Endpoints, Stack
from motorcade.demo_children import Crew, settings_text
from motorcade.demo_count import count, fleet_of
from motorcade.demo_display import Display, Scene
from motorcade.demo_drive import LEDGER_FILE, SETTINGS_FILE, Drive
from motorcade.demo_plan import plan
from motorcade.demo_report import as_json, closing_table
from motorcade.demo_watch import CloudWatch, EdgeWatch
from motorcade.exits import Exit
from motorcade.stopping import interrupt_on_terminate
from schemas.errors import MotorcadeError
from simulator.ledger import Ledger
from simulator.recordings import read_trips
from transport.kafka import ensure_topics, register_schemas
from transport.settings import KafkaSettings, MqttSettings

FLEET = "demo"
REPLAY_ROOM = 1.5
MESSAGES_PER_S_MAX = 1_000
"""Above it a message holds several readings, as it would in a car: two cores carry the whole
fleet, its broker and its cloud here."""

VEHICLE_MESSAGES_PER_S_MAX = 5

TRAINING_READINGS = 1_000
"""Readings that the trainer should find at least."""

RATE_HZ_MAX = 50

QUICK_FAULTS = (
    "alternator,battery_cell,bearing_wear,coolant_offset,current_offset,engine_speed_noise,"
    "maf_low,manifold_leak"
)
"""Those of the catalogue that are fully there within half a minute and move a value. A slow leak
or a stuck sensor cannot show in what is left of a minute and a half."""
GATEWAY_ID = "demo-gateway"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo was asked for.

    Attributes:
        vehicles: Fleet size.
        duration_s: How long it drives.
        replay: Recorded drives to play instead of simulating.
        json_path: Where to write the findings.
        seed: Of fleet and training.
        directory: Where everything lives; None: a temporary directory, kept only on failure.
    """

    vehicles: int = 200
    duration_s: float = 90.0
    replay: Path | None = None
    json_path: Path | None = None
    seed: int = 1
    directory: Path | None = None


def run(options: DemoOptions) -> int:
    """Run the demo and show what happened.

    Returns:
        1 if a reading was lost or is anywhere twice, else 0.

    Raises:
        SettingsError: Too short a duration, or something is missing on this machine.
        MotorcadeError: A part ended that should not have; the directory is kept.
        KeyboardInterrupt: Ctrl-C; everything was stopped.
    """
    timeline = plan(options.duration_s)
    console = Console()
    interrupt_on_terminate()
    with _directory(options.directory, console) as directory:
        console.print(f"starting Kafka, an MQTT broker and a schema registry in {directory}")
        with ExitStack() as parts:
            stack = parts.enter_context(Stack(directory / "stack"))
            kafka, mqtt = _clients(stack.endpoints)
            ensure_topics(kafka)
            register_schemas(kafka)
            _write_settings(directory, options, kafka, mqtt)
            crew = parts.enter_context(Crew(directory))
            edge = parts.enter_context(EdgeWatch(mqtt, "motorcade-demo-watch"))
            cloud = parts.enter_context(CloudWatch(kafka))
            scene = Scene(options.duration_s)
            with Display(console, scene) as display:
                drive = Drive(
                    timeline, stack, crew, edge=edge, cloud=cloud, display=display, scene=scene
                )
                drive.run()
            # In order, so that the gateway forwards the last of what it has.
            crew.stop()
            fleet = fleet_of(Ledger.load(directory / LEDGER_FILE))
            found = count(read_found(kafka), fleet, drive.witnessed)
        console.print(closing_table(found))
        if options.json_path is not None:
            options.json_path.write_text(json.dumps(as_json(found), indent=2) + "\n", "utf-8")
        if not found.sound:
            raise UnsoundError("readings or alerts were lost or are there twice")
    return int(Exit.DONE)


class UnsoundError(MotorcadeError):
    """The count does not come out even."""


def _clients(ends: Endpoints) -> tuple[KafkaSettings, MqttSettings]:
    kafka = KafkaSettings(bootstrap_servers=ends.kafka_bootstrap, registry_url=ends.registry_url)
    # A broker on the loopback is back at once, so there is no need to spare it.
    mqtt = MqttSettings(host=ends.mqtt_host, port=ends.mqtt_port, fleet=FLEET, backoff_max_s=4.0)
    return kafka, mqtt


def _write_settings(
    directory: Path, options: DemoOptions, kafka: KafkaSettings, mqtt: MqttSettings
) -> None:
    """The children's `motorcade.toml`."""
    sections: dict[str, dict[str, Any]] = {
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "registry_url": kafka.registry_url,
        },
        "mqtt": {
            "host": mqtt.host,
            "port": mqtt.port,
            "fleet": mqtt.fleet,
            "backoff_max_s": mqtt.backoff_max_s,
        },
        "gateway": {
            "gateway_id": GATEWAY_ID,
            "spool_path": directory / "gateway" / "spool",
            "models_path": directory / "gateway" / "models",
            "control_path": directory / "gateway" / "c",
            "max_vehicles": max(5_000, 2 * options.vehicles),
        },
        "scorer": {"backoff_max_s": 2.0, "session_timeout_s": 6.0},
        "trainer": {"seed": options.seed},
        "simulator": {
            "vehicles": options.vehicles,
            "seed": options.seed,
            "ledger": directory / LEDGER_FILE,
            **(_replay(options.replay, options.duration_s) if options.replay else _fleet(options)),
        },
    }
    (directory / SETTINGS_FILE).write_text(settings_text(sections), "utf-8")


def _fleet(options: DemoOptions) -> dict[str, Any]:
    """A small fleet measures more often, or there would be too little to learn from."""
    train_s = plan(options.duration_s).train_s
    wanted_hz = math.ceil(TRAINING_READINGS / (options.vehicles * train_s))
    rate_hz = min(max(1, wanted_hz), RATE_HZ_MAX)
    messages_hz = min(VEHICLE_MESSAGES_PER_S_MAX, MESSAGES_PER_S_MAX / options.vehicles)
    return {
        "rate_hz": float(rate_hz),
        "readings_per_message": math.ceil(rate_hz / messages_hz),
        "fault_codes": QUICK_FAULTS,
    }


def _replay(path: Path, duration_s: float) -> dict[str, Any]:
    """Play recorded drives so fast that the longest fills the demo, with room for slow training.

    There are few of them, so half are made faulty instead of a tenth.
    """
    longest_s = max(float(trip.t_s[-1]) for trip in read_trips(path))
    speed = max(1.0, longest_s / (duration_s * REPLAY_ROOM))
    return {"replay": path.absolute(), "speed": speed, "fault_share": 0.5}


@contextmanager
def _directory(wanted: Path | None, console: Console) -> Iterator[Path]:
    """The wanted directory, or a temporary one that stays only if something goes wrong."""
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.absolute()
        return
    directory = Path(tempfile.mkdtemp(prefix="motorcade-demo-"))
    try:
        yield directory
    except MotorcadeError:
        console.print(f"logs and data are kept in {directory}")
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)
