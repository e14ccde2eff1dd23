"""Standard drive cycles as speed over time, and routes strung together from them.

The cycles stand in `data`, speed in m/s at 1 s, under the Apache licence of
`data/drive_cycles.LICENSE`.
"""

from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

CYCLES: dict[str, str] = {
    "UDDS": "udds.csv",
    "HWFET": "hwfet.csv",
    "US06": "us06.csv",
    "WLTC3b": "wltc_3b.csv",
    "FTP": "ftpmc1b.csv",  # for motorcycles of class I-b: slower than the one for cars
}

MPS_TO_KMH = 3.6
ROUTE_S = 7_200
# The recorded drivers are calmer than its 3.8 m/s2.
_US06_LEFT_OUT = 0.6


@cache
def cycle(name: str) -> NDArray[np.float32]:
    """Speed of one cycle at 1 s. Shape (T,), km/h, starts and ends at 0.

    Raises:
        KeyError: No such cycle; `CYCLES` names them.
    """
    file = resources.files("simulator").joinpath("data", CYCLES[name])
    lines = file.read_text("utf-8-sig").splitlines()
    column = lines[0].split(",").index("cycMps")
    speed_mps = np.array([float(line.split(",")[column]) for line in lines[1:] if line])
    return (speed_mps * MPS_TO_KMH).astype(np.float32)


def routes(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Seeded routes: each a different order of all cycles, with halts between.

    Args:
        count: How many.
        rng: Draws order and halts.

    Returns:
        Speed at 1 s. Shape (count, ROUTE_S), km/h. A route may be driven round and round.
    """
    return np.stack([_route(rng) for _ in range(count)])


def _route(rng: np.random.Generator) -> NDArray[np.float32]:
    parts: list[NDArray[np.float32]] = []
    length_s = 0
    names = list(CYCLES)
    while length_s < ROUTE_S:
        for name in rng.permutation(names):
            if name == "US06" and rng.random() < _US06_LEFT_OUT:
                continue
            halt = np.zeros(int(rng.integers(5, 60)), np.float32)
            parts += [cycle(str(name)), halt]
            length_s += parts[-1].size + parts[-2].size
    route = np.concatenate(parts)[:ROUTE_S]
    # The end meets the beginning at rest.
    ramp = np.linspace(1.0, 0.0, 30, dtype=np.float32)
    route[-30:] *= ramp
    return route
