"""How long to wait before trying again: a pure function, so that a test can draw every case."""

import random


def backoff_s(attempt: int, *, minimum_s: float, maximum_s: float, rng: random.Random) -> float:
    """Seconds to wait before the next attempt: doubling, bounded, with jitter.

    The wait is drawn from the upper half of the doubled span, so that a fleet that lost its
    broker at one moment does not come back at one moment, and nobody comes back at once.

    Args:
        attempt: Failures so far, 0 for the first wait.
        minimum_s: Least wait in seconds, > 0.
        maximum_s: Greatest wait in seconds, >= `minimum_s`.
        rng: Source of the jitter.

    Returns:
        Seconds between `minimum_s` and `maximum_s`.

    Example:
        >>> backoff_s(0, minimum_s=1.0, maximum_s=120.0, rng=random.Random(1))
        1.0
        >>> 60 <= backoff_s(30, minimum_s=1.0, maximum_s=120.0, rng=random.Random(1)) <= 120
        True
    """
    span_s = min(maximum_s, minimum_s * 2.0 ** min(attempt, 60))
    return max(minimum_s, rng.uniform(span_s / 2.0, span_s))


def full_jitter_s(attempt: int, *, minimum_s: float, maximum_s: float, rng: random.Random) -> float:
    """As `backoff_s`, drawn from the whole span: for many clients that ask one server again.

    Args:
        attempt: Failures so far, 0 for the first wait.
        minimum_s: Span of the first wait in seconds, > 0.
        maximum_s: Greatest wait in seconds, >= `minimum_s`.
        rng: Source of the jitter.

    Returns:
        Seconds between 0 and `maximum_s`.

    Example:
        >>> 0 <= full_jitter_s(2, minimum_s=0.1, maximum_s=10.0, rng=random.Random(1)) <= 0.4
        True
    """
    return rng.uniform(0.0, min(maximum_s, minimum_s * 2.0 ** min(attempt, 60)))
