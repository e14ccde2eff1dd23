"""Models as the log has them: the first lineup, the next, and releases that cannot be used.

A bundle is loaded and run once before anything is scored with it, on a thread of its own while
the running models go on; the change itself is made between two polls and costs them nothing.
"""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from cloud.committer import Committer
from cloud.dead_letters import Refused, Undertaker
from cloud.remote.asking import NotReadyError
from cloud.remote.hold import GivenUpError
from cloud.scorer_parts import KnownModels, ScorerParts
from cloud.scorer_stats import StatsBoard
from cloud.scoring_step import Outcome
from cloud.settings import ScorerSettings
from schemas.errors import ContractError, TransientError
from schemas.records import encode_confluent
from schemas.topics import RELEASES
from scoring.arms import ArmedScorer
from scoring.bundle import Bundle
from scoring.lineup import BundleKey, Lineup, bundle_key
from scoring.scorer import BatchScorer, MakeScorer, RowScorer
from transport.releases import PARTITION, BrokenRelease, release_key

FIRST_WAIT_S = 0.25
"""Longest wait for a release while there is no model; bounds how late a stop is seen."""

CHECK_S = 0.5
"""Time between two looks for something new."""

NOT_READY_PAUSE_S = 1.0
"""Time before a model server is asked again whether it is ready for a release."""


class ModelIntake:
    """Follows the catalog, and writes a dead letter for each release that cannot be used.

    Args:
        settings: Of the scorer.
        parts: Schema ids and topics.
        known: What is known of models.
        committer: Writes the dead letters.
        board: Told the models in use.
        make_scorer: Makes the scorer of a bundle. `BatchScorer` is used on a thread of its own;
            any other is taken to belong to the caller's.
    """

    def __init__(
        self,
        settings: ScorerSettings,
        parts: ScorerParts,
        known: KnownModels,
        committer: Committer[Outcome],
        board: StatsBoard,
        *,
        make_scorer: MakeScorer = BatchScorer,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._known = known
        self._committer = committer
        self._board = board
        self._make_scorer = make_scorer
        self._aside = ThreadPoolExecutor(1, "scorer-warm-up")
        self._warming: list[tuple[Bundle, Future[RowScorer]]] = []
        self._ready: dict[BundleKey, RowScorer] = {}
        self._looked_s = 0.0
        self._retry_at_s: float | None = None
        self.undertaker = Undertaker(
            "scorer",
            settings.member_id,
            parts.ids.id_of(parts.topics.dead_letters),
            parts.topics.dead_letters.name,
        )

    @property
    def lineup(self) -> Lineup:
        """Who scores."""
        return self._known.running

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Waits for a bundle that is being loaded."""
        self._aside.shutdown()

    def first(self, stop: threading.Event) -> ArmedScorer | None:
        """A scorer of the first lineup that works; None when stopped before there is one.

        Raises:
            TransientError, FencedError: A dead letter could not be written.
        """
        while not stop.is_set():
            self._bury_broken()
            lineup = self._known.wanted()
            missing = self._missing(lineup)
            if missing:
                try:
                    self._warm_up(missing)
                except GivenUpError:
                    continue  # told to stop
                not_ready = self._collect()
                if not_ready:
                    self._board.state(f"waiting: {not_ready}")
                    stop.wait(NOT_READY_PAUSE_S)
                    self._known.look(0)
            elif lineup.lanes:
                return self._scorer(lineup)
            else:
                self._board.state("no model yet", remark="; ".join(lineup.remarks))
                self._known.look(FIRST_WAIT_S)
        return None

    def has_news(self) -> bool:
        """Whether there is something to take; looks at most every `CHECK_S`."""
        if self._warming:
            return all(future.done() for _, future in self._warming)
        now_s = time.monotonic()
        if now_s - self._looked_s < CHECK_S:
            return False
        self._looked_s = now_s
        is_due = self._retry_at_s is not None and now_s >= self._retry_at_s
        if is_due:
            self._retry_at_s = None
        return self._known.look(0) or is_due

    def wants_another(self) -> bool:
        """Whether news have come by which others should score than those in use.

        For a look while scoring waits for a model server: a version that was rolled back is
        waited for no longer. Then `has_news` is true at once.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < CHECK_S:
            return False
        self._looked_s = now_s
        if not self._known.look(0):
            return False
        self._looked_s, self._retry_at_s = 0.0, now_s
        return self._known.wanted() != self._known.running

    def take(self, scorer: ArmedScorer) -> bool:
        """Deal with what is new: score by another lineup from the next poll on, if it is ready.

        Returns:
            Whether the vehicles' state has to be rebuilt.

        Raises:
            TransientError, FencedError: A dead letter could not be written; what it is of waits.
        """
        self._bury_broken()
        not_ready = self._collect()
        if not_ready:
            self._retry_at_s = time.monotonic() + NOT_READY_PAUSE_S
            self._board.state(f"scoring; a release is waiting: {not_ready}")
            return False
        lineup = self._known.wanted()
        missing = self._missing(lineup)
        if missing:
            try:
                self._warm_up(missing)
            except GivenUpError:
                self._retry_at_s = time.monotonic()
                raise
            return False
        if not lineup.lanes:
            return False  # A shadow's experiment is over; whoever started it ends it.
        must_rebuild = scorer.take(lineup)
        self._use(lineup)
        self._board.state("scoring")
        return must_rebuild

    def bury(self, refused: Refused, error: ContractError) -> None:
        """Write a dead letter, in a transaction of its own."""
        lanes = self._known.running.lanes
        version = lanes[0].bundle.manifest.version if lanes else None
        now_ms = time.time_ns() // 1_000_000
        letter = self.undertaker.letter(refused, error, now_ms=now_ms, model_version=version)
        self._committer.write([letter])
        self._board.add(dead_letters=1)

    def _scorer(self, lineup: Lineup) -> ArmedScorer:
        scorer = ArmedScorer(
            lineup,
            max_vehicles=self._settings.max_vehicles,
            late_after_ms=round(self._settings.late_after_s * 1000),
            make_scorer=lambda bundle: self._ready[bundle_key(bundle)],
        )
        self._use(lineup)
        return scorer

    def _use(self, lineup: Lineup) -> None:
        """A lineup is in use; scorers of bundles that are not are let go."""
        self._known.running = lineup
        wanted = set(map(bundle_key, lineup.bundles))
        self._ready = {key: made for key, made in self._ready.items() if key in wanted}
        self._board.lineup(lineup)

    # Warm-up

    def _missing(self, lineup: Lineup) -> list[Bundle]:
        return [bundle for bundle in lineup.bundles if bundle_key(bundle) not in self._ready]

    def _warm_up(self, bundles: list[Bundle]) -> None:
        for bundle in bundles:
            if self._make_scorer is BatchScorer:
                self._warming.append((bundle, self._aside.submit(self._make_scorer, bundle)))
            else:
                self._warming.append((bundle, _called(self._make_scorer, bundle)))

    def _collect(self) -> str:
        """Take what was made ready, waiting for it if need be; bury what cannot be used.

        Returns:
            Why a model server is not ready for one of them; empty: none has to be asked again.
        """
        not_ready = ""
        while self._warming:
            bundle, future = self._warming[0]
            error = future.exception()
            if isinstance(error, ContractError):
                self.bury(self._refused_bundle(bundle), error)
                self._known.unusable.add(bundle_key(bundle))
            elif isinstance(error, TransientError):
                not_ready = str(error)
            else:
                self._ready[bundle_key(bundle)] = future.result()
            del self._warming[0]
        return not_ready

    # Dead letters

    def _bury_broken(self) -> None:
        broken = self._known.broken
        while broken:
            self.bury(_refused_release(broken[0]), broken[0].error)
            broken.popleft()

    def _refused_bundle(self, bundle: Bundle) -> Refused:
        """A release whose record was sound but whose model cannot be used."""
        manifest = bundle.manifest
        return Refused(
            topic=RELEASES.name,
            partition=PARTITION,
            offset=-1,
            key=release_key(manifest.name, manifest.version),
            headers=(),
            payload=encode_confluent(
                RELEASES.record, self._parts.ids.id_of(RELEASES), bundle.to_record()
            ),
        )


def _called(make_scorer: MakeScorer, bundle: Bundle) -> "Future[RowScorer]":
    """Makes a scorer here and now. Raises what is no fault of the bundle."""
    future: Future[RowScorer] = Future()
    try:
        future.set_result(make_scorer(bundle))
    except (ContractError, NotReadyError) as error:
        future.set_exception(error)
    return future


def _refused_release(release: BrokenRelease) -> Refused:
    return Refused(
        topic=release.topic,
        partition=PARTITION,
        offset=release.offset,
        key=release.key,
        headers=release.headers,
        payload=release.payload,
    )
