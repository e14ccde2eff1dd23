"""`motorcade gateway run` with short times, and a disk that hangs while a file is there.

operated_child.py HANG_FILE ARGUMENTS...
"""

import sys
import time
from pathlib import Path
from typing import Any

from edge import health_board, operations, pulse
from edge.spool import Spool
from motorcade.cli import main

HANG_WITHIN_S = 1.0


def hang_while(file: Path) -> None:
    """Let whoever stores hang in the call, as a dead card would have it."""
    inner = Spool.store

    def store(self: Spool, *args: Any, **kwargs: Any) -> None:
        while file.exists():
            time.sleep(0.02)
        inner(self, *args, **kwargs)

    Spool.store = store  # type: ignore[method-assign]


if __name__ == "__main__":
    pulse.WITHIN_S["store"] = HANG_WITHIN_S
    health_board.WILL_DELAY_S = 1
    operations.STATUS_S = 0.5
    hang_while(Path(sys.argv[1]))
    main(sys.argv[2:])
