"""Rows as people write them, and what `motorcade request` says of wrong ones."""

import numpy as np
import pytest

from motorcade import cli, feature_rows
from motorcade.feature_rows import matrix, row_of_json, rows_of_csv
from schemas.errors import ContractError, Reason


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"speed": "fast"}', '{"speed": true}', '{"speed": [1]}']
)
def test_what_is_no_row_is_refused(text: str) -> None:
    with pytest.raises(ContractError) as caught:
        row_of_json(text)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("lines", [[], ["a,a", "1,2"], ["a,b", "1"], ["a,b", "1,x"], ["a", '"1']])
def test_what_is_no_table_is_refused(lines: list[str]) -> None:
    with pytest.raises(ContractError) as caught:
        rows_of_csv(lines)
    assert caught.value.reason is Reason.MALFORMED


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_rows, "ROWS_MAX", 2)
    assert len(rows_of_csv(["a", "1", "2"])) == 2
    with pytest.raises(ContractError) as caught:
        rows_of_csv(["a", "1", "2", "3"])
    assert caught.value.reason is Reason.OVERSIZED


def test_rows_follow_the_order_of_the_model() -> None:
    rows = rows_of_csv(["maf,speed", "4.5,50", ",60"])
    expected = np.array([[50, 4.5], [60, np.nan]], np.float32)
    np.testing.assert_array_equal(matrix(rows, ["speed", "maf"]), expected)
    with pytest.raises(ContractError) as caught:
        matrix([{"sped": 1.0}], ["speed", "maf"])
    assert caught.value.reason is Reason.MODEL_FEATURES


@pytest.mark.parametrize("arguments", [["anomaly"], ["anomaly", "--features", "{}", "--rows", "-"]])
def test_one_source_of_rows_is_wanted(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["request", *arguments]) == 2
    assert "either --features or --rows" in capsys.readouterr().err
