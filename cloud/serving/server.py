"""The model server as one process: a repository, the thread that feeds it, and the doors."""

import asyncio
import gc
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import uvloop

from cloud.serving.backroom import BackRoom
from cloud.serving.batcher import Batcher, BatchLimits
from cloud.serving.budget import ByteBudget
from cloud.serving.client_bounds import ClientBounds
from cloud.serving.feeding import CatalogFeed
from cloud.serving.grpc_door import GrpcDoor
from cloud.serving.kafka_door import DoorParts, DoorThread, KafkaDoor, StateLog
from cloud.serving.kafka_settings import KafkaDoorSettings
from cloud.serving.meter import MeteredObserver
from cloud.serving.model_folder import ModelFolder
from cloud.serving.observer import NoObserver, ServingObserver
from cloud.serving.repository import ModelRepository
from cloud.serving.rest_door import RestDoor
from cloud.serving.rpc_parts import RpcParts
from cloud.serving.tensors import Limits
from cloud.settings import ServerSettings
from schemas.errors import SettingsError
from transport.metric_kinds import at_scrape
from transport.metrics import SERVER_QUEUE_ROWS
from transport.settings import KafkaSettings

_log = logging.getLogger("motorcade.serve")

STOP_LOOK_S = 0.1


class Door(Protocol):
    """A way in that runs on threads of its own, such as the Kafka door."""

    def start(self) -> None:
        """Begin to serve; does not wait for brokers."""
        ...

    def stop(self) -> None:
        """Finish what is under way, and end."""
        ...


OnListening = Callable[[dict[str, Any]], None]
"""Told where the RPC doors listen: `host`, `port` of REST, `grpc_port`."""


def serve_log(
    settings: ServerSettings,
    kafka: KafkaSettings,
    *,
    stop: threading.Event,
    on_listening: OnListening,
    observer: ServingObserver | None = None,
) -> None:
    """Serve the models of the log until `stop` is set. Raises as `serve`."""
    repository = ModelRepository(versions_max=settings.versions_max)
    folder = None if settings.models_dir is None else ModelFolder(settings.models_dir)
    feed = CatalogFeed(kafka, repository, names=settings.names or None, folder=folder)
    doors = []
    if settings.kafka_door:
        doors.append(_kafka_door(settings, kafka, repository, observer, feed.caught_up))
    feed.start()
    try:
        serve(
            settings,
            repository,
            stop=stop,
            doors=doors,
            on_listening=on_listening,
            observer=observer,
        )
    finally:
        feed.stop()


def _kafka_door(
    settings: ServerSettings,
    kafka: KafkaSettings,
    repository: ModelRepository,
    observer: ServingObserver | None,
    models_known: threading.Event,
) -> Door:
    how = KafkaDoorSettings(
        group_id=settings.group_id,
        exactly_once=settings.exactly_once,
        transactional_id=settings.transactional_id,
        reply_topics=settings.reply_topics,
    )

    def make() -> KafkaDoor:
        parts = DoorParts(repository.view(), observer or NoObserver(), models_known=models_known)
        return KafkaDoor(how, kafka, parts, on_stats=StateLog())

    return DoorThread(make)


def serve(
    settings: ServerSettings,
    repository: ModelRepository,
    *,
    stop: threading.Event,
    doors: Sequence[Door] = (),
    observer: ServingObserver | None = None,
    on_listening: OnListening | None = None,
) -> None:
    """Serve until `stop` is set; then drain.

    Args:
        settings: Ports and limits.
        repository: Fed by another thread.
        stop: Ends it.
        doors: More ways in; started here and stopped first.
        observer: Told what was scored.
        on_listening: Told where it listens, once.

    Raises:
        SettingsError: A port is taken.
    """
    for door in doors:
        door.start()
    try:
        told = MeteredObserver(observer or NoObserver())
        main = _serve(settings, repository, stop, told, on_listening)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    finally:
        for door in doors:
            door.stop()


async def _serve(
    settings: ServerSettings,
    repository: ModelRepository,
    stop: threading.Event,
    observer: ServingObserver,
    on_listening: OnListening | None,
) -> None:
    back_room = BackRoom(repository)
    limits = BatchLimits(
        requests_max=settings.queue_requests_max,
        rows_max=settings.queue_rows_max,
        delay_s=settings.batch_delay_ms / 1000,
    )
    batcher = Batcher(asyncio.get_running_loop(), repository.view(), back_room, observer, limits)
    parts = RpcParts(
        repository,
        batcher,
        back_room,
        observer,
        Limits(settings.request_bytes_max, settings.rows_max),
        ByteBudget(settings.requests_bytes_max),
        settings.names,
    )
    bounds = ClientBounds(
        settings.connections_max,
        settings.head_timeout_s,
        settings.body_timeout_s,
        settings.idle_timeout_s,
    )
    listener = listen(settings.host, settings.port)
    grpc_listener = listen(settings.host, settings.grpc_port)
    back_room.start()
    rest = RestDoor(parts, bounds, drain_timeout_s=settings.drain_timeout_s)
    grpc = GrpcDoor(parts, bounds, drain_timeout_s=settings.drain_timeout_s)
    await rest.start(listener)
    await grpc.start(grpc_listener)
    # What is there now stays; a search for garbage among it would hold requests up.
    gc.collect()
    gc.freeze()
    if on_listening is not None:
        on_listening(
            {
                "host": settings.host,
                "port": listener.getsockname()[1],
                "grpc_port": grpc_listener.getsockname()[1],
            }
        )
    with at_scrape(lambda: SERVER_QUEUE_ROWS.set(batcher.waiting_rows)):
        while not stop.is_set():
            await asyncio.sleep(STOP_LOOK_S)
    _log.info("draining")
    parts.draining = True
    await asyncio.gather(rest.stop(), grpc.stop())
    gc.unfreeze()
    await asyncio.to_thread(back_room.stop)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0: any free one.

    Raises:
        SettingsError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {host}:{port}: {error}") from error
    return listener
