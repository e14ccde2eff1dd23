"""What is put into a release before it goes out: its bounds, and who vouches for it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from schemas.errors import SettingsError
from scoring.bounds import Bounds
from scoring.bundle import Bundle

Command = Callable[..., Any]

_KEY = click.option(
    "--sign-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Sign the release with this private key (`motorcade keys new`).",
)
_ALERTS_MAX = click.option(
    "--alerts-max",
    type=float,
    help="Bound: a gateway goes back from it at more alerts for each vehicle and hour.",
)
_ALERTS_MIN = click.option("--alerts-min", type=float, help="Bound: the same at fewer.")
_READING_MS_MAX = click.option(
    "--reading-ms-max",
    type=float,
    help="Bound: the same where a reading takes more milliseconds to score.",
)


@dataclass(frozen=True, slots=True)
class Finish:
    """What is asked for.

    Attributes:
        sign_key: Private key; None: the signature stays as it is.
        bounds: Those that were given; None: they stay as they are.
    """

    sign_key: Path | None
    bounds: dict[str, float]

    def of(self, bundle: Bundle) -> Bundle:
        """The release as it goes out.

        Raises:
            SettingsError: The key cannot be used, or what was signed would be changed without one.
            ContractError: MODEL_INVALID: bounds that cannot be.
        """
        manifest = bundle.manifest
        if self.bounds:
            if manifest.signature is not None and self.sign_key is None:
                raise SettingsError(
                    "other bounds make the release's signature void; sign it anew with --sign-key"
                )
            bounds = replace(manifest.bounds or Bounds(), **self.bounds)
            manifest = replace(manifest, bounds=bounds)
        if self.sign_key is not None:
            from scoring.signing import SigningKey

            manifest = SigningKey.load(self.sign_key).sign(manifest)
        return replace(bundle, manifest=manifest)


def with_finish(function: Command) -> Command:
    """Give a command the options, and call it with a `Finish` as `finish`."""

    @functools.wraps(function)
    def command(
        *arguments: Any,
        sign_key: Path | None,
        alerts_max: float | None,
        alerts_min: float | None,
        reading_ms_max: float | None,
        **parameters: Any,
    ) -> Any:
        given = {
            "alerts_per_vehicle_hour_max": alerts_max,
            "alerts_per_vehicle_hour_min": alerts_min,
            "reading_ms_max": reading_ms_max,
        }
        bounds = {name: value for name, value in given.items() if value is not None}
        return function(*arguments, finish=Finish(sign_key, bounds), **parameters)

    decorated: Command = _KEY(_ALERTS_MAX(_ALERTS_MIN(_READING_MS_MAX(command))))
    return decorated
