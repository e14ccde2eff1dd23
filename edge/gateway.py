"""The gateway as a whole: its threads, their order of start and stop, and what `check` looks at.

    MQTT ─► intake ─► store loop ─► spool ─► forwarder ─► Kafka
                                      │ ▲
                                      ▼ │ alerts
                                  scoring loop ─► MQTT (retained)
                                      ▲
  model.releases, model.traffic ─► release loop

Every thread works from the spool, and none may die unnoticed: the first error stops them all, and
`run` raises it.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from edge.admission import Admission
from edge.alert_board import AlertBoard
from edge.check import CheckResult, check
from edge.clock import Clock, SystemClock
from edge.control import Handler
from edge.forwarder import Forwarder
from edge.gateway_metrics import fill
from edge.health import BeatingStop, Crew, Health
from edge.health_board import HealthBoard, link_will
from edge.intake import Inbound, Intake
from edge.machine import keep_one_heap
from edge.model_commands import model_commands
from edge.models import ModelStore
from edge.operations import Operations, Surroundings
from edge.patience import GaveUpError, Patience
from edge.release_loop import ReleaseLoop
from edge.reload import LiveSettings, Reloader
from edge.retention import Retention
from edge.scoring_loop import ScoringLoop
from edge.settings import GatewaySettings
from edge.spool import Spool, SpoolError, SpoolLimits, SpoolReader
from edge.spool_memory import SpoolMemory, leave_none_behind
from edge.status import StatusTaker
from edge.store_loop import StoreLoop
from edge.timekeeper import Timekeeper
from edge.updates import ModelUpdates
from schemas.errors import TransientError
from schemas.records import Record
from schemas.topics import mqtt_ack, mqtt_label, mqtt_shared, mqtt_telemetry
from transport.catalog import NEEDED_ONLY, CatalogFollower
from transport.kafka import KafkaSettings
from transport.metric_kinds import at_scrape
from transport.mqtt import AVRO_CONTENT_TYPE, Incoming, MqttClient, SessionSettings
from transport.settings import MqttSettings

__all__ = ["CheckResult", "Gateway", "check", "run"]

RECEIVE_MAX = 1_000
MQTT_QUEUE_MAX = 20_000
HOUSEKEEPING_S = 1.0
JOIN_S = 60.0
FLUSH_S = 5.0


class Gateway:
    """One gateway; `run` does everything.

    Args:
        settings: Of the gateway; validated here.
        mqtt: The vehicles' broker.
        kafka: Where to forward to.
        clock: Of this machine.
        around: The process, where it is more than a shell's.

    Raises:
        SettingsError: A setting cannot work, or the spool is in use.
        SpoolError: The spool cannot be opened for now.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        mqtt: MqttSettings,
        kafka: KafkaSettings,
        *,
        clock: Clock | None = None,
        around: Surroundings | None = None,
    ) -> None:
        settings.validate()
        settings = self._settings = LiveSettings.of(settings)
        self._mqtt = mqtt
        self._kafka = kafka
        self._rng = random.Random()
        around = around or Surroundings()
        self.health = Health(around.announcer)
        self._crew = Crew(BeatingStop(self.health.pulse))
        self._stored_all = threading.Event()
        self._scored_all = threading.Event()
        self._patience = Patience(self._crew.stop, self.health, self._rng)
        clock = clock or SystemClock()
        self._spool = self._open_spool(clock.wall_ms())
        self._keeper = Timekeeper(clock, self._spool)
        self._intake = Intake(
            messages_max=settings.queue_messages_max, bytes_max=settings.queue_bytes_max
        )
        self._client = self._make_client()
        self._status = StatusTaker(
            settings,
            self._spool,
            self.health,
            mqtt_connected=lambda: self._client.connected,
            keeper=self._keeper,
        )
        self._store = self._make_store()
        self._board = AlertBoard(
            mqtt.fleet,
            self._spool,
            publish=self._client.publish,
            patience=self._patience,
            health=self.health,
        )
        self._updates = self._make_updates()
        self._scoring = self._make_scoring()
        self._forwarder = self._make_forwarder()
        self._releases = self._make_releases()
        self._retention = Retention(settings, self._spool)
        self._health_board = self._make_health_board()
        self._operations = self._make_operations(around)

    def _open_spool(self, now_ms: int) -> Spool:
        settings = self._settings
        self._look_back(now_ms)
        spool = Spool(
            settings.spool_path,
            now_ms=now_ms,
            limits=self._limits(),
            gateway_id=settings.gateway_id,
        )
        if spool.moved_aside is not None:
            self.health.announcer.warn(
                "damaged spool",
                f"the spool was damaged and now lies at {spool.moved_aside}; "
                "what it held is not forwarded",
            )
        return spool

    def _look_back(self, now_ms: int) -> None:
        """Leave no spool of before with what is not in Kafka; a disk that refuses stops nothing."""
        settings = self._settings
        memory = SpoolMemory(settings.models_path)
        try:
            for text in leave_none_behind(
                memory, settings.spool_path, now_ms=now_ms, gateway_id=settings.gateway_id
            ):
                self.health.announcer.warn(text, text)
            memory.remember(settings.spool_path)
        except TransientError as error:
            self.health.announcer.warn("spools", f"the spools of before are not known: {error}")

    def _make_client(self) -> MqttClient:
        session = SessionSettings(
            client_id=f"motorcade-gateway-{self._settings.gateway_id}",
            receive_max=RECEIVE_MAX,
            inflight_max=RECEIVE_MAX,
            queue_max=MQTT_QUEUE_MAX,
            will=link_will(self._mqtt.fleet, self._settings.gateway_id),
        )
        return MqttClient(
            self._mqtt,
            session,
            on_message=self._received,
            on_connected=self._connected,
            on_disconnected=self._disconnected,
            on_turn=self._network_turned,
        )

    def _make_store(self) -> StoreLoop:
        settings = self._settings
        book = self._spool.identity_book(
            vehicles_max=settings.max_vehicles, shared=bool(settings.shared_group)
        )
        self.health.vehicle_drops = book.vehicle_drops
        admission = Admission(
            gateway_id=settings.gateway_id,
            fleet=self._mqtt.fleet,
            max_payload_bytes=settings.max_payload_bytes,
        )
        return StoreLoop(
            settings,
            self._spool,
            book=book,
            intake=self._intake,
            admission=admission,
            patience=self._patience,
            health=self.health,
            acknowledge=self._client.ack_many,
            send_acks=self._send_acks,
        )

    def _make_updates(self) -> ModelUpdates:
        return ModelUpdates(
            self._settings,
            ModelStore(self._settings.models_path),
            self._spool,
            patience=self._patience,
            health=self.health,
            now_ms=self._keeper.wall_ms,
            stopped=self._crew.stop.is_set,
        )

    def _make_scoring(self) -> ScoringLoop:
        return ScoringLoop(
            self._settings,
            self._mqtt.fleet,
            self._spool,
            board=self._board,
            patience=self._patience,
            health=self.health,
            keeper=self._keeper,
            retreat=self._updates.retreat,
        )

    def _make_forwarder(self) -> Forwarder:
        return Forwarder(
            self._settings,
            self._kafka,
            self._spool,
            health=self.health,
            status=self.status,
            rng=self._rng,
            keeper=self._keeper,
        )

    def _make_releases(self) -> ReleaseLoop:
        return ReleaseLoop(
            self._settings,
            CatalogFollower(self._kafka, {self._settings.model_name}, limits=NEEDED_ONLY),
            self._updates,
            self._spool,
            patience=self._patience,
            health=self.health,
            now_ms=self._keeper.wall_ms,
        )

    def _make_health_board(self) -> HealthBoard:
        return HealthBoard(
            self._mqtt.fleet,
            self._settings,
            self.health,
            publish=self._client.publish,
            status=self.status,
            clock_synced=lambda: self._keeper.synced,
        )

    def _make_operations(self, around: Surroundings) -> Operations:
        reloader = Reloader(
            self._settings,
            self._mqtt,
            self._kafka,
            load=around.load,
            health=self.health,
            beside=around.beside,
            on_change=self._change_limits,
        )
        return Operations(
            self._settings,
            around,
            self._commands(reloader),
            health=self.health,
            board=self._health_board,
            reloader=reloader,
        )

    def _limits(self) -> SpoolLimits:
        return SpoolLimits.of(self._settings.spool_bytes_max, self._settings.disk_free_min_bytes)

    def _change_limits(self) -> None:
        try:
            self._spool.change_limits(self._limits())
        except SpoolError as error:
            self.health.announcer.warn("limits", f"the spool's limits are not yet changed: {error}")

    def _commands(self, reloader: Reloader) -> dict[str, Handler]:
        """What the control socket answers to."""
        return {
            "status": lambda _: {**self._status.full(), "configuration": reloader.status()},
            **model_commands(self._updates),
        }

    def status(self) -> Record:
        """What the gateway says of itself: a `GatewayStatus` record."""
        return self._status.record()

    def run(
        self, *, stop: threading.Event, on_ready: Callable[["Gateway"], object] | None = None
    ) -> None:
        """Work until `stop` is set; then store, score and forward what is there, and leave.

        Args:
            stop: Asks for a clean stop, which takes some seconds.
            on_ready: Called once the MQTT broker has accepted the gateway.

        Raises:
            FencedError: Another gateway with this id took over.
            SettingsError: The MQTT broker refuses this client.
            SpoolDamagedError: The spool broke; the next start moves it aside.
        """
        workers = [
            self._thread("store", lambda: self._store.run(ended=self._crew.stop.is_set)),
            self._thread("score", lambda: self._scoring.run(self._crew.stop, self._stored_all)),
            self._thread("forward", lambda: self._forwarder.run(self._crew.stop, self._scored_all)),
            self._thread("releases", lambda: self._releases.run(self._crew.stop)),
        ]
        numbers = at_scrape(lambda: fill(self.health, self._status.full()))
        try:
            self._updates.start(self._scoring.offer)
            self._updates.note_crashes()
            self._operations.start()
            for worker in workers:
                worker.start()
            self._client.subscribe(
                [
                    mqtt_shared(self._settings.shared_group, topic)
                    for topic in (
                        mqtt_telemetry(self._mqtt.fleet, "+"),
                        mqtt_label(self._mqtt.fleet, "+"),
                    )
                ]
            )
            self._client.start()
            self._operations.ready()
            with numbers:
                self._watch(stop, on_ready)
        finally:
            self._leave(workers)
        if self._crew.error is not None:
            raise self._crew.error

    def _watch(self, stop: threading.Event, on_ready: Callable[["Gateway"], object] | None) -> None:
        """Housekeeping until somebody wants the end."""
        reader = self._spool.reader()
        due_s = 0.0
        try:
            while not stop.wait(0.05) and not self._crew.stop.is_set():
                self._client.raise_if_failed()
                if on_ready is not None and self._client.connected:
                    on_ready(self)
                    on_ready = None
                self._operations.tick()
                if time.monotonic() >= due_s:
                    due_s = time.monotonic() + HOUSEKEEPING_S
                    self._keeper.tick()
                    self._trim(reader)
        finally:
            reader.close()

    def _trim(self, reader: SpoolReader) -> None:
        try:
            self._retention.round(reader, history_s=self._scoring.history_s)
        except SpoolError as error:
            self.health.announcer.warn("retention", f"not trimming the spool: {error}")
        self.health.drops = self._spool.drops
        for text in self._spool.take_news():
            self.health.announcer.warn("spool", text)

    def _leave(self, workers: list[threading.Thread]) -> None:
        """Stop from the front to the back, so that what was taken in goes all the way."""
        self._operations.leave()
        self._intake.close()
        self._crew.stop.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join(JOIN_S)
        self._client.flush(FLUSH_S if self._client.connected else 0.0)
        self._client.stop()
        self._updates.close()
        self._spool.close()
        self._operations.close()

    def _thread(self, name: str, work: Callable[[], object]) -> threading.Thread:
        done = {"store": self._stored_all, "score": self._scored_all}.get(name)

        def body() -> None:
            try:
                with self.health.pulse.loop(name):
                    work()
            except GaveUpError as error:
                self.health.announcer.warn("stopped", f"stopped while the disk refused: {error}")
            except BaseException as error:  # noqa: BLE001 - raised by `run`
                self._crew.failed(error)
            finally:
                if done is not None:
                    done.set()

        return threading.Thread(target=body, name=f"gateway-{name}", daemon=True)

    # -- on the MQTT network thread

    def _received(self, message: Incoming) -> None:
        received_ms, gateway_boot, monotonic_ms = self._keeper.now()
        self._intake.put(
            Inbound(
                message.topic,
                message.payload,
                message.user_properties,
                received_ms,
                message.token,
                gateway_boot,
                monotonic_ms,
            )
        )

    def _network_turned(self, pause_s: float) -> None:
        self.health.pulse.beat_of("mqtt", more_s=pause_s, excused=self._waits_for_room)

    def _waits_for_room(self) -> bool:
        """Whether the network thread may be slow because the storing thread is."""
        return self._intake.is_full

    def _connected(self, _session_present: bool) -> None:
        self.health.announcer.info("mqtt", "connected to the MQTT broker")
        self._board.tell_all()
        self._health_board.connected()

    def _disconnected(self, reason: str) -> None:
        self.health.announcer.warn("mqtt lost", f"MQTT broker lost: {reason}")

    # -- on the storing thread

    def _send_acks(self, acks: Sequence[tuple[str, bytes]]) -> None:
        # A lost one is made good by the next; the vehicle sends again what it hears nothing of.
        with suppress(TransientError):
            self._client.publish_many(
                [(mqtt_ack(self._mqtt.fleet, vehicle_id), payload) for vehicle_id, payload in acks],
                content_type=AVRO_CONTENT_TYPE,
            )


def run(
    settings: GatewaySettings,
    mqtt: MqttSettings,
    kafka: KafkaSettings,
    *,
    stop: threading.Event,
    on_ready: Callable[[Gateway], object] | None = None,
    clock: Clock | None = None,
    around: Surroundings | None = None,
) -> None:
    """Run a gateway until `stop` is set. See `Gateway` and `Gateway.run` for what it raises."""
    keep_one_heap()
    Gateway(settings, mqtt, kafka, clock=clock, around=around).run(stop=stop, on_ready=on_ready)
