"""The spool under test in several shapes, so small that all that can happen to it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from spool_driver import OpenSpool

from edge.spool import Spool, SpoolLimits, ledger
from edge.spool import spool as spool_module
from edge.spool.files import Files

ROOMY = 1 << 40
NOW_MS = 1_700_000_000_000


@contextmanager
def small_spools() -> Iterator[None]:
    """Let identities be saved and snapshots be due after a few records, not after thousands."""
    with (
        mock.patch.object(spool_module, "CHECKPOINT_MESSAGES", 25),
        mock.patch.object(ledger, "SNAPSHOT_LOG_BYTES", 2_000),
    ):
        yield


def shape(limits: SpoolLimits | None) -> OpenSpool:
    """Opens a spool with such limits; None: a full disk refuses, and nothing goes."""

    def open_spool(files: Files, root: Path) -> Spool:
        return Spool(root / "gateway" / "spool", now_ms=NOW_MS, files=files, limits=limits)

    return open_spool


SHAPES = (
    shape(SpoolLimits(ROOMY, segment_bytes=600, reserve_bytes=0)),
    shape(SpoolLimits(ROOMY, segment_bytes=5_000, reserve_bytes=0)),
    shape(SpoolLimits(12_000, segment_bytes=700, reserve_bytes=0)),
    shape(SpoolLimits(ROOMY, segment_bytes=1_000, reserve_bytes=2_000)),
)

UNLIMITED = shape(None)
