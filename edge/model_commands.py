"""Commands about models: as a gateway that runs answers them, and on the disk where none runs."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.control_client import NotRunningError, ask
from edge.health import Health
from edge.models import ModelStore
from edge.patience import Patience
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.updates import ModelUpdates, listing
from schemas.errors import ContractError, Reason

Arguments = dict[str, Any]
Handlers = Mapping[str, Callable[[Arguments], Arguments]]

LIST = "models"
INSTALL = "install-model"
ROLL_BACK = "rollback"

ANSWER_SPARE_S = 60.0
"""For the disk of a gateway, beside the time for this trial and for one that it is at just now."""


def model_commands(updates: ModelUpdates) -> Handlers:
    """What the control socket answers to: arguments in, result out, both JSON objects."""
    return {
        LIST: lambda _: listing(updates.index),
        INSTALL: lambda arguments: asdict(updates.install(_path_in(arguments))),
        ROLL_BACK: lambda _: asdict(updates.roll_back()),
    }


def list_models(settings: GatewaySettings) -> Arguments:
    """What models there are, from the gateway that runs, else from the disk.

    Raises:
        ContractError, TransientError: The index on the disk cannot be read.
    """
    try:
        return {"running": True, **ask(settings.control_path, LIST)}
    except NotRunningError:
        return {"running": False, **listing(ModelStore(settings.models_path).peek())}


def install_model(settings: GatewaySettings, path: Path, *, now_ms: Callable[[], int]) -> Arguments:
    """Have the gateway that runs install a file, or do it on the disk.

    Raises:
        ContractError: It is refused.
        SettingsError: There is no such file, or something else has spool or models open.
        TransientError: It could not be tried or kept.
    """
    absolute = path.absolute()
    try:
        return ask(
            settings.control_path,
            INSTALL,
            answer_s=ANSWER_SPARE_S + 2 * settings.trial_timeout_s,
            file=str(absolute),
        )
    except NotRunningError:
        with on_disk(settings, now_ms) as updates:
            return asdict(updates.install(absolute))


def roll_back(settings: GatewaySettings, *, now_ms: Callable[[], int]) -> Arguments:
    """Have the gateway that runs go back to the model before, or do it on the disk.

    Raises:
        MotorcadeError: There is none.
        ContractError, SettingsError, TransientError: As `install_model`.
    """
    try:
        return ask(settings.control_path, ROLL_BACK)
    except NotRunningError:
        with on_disk(settings, now_ms) as updates:
            return asdict(updates.roll_back())


@contextmanager
def on_disk(settings: GatewaySettings, now_ms: Callable[[], int]) -> Iterator[ModelUpdates]:
    """The models of a gateway that does not run; spool and models are locked meanwhile.

    Raises:
        SettingsError: Something has them open.
        TransientError: The disk refuses.
    """
    health = Health()
    impatient = threading.Event()
    impatient.set()  # Somebody waits before a screen: a disk that refuses is told at once.
    patience = Patience(impatient, health, random.Random())
    spool = Spool(settings.spool_path, now_ms=now_ms())
    updates = ModelUpdates(
        settings,
        ModelStore(settings.models_path),
        spool,
        patience=patience,
        health=health,
        now_ms=now_ms,
    )
    try:
        updates.start(lambda _: None)
        yield updates
    finally:
        updates.close()
        spool.close()


def _path_in(arguments: Arguments) -> Path:
    path = arguments.get("file")
    if not isinstance(path, str) or not path.startswith("/"):
        raise ContractError(Reason.MALFORMED, f"{INSTALL} wants an absolute path")
    return Path(path)
