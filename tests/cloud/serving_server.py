"""A model server on threads of the test's process, and lean ways to ask it."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.serving.observer import ServingObserver
from cloud.serving.repository import ModelRepository, Served
from cloud.serving.server import serve
from cloud.settings import ServerSettings
from schemas.errors import MotorcadeError
from scoring.catalog import Catalog

PATIENCE_S = 120.0


@dataclass(slots=True)
class Heard:
    """An observer that remembers what it was told."""

    rows: int = 0
    requests: int = 0
    batches: int = 0
    arms: dict[str, int] = field(default_factory=dict)
    errors: list[MotorcadeError] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def observed(
        self,
        served: Served,
        features: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        queue_us: Any,
        compute_us: int,
        deployment: str,
    ) -> None:
        assert len(features) == len(scores)
        assert deployment == "rpc"
        assert compute_us >= 0
        assert all(waited_us >= 0 for waited_us in queue_us)
        with self.lock:
            self.rows += len(scores)
            self.requests += len(queue_us)
            self.batches += 1
            self.arms[served.arm] = self.arms.get(served.arm, 0) + len(scores)

    def failed(self, model: str, error: MotorcadeError, *, deployment: str) -> None:
        with self.lock:
            self.errors.append(error)


@dataclass(slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class RunningServer:
    port: int
    grpc_port: int
    repository: ModelRepository
    heard: Heard
    stop: threading.Event

    def get(self, path: str) -> Reply:
        return self.ask("GET", path, None, {})

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, raw, headers or {})

    def infer(self, body: Any, *, path: str = "/v2/models/anomaly/infer") -> Reply:
        return self.post(path, body)

    def ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, got, response.read())
        finally:
            connection.close()


@contextmanager
def running(
    catalog: Catalog,
    *,
    repository: ModelRepository | None = None,
    observer: ServingObserver | None = None,
    **settings: Any,
) -> Iterator[RunningServer]:
    """A server with these models, stopped and drained at the end."""
    repository = repository or ModelRepository()
    repository.update(catalog)
    heard = Heard()
    stop, listening = threading.Event(), threading.Event()
    where: dict[str, Any] = {}
    faults: list[BaseException] = []

    def told(record: dict[str, Any]) -> None:
        where.update(record)
        listening.set()

    def run() -> None:
        try:
            serve(
                ServerSettings(port=0, grpc_port=0, **settings),
                repository,
                stop=stop,
                observer=observer or heard,
                on_listening=told,
            )
        except BaseException as error:  # noqa: BLE001 - raised where the test sees it
            faults.append(error)
            listening.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        assert listening.wait(PATIENCE_S)
        if not faults:
            yield RunningServer(where["port"], where["grpc_port"], repository, heard, stop)
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        if faults:
            raise faults[0]
    assert not thread.is_alive()


def body_of(features: NDArray[np.float32], **more: Any) -> dict[str, Any]:
    """An inference request in JSON; NaN is null."""
    flat = [None if np.isnan(value) else float(value) for value in features.ravel()]
    tensor = {"name": "features", "datatype": "FP32", "shape": list(features.shape), "data": flat}
    return {"inputs": [tensor], **more}


def output(reply: Reply, name: str = "score") -> NDArray[np.float32]:
    """A tensor of a JSON answer."""
    (found,) = [each for each in reply.json["outputs"] if each["name"] == name]
    values = np.array(found["data"], dtype=np.float32)
    return values.reshape(found["shape"])
