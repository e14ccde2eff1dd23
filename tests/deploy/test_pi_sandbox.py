"""The TFLite runtime needs no memory that is written and then run, which the unit refuses it."""

import subprocess
import sys

import pytest
from pi_files import SYSTEMD

from deploy.wheelhouse import CHECKOUT

# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN, of Linux 6.3: what MemoryDenyWriteExecute= asks for.
CHILD = """
import ctypes, mmap, sys
import numpy as np
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit(77)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    sys.exit("memory that is written and run was given")
except PermissionError:
    pass
from pathlib import Path
from scoring.bundle import Bundle
from scoring.scorer import BatchScorer
for name in ("small", "small_window"):
    bundle = Bundle.load(Path(f"tests/scoring/data/{name}.motorcade"))
    columns = bundle.manifest.window * len(bundle.manifest.features)
    assert np.isfinite(BatchScorer(bundle).score(np.zeros((700, columns), np.float32))).all()
"""


def test_models_run_without_memory_that_is_written_and_run() -> None:
    assert "MemoryDenyWriteExecute=yes" in (SYSTEMD / "motorcade-gateway.service").read_text(
        "utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode == 77:
        pytest.skip("not here: a kernel before 6.3 cannot refuse such memory")
    assert done.returncode == 0, done.stderr
