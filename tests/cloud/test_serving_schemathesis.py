"""Schemathesis over the REST door, by the door's own OpenAPI document, finds nothing."""

import subprocess
import sys
from pathlib import Path

from serving_models import catalog_of, release
from serving_server import running

# Names that are there, so that what is behind them is reached. A server whose models were unloaded
# is not ready, and a deadline of microseconds passes: both are documented; a status of 500 is not.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]

[parameters]
name = "anomaly"
version = "1"
"""

# JSON Schema cannot say that there must be as many data as the shape says, so a request that is
# valid by the schema alone may be refused.
BEYOND_THE_SCHEMA = "positive_data_acceptance"


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    with running(catalog_of(release("1"), release("2"))) as server:
        assert server.get("/v2/docs/openapi.json").json["openapi"] == "3.1.0"
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                f"--config-file={config}",
                "run",
                f"http://127.0.0.1:{server.port}/v2/docs/openapi.json",
                "--max-examples=10",
                "--seed=1",
                "--checks=all",
                f"--exclude-checks={BEYOND_THE_SCHEMA}",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=tmp_path,
        )
        assert server.get("/v2/health/live").status == 200
    assert done.returncode == 0, done.stdout + done.stderr
    assert "generated" in done.stdout
