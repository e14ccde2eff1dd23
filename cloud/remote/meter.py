"""Metrics of whoever asks a model server."""

import time

from cloud.remote.breaker import Breaker, BreakerState
from transport import metrics

ANSWERED = "ok"

_NUMBERS = {BreakerState.CLOSED: 0, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 2}


def asked(target: str, outcome: str, breaker: Breaker) -> None:
    """An attempt is through, and the breaker knows of it."""
    metrics.REMOTE_REQUESTS.add(target=target, outcome=outcome)
    state = breaker.state(time.monotonic())
    metrics.REMOTE_BREAKER.set(_NUMBERS[state], target=target)
    if outcome != ANSWERED:
        metrics.REMOTE_RETRIES.add(target=target)
