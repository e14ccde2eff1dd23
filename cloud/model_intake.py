"""Models as they are released: the first, the next, and those that cannot be used."""

import threading
import time

from cloud.committer import Committer
from cloud.dead_letters import Refused, Undertaker
from cloud.scorer_parts import PendingReleases, ScorerParts
from cloud.scorer_stats import StatsBoard
from cloud.settings import ScorerSettings
from schemas.errors import ContractError
from schemas.records import encode_confluent
from schemas.topics import RELEASES
from scoring.bundle import Bundle
from scoring.stream import StreamScorer
from transport.releases import PARTITION, BrokenRelease, Release, release_key

FIRST_WAIT_S = 0.25
"""Longest wait for a release while there is no model; bounds how late a stop is seen."""

CHECK_S = 0.5
"""Time between two looks for a new model."""


class ModelIntake:
    """Takes releases in, and writes a dead letter for each that cannot be used.

    Args:
        settings: Of the scorer.
        parts: Schema ids and topics.
        releases: Where models come from.
        committer: Writes the dead letters.
        board: Told the model in use.
        bundle: Model of the connection before; None: wait for one.

    Attributes:
        bundle: The newest model that works; None before the first.
    """

    def __init__(
        self,
        settings: ScorerSettings,
        parts: ScorerParts,
        releases: PendingReleases,
        committer: Committer,
        board: StatsBoard,
        *,
        bundle: Bundle | None,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._committer = committer
        self._board = board
        self._releases = releases
        self._looked_s = 0.0
        self.bundle = bundle
        self.undertaker = Undertaker(
            "scorer",
            settings.member_id,
            parts.ids.id_of(parts.topics.dead_letters),
            parts.topics.dead_letters.name,
        )

    def first(self, stop: threading.Event) -> StreamScorer | None:
        """A scorer with the first model that works; None when stopped before there is one.

        Raises:
            TransientError, FencedError: A dead letter could not be written.
        """
        if self.bundle is not None:
            return self._scorer(self.bundle)
        self._board.state("no model yet")
        while not stop.is_set():
            release = self._releases.next(FIRST_WAIT_S)
            scorer = None if release is None else self._try(release)
            if release is not None:
                self._releases.done()
            if scorer is not None:
                return scorer
        return None

    def has_news(self) -> bool:
        """Whether a release came; looks at most every `CHECK_S`."""
        now_s = time.monotonic()
        if now_s - self._looked_s < CHECK_S:
            return False
        self._looked_s = now_s
        return self._releases.next(0) is not None

    def take(self, scorer: StreamScorer) -> bool:
        """Deal with one release: score with it from the next poll on, if it can be used.

        Returns:
            Whether the vehicles' state has to be rebuilt.

        Raises:
            TransientError, FencedError: A dead letter could not be written; the release waits.
        """
        self._looked_s = 0.0  # There may be more of them.
        release = self._releases.next(0)
        if release is None:
            return False
        must_rebuild = self._swap(scorer, release)
        self._releases.done()
        return must_rebuild

    def _swap(self, scorer: StreamScorer, release: Release) -> bool:
        if isinstance(release, BrokenRelease):
            self.bury(_refused_release(release), release.error)
            return False
        try:
            dropped = scorer.swap(release)
        except ContractError as error:
            self.bury(self._refused_bundle(release), error)
            return False
        self.bundle = release
        self._board.state("scoring", release.manifest.version)
        return dropped

    def bury(self, refused: Refused, error: ContractError) -> None:
        """Write a dead letter, in a transaction of its own."""
        version = self.bundle.manifest.version if self.bundle else None
        now_ms = time.time_ns() // 1_000_000
        letter = self.undertaker.letter(refused, error, now_ms=now_ms, model_version=version)
        self._committer.write([letter])
        self._board.add(dead_letters=1)

    def _try(self, release: Release) -> StreamScorer | None:
        if isinstance(release, BrokenRelease):
            self.bury(_refused_release(release), release.error)
            return None
        try:
            return self._scorer(release)
        except ContractError as error:
            self.bury(self._refused_bundle(release), error)
            return None

    def _scorer(self, bundle: Bundle) -> StreamScorer:
        scorer = StreamScorer(
            bundle,
            max_vehicles=self._settings.max_vehicles,
            late_after_ms=round(self._settings.late_after_s * 1000),
        )
        self.bundle = bundle
        return scorer

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


def _refused_release(release: BrokenRelease) -> Refused:
    return Refused(
        topic=RELEASES.name,
        partition=PARTITION,
        offset=release.offset,
        key=release.key,
        headers=release.headers,
        payload=release.payload,
    )
