"""Scores saved rows with a saved model, to compare machines.

    python -m deploy.score_rows MODEL ROWS OUT

MODEL is a `.motorcade` file, ROWS an `.npy` of shape (N, F) in the model's features, OUT takes the
scores, shape (N,).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scoring.bundle import Bundle
from scoring.scorer import BatchScorer


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit status."""
    model, rows, out = sys.argv[1:] if arguments is None else arguments
    scorer = BatchScorer(Bundle.load(Path(model)))
    np.save(out, scorer.score(np.load(rows).astype(np.float32)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
