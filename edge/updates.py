"""From one model to the next, and back: what a gateway decides of releases, whoever brings them.

A release is checked (`edge.release_check`), put on the disk, tried by another process
(`edge.trial_process`), made the current one, and offered to the scoring thread, which takes it
between two batches. What is refused on the way is remembered, told, and changes nothing.

A choice made by hand (`install-model`, `rollback`, a file in the inbox) holds until the fleet's
champion is another one, or is named anew; the champion of that moment does not undo it.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from edge.crash_note import MODEL_CODE, CrashNote
from edge.health import Health
from edge.model_files import ModelFile, newest_in, read_file
from edge.model_index import Index, Pin, Refusal
from edge.model_teller import ModelTeller
from edge.models import ModelStore, kept_of
from edge.outcomes import CATALOG, Came, Outcome, Source
from edge.patience import Patience
from edge.probation import Breach
from edge.release_check import MENDABLE, Policy, check_release, check_standing
from edge.rows import Lane
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.trial import Report
from edge.trial_inputs import built_in, recorded
from edge.trial_process import run_trial
from schemas.errors import ContractError, MotorcadeError, Reason
from scoring.bounds import Bounds
from scoring.bundle import Bundle
from scoring.events import EventKind, Severity
from scoring.signing import TrustStore

TRIALS_MAX = 3
"""Trials of a release that ended with the gateway itself, before it is refused for that."""

CRASHES_MAX = 2
"""Crashes of the gateway in a model, until the one before it is gone back to."""


class Trial(Protocol):
    """As `edge.trial_process.run_trial`."""

    def __call__(
        self,
        path: Path,
        payloads: list[bytes],
        *,
        timeout_s: float,
        bounds: Bounds | None,
        stopped: Callable[[], bool],
    ) -> Report:
        """Try the model of a file on readings."""


class ModelUpdates:
    """Owner of the models on the disk. Safe for several threads; one release at a time is tried.

    Args:
        settings: Of the gateway.
        store: Opened by `start`, closed by `close`.
        spool: Gives recorded readings, takes events and dead letters.
        patience: Waits for a disk that refuses.
        health: For counts, states and the log.
        now_ms: Wall time.
        trial: Tries a model, by default in a process of its own.
        stopped: Whether the gateway is to stop; ends a trial.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        store: ModelStore,
        spool: Spool,
        *,
        patience: Patience,
        health: Health,
        now_ms: Callable[[], int],
        trial: Trial = run_trial,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._trial = trial
        self._stopped = stopped
        self._store = store
        self._spool = spool
        self._health = health
        self._now_ms = now_ms
        self._teller = ModelTeller(settings, spool, patience=patience, health=health, now_ms=now_ms)
        self._crashes = CrashNote(store.directory / "crash.txt")
        self._offer: Callable[[Bundle], object] = lambda _: None
        self._told = ("", "")
        self._one_at_a_time = threading.Lock()
        self._on_disk = threading.RLock()

    @property
    def index(self) -> Index:
        """What there is."""
        return self._store.index

    def start(self, offer: Callable[[Bundle], object]) -> None:
        """Open the store and use the model of the last run, so that an offline start scores.

        Args:
            offer: Hands a model to the scoring thread.

        Raises:
            SettingsError: Another process has the models open, or the keys cannot be read.
            TransientError: The models' directory cannot be used.
        """
        self._offer = offer
        for file in self._store.open():
            self._health.announcer.warn(
                f"model on disk {file.path.name}", f"{file.error}; its file is now {file.path}"
            )
        self._health.model_rollback = self.index.rolled_back or None
        self._count_crash()
        bundle = self._standing()
        if bundle is not None:
            self._offer(bundle)

    def note_crashes(self) -> None:
        """From now on a crash of this process is written down; at the next start it is counted."""
        try:
            self._crashes.begin()
        except OSError as error:
            self._health.announcer.warn("crash note", f"a crash would not be noted: {error}")

    def close(self) -> None:
        """Let other processes have the models."""
        self._crashes.end()
        self._store.close()

    def _count_crash(self) -> None:
        """Go back from a model in which the gateway has crashed again and again."""
        try:
            note = self._crashes.take()
        except OSError as error:
            self._health.announcer.warn("crash note", f"no look at the last crash: {error}")
            return
        if note:
            self._health.announcer.warn("crash", f"the gateway had crashed: {note}")
        if MODEL_CODE not in note or self.index.current is None:
            return
        self._store.change(Index.crashed)
        current = self.index.current
        if current is not None and current.attempts >= CRASHES_MAX:
            detail = f"the gateway crashed in it {current.attempts} times"
            try:
                bundle = self._store.read(current)
            except ContractError:
                return  # A damaged file is moved aside next.
            self.retreat(bundle, Breach(Reason.MODEL_TRIAL, detail))

    def _standing(self) -> Bundle | None:
        """The newest model on the disk that the settings and keys of today still allow."""
        policy = self._policy()
        while True:
            bundle, refused = self._store.load()
            for file in refused:
                self._health.announcer.warn(
                    f"model on disk {file.path.name}", f"{file.error}; its file is now {file.path}"
                )
            if bundle is None:
                return None
            if bundle.manifest.name != policy.model_name:
                return None  # The settings ask for another one now, which is to come.
            try:
                check_standing(bundle.manifest, policy)
            except ContractError as error:
                self._withdraw(bundle, error)
            else:
                return bundle

    def _withdraw(self, bundle: Bundle, error: ContractError) -> None:
        """Put away an installed model that would not be installed any more."""
        told = f"{bundle.manifest.version} on the disk is not used: {error.detail}"
        refusal = self._teller.refusal(bundle, error, source="the disk")
        self._store.change(lambda index: index.without_current().refusing(refusal))
        self._teller.say(EventKind.EDGE_REFUSED, bundle.manifest.version, told)

    # -- releases that come

    def champion(self, bundle: Bundle, *, generation: int) -> Outcome:
        """The fleet's champion is this release.

        Raises:
            TransientError: It could not be tried or kept for now.
            SettingsError: The keys cannot be read.
        """
        seen = Pin(bundle.release_sha256, generation)
        with self._on_disk:
            self._store.change(lambda index: index.seeing(seen))
            if self.index.is_pinned(bundle.release_sha256, bundle.manifest.version):
                self._store.change(Index.pinned)
                return self._left_alone(bundle)
        return self.consider(bundle, Source())

    def _left_alone(self, bundle: Bundle) -> Outcome:
        version = bundle.manifest.version
        detail = f"champion {version} is left alone: another version was chosen by hand"
        self._health.announcer.info(f"pinned {version}", detail)
        return Outcome(Came.PINNED, version, detail)

    def install(self, path: Path) -> Outcome:
        """Install the release of a file, or the newest one of a directory, and pin it.

        Raises:
            ContractError: It is refused.
            SettingsError: There is no such file, or no release of this model in the directory.
            TransientError: It could not be tried or kept for now.
        """
        is_directory = path.is_dir()
        file = newest_in(path, self._settings.model_name) if is_directory else read_file(path)
        if isinstance(file.found, ContractError):
            raise file.found
        outcome = self.consider(file.found, Source(f"file {file.path}", by_hand=True, again=True))
        if outcome.came is Came.REFUSED:
            refusal = self.index.refusal_of(file.found.release_sha256)
            reason = Reason.MODEL_INVALID if refusal is None else Reason(refusal.reason)
            raise ContractError(reason, outcome.detail)
        return outcome

    def from_inbox(self, files: list[ModelFile]) -> None:
        """Judge new files of the inbox, newest version first, until one is installed.

        Raises:
            TransientError: One could not be tried or kept for now.
            SettingsError: The keys cannot be read.
        """
        installed = False
        for file in files:
            if file.content in self.index.judged:
                continue
            source = Source(f"inbox file {file.path}", by_hand=True, content=file.content)
            if isinstance(file.found, ContractError):
                self._refuse_file(file, file.found, source)
            elif installed or file.found.manifest.name != self._settings.model_name:
                self._judged(file.content)
            else:
                installed = self.consider(file.found, source).came is not Came.REFUSED

    def consider(self, bundle: Bundle, source: Source) -> Outcome:
        """Check a release, try it, and use it if it passes.

        Args:
            bundle: Its bytes need not be verified.
            source: Who brings it.

        Raises:
            TransientError: It could not be tried or kept for now; nothing has changed.
            SettingsError: The keys cannot be read.
        """
        with self._one_at_a_time:
            release, version = bundle.release_sha256, bundle.manifest.version
            current, known = self.index.current, self.index.refusal_of(release)
            if current is not None and current.release == release:
                self._settle(source)
                return Outcome(Came.SAME, version, f"{version} is in use already")
            mendable = known is not None and known.reason in MENDABLE
            if known is not None and not (mendable or source.again):
                self._judged(source.content)
                return Outcome(Came.REFUSED, version, known.detail)
            signer = ""
            try:
                signer = check_release(bundle, self._policy())
                report = self._tried(bundle, signer, source)
            except ContractError as error:
                return self._refuse(bundle, error, signer=signer, source=source)
            self._install(bundle, signer, source)
            return Outcome(Came.INSTALLED, version, _passed(bundle, signer, source, report))

    def _policy(self) -> Policy:
        settings = self._settings
        trust = TrustStore.load(settings.trusted_keys_path)
        for error in trust.broken:
            self._health.announcer.warn(f"key {error}", f"a key that counts for nothing: {error}")
        return Policy(
            settings.model_name, settings.signatures_required, settings.model_min_version, trust
        )

    def _tried(self, bundle: Bundle, signer: str, source: Source) -> Report:
        kept = kept_of(bundle, signer=signer, source=source.text, now_ms=self._now_ms())
        with self._on_disk:
            path = self._store.stage(bundle, kept)
        staged = self.index.staged
        if staged is not None and staged.attempts > TRIALS_MAX:
            raise ContractError(
                Reason.MODEL_TRIAL,
                f"{TRIALS_MAX} of its trials did not come to an end before the gateway did",
            )
        return self._trial(
            path,
            built_in() + self._recorded(),
            timeout_s=self._settings.trial_timeout_s,
            bounds=bundle.manifest.bounds,
            stopped=self._stopped,
        )

    def _recorded(self) -> list[bytes]:
        with closing(self._spool.reader()) as reader:
            return recorded(reader, last=self._spool.last(Lane.TELEMETRY))

    def _install(self, bundle: Bundle, signer: str, source: Source) -> None:
        kept = kept_of(bundle, signer=signer, source=source.text, now_ms=self._now_ms())
        with self._on_disk:
            self._store.swap(kept, lambda index: _settled(index, source))
            self._offer(bundle)
        self._teller.say(
            EventKind.EDGE_INSTALLED,
            kept.version,
            f"{kept.version} installed from {source.text}, {signer}",
        )

    def _settle(self, source: Source) -> None:
        with self._on_disk:
            self._store.change(lambda index: _settled(index, source))

    def _judged(self, content: str) -> None:
        if content:
            with self._on_disk:
                self._store.change(lambda index: index.judging(content))

    # -- releases that go

    def _refuse(
        self, bundle: Bundle, error: ContractError, *, signer: str, source: Source
    ) -> Outcome:
        version = bundle.manifest.version
        outcome = Outcome(Came.REFUSED, version, error.detail, error.reason in MENDABLE)
        refusal = self._teller.refusal(bundle, error, source=source.text, signer=signer)
        known = self.index.refusal_of(refusal.release)
        if known is not None and known.detail == refusal.detail:
            return outcome  # Told and kept already.
        # What the disk could not take down the last time is kept now, and not told again.
        if self._told != (refusal.release, refusal.detail):
            told = f"release refused: {version} from {source.text}: {error}"
            letter = (bundle, error) if source.text == CATALOG else None
            self._teller.say(EventKind.EDGE_REFUSED, version, told, refused=letter)
            self._told = (refusal.release, refusal.detail)
        self._remember(refusal, source)
        return outcome

    def _refuse_file(self, file: ModelFile, error: ContractError, source: Source) -> None:
        """Refuse a file that holds no release."""
        told = f"release refused: {file.path.name} from {source.text}: {error}"
        self._teller.say(EventKind.EDGE_REFUSED, "", told)
        self._remember(
            Refusal("", file.content, error.reason, error.detail, "", source.text, self._now_ms()),
            source,
        )

    def _remember(self, refusal: Refusal, source: Source) -> None:
        judged = source.content and refusal.reason not in MENDABLE
        with self._on_disk:
            self._store.change(
                lambda index: (
                    index.refusing(refusal).judging(source.content)
                    if judged
                    else index.refusing(refusal)
                )
            )

    def retreat(self, bundle: Bundle, breach: Breach) -> Bundle | None:
        """A model in use must go; gives the one before it, None where there is none.

        The version is refused from now on. Called on the scoring thread.
        """
        error = ContractError(breach.reason, breach.detail)
        with self._on_disk:
            current, previous = self.index.current, self.index.previous
            mine = current is not None and current.release == bundle.release_sha256
            back = previous if mine else None
            told = (
                f"{bundle.manifest.version} is given up: {breach.detail}; "
                f"{f'back to {back.version}' if back else 'no model scores now'}"
            )
            refusal = self._teller.refusal(bundle, error, source="scoring")
            try:
                before = self._store.read(back) if back else None
                self._store.change(
                    lambda index: (
                        index.retreated(refusal, told=told) if mine else index.refusing(refusal)
                    )
                )
            except MotorcadeError as failure:
                before = None
                self._health.announcer.warn("model on disk", f"going back: {failure}")
        self._health.model_rollback = told
        self._teller.say(
            EventKind.EDGE_ROLLED_BACK, bundle.manifest.version, told, refused=(bundle, error)
        )
        return before

    def roll_back(self) -> Outcome:
        """Go back to the predecessor by hand, and stay there.

        Raises:
            MotorcadeError: There is none.
            ContractError: Its file is damaged.
            TransientError: The disk refuses.
        """
        with self._one_at_a_time, self._on_disk:
            current, previous = self.index.current, self.index.previous
            if previous is None:
                raise MotorcadeError("there is no predecessor to go back to")
            bundle = self._store.read(previous)
            self._store.change(lambda index: index.turned_back(now_ms=self._now_ms()))
            self._offer(bundle)
        from_version = current.version if current else "no model"
        detail = f"back from {from_version} to {previous.version} by hand"
        self._teller.say(
            EventKind.EDGE_ROLLED_BACK, previous.version, detail, severity=Severity.INFO
        )
        return Outcome(Came.INSTALLED, previous.version, detail)


def _settled(index: Index, source: Source) -> Index:
    """What a choice by hand means for the time after."""
    after = index.pinned() if source.by_hand else index
    return after.judging(source.content) if source.content else after


def _passed(bundle: Bundle, signer: str, source: Source, report: Report) -> str:
    return (
        f"{bundle.manifest.version} from {source.text} is in use: {signer}, tried on "
        f"{report.readings} readings at {1_000 * report.reading_ms_p99:.3g} us each"
    )


def listing(index: Index) -> dict[str, Any]:
    """What there is, as a JSON object."""
    found = asdict(index)
    del found["judged"]
    return found
