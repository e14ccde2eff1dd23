"""Models on the disk of a gateway: the one in use, its predecessor, one on trial, and an index.

Each release lies in a file named by its hash, and `models.json` says which is what. A step is: the
file is on the disk, whole; then the index that names it takes the old one's place in one rename.
So after a power cut at any moment the index names whole models, and a file that it does not name
is nothing but space, given back at the next start.
"""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.model_index import Index, Kept
from schemas.errors import ContractError, Reason, SettingsError, TransientError
from scoring.bundle import FILE_SUFFIX, Bundle
from scoring.whole_file import write_whole

INDEX = "models.json"
LOCK = "models.lock"
STAGED_SUFFIX = ".staged"
REFUSED_SUFFIX = ".refused"
INDEX_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is no usable model, and where it now lies."""

    path: Path
    error: ContractError


class ModelStore:
    """A directory that holds at most three models; each file is whole or not there.

    One process at a time may `open` it; `peek` needs no right to write. Not for use by two
    threads at once.

    Args:
        directory: Made when it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None
        self._index = Index()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """Where the models lie."""
        return self._directory

    @property
    def index(self) -> Index:
        """What is on the disk."""
        return self._index

    def open(self) -> list[Refused]:
        """Lock the directory and read the index; returns what is unusable and was moved aside.

        Without an index, as an earlier release of this program left it, the newest sound model is
        the current one.

        Raises:
            SettingsError: Another process has it open.
            TransientError: It cannot be read or written.
        """
        refused: list[Refused] = []
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            try:
                self._index = self._read_index() or self._adopted(refused)
            except ContractError as error:
                damaged = self._directory / INDEX
                refused.append(Refused(damaged.replace(f"{damaged}{REFUSED_SUFFIX}"), error))
                self._index = self._adopted(refused)
            self._clean()
        except OSError as error:
            self.close()
            raise _transient(self._directory, error) from error
        except BaseException:
            self.close()
            raise
        return refused

    def close(self) -> None:
        """Let others open it. Harmless when repeated."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def peek(self) -> Index:
        """The index as it is on the disk, also while a gateway has it open.

        Raises:
            ContractError: It is damaged.
            TransientError: It cannot be read.
        """
        try:
            return self._read_index() or Index()
        except OSError as error:
            raise _transient(self._directory, error) from error

    def read(self, kept: Kept) -> Bundle:
        """A release that the index names.

        Raises:
            ContractError: Its file is damaged.
            TransientError: It cannot be read.
        """
        try:
            return Bundle.load(self.path_of(kept))
        except OSError as error:
            raise _transient(self._directory, error) from error

    def load(self) -> tuple[Bundle | None, list[Refused]]:
        """The newest sound model; unsound files are moved aside, never deleted.

        Raises:
            TransientError: The directory cannot be read or written.
        """
        refused: list[Refused] = []
        while (kept := self._index.current) is not None:
            try:
                return self._sound(kept), refused
            except ContractError as error:
                refused.append(Refused(self._moved_aside(self.path_of(kept)), error))
            self.change(Index.without_current)
        return None, refused

    def _sound(self, kept: Kept) -> Bundle:
        """As `read`; what was lost is as unusable as what is damaged."""
        if not self.path_of(kept).exists():
            raise ContractError(Reason.MODEL_INVALID, f"the file of {kept.version} is gone")
        return self.read(kept)

    def _moved_aside(self, path: Path) -> Path:
        try:
            return path.replace(f"{path}{REFUSED_SUFFIX}") if path.exists() else path
        except OSError as error:
            raise _transient(self._directory, error) from error

    def install(self, bundle: Bundle, *, source: str = "put there by hand") -> None:
        """Make a release the current one, untried; opens the store for it where it is not open.

        Raises:
            SettingsError: Another process has it open.
            TransientError: The disk refuses; the models of before are still there.
        """
        if self._lock is None:
            with self:
                self.install(bundle, source=source)
            return
        kept = kept_of(bundle, signer="", source=source, now_ms=bundle.manifest.created_time_ms)
        self.stage(bundle, kept)
        self.swap(kept)

    def stage(self, bundle: Bundle, kept: Kept) -> Path:
        """Put a release on the disk to be tried; returns its file.

        Raises:
            TransientError: The disk refuses; the models of before are still there.
        """
        path = self._directory / f"{kept.release}{STAGED_SUFFIX}"
        try:
            bundle.save(path)
        except OSError as error:
            raise _transient(self._directory, error) from error
        self.change(lambda index: index.trying(kept))
        return path

    def swap(self, kept: Kept, change: Callable[[Index], Index] = lambda index: index) -> None:
        """Make a staged release the current one, and with it any further change, in one step.

        Raises:
            TransientError: The disk refuses; the models of before are still there.
        """
        staged = self._directory / f"{kept.release}{STAGED_SUFFIX}"
        try:
            staged.replace(self.path_of(kept))
        except OSError as error:
            raise _transient(self._directory, error) from error
        self.change(lambda index: change(index.swapped(kept)))

    def change(self, change: Callable[[Index], Index]) -> None:
        """Take the index one step on; what it does not name any more is deleted.

        Raises:
            TransientError: The disk refuses; the index of before counts.
        """
        after = change(self._index)
        if after == self._index:
            return
        try:
            write_whole(self._directory / INDEX, after.to_json().encode())
            self._index = after
            self._clean()
        except OSError as error:
            raise _transient(self._directory, error) from error

    def path_of(self, kept: Kept) -> Path:
        """Where a release lies."""
        return self._directory / f"{kept.release}{FILE_SUFFIX}"

    def _take_lock(self) -> None:
        self._lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"models_path: {self._directory} is in use by another gateway or command"
            ) from error

    def _read_index(self) -> Index | None:
        path = self._directory / INDEX
        try:
            with path.open("rb") as file:
                content = file.read(INDEX_BYTES_MAX)
        except FileNotFoundError:
            return None
        return Index.from_json(content.decode("utf-8", errors="replace"))

    def _adopted(self, refused: list[Refused]) -> Index:
        """An index of the sound files that are there, the newest one current."""
        paths = self._directory.glob(f"*{FILE_SUFFIX}")
        found: list[Kept] = []
        for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:2]:
            try:
                bundle = Bundle.load(path)
            except ContractError as error:
                refused.append(Refused(path.replace(f"{path}{REFUSED_SUFFIX}"), error))
                continue
            kept = kept_of(bundle, signer="", source="found on the disk", now_ms=_mtime_ms(path))
            path.replace(self.path_of(kept))
            found.append(kept)
        current, previous = (*found, None, None)[:2]
        index = Index()
        self._index = index
        if current is not None:
            self.change(lambda _: Index(current=current, previous=previous))
        return self._index

    def _clean(self) -> None:
        """Delete what the index does not name; a release on trial is there while it is tried."""
        index = self._index
        named = {self.path_of(kept).name for kept in (index.current, index.previous) if kept}
        if index.staged is not None:
            named.add(f"{index.staged.release}{STAGED_SUFFIX}")
        for suffix in (FILE_SUFFIX, STAGED_SUFFIX, ".part"):
            for path in self._directory.glob(f"*{suffix}"):
                if path.name not in named:
                    path.unlink(missing_ok=True)


def kept_of(bundle: Bundle, *, signer: str, source: str, now_ms: int) -> Kept:
    """What the index says of a release."""
    manifest = bundle.manifest
    return Kept(
        name=manifest.name,
        version=manifest.version,
        release=bundle.release_sha256,
        model_sha256=manifest.model_sha256,
        signer=signer,
        source=source,
        since_ms=now_ms,
    )


def _mtime_ms(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000


def _transient(directory: Path, error: OSError) -> TransientError:
    return TransientError(f"models in {directory}: {error}")
