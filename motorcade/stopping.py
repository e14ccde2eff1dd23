"""Turn signals into a stop event, so that loops end between two batches."""

import signal
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or the first Ctrl-C sets; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop


def reload_on_hangup() -> threading.Event:
    """An event that each SIGHUP sets; whoever reloads clears it."""
    asked = threading.Event()
    signal.signal(signal.SIGHUP, lambda _number, _frame: asked.set())
    return asked


def interrupt_on_terminate() -> None:
    """Let SIGTERM end a command the way Ctrl-C does, so that `with` blocks clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # A shell that starts a job in the background has it ignore Ctrl-C; the demo must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
