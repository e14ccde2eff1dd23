"""A schema registry for one machine: `python -m deploy.registry --port 8081 --file FILE`.

Speaks the Confluent REST interface over HTTP/1.1 on the loopback, so that Kafka clients of any
language read Motorcade's topics. Limits: bodies of `BODY_BYTES_MAX`; `CONNECTIONS_MAX` connections
at once, further ones wait to be accepted; a connection idle for `IDLE_S` is closed.
"""

import argparse
import json
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

from deploy.ports import LOOPBACK
from deploy.registry_api import RegistryApi
from deploy.registry_rules import Fault, RegistryError
from deploy.registry_store import SchemaStore

BODY_BYTES_MAX = 1 << 20
CONNECTIONS_MAX = 64
IDLE_S = 30

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryServer(ThreadingHTTPServer):
    """Serves a registry on the loopback.

    Args:
        port: Port to listen on; 0 for any free one.
        api: What answers.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, port: int, api: RegistryApi) -> None:
        self.api = api
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((LOOPBACK, port), RegistryHandler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, once one of the places for them is free."""
        self._free.acquire()
        try:
            return super().get_request()
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(
        self,
        request: socket.socket | tuple[bytes, socket.socket],
        client_address: tuple[str, int] | str,
    ) -> None:
        """Serve a connection to its end, then give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class RegistryHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    # Head and body leave in one packet, or a client's delayed acknowledgement costs 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: RegistryServer

    def _serve(self) -> None:
        try:
            answer = self.server.api.answer(self.command, self.path, self._body())
        except RegistryError as error:
            self._send(error.status, {"error_code": error.code, "message": str(error)})
        else:
            self._send(HTTPStatus.OK, answer)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - names by http.server

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        # What is not read would be taken for the next request, so the connection ends.
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.close_connection = True
            raise RegistryError(Fault.NO_LENGTH)
        if int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise RegistryError(Fault.TOO_LARGE, BODY_BYTES_MAX)
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, answer: object) -> None:
        body = json.dumps(answer).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name by http.server
        """Log nothing of a request that was served or refused: the client was told."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m deploy.registry", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True)
    given = parser.parse_args(arguments)

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    store = SchemaStore(given.file)
    with RegistryServer(given.port, RegistryApi(store)) as server:
        try:
            server.serve_forever()
        finally:
            store.close()


if __name__ == "__main__":
    main()
