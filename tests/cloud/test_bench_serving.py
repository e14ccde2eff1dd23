"""The benchmark of the model server runs every case on our server, and counts right."""

from pathlib import Path

import pytest
from serving_models import rows, small

from cloud.bench_load import load
from cloud.bench_serving import (
    CASES,
    OURS,
    PEER,
    Measured,
    measure,
    our_server,
    ratios,
    result,
    table,
)
from cloud.bench_wire import GrpcWire, HttpWire
from schemas.errors import TransientError


def test_every_case_runs_on_our_server(tmp_path: Path) -> None:
    path = tmp_path / "small.motorcade"
    small().save(path)
    said: list[str] = []
    name = small().manifest.name
    with our_server(path, name) as target:
        measured = measure(
            [target], rows(64, missing=0.0), rounds=1, duration_s=0.05, on_progress=said.append
        )
        with pytest.raises(TransientError, match="400"):
            wire = HttpWire("/v2/models/other/infer", b'{"inputs": []}')
            load(target.port, [wire], warmup_s=0, duration_s=0)
        with pytest.raises(TransientError):
            load(target.grpc_port, [GrpcWire("/no/method", b"")], warmup_s=0, duration_s=0)
    assert len(measured) == len(said) == len(CASES)
    for row in measured:
        assert row.server == OURS
        assert row.requests_per_s > 0
        assert 0 < row.p50_ms <= row.p99_ms
        assert row.rows_per_s == pytest.approx(row.requests_per_s * row.rows, rel=0.01)
    assert len(table(result(measured)).splitlines()) == 1 + len(CASES)


def test_ratios_are_of_the_same_case() -> None:
    def one(server: str, connections: int, rate: float) -> Measured:
        return Measured(server, "REST", connections, 1, rate, rate, 1.0, 2.0)

    every = [one(OURS, 1, 300.0), one(OURS, 8, 500.0), one(PEER, 1, 100.0)]
    assert ratios(every) == {"REST, 1 connections, 1 rows": 3.0}
