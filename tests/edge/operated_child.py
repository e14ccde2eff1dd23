"""`motorcade gateway run` with short times, and a disk that hangs while a file is there.

operated_child.py HANG_FILE ARGUMENTS...
"""

import sys
import time
from pathlib import Path

from edge import health_board, operations, pulse
from edge.spool.files import OsFile
from motorcade.cli import main

HANG_WITHIN_S = 1.0


def hang_while(file: Path) -> None:
    """Let whoever syncs hang in the call, with all locks held, as a dead card would have it."""
    inner = OsFile.sync

    def sync(self: OsFile) -> None:
        while file.exists():
            time.sleep(0.02)
        inner(self)

    OsFile.sync = sync  # type: ignore[method-assign]


if __name__ == "__main__":
    pulse.WITHIN_S["store"] = HANG_WITHIN_S
    health_board.WILL_DELAY_S = 1
    operations.STATUS_S = 0.5
    hang_while(Path(sys.argv[1]))
    main(sys.argv[2:])
