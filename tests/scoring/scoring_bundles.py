"""The small bundle that `data/make_small_bundle.py` makes."""

from functools import cache
from pathlib import Path

from scoring.bundle import Bundle

SMALL_PATH = Path(__file__).parent / "data" / "small.motorcade"


@cache
def small_bundle() -> Bundle:
    return Bundle.load(SMALL_PATH)


WINDOW_PATH = SMALL_PATH.with_name("small_window.motorcade")


@cache
def window_bundle() -> Bundle:
    """The small LSTM that `data/make_small_window_bundle.py` makes."""
    return Bundle.load(WINDOW_PATH)
