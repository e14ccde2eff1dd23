"""A gateway as a process of its own, that may kill itself at a named point.

The points are methods of the product, wrapped here and nowhere else: `before` means that the
method has not begun, `after` that it has returned.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.alert_board import AlertBoard
from edge.clock import SystemClock
from edge.forwarder import Forwarder
from edge.gateway import Gateway, run
from edge.models import ModelStore
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.spool.files import OsFile, OsFiles
from schemas.errors import FencedError, SettingsError
from scoring.scorer import BatchScorer
from transport.kafka import KafkaSettings, TransactionalProducer
from transport.mqtt import MqttClient
from transport.settings import MqttSettings

FENCED_STATUS = 3
PATHS = ("trusted_keys_path", "models_inbox")

POINTS: dict[str, tuple[type, str]] = {
    "store": (Spool, "store"),
    "mqtt ack": (MqttClient, "ack_many"),
    "alert store": (Spool, "store_alerts"),
    "alert publish": (AlertBoard, "_send"),
    "alerts published": (Spool, "alerts_published"),
    "produce": (TransactionalProducer, "produce_all"),
    "commit": (TransactionalProducer, "commit"),
    "note": (Forwarder, "_note"),
    "trim": (Spool, "trim"),
    "model swap": (ModelStore, "swap"),
}


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, passing: int) -> None:
    """Let the process kill itself `before X` or `after X`, the `passing`th time."""
    when, _, name = point.partition(" ")
    owner, attribute = POINTS[name]
    inner: Callable[..., Any] = getattr(owner, attribute)
    passed = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += 1
        if when == "before" and passed == passing:
            kill_self()
        result = inner(*args, **kwargs)
        if when == "after" and passed == passing:
            kill_self()
        return result

    setattr(owner, attribute, wrapped)


def keep_telling(gateway: Gateway, path: Path) -> None:
    """Write down each change of the uplink, for as long as the process lives."""

    def body() -> None:
        last = ""
        with path.open("a", encoding="utf-8", buffering=1) as file:
            while True:
                now = str(gateway.health.uplink)
                if now != last:
                    file.write(now.replace("\n", " ") + "\n")
                last = now
                time.sleep(0.02)

    threading.Thread(target=body, name="uplinks", daemon=True).start()


class FileClock:
    """A machine whose clocks go as a file says, which is read anew at every look at it.

    `offset_ms` is added to the real wall clock, `right` is whether it is known to be right, `boot`
    names the boot, and `booted_ms` is when that was, by the real monotonic clock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._real = SystemClock()
        self._read()

    def _read(self) -> None:
        self._facts: dict[str, Any] = json.loads(self._path.read_text("utf-8"))

    def boot_mark(self) -> str:
        return str(self._facts["boot"])

    def wall_ms(self) -> int:
        return self._real.wall_ms() + int(self._facts["offset_ms"])

    def monotonic_ms(self) -> int:
        return self._real.monotonic_ms() - int(self._facts["booted_ms"])

    def synced(self) -> bool:
        self._read()
        return bool(self._facts["right"])


def skew_scores(factor: float) -> None:
    """Let the network be another one than its hash says: scores above 1 are `factor` as high."""
    inner = BatchScorer.score

    def score(self: BatchScorer, features: Any) -> Any:
        scores = inner(self, features)
        return np.where(scores > 1.0, scores * np.float32(factor), scores)

    BatchScorer.score = score  # type: ignore[method-assign]


def refuse_as_told(path: Path) -> None:
    """While there is a file here, the spool's disk refuses with the `errno` that it names."""

    def refusing(inner: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if path.exists():
                number = int(path.read_text("ascii"))
                raise OSError(number, os.strerror(number), "told to refuse")
            return inner(*args, **kwargs)

        return wrapped

    for owner, name in (
        (OsFile, "append"),
        (OsFile, "sync"),
        (OsFiles, "create"),
        (OsFiles, "replace"),
        (OsFiles, "remove"),
        (OsFiles, "sync_directory"),
    ):
        setattr(owner, name, refusing(getattr(owner, name)))


def main(wanted: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if wanted["crash"] is not None:
        arm(*wanted["crash"])
    hooks = wanted["hooks"]
    if "skew" in hooks:
        skew_scores(hooks["skew"])
    if "refuse" in hooks:
        refuse_as_told(Path(hooks["refuse"]))
    directory = Path(wanted["directory"])
    settings: dict[str, Any] = wanted["settings"]
    settings |= {name: Path(settings[name]) for name in PATHS if name in settings}
    stop = threading.Event()

    def ready(gateway: Gateway) -> None:
        keep_telling(gateway, directory / "uplinks")
        Path(wanted["ready"]).touch()

    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        run(
            GatewaySettings(
                spool_path=directory / "spool",
                models_path=directory / "models",
                control_path=directory / "c",
                **settings,
            ),
            MqttSettings(**wanted["mqtt"], backoff_min_s=0.1, backoff_max_s=1.0),
            KafkaSettings(**wanted["kafka"]),
            stop=stop,
            on_ready=ready,
            clock=FileClock(Path(hooks["clock"])) if "clock" in hooks else None,
        )
    except FencedError as error:
        logging.info("fenced: %s", error)
        return FENCED_STATUS
    except SettingsError as error:
        logging.info("settings: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
