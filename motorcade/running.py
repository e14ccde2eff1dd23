"""What every command that runs until it is told to stop needs: logs, progress, a stop event."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"

# The schema registry's client logs every request.
_CHATTY = ("httpx", "httpx2")


def log_to_stderr(level: int = logging.INFO, *, bounds: logging.Filter | None = None) -> None:
    """Log lines in UTC on standard error; standard output is for what was asked.

    Args:
        level: From which on.
        bounds: Lets through what may be written, of whatever module or library.
    """
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    if bounds is not None:
        handler.addFilter(bounds)
    logging.basicConfig(level=level, handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def emit(record: Mapping[str, Any]) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
