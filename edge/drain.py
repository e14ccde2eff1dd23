"""Forwarding what a spool still holds, and nothing else: before the spool is left."""

import random
import threading
import time
from collections.abc import Callable

from edge.clock import Clock, SystemClock
from edge.forwarder import Forwarder
from edge.health import Health
from edge.reload import LiveSettings
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.spool_memory import SpoolMemory
from edge.status import StatusTaker
from edge.timekeeper import Timekeeper
from schemas.errors import SettingsError
from transport.settings import KafkaSettings

LOOK_S = 0.1
JOIN_S = 60.0


def drain(
    settings: GatewaySettings,
    kafka: KafkaSettings,
    *,
    stop: threading.Event,
    on_progress: Callable[[int, str], object] = lambda _left, _uplink: None,
    clock: Clock | None = None,
) -> int:
    """Forward until the spool is empty, however long Kafka is away, or until told to stop.

    Args:
        settings: Of the gateway whose spool it is; `spool_path` says which.
        kafka: Where to.
        stop: Ends it early.
        on_progress: Told some times a second: records left, state of the uplink.
        clock: Of this machine.

    Returns:
        Records that are left; 0 when all is in Kafka, and the spool may be removed.

    Raises:
        SettingsError: There is no such spool, or a gateway that runs has it open.
        FencedError: A gateway with this id took over.
        SpoolError: The disk refuses.
    """
    settings.validate()
    if not settings.spool_path.exists():
        raise SettingsError(f"spool_path: there is no spool at {settings.spool_path}")
    clock = clock or SystemClock()
    spool = Spool(settings.spool_path, now_ms=clock.wall_ms(), gateway_id=settings.gateway_id)
    try:
        left = _Drain(settings, kafka, spool, clock).run(stop, on_progress)
        if left == 0:
            spool.save()
    finally:
        spool.close()
    if left == 0:
        SpoolMemory(settings.models_path).forget(settings.spool_path)
    return left


class _Drain:
    """A forwarder on a thread of its own, and whoever waits for it."""

    def __init__(
        self, settings: GatewaySettings, kafka: KafkaSettings, spool: Spool, clock: Clock
    ) -> None:
        self._spool = spool
        self._health = Health(scoring="draining")
        self._ended = threading.Event()
        self._error: BaseException | None = None
        keeper = Timekeeper(clock, spool)
        live = LiveSettings.of(settings)
        status = StatusTaker(live, spool, self._health, mqtt_connected=lambda: False, keeper=keeper)
        self._forwarder = Forwarder(
            live,
            kafka,
            spool,
            health=self._health,
            status=status.record,
            rng=random.Random(),
            keeper=keeper,
        )

    def run(self, stop: threading.Event, on_progress: Callable[[int, str], object]) -> int:
        stored_all = threading.Event()
        stored_all.set()
        thread = threading.Thread(
            target=self._forward, args=(stored_all,), name="drain", daemon=True
        )
        thread.start()
        while not stop.is_set() and not self._ended.is_set() and self._spool.depth():
            on_progress(self._spool.depth(), self._health.uplink)
            time.sleep(LOOK_S)
        self._ended.set()
        self._spool.wake()
        thread.join(JOIN_S)
        if self._error is not None:
            raise self._error
        return self._spool.depth()

    def _forward(self, stored_all: threading.Event) -> None:
        try:
            self._forwarder.run(self._ended, stored_all)
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._error = error
            self._ended.set()
