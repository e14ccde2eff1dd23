"""Real files whose operations fail on demand."""

from pathlib import Path

from disk_faults import Faults, failure

from edge.spool.files import OS_FILES, File, Lock, OsFile


class FaultingFiles:
    """The disk of this machine, some operations of which are not done and fail.

    Args:
        faults: Which.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def pass_or_fail(self, verb: str, path: Path) -> None:
        """Raise if this operation is to fail."""
        fault = self.faults(verb, path)
        if fault is not None:
            raise failure(fault, path)

    def lock(self, path: Path) -> Lock:
        """See `edge.spool.files.Files`."""
        self.pass_or_fail("lock", path)
        return OS_FILES.lock(path)

    def make_directory(self, path: Path) -> None:
        """See `edge.spool.files.Files`."""
        self.pass_or_fail("make_directory", path)
        OS_FILES.make_directory(path)

    def names(self, directory: Path) -> list[str]:
        """See `edge.spool.files.Files`."""
        return OS_FILES.names(directory)

    def create(self, path: Path) -> File:
        """See `edge.spool.files.Files`."""
        self.pass_or_fail("create", path)
        return _FaultingFile(self, path, OS_FILES.create(path))

    def replace(self, source: Path, target: Path) -> None:
        """See `edge.spool.files.Files`."""
        self.pass_or_fail("replace", target)
        OS_FILES.replace(source, target)

    def remove(self, path: Path) -> None:
        """See `edge.spool.files.Files`."""
        self.pass_or_fail("remove", path)
        OS_FILES.remove(path)

    def sync_directory(self, path: Path) -> None:
        """See `edge.spool.files.Files`."""
        self.pass_or_fail("sync_directory", path)
        OS_FILES.sync_directory(path)

    def size(self, path: Path) -> int:
        """See `edge.spool.files.Files`."""
        return OS_FILES.size(path)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """See `edge.spool.files.Files`."""
        return OS_FILES.read(path, offset, length)

    def free_bytes(self, directory: Path) -> int:
        """See `edge.spool.files.Files`."""
        return OS_FILES.free_bytes(directory)


class _FaultingFile:
    def __init__(self, files: FaultingFiles, path: Path, file: OsFile) -> None:
        self._files = files
        self._path = path
        self._file = file

    def append(self, data: bytes) -> None:
        fault = self._files.faults("append", self._path)
        if fault is not None:
            self._file.append(data[: int(len(data) * fault.share)])
            raise failure(fault, self._path)
        self._file.append(data)

    def sync(self) -> None:
        self._files.pass_or_fail("sync", self._path)
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class RealDisk:
    """A directory of this machine as the disk of a course; nothing is recorded.

    Args:
        root: An empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: tuple[()] = ()

    def files(self, faults: Faults) -> FaultingFiles:
        """For the next program."""
        return FaultingFiles(faults)
