"""Rows of features as people write them: a JSON object, or CSV with a head. Pure."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason

Row = Mapping[str, float]

ROWS_MAX = 1_000_000
"""Rows that are read; more are OVERSIZED."""


def row_of_json(text: str) -> Row:
    """One row: feature to number; null is absent.

    Raises:
        ContractError: MALFORMED: no such object.

    Example:
        >>> row_of_json('{"speed": 50, "maf": null}')
        {'speed': 50.0, 'maf': nan}
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"features: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise _malformed("features: no JSON object")
    return {name: _number(name, value) for name, value in found.items()}


def rows_of_csv(lines: Iterable[str]) -> list[Row]:
    """Rows under a head of feature names; an empty cell is absent.

    Raises:
        ContractError: MALFORMED: no head, a row of another length, or a cell that is no number;
            OVERSIZED: more than `ROWS_MAX`.

    Example:
        >>> rows_of_csv(["speed,maf", "50,", "60,4.5"])
        [{'speed': 50.0, 'maf': nan}, {'speed': 60.0, 'maf': 4.5}]
    """
    found = list(islice(_csv_rows(csv.reader(lines, strict=True)), ROWS_MAX + 1))
    if len(found) > ROWS_MAX:
        raise ContractError(Reason.OVERSIZED, f"more than {ROWS_MAX} rows")
    return found


def _csv_rows(reader: Iterator[Sequence[str]]) -> Iterator[Row]:
    try:
        head = [name.strip() for name in next(reader, [])]
        if not head or len(set(head)) != len(head):
            raise _malformed("rows: the first line must name each feature once")
        for number, cells in enumerate(reader, 2):
            if len(cells) != len(head):
                raise _malformed(f"rows: line {number} has {len(cells)} cells, not {len(head)}")
            yield {name: _number(name, cell) for name, cell in zip(head, cells, strict=True)}
    except csv.Error as error:
        raise _malformed(f"rows: no CSV: {error}") from error


def matrix(rows: Sequence[Row], features: Sequence[str]) -> NDArray[np.float32]:
    """Rows in the order of a model's features; NaN where absent. Shape (R, F).

    Raises:
        ContractError: MODEL_FEATURES: a name that the model does not take.

    Example:
        >>> matrix([{"maf": 4.5}], ["speed", "maf"]).tolist()
        [[nan, 4.5]]
    """
    unknown = {name for row in rows for name in row} - set(features)
    if unknown:
        raise ContractError(
            Reason.MODEL_FEATURES,
            f"the model does not take {', '.join(sorted(unknown))}; it takes {', '.join(features)}",
        )
    values = [[row.get(name, math.nan) for name in features] for row in rows]
    return np.array(values, np.float32).reshape(len(rows), len(features))


def _number(name: str, value: object) -> float:
    if value is None or value == "":
        return math.nan
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float, str)):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise _malformed(f"{name}: {value!r} is no number")


def _malformed(detail: str) -> ContractError:
    return ContractError(Reason.MALFORMED, detail)
