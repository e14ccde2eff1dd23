"""`motorcade request`: ask the model server once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.feature_rows import Row, matrix, row_of_json, rows_of_csv
from motorcade.options import with_settings
from motorcade.running import emit
from schemas.errors import SettingsError
from scoring.catalog import ModelRef
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from transport.kafka_models import Answer

_STDIN = "-"


@click.command(
    cls=ExampleCommand,
    example='motorcade request anomaly --features \'{"speed": 50, "engine_speed": 2100}\'\n'
    "motorcade request anomaly@challenger --rows drive.csv",
    short_help="Ask the model server for scores, over Kafka.",
)
@click.argument("model")
@click.option("--features", help="One row as a JSON object; a feature left out is absent.")
@click.option("--rows", help="Rows as a CSV file with a head of features; - : standard input.")
@click.option("--vehicle", default="", help="Whose arm applies where MODEL is a name alone.")
@click.option("--timeout-s", default=30.0, show_default=True, help="Longest wait for the scores.")
@click.option("--reconstruction", is_flag=True, help="Also what the network made of the rows.")
@with_settings(None, "kafka")
def command(config: Config, model: str, features: str | None, rows: str | None, **how: Any) -> None:
    """Have rows scored by MODEL: NAME, NAME@VERSION or NAME@ALIAS.

    NAME alone is what the traffic of the model says for the vehicle. Prints one JSON object:
    version, arm, and a score a row, null where the model could not score it. `motorcade models
    show` tells what the features are called. For a windowed model the rows are readings of one
    vehicle in order, and each is shown with those before it.
    """
    if (features is None) == (rows is None):
        raise click.UsageError("give either --features or --rows")
    ref = ModelRef.parse(model)
    table = [row_of_json(features)] if features is not None else _read(rows or _STDIN)
    kafka = config.section(KafkaSettings)
    with needs("cloud"):
        from cloud.model_desk import find
        from scoring.windows import of_drive
        from transport.kafka_models import KafkaModelClient

        manifest = find(kafka, ref).bundle.manifest
        asked = of_drive(matrix(table, manifest.feature_names), manifest.window)
        with KafkaModelClient(kafka) as client:
            answer = client.score(
                asked,
                model=ref.name,
                version=ref.selector if "@" in model else "",
                vehicle_id=how["vehicle"].encode(),
                reconstruction=how["reconstruction"],
                deadline_s=how["timeout_s"],
            )
    emit(_said(ref.name, answer))


def _read(path: str) -> list[Row]:
    if path == _STDIN:
        return rows_of_csv(sys.stdin)
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return rows_of_csv(file)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error


def _said(name: str, answer: "Answer") -> dict[str, Any]:
    said: dict[str, Any] = {
        "model": name,
        "version": answer.version,
        "arm": answer.arm,
        "sha256": answer.sha256,
        "scores": _plain(answer.scores.tolist()),
    }
    if answer.reconstruction is not None:
        said["reconstruction"] = [_plain(row) for row in answer.reconstruction.tolist()]
    return said


def _plain(numbers: list[float]) -> list[float | None]:
    """NaN, which JSON does not have, as null."""
    return [None if number != number else number for number in numbers]  # noqa: PLR0124
