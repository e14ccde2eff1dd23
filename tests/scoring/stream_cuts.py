"""A stream given to a scorer in one poll or in many."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from scoring_columns import EPOCH_MS, Message, columns_of

from scoring.alerts import Transition
from scoring.stream import Scored, StreamScorer


def process(scorer: StreamScorer, messages: Sequence[Message], *, replay: bool = False) -> Scored:
    return scorer.process(columns_of(messages, scorer.signals), now_ms=EPOCH_MS, replay=replay)


def in_cuts(
    scorer: StreamScorer, messages: Sequence[Message], cuts: Sequence[int]
) -> tuple[bytes, list[Transition]]:
    """Bits of all scores, and transitions with the message counted over all polls."""
    edges = sorted({0, len(messages), *(cut % (len(messages) + 1) for cut in cuts)})
    scores: list[bytes] = []
    transitions: list[Transition] = []
    for a, b in pairwise(edges):
        scored = process(scorer, messages[a:b])
        scores.append(scored.scores.tobytes())
        transitions += [replace(t, message=t.message + a) for t in scored.transitions]
    return b"".join(scores), sorted(transitions, key=lambda t: (t.message, t.reading_index))
