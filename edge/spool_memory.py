"""Which spools a gateway has used, so that a changed `spool_path` leaves nothing behind unseen.

A small file beside the directory of the models. A spool is in it until it is known to be empty.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from edge.spool import Spool, SpoolError
from schemas.errors import SettingsError, TransientError
from scoring.whole_file import write_whole

FILE_NAME = "spools.json"
PATHS_MAX = 32
"""Spools remembered at most; beyond it the one that was used longest ago is forgotten."""


class SpoolMemory:
    """The spools that may hold what is not in Kafka.

    Args:
        models_path: Of the gateway; the file lies beside it, on the same disk.
    """

    def __init__(self, models_path: Path) -> None:
        self._file = models_path.absolute().parent / FILE_NAME

    def paths(self) -> list[Path]:
        """Spools that were used, the last one at the end; none where the file cannot be read.

        Raises:
            TransientError: The file is there and cannot be read.
        """
        try:
            found = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise TransientError(f"{self._file}: {error}") from error
        return [Path(path) for path in found.get("spools", [])]

    def remember(self, spool_path: Path) -> None:
        """Note that it is used from now on. Raises TransientError where the disk refuses."""
        path = spool_path.absolute()
        known = self.paths()
        if known[-1:] != [path]:
            self._write([*(each for each in known if each != path), path][-PATHS_MAX:])

    def forget(self, spool_path: Path) -> None:
        """Note that it is empty. Raises TransientError where the disk refuses."""
        known = self.paths()
        if (path := spool_path.absolute()) in known:
            self._write([each for each in known if each != path])

    def _write(self, paths: Iterable[Path]) -> None:
        """Replace the file as a whole."""
        text = json.dumps({"spools": [str(path) for path in paths]})
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, text.encode())
        except OSError as error:
            raise TransientError(f"{self._file}: {error}") from error


def unsent_in(path: Path, *, now_ms: int, gateway_id: str) -> int | None:
    """Records of a spool that are not known to be in Kafka; None where that is not to be known.

    A spool that is not there, say because its disk is not mounted, or that another gateway has
    open, is none to judge here.
    """
    if not path.exists():
        return None
    try:
        spool = Spool(path, now_ms=now_ms, gateway_id=gateway_id)
    except (SpoolError, SettingsError):
        return None
    try:
        return spool.depth()
    finally:
        spool.close()


def leave_none_behind(
    memory: SpoolMemory, spool_path: Path, *, now_ms: int, gateway_id: str
) -> list[str]:
    """Before a start: no spool of before may hold what is not in Kafka. Forgets empty ones.

    Args:
        memory: The spools of before.
        spool_path: The one to use now.
        now_ms: Wall time.
        gateway_id: Written into gap records, should one of them be damaged.

    Returns:
        What could not be looked at, in words.

    Raises:
        SettingsError: One holds records, with what to do about it.
        TransientError: The memory cannot be read or written.
    """
    untold = []
    for path in memory.paths():
        if path == spool_path.absolute():
            continue
        unsent = unsent_in(path, now_ms=now_ms, gateway_id=gateway_id)
        if unsent is None:
            untold.append(f"the former spool {path} cannot be looked at; what it holds waits there")
        elif unsent:
            raise SettingsError(
                f"spool_path is now {spool_path}, but {path} holds {unsent} records that are "
                "not in Kafka; forward them by `motorcade gateway drain --spool-path "
                f"{path}`, or put spool_path back"
            )
        else:
            memory.forget(path)
    return untold
