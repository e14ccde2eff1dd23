"""Models on the disk of a gateway: the installed one and its predecessor, for offline starts."""

from dataclasses import dataclass
from pathlib import Path

from edge.spool.files import OS_FILES
from schemas.errors import ContractError, TransientError
from scoring.bundle import Bundle

CURRENT = "current.motorcade"
PREVIOUS = "previous.motorcade"
REFUSED_SUFFIX = ".refused"


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is no usable model, and where it now lies."""

    path: Path
    error: ContractError


class ModelStore:
    """A directory that holds at most two models; each file is whole or not there.

    Args:
        directory: Made when it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> tuple[Bundle | None, list[Refused]]:
        """The newest sound model; unsound files are moved aside, never deleted.

        Raises:
            TransientError: The directory cannot be read or written.
        """
        refused: list[Refused] = []
        try:
            for name in (CURRENT, PREVIOUS):
                path = self._directory / name
                if not path.exists():
                    continue
                try:
                    return Bundle.load(path), refused
                except ContractError as error:
                    refused.append(Refused(path.replace(f"{path}{REFUSED_SUFFIX}"), error))
        except OSError as error:
            raise TransientError(f"models in {self._directory}: {error}") from error
        return None, refused

    def install(self, bundle: Bundle) -> None:
        """Put a model on the disk as the current one; the one before becomes the previous.

        Raises:
            TransientError: The disk refuses; the models of before are still there.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            arriving = self._directory / "arriving.motorcade"
            bundle.save(arriving)
            current = self._directory / CURRENT
            if current.exists():
                current.replace(self._directory / PREVIOUS)
            arriving.replace(current)
            OS_FILES.sync_directory(self._directory)
        except OSError as error:
            raise TransientError(f"models in {self._directory}: {error}") from error
