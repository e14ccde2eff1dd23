"""Models and their traffic in a folder, so that a server starts without Kafka.

One file for each version and `catalog.json`, which says which of them count, in the order of the
log, and what `model.traffic` said. Each file is whole or not there; the catalog is written after
the models that it names, and models that it no longer names go last.
"""

import json
import logging
import os
from pathlib import Path

from schemas.errors import ContractError, TransientError
from scoring.bundle import FILE_SUFFIX, Bundle
from scoring.catalog import Catalog
from scoring.manifest import Manifest
from scoring.traffic import Traffic

CATALOG = "catalog.json"
REFUSED_SUFFIX = ".refused"

_log = logging.getLogger("motorcade.serve")


class ModelFolder:
    """A folder that one server keeps; not for use by two threads at once.

    Args:
        directory: Made when it is missing. As large as the catalog, which its follower bounds.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: dict[str, Manifest] = {}

    def load(self) -> Catalog:
        """The catalog that was kept; empty where there is none.

        A file that is no sound model is moved aside, never deleted, and said in the log.

        Raises:
            TransientError: The folder cannot be read.
        """
        try:
            path = self._directory / CATALOG
            if not path.is_file():
                return Catalog()
            try:
                return self._read(json.loads(path.read_bytes()))
            except (ValueError, KeyError, TypeError, ContractError) as error:
                self._set_aside(path, error)
                return Catalog()
        except OSError as error:
            raise TransientError(f"models in {self._directory}: {error}") from error

    def keep(self, catalog: Catalog) -> None:
        """Keep a catalog in place of the one before.

        Raises:
            TransientError: The disk refuses; what was kept before still is.
        """
        bundles = {
            _file_name(bundle): bundle
            for name in catalog.names()
            for bundle in catalog.releases[name].values()
        }
        content = {
            "releases": list(bundles),
            "traffics": [traffic.to_record() for traffic in catalog.traffics.values()],
        }
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for file_name, bundle in bundles.items():
                if self._kept.get(file_name) != bundle.manifest:
                    bundle.save(self._directory / file_name)
            _write(self._directory / CATALOG, json.dumps(content).encode())
            for path in self._directory.glob(f"*{FILE_SUFFIX}"):
                if path.name not in bundles:
                    path.unlink()
        except OSError as error:
            raise TransientError(f"models in {self._directory}: {error}") from error
        self._kept = {file_name: bundle.manifest for file_name, bundle in bundles.items()}

    def _read(self, content: dict[str, list[object]]) -> Catalog:
        catalog = Catalog()
        for record in content["traffics"]:
            if not isinstance(record, dict):
                raise TypeError(f"traffic is {record!r}")
            catalog = catalog.with_traffic(Traffic.from_record(record))
        for file_name in content["releases"]:
            path = self._directory / Path(str(file_name)).name
            if not path.is_file():
                continue
            try:
                bundle = Bundle.load(path)
            except ContractError as error:
                self._set_aside(path, error)
                continue
            self._kept[path.name] = bundle.manifest
            catalog = catalog.with_release(bundle)
        return catalog

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.replace(f"{path}{REFUSED_SUFFIX}")
        _log.warning("%s cannot be used and is now %s: %s", path.name, aside.name, error)


def _file_name(bundle: Bundle) -> str:
    # Neither part holds an @.
    return f"{bundle.manifest.name}@{bundle.manifest.version}{FILE_SUFFIX}"


def _write(path: Path, content: bytes) -> None:
    """Write one file, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
