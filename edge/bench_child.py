"""The receiving side of `motorcade bench gateway`, in a process of its own on a core of its own.

`python -m edge.bench_child gateway JSON` runs a gateway, `… bare JSON` paho alone, as its
documentation has it: a callback that counts. Both say as lines of JSON how far they are, until
their input ends.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Paho itself is what is measured here; everything else goes through `transport.mqtt`.
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.gateway import RECEIVE_MAX, Gateway, run
from edge.settings import GatewaySettings
from schemas.topics import mqtt_telemetry
from transport.kafka import KafkaSettings
from transport.settings import MqttSettings

TELL_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main(kind: str, given: dict[str, Any]) -> None:
    """Receive until standard input ends, on the cores of `given["cores"]`."""
    os.sched_setaffinity(0, given["cores"])
    stop = threading.Event()
    threading.Thread(target=_wait_for_end, args=(stop,), name="stdin", daemon=True).start()
    mqtt = MqttSettings(**given["mqtt"])
    if kind == "bare":
        bare(mqtt, stop)
    else:
        gateway(given, mqtt, stop)


def gateway(given: dict[str, Any], mqtt: MqttSettings, stop: threading.Event) -> None:
    """A whole gateway: spool, scoring, forwarding."""
    directory = Path(given["directory"])
    settings = GatewaySettings(
        gateway_id="bench",
        spool_path=directory / "spool",
        models_path=directory / "models",
        control_path=directory / "control.sock",
        **given["settings"],
    )

    def begin(running: Gateway) -> None:
        _tell_until(stop, lambda: _progress(running))

    run(settings, mqtt, KafkaSettings(**given["kafka"]), stop=stop, on_ready=begin)


def _progress(running: Gateway) -> dict[str, int]:
    health = running.health
    return {
        "received": health.received,
        "stored": health.stored,
        "scored": health.scored,
        "forwarded": health.forwarded,
        "dead_letters": health.dead_letters,
    }


def bare(mqtt: MqttSettings, stop: threading.Event) -> None:
    """Paho alone: what a program that does nothing with its messages would reach."""
    received = 0

    def count(_client: object, _userdata: object, _message: object) -> None:
        nonlocal received
        received += 1

    def subscribe(*_: object) -> None:
        client.subscribe(mqtt_telemetry(mqtt.fleet, "+"), qos=1)

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = RECEIVE_MAX
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id="motorcade-bench-bare",
        protocol=MQTTProtocolVersion.MQTTv5,
    )
    client.on_message = count
    client.on_connect = subscribe
    client.on_subscribe = lambda *_: _tell_until(stop, lambda: {"received": received})
    client.connect(mqtt.host, mqtt.port, properties=properties)
    client.loop_start()
    stop.wait()
    client.loop_stop()


def _tell_until(stop: threading.Event, progress: Callable[[], dict[str, int]]) -> None:
    def body() -> None:
        while not stop.wait(TELL_S):
            line = {**progress(), **_costs()}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    threading.Thread(target=body, name="progress", daemon=True).start()


def _costs() -> dict[str, float]:
    """Of this process: CPU seconds, resident bytes, bytes that it had written to disks."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "at_s": time.monotonic(),
        "cpu_s": used.ru_utime + used.ru_stime,
        "rss_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES,
        "disk_bytes": _disk_bytes(),
    }


def _disk_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def _wait_for_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
