"""Cut the power of the spool at many points, and look whether it kept its promises.

    make crash-test ARGS="--points 10000"
    make crash-test ARGS="--points 10000 --seed 7 --point 4711"

The last line counts the promises that were broken; any makes the exit status 1. See
docs/power-cut.md.
"""

import argparse
import secrets
import sys
from collections.abc import Sequence

from crash_points import RECORDINGS, CrashPoints
from spool_promise import Wrong
from spool_shapes import SHAPES, small_spools

FAILURES_TOLD = 5


def main(arguments: Sequence[str]) -> int:
    """Run the points that are asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="crash-test", description=__doc__)
    parser.add_argument("--points", type=int, default=1_000, help="crash points (1000)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--point", type=int, default=None, help="this one alone")
    wanted = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if wanted.seed is None else wanted.seed
    print(f"seed {seed}", flush=True)
    points = range(wanted.points) if wanted.point is None else range(wanted.point, wanted.point + 1)
    with small_spools():
        crashes = CrashPoints(seed, SHAPES)
        print(f"{crashes.operations} places in {RECORDINGS} recordings", flush=True)
        crashes.run(points)
    for failure in crashes.failures[:FAILURES_TOLD]:
        print("\n".join(failure.told()))
    lost, repeated = crashes.count(Wrong.LOST), crashes.count(Wrong.REPEATED)
    print(f"{len(points)} crash points, lost {lost}, repeated {repeated}, seed {seed}")
    return 1 if lost or repeated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
