"""The Open Inference Protocol V2 over REST: an ASGI application without a framework.

    GET  /v2 · /v2/health/live · /v2/health/ready · /v2/docs/openapi.json
    GET  /v2/models/NAME[/versions/VERSION][/ready]
    POST /v2/models/NAME[/versions/VERSION]/infer
    POST /v2/repository/index · /v2/repository/models/NAME/load · …/unload

VERSION may be an alias. Hot path: a request of usual size is read, queued and written on the event
loop; one of more than `LARGE_BYTES` goes to the back room as a whole.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from cloud.serving import v2_json
from cloud.serving.asks import RPC, Answer, Outcome, answer_all
from cloud.serving.budget import Room
from cloud.serving.metadata import EXTENSIONS, SERVER_NAME, model_info
from cloud.serving.meter import DoorMeter
from cloud.serving.openapi import document
from cloud.serving.repository import RepositoryView
from cloud.serving.rpc_parts import RpcParts
from cloud.serving.versions import server_version
from schemas.errors import ContractError, MotorcadeError, Reason, TransientError
from transport.tracing import served

Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGE_BYTES = 128 << 10
"""Reading and writing JSON of this size takes a millisecond."""

_SMALL_BODY_BYTES = 64 << 10
"""Of requests that carry no tensors."""

_LENGTH = b"content-length"
_JSON_LENGTH = b"inference-header-content-length"

_STATUS: Mapping[Reason, HTTPStatus] = {
    Reason.UNKNOWN_MODEL: HTTPStatus.NOT_FOUND,
    Reason.OVERSIZED: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Reason.DEADLINE: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.MODEL_INVALID: HTTPStatus.INTERNAL_SERVER_ERROR,
}
RETRY_AFTER_S = 1


class _Gone(Exception):  # noqa: N818 - no error: the client went away
    """The client closed the connection before its request was complete."""


class _Reply:
    """A response: status, headers, body."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: bytes,
        status: int = HTTPStatus.OK,
        *,
        content_type: bytes = v2_json.JSON_TYPE,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.body = body
        self.status = status
        self.headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]


def _json(value: Any, status: int = HTTPStatus.OK) -> _Reply:
    return _Reply(v2_json.dumps(value), status)


def reply_of(error: MotorcadeError) -> _Reply:
    """The protocol's answer to a request that cannot be answered."""
    body = v2_json.write_error(error)
    if isinstance(error, ContractError):
        return _Reply(body, _STATUS.get(error.reason, HTTPStatus.BAD_REQUEST))
    if not isinstance(error, TransientError):
        return _Reply(body, HTTPStatus.INTERNAL_SERVER_ERROR)
    retry = ((b"retry-after", b"%d" % RETRY_AFTER_S),)
    return _Reply(body, HTTPStatus.SERVICE_UNAVAILABLE, headers=retry)


_Handler = Callable[[tuple[str, ...], Scope, Receive], Awaitable[_Reply]]


class RestApp:
    """The application; for one event loop.

    Args:
        parts: Of the server.
    """

    def __init__(self, parts: RpcParts) -> None:
        self._parts = parts
        self._meter = DoorMeter("rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        received_ns = time.monotonic_ns()
        try:
            reply = await self._answer(scope, receive)
        except MotorcadeError as error:
            reply = reply_of(error)
            if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and _holds_back(scope):
                reply.headers.append((b"connection", b"close"))
        except _Gone:
            return
        self._meter.answered(str(int(reply.status)), received_ns)
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.headers}
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive) -> _Reply:
        path: str = scope["path"]
        handler, arguments, method = self._route(path)
        if handler is None:
            return _json({"error": f"no resource {path!r}"}, HTTPStatus.NOT_FOUND)
        if scope["method"] != method:
            reply = _json({"error": f"{path} takes {method}"}, HTTPStatus.METHOD_NOT_ALLOWED)
            reply.headers.append((b"allow", method.encode()))
            return reply
        return await handler(arguments, scope, receive)

    def _route(self, path: str) -> tuple[_Handler | None, tuple[str, ...], str]:
        """Handler, its arguments, and the method that it takes."""
        match path.split("/")[1:]:
            case ["v2", "models", name, "infer"]:
                return self._infer, (name, ""), "POST"
            case ["v2", "models", name, "versions", version, "infer"]:
                return self._infer, (name, version), "POST"
            case ["v2", "health", "live"]:
                return self._live, (), "GET"
            case ["v2", "health", "ready"]:
                return self._ready, (), "GET"
            case ["v2"]:
                return self._server, (), "GET"
            case ["v2", "models", name]:
                return self._model, (name, ""), "GET"
            case ["v2", "models", name, "ready"]:
                return self._model_ready, (name, ""), "GET"
            case ["v2", "models", name, "versions", version]:
                return self._model, (name, version), "GET"
            case ["v2", "models", name, "versions", version, "ready"]:
                return self._model_ready, (name, version), "GET"
            case ["v2", "repository", "index"]:
                return self._index, (), "POST"
            case ["v2", "repository", "models", name, "load" | "unload" as act]:
                return self._change, (name, act), "POST"
            case ["v2", "docs", "openapi.json"]:
                return self._document, (), "GET"
        return None, (), ""

    async def _infer(self, arguments: tuple[str, ...], scope: Scope, receive: Receive) -> _Reply:
        with served("rest infer", scope["headers"]), Room(self._parts.budget) as room:
            return await self._infer_in(room, arguments, scope, receive)

    async def _infer_in(
        self, room: Room, arguments: tuple[str, ...], scope: Scope, receive: Receive
    ) -> _Reply:
        model, version = arguments
        received_ns = time.monotonic_ns()
        try:
            headers = dict(scope["headers"])
            body = await _body(receive, headers, self._parts.limits.request_bytes_max, room)
            json_bytes = _number(headers, _JSON_LENGTH)
            if len(body) > LARGE_BYTES:
                return await self._parts.back_room.call(
                    lambda view: self._large(view, arguments, body, json_bytes, received_ns)
                )
            call = v2_json.read_call(
                model,
                version,
                body,
                json_bytes,
                limits=self._parts.limits,
                received_ns=received_ns,
            )
        except MotorcadeError as error:
            self._parts.observer.failed(model, error, deployment=RPC)
            raise
        return _written(call, await self._parts.batcher.answer(call.ask))

    def _large(
        self,
        view: RepositoryView,
        arguments: tuple[str, ...],
        body: bytes,
        json_bytes: int | None,
        received_ns: int,
    ) -> _Reply:
        """All of a large request, in the back room."""
        model, version = arguments
        parts = self._parts
        call = v2_json.read_call(
            model, version, body, json_bytes, limits=parts.limits, received_ns=received_ns
        )
        (outcome,) = answer_all(view, [call.ask], parts.observer)
        return _written(call, outcome)

    async def _live(self, _arguments: tuple[str, ...], _scope: Scope, _receive: Receive) -> _Reply:
        return _json({"live": True})

    async def _ready(self, _arguments: tuple[str, ...], _scope: Scope, _receive: Receive) -> _Reply:
        ready = self._parts.is_ready
        return _json({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _server(
        self, _arguments: tuple[str, ...], _scope: Scope, _receive: Receive
    ) -> _Reply:
        return _json(
            {"name": SERVER_NAME, "version": server_version(), "extensions": list(EXTENSIONS)}
        )

    async def _model(self, arguments: tuple[str, ...], _scope: Scope, _receive: Receive) -> _Reply:
        return _json(asdict(model_info(self._parts.repository, *arguments)))

    async def _model_ready(
        self, arguments: tuple[str, ...], _scope: Scope, _receive: Receive
    ) -> _Reply:
        info = model_info(self._parts.repository, *arguments)
        return _json({"name": info.name, "ready": True})

    async def _index(self, _arguments: tuple[str, ...], scope: Scope, receive: Receive) -> _Reply:
        body = await self._small_body(scope, receive)
        asked = v2_json.loads_object(body) if body.strip() else {}
        only_ready = asked.get("ready", False)
        if not isinstance(only_ready, bool):
            raise ContractError(Reason.MALFORMED, f"ready is {only_ready!r}; it may be a boolean")
        entries = await self._parts.back_room.call(lambda _: self._parts.repository.index())
        return _json([asdict(e) for e in entries if e.is_ready or not only_ready])

    async def _change(self, arguments: tuple[str, ...], scope: Scope, receive: Receive) -> _Reply:
        name, act = arguments
        body = await self._small_body(scope, receive)
        version = v2_json.version_parameter(body)
        repository = self._parts.repository
        change = repository.load if act == "load" else repository.unload
        await self._parts.back_room.call(lambda _: change(name, version))
        return _json({})

    async def _small_body(self, scope: Scope, receive: Receive) -> bytes:
        with Room(self._parts.budget) as room:
            return await _body(receive, dict(scope["headers"]), _SMALL_BODY_BYTES, room)

    async def _document(
        self, _arguments: tuple[str, ...], _scope: Scope, _receive: Receive
    ) -> _Reply:
        return _json(document(self._parts.limits))


def _holds_back(scope: Scope) -> bool:
    """Whether the client waits to be told to send the body; nobody knows then whether it will."""
    return any(name == b"expect" for name, _ in scope["headers"])


def _written(call: v2_json.Call, outcome: Outcome) -> _Reply:
    if not isinstance(outcome, Answer):
        raise outcome
    body, json_bytes = v2_json.write_answer(call, outcome)
    if json_bytes is None:
        return _Reply(body)
    length = ((_JSON_LENGTH, b"%d" % json_bytes),)
    return _Reply(body, content_type=v2_json.BINARY_TYPE, headers=length)


async def _body(
    receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int, room: Room
) -> bytes:
    """The whole body; one that is too large is refused at its header, or as soon as it is.

    Raises:
        ContractError: OVERSIZED.
        OverloadError: The requests of all clients take too much memory.
    """
    if (_number(headers, _LENGTH) or 0) > bytes_max:
        raise _oversized(bytes_max)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise _oversized(bytes_max)
        room.hold(size)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _oversized(bytes_max: int) -> ContractError:
    return ContractError(Reason.OVERSIZED, f"more than {bytes_max} bytes")


def _number(headers: Mapping[bytes, bytes], name: bytes) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise ContractError(Reason.MALFORMED, f"{name.decode()} is no number")
    return int(text)
