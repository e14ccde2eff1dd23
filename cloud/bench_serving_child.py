"""The model server's side of `motorcade bench serving`, in a process of its own.

`python -m cloud.bench_serving_child BUNDLE` says as a line of JSON where it listens, and ends when
its input does.
"""

import sys
import threading
from pathlib import Path
from typing import Any

from cloud.serving.repository import ModelRepository
from cloud.serving.server import serve
from cloud.serving.v2_json import dumps
from cloud.settings import ServerSettings
from scoring.bundle import Bundle
from scoring.catalog import Catalog


def main(path: str) -> None:
    """Serve one bundle over RPC until standard input ends."""
    repository = ModelRepository()
    repository.update(Catalog().with_release(Bundle.load(Path(path))))
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, name="stdin", daemon=True).start()
    serve(ServerSettings(port=0, grpc_port=0), repository, stop=stop, on_listening=_tell)


def _tell(where: dict[str, Any]) -> None:
    sys.stdout.write(dumps(where).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
