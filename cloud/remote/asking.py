"""What is asked of a model server and what it answers, whatever the protocol. No I/O."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ContractError, Reason, TransientError

FEATURES = "features"
SCORE = "score"
RECONSTRUCTION = "reconstruction"
"""Names of our own server's tensors."""

FP32 = "FP32"


class NotReadyError(TransientError):
    """A server cannot serve this model yet: it does not know it, loads it, or holds another.

    The scorer that is in use goes on; where there is none, the server is asked again.
    """


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as a server describes it.

    Attributes:
        name: As requests name it.
        datatype: 'FP32', ...
        shape: -1 where any size goes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """What a server says of a model; both empty where it says nothing of its tensors."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        model: Name of the model.
        version: Exact version; empty: whichever the server holds.
        input: Name of the input.
        rows: Contiguous. Shape (R, C), or (R, window, F) where a server wants it so.
        outputs: Names of the outputs wanted; empty: whatever there is.
    """

    model: str
    version: str
    input: str
    rows: NDArray[np.float32]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        version: That scored; empty where the server does not say.
        outputs: By name, as the server shaped them; read only.
        sha256: Of the model's bytes, 64 hex digits; empty where the server does not say.
    """

    version: str
    outputs: Mapping[str, NDArray[np.float32]]
    sha256: str = ""


class Asker(Protocol):
    """A connection to one model server. Safe for `in_flight` threads at once.

    Attributes:
        address: For people.
        in_flight: Requests under way at most.
        timeout_s: Longest wait for one answer; then it is a TransientError.
    """

    address: str
    in_flight: int
    timeout_s: float

    @property
    def request_bytes(self) -> int:
        """Largest matrix of one request; known once the model was described."""

    def start(self) -> None:
        """Get ready; does not talk to the server yet. Raises SettingsError."""

    def close(self) -> None:
        """Drop the connection; requests under way fail. Harmless when repeated."""

    def describe(self, model: str, version: str) -> Described:
        """What the server says of a model.

        Raises:
            NotReadyError: It does not know it, or has not loaded it yet.
            TransientError: No answer in time.
            ContractError: An answer that is none.
        """

    def ask(self, ask: Ask) -> Answer:
        """Ask once.

        Raises:
            NotReadyError: As `describe`.
            TransientError: No answer in time, or the server is in trouble.
            ContractError: The server refuses the request, or its answer is none.
        """


@dataclass(frozen=True, slots=True)
class Face:
    """How a model is to be asked.

    Attributes:
        input: Name of the input.
        score: Output that holds scores; None: the server hosts the bare network.
        reconstruction: Output that holds what the network made of the rows; empty: the only one.
        row: Shape of a row where it is not flat: (window, F).
    """

    input: str
    score: str | None
    reconstruction: str
    row: tuple[int, ...] = ()


OURS = Face(FEATURES, SCORE, RECONSTRUCTION)


def face_of(described: Described, n_features: int, *, window: int = 1) -> Face:
    """Whether a server scores, as ours does, or hosts the bare network.

    Ours takes windows as flat rows; a bare network takes them so or as (window, F). A server that
    says nothing of its tensors is taken for one that hosts the network; the answers are checked
    anyway.

    Raises:
        ContractError: MODEL_FEATURES: neither, or of another number of features.

    Example:
        >>> row = Tensor("x", "FP32", (-1, 5))
        >>> face_of(Described((row,), (Tensor("y", "FP32", (-1, 5)),)), 5)
        Face(input='x', score=None, reconstruction='y', row=())
    """
    inputs, outputs = described.inputs, described.outputs
    flat = (window * n_features,)
    shapes = [flat] if window == 1 else [flat, (window, n_features)]
    if not inputs and not outputs:
        return Face(FEATURES, None, "", _deep(shapes[-1]))
    if _scores(inputs, outputs, flat):
        return OURS
    if len(inputs) == len(outputs) == 1:
        there, back = inputs[0], outputs[0]
        for row in shapes:
            if _holds(there, row) and _holds(back, row):
                return Face(there.name, None, back.name, _deep(row))
    wanted = " or ".join(str([-1, *row]) for row in shapes)
    raise ContractError(
        Reason.MODEL_FEATURES,
        f"it takes {_listed(inputs)} and gives {_listed(outputs)}; wanted is one FP32 input and "
        f"one FP32 output of shape {wanted}, or those of `motorcade serve`",
    )


def _deep(row: tuple[int, ...]) -> tuple[int, ...]:
    return row if len(row) > 1 else ()


def _scores(inputs: Sequence[Tensor], outputs: Sequence[Tensor], row: tuple[int, ...]) -> bool:
    """Whether these are our server's tensors, for rows of that shape; it may have more of them."""
    takes = {each.name: each for each in inputs}
    gives = {each.name for each in outputs}
    return FEATURES in takes and _holds(takes[FEATURES], row) and {SCORE, RECONSTRUCTION} <= gives


def _holds(tensor: Tensor, row: tuple[int, ...]) -> bool:
    """Whether it holds any number of rows of that shape."""
    return (
        tensor.datatype == FP32
        and len(tensor.shape) == 1 + len(row)
        and tensor.shape[0] < 1
        and all(size in (-1, wanted) for size, wanted in zip(tensor.shape[1:], row, strict=True))
    )


def _listed(tensors: Sequence[Tensor]) -> str:
    named = (f"{t.name} {t.datatype} {list(t.shape)}" for t in tensors)
    return ", ".join(named) or "nothing"


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `start` to `stop` of a matrix."""

    start: int
    stop: int


REQUEST_ROWS_MAX = 16_000
"""Four of them fit into what our server lets wait by default."""


def cut(rows: int, row_bytes: int, request_bytes: int) -> list[Piece]:
    """Pieces of at most `request_bytes` and `REQUEST_ROWS_MAX`, all about as large.

    A piece has at least one row.

    Example:
        >>> cut(5, 10, 20)
        [Piece(start=0, stop=1), Piece(start=1, stop=3), Piece(start=3, stop=5)]
    """
    if not rows:
        return []
    most = max(1, min(REQUEST_ROWS_MAX, request_bytes // row_bytes))
    count = -(-rows // most)
    edges = [rows * i // count for i in range(count + 1)]
    return [Piece(a, b) for a, b in itertools.pairwise(edges)]


def wrong_answer(detail: str) -> ContractError:
    """An answer that does not fit its question."""
    return ContractError(Reason.WRONG_SHAPE, detail)


def shaped(name: str, numbers: NDArray[np.float32], shape: Iterable[int]) -> NDArray[np.float32]:
    """Numbers in the shape that is stated. Raises ContractError where they are not so many."""
    wanted = tuple(shape)
    try:
        return numbers.reshape(wanted)
    except (ValueError, OverflowError) as error:
        raise wrong_answer(
            f"output {name} has {numbers.size} numbers, not {list(wanted)}"
        ) from error
