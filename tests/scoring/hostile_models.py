"""Run in a child process: damaged models must be refused or work, and never end the process."""

import random
import sys
from pathlib import Path

from schemas.errors import ContractError
from scoring.bundle import Bundle
from scoring.flatbuffer import check_tflite
from scoring.interpreter import TfliteModel


def damaged(model: bytes, dice: random.Random) -> bytes:
    kind = dice.random()
    if kind < 0.1:
        return model[: dice.randrange(len(model))]
    if kind < 0.2:
        return model[:8] + dice.randbytes(dice.randrange(2000))
    out = bytearray(model)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        # Structure stands at both ends, weights between.
        at = dice.choice([dice.randrange(300), dice.randrange(850, len(out))])
        out[at] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])
    return bytes(out)


def main(path: str, seed: int, models: int) -> None:
    bundle = Bundle.load(Path(path))
    width = len(bundle.manifest.features)
    dice = random.Random(seed)
    refused = 0
    for _ in range(models):
        model = damaged(bundle.model, dice)
        try:
            check_tflite(model)
            TfliteModel(model, n_inputs=width, n_outputs=width)
        except ContractError:
            refused += 1
    print(refused)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
