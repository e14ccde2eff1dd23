"""Scores rows by asking a model server; the same port, and the same bits, as `BatchScorer`.

Two kinds of server, told apart by what they say of the model. Ours takes features and gives
scores; what the network made of the rows comes along where an alert has to be explained. Another
one hosts the bare network: then the rows are normalised here and the scores computed here.

A large matrix is cut into requests of bounded size, a few of which are under way at once.

Every answer is checked: shape, type, version and SHA-256 where the server states them. A server
that hosts the bare network and is addressed without a version could change it unseen, so each
request to it ends with a row whose answer is known. Scores are
NaN where fewer than half of the features are present, and nowhere else unless the network itself
gives NaN; so a NaN that is not due is asked again `DOUBTS_MAX` times, and counts then, as it
would in this process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cloud.remote.asking import Answer, Ask, Face, NotReadyError, cut, face_of, wrong_answer
from cloud.remote.patience import PatientAsker
from schemas.errors import ContractError, TransientError
from scoring.alerts import LeadingSignal
from scoring.bundle import Bundle
from scoring.manifest import Manifest
from scoring.scorer import ERROR_CLIP, BatchScorer, ScoreMath

DOUBTS_MAX = 2
"""Times that a NaN which is not due is asked again."""

PROBE_ROWS = 3
"""Rows that a server has to answer as this process does before its model is used."""

PROBE_TOLERANCE = 1e-3
"""Other runtimes round otherwise; another network is further off. Relative, and absolute."""

SCORE_MAX = ERROR_CLIP * ERROR_CLIP * (1 + 1e-5)

Matrix = NDArray[np.float32]

T = TypeVar("T")


class RemoteScorer:
    """Scores feature rows with one bundle at a model server.

    C is the number of columns (`Manifest.columns`). Not for use by two threads at once. Several
    may share one `PatientAsker`.

    Args:
        bundle: Verified here; its network also runs here, on the few rows of a probe.
        patient: Started; asks the server.
        model: Name of the model at the server.
        with_version: Whether requests name the exact version.

    Raises:
        ContractError: The bundle cannot be used, as with `BatchScorer`.
        NotReadyError: The server cannot serve this bundle yet, or has another under its name.
        GivenUpError: The hold says that nobody waits any more.
    """

    def __init__(
        self, bundle: Bundle, patient: PatientAsker, *, model: str, with_version: bool = True
    ) -> None:
        local = BatchScorer(bundle)
        self._bundle = bundle
        self._math = ScoreMath(bundle.manifest)
        self._patient = patient
        self._model = model
        self._version = bundle.manifest.version if with_version else ""
        self._known: _KnownRow | None = None
        try:
            self._face = self._found_face()
            self._probe(local)
        except ContractError as error:
            raise NotReadyError(self._not_ready(error.detail)) from error

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._bundle

    def score(self, features: Matrix) -> Matrix:
        """As `BatchScorer.score`; waits for the server for as long as it takes.

        Raises:
            ContractError: MODEL_FEATURES: not C columns.
            SettingsError: The server has refused rows for too long.
            GivenUpError: Nobody waits any more.
        """
        self._math.check(features)
        if self._face.score is None:
            return self._by_network(features)[0]
        return self._ask(features, _Wanted(score=self._face.score))[0]

    def explain(self, features: Matrix, *, top: int = 3) -> list[tuple[LeadingSignal, ...]]:
        """As `BatchScorer.explain`. Raises as `score`."""
        self._math.check(features)
        return self._math.leading(features, self._score_and_reconstruct(features)[1], top=top)

    def _score_and_reconstruct(self, features: Matrix) -> tuple[Matrix, Matrix]:
        """Scores (R,), and what the network made of the rows, normalised (R, C)."""
        if self._face.score is None:
            return self._by_network(features)
        return self._ask(features, _Wanted(self._face.score, self._face.reconstruction))

    def _by_network(self, features: Matrix) -> tuple[Matrix, Matrix]:
        with np.errstate(over="ignore", invalid="ignore"):
            inputs, present = self._math.normalised(features)
            _, outputs = self._ask(inputs, _Wanted(network=self._face.reconstruction))
            return self._math.scores(inputs, present, outputs), outputs

    def _ask(self, rows: Matrix, wanted: "_Wanted") -> tuple[Matrix, Matrix]:
        """Scores and matrices of all rows; what is not wanted is empty."""
        rows = np.ascontiguousarray(rows, np.float32)
        pieces = cut(len(rows), 4 * self._math.columns, self._patient.asker.request_bytes)
        parts = [rows[piece.start : piece.stop] for piece in pieces]
        if self._known is not None:
            parts = [np.concatenate([part, self._known.row]) for part in parts]
        asks = [self._question(part, wanted) for part in parts]
        checker = _Checker(self._bundle.manifest, wanted, known=self._known)
        answers = self._patient.ask_all(asks, checker.check)
        scores = [wanted.scores_of(answer) for answer in answers]
        matrices = [wanted.matrix_of(answer) for answer in answers]
        if self._known is not None:
            matrices = [matrix[:-1] for matrix in matrices]
        return _joined(scores, (0,)), _joined(matrices, (0, self._math.columns))

    def _question(self, rows: Matrix, wanted: "_Wanted") -> Ask:
        shaped = rows.reshape(len(rows), *self._face.row) if self._face.row else rows
        return Ask(self._model, self._version, self._face.input, shaped, wanted.names)

    # Before a bundle is used

    def _found_face(self) -> Face:
        asker = self._patient.asker
        described = self._once(lambda: asker.describe(self._model, self._version))
        manifest = self._bundle.manifest
        return face_of(described, len(manifest.features), window=manifest.window)

    def _once(self, call: Callable[[], T]) -> T:
        """Asks once; whatever stands in the way means that the server is not ready."""

        def asked() -> T:
            try:
                return call()
            except (TransientError, ContractError) as error:
                raise NotReadyError(self._not_ready(str(error))) from error

        return self._patient.once(asked)

    def _not_ready(self, detail: str) -> str:
        manifest = self._bundle.manifest
        return (
            f"model server {self._patient.asker.address} does not serve {self._model} "
            f"{manifest.version} yet: {detail}"
        )

    def _probe(self, local: BatchScorer) -> None:
        """Ask for a few rows once. Raises ContractError where the answer is of another model."""
        rows = _probe_rows(self._bundle.manifest)
        wanted = _Wanted(self._face.score, self._face.reconstruction)
        given = rows
        if self._face.score is None:
            given, _ = self._math.normalised(rows)
            wanted = _Wanted(network=self._face.reconstruction)
        ask = self._question(given, wanted)
        answer = self._once(lambda: self._patient.asker.ask(ask))
        _Checker(self._bundle.manifest, wanted, doubts_max=0).check(ask, answer)
        expected = local.score_and_reconstruct(rows)[1]
        _check_close(wanted.matrix_of(answer), expected)
        if self._face.score is None and not self._version:
            self._known = _KnownRow(given[:1], expected[:1])


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Outputs wanted of a request; None: not.

    Attributes:
        score: Output of our server with the scores.
        reconstruction: Output of our server with what the network made of the rows.
        network: Output of a foreign server's network; empty: its only one.
    """

    score: str | None = None
    reconstruction: str | None = None
    network: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.score, self.reconstruction, self.network) if name)

    def scores_of(self, answer: Answer) -> Matrix:
        """Shape (R,), or (0,) where none are wanted."""
        return _NO_SCORES if self.score is None else answer.outputs[self.score].reshape(-1)

    def matrix_of(self, answer: Answer) -> Matrix:
        """Shape (R, C), or (0,) where none is wanted."""
        made = self.made_of(answer)
        return made if made.ndim < 3 else made.reshape(len(made), -1)

    def made_of(self, answer: Answer) -> Matrix:
        """The same in the shape in which it came."""
        name = self.reconstruction if self.network is None else self.network
        if name is None:
            return _NO_SCORES
        return answer.outputs[name] if name else next(iter(answer.outputs.values()))


_NO_SCORES = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class _KnownRow:
    """A normalised row and what the network makes of it. Both of shape (1, C)."""

    row: Matrix
    answer: Matrix


@dataclass(slots=True)
class _Checker:
    """Tells answers that fit their questions from others."""

    manifest: Manifest
    wanted: _Wanted
    doubts_max: int = DOUBTS_MAX
    known: _KnownRow | None = None
    doubts: dict[int, int] = field(default_factory=dict)

    def check(self, ask: Ask, answer: Answer) -> None:
        """Raises ContractError WRONG_SHAPE: not an answer of this model to this question."""
        self._check_model(ask, answer)
        missing = [name for name in ask.outputs if name not in answer.outputs]
        if missing or (not ask.outputs and len(answer.outputs) != 1):
            raise wrong_answer(f"it answers with {', '.join(answer.outputs) or 'nothing'}")
        if self.wanted.score is not None:
            scores = _of_shape(answer.outputs[self.wanted.score], (len(ask.rows),))
            self._check_scores(ask, scores)
        made = self.wanted.made_of(answer)
        if made is not _NO_SCORES:
            _of_shape(made, ask.rows.shape)
        matrix = self.wanted.matrix_of(answer)
        if self.wanted.network is not None:
            self._doubt(ask, not np.isfinite(matrix).all())
        if self.known is not None:
            _check_close(matrix[-1:], self.known.answer)

    def _check_model(self, ask: Ask, answer: Answer) -> None:
        if ask.version and answer.version and answer.version != ask.version:
            raise wrong_answer(f"it answers with version {answer.version}, not {ask.version}")
        if answer.sha256 and answer.sha256 != self.manifest.model_sha256:
            raise wrong_answer(f"it answers with the model of SHA-256 {answer.sha256}")

    def _check_scores(self, ask: Ask, scores: Matrix) -> None:
        absent = np.isnan(scores)
        if not ((scores >= 0) & (scores <= SCORE_MAX) | absent).all():
            raise wrong_answer(f"a score is outside 0 .. {ERROR_CLIP * ERROR_CLIP:g}")
        if absent.any():
            present = np.count_nonzero(~np.isnan(ask.rows), axis=1)
            self._doubt(ask, bool((absent & (2 * present >= ask.rows.shape[1])).any()))

    def _doubt(self, ask: Ask, doubtful: bool) -> None:
        """Raises for NaN that is not due, the first times."""
        if doubtful and self.doubts.get(id(ask), 0) < self.doubts_max:
            self.doubts[id(ask)] = self.doubts.get(id(ask), 0) + 1
            raise wrong_answer("it answers NaN where a number is due")


def _of_shape(array: Matrix, shape: tuple[int, ...]) -> Matrix:
    """The array; a column may stand for a vector. Raises ContractError WRONG_SHAPE."""
    column = (*shape, 1) if len(shape) == 1 else shape
    if array.dtype != np.float32 or array.shape not in (shape, column):
        raise wrong_answer(f"it answers {array.dtype} {list(array.shape)}, not FP32 {list(shape)}")
    shaped: Matrix = array.reshape(shape)
    return shaped


def _check_close(found: Matrix, expected: Matrix) -> None:
    """Raises ContractError WRONG_SHAPE where another network has answered."""
    if not np.allclose(found, expected, PROBE_TOLERANCE, PROBE_TOLERANCE, equal_nan=True):
        raise wrong_answer("it answers rows whose answer is known as another network would")


def _joined(parts: list[Matrix], empty: tuple[int, ...]) -> Matrix:
    """The parts as one array; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    joined: Matrix = np.concatenate(parts) if parts else np.empty(empty, np.float32)
    return joined


def _probe_rows(manifest: Manifest) -> Matrix:
    """Rows about the training mean, in the units of the manifest. Shape (PROBE_ROWS, C)."""
    mean = np.tile(np.array(manifest.mean), manifest.window)
    scale = np.tile(np.array(manifest.scale), manifest.window)
    noise = np.random.default_rng(0).standard_normal((PROBE_ROWS, len(mean)))
    rows: Matrix = (mean + scale * noise).astype(np.float32)
    return rows
