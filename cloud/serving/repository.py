"""The models that a server answers with, and a view of them for each thread that scores.

One thread feeds the repository with catalogs. A version is loaded and run in every batch size
before anybody sees it, with a scorer ready in each view; then each view is given its new state in
one assignment. So a request never waits for a model to load, and one that is being scored keeps
the version that it began with.
"""

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloud.serving.wanted import IndexEntry, Key, Wishes, index, sound, visible, wanted
from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.catalog import Catalog, ModelRef
from scoring.interpreter import LARGE, MEDIUM, SMALL
from scoring.scorer import BatchScorer
from scoring.traffic import CHAMPION, PINNED, Arm, Mode, Splitter

BROKEN_MAX = 64
"""Broken releases that the index remembers, the newest ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What answers a request.

    Attributes:
        bundle: The model.
        arm: Of the experiment; 'champion' without one, 'pinned' where the request named a version.
        scorer: Of the thread whose view gave this.
    """

    bundle: Bundle
    arm: str
    scorer: BatchScorer


@dataclass(frozen=True, slots=True)
class Unusable:
    """A release that was sound as a record and whose model cannot be used.

    Attributes:
        bundle: The release.
        error: Why.
    """

    bundle: Bundle
    error: ContractError


@dataclass(slots=True)
class _ViewState:
    """What a view answers with until the next swap; used by its thread alone.

    Attributes:
        catalog: What is visible.
        scorers: This thread's, of every visible version.
        splitters: Of each model with an experiment that splits.
        known: Answers found before, by name and selector or arm.
    """

    catalog: Catalog
    scorers: Mapping[Key, BatchScorer]
    splitters: Mapping[str, Splitter]
    known: dict[tuple[str, str, bool], Served] = field(default_factory=dict)
    arms: dict[str, list[Served]] = field(default_factory=dict)


class RepositoryView:
    """The repository as one thread sees it: the newest state, with scorers of its own.

    For use by one thread. Each call sees the newest state; what it gave stays valid until dropped.
    """

    def __init__(self, state: _ViewState) -> None:
        self._state = state

    @property
    def catalog(self) -> Catalog:
        """Visible models."""
        return self._state.catalog

    def pinned(self, name: str, selector: str) -> Served:
        """The version or alias that a request names; 'champion' is the champion, and no pin.

        Raises:
            ContractError: UNKNOWN_MODEL: it is not there, or not visible.
        """
        return _found(self._state, name, selector, PINNED if selector != CHAMPION else CHAMPION)

    def routed(self, name: str, vehicle_ids: Sequence[bytes]) -> list[Served]:
        """What the traffic of the model says for each vehicle; an empty id has the champion.

        A SHADOW experiment changes nothing here. An arm whose version is not there is the
        champion's.

        Raises:
            ContractError: UNKNOWN_MODEL: there is no champion.
        """
        state = self._state
        champion = _found(state, name, CHAMPION, CHAMPION)
        splitter = state.splitters.get(name)
        if splitter is None:
            return [champion] * len(vehicle_ids)
        arms = state.arms.get(name)
        if arms is None:
            arms = [_of_arm(state, name, arm, champion) for arm in splitter.arms]
            state.arms[name] = arms
        numbers = splitter.choose(vehicle_ids).tolist()
        return [
            arms[number] if vehicle_id else champion
            for number, vehicle_id in zip(numbers, vehicle_ids, strict=True)
        ]

    def _swap(self, catalog: Catalog, scorers: Mapping[Key, BatchScorer]) -> None:
        """By the repository's thread: one assignment is what the view's thread sees of it."""
        self._state = _ViewState(catalog, scorers, _splitters(catalog, self._state))

    def _scorers(self) -> Mapping[Key, BatchScorer]:
        return self._state.scorers


def _found(state: _ViewState, name: str, selector: str, arm: str) -> Served:
    key = (name, selector, arm == PINNED)
    known = state.known.get(key)
    if known is None:
        bundle = resolved(state.catalog, name, selector)
        known = Served(bundle, arm, state.scorers[name, bundle.manifest.version])
        state.known[key] = known
    return known


def resolved(catalog: Catalog, name: str, selector: str) -> Bundle:
    """The bundle behind a name and an alias or a version, whatever a client calls a name.

    Raises:
        ContractError: UNKNOWN_MODEL.
    """
    if name not in catalog.releases:
        known = ", ".join(catalog.names()) or "none"
        raise ContractError(Reason.UNKNOWN_MODEL, f"no model {name!r}; there are: {known}")
    return catalog.resolve(ModelRef(name, selector))


def _of_arm(state: _ViewState, name: str, arm: Arm, champion: Served) -> Served:
    bundle = state.catalog.bundle(name, arm.version)
    if bundle is None:
        return champion
    return Served(bundle, arm.name, state.scorers[name, arm.version])


def _splitters(catalog: Catalog, before: _ViewState | None) -> dict[str, Splitter]:
    """Splitters of running experiments; one whose experiment goes on keeps what it remembers."""
    splitters = {}
    for name in catalog.names():
        experiment = catalog.traffic(name).experiment
        if experiment is None or experiment.mode is Mode.SHADOW:
            continue
        old = before and before.splitters.get(name)
        same = before and before.catalog.traffic(name).experiment == experiment
        splitters[name] = old if old and same else Splitter(experiment)
    return splitters


class ModelRepository:
    """Holds models ready and gives each thread a view of them. Safe for use by many threads.

    Args:
        versions_max: Versions held ready at once, of all models; champions, aliases and arms are
            held whatever their number.
    """

    def __init__(self, *, versions_max: int = 16) -> None:
        self._versions_max = versions_max
        self._lock = threading.Lock()  # Of all below; held while models load.
        self._catalog = Catalog()
        self._visible = Catalog()
        self._wishes = Wishes()
        self._ready: dict[Key, Bundle] = {}
        self._failed: dict[Key, Unusable] = {}
        self._broken: dict[Key, str] = {}
        self._views: weakref.WeakSet[RepositoryView] = weakref.WeakSet()

    def catalog(self) -> Catalog:
        """Visible models: loaded, tried, not unloaded. Their champions are named in it."""
        return self._visible

    def view(self) -> RepositoryView:
        """A view for one thread, with its scorers made; dropped when nobody holds it."""
        with self._lock:
            scorers = {key: ready_scorer(bundle) for key, bundle in self._ready.items()}
            view = RepositoryView(
                _ViewState(self._visible, scorers, _splitters(self._visible, None))
            )
            self._views.add(view)
            return view

    def update(self, catalog: Catalog) -> list[Unusable]:
        """Take over a catalog; returns when the views answer with it.

        Returns:
            Releases found unusable now; each is told once.
        """
        with self._lock:
            self._catalog = catalog
            self._wishes = self._wishes.within(catalog)
            self._failed = {
                key: each for key, each in self._failed.items() if _same(each.bundle, catalog, key)
            }
            return self._settle()

    def report_broken(self, name: str, version: str, error: ContractError) -> None:
        """Have the index show a release that could not even be read."""
        with self._lock:
            self._broken.pop((name, version), None)
            self._broken[name, version] = str(error)
            for key in list(self._broken)[:-BROKEN_MAX]:
                del self._broken[key]

    def load(self, name: str, version: str | None = None) -> None:
        """Have a version, or what was unloaded of a model, answer again.

        Raises:
            ContractError: UNKNOWN_MODEL; or why the version, or all of them, cannot be used.
        """
        with self._lock:
            keys = self._keys(name, version)
            for key in keys:
                self._failed.pop(key, None)
            self._wishes = self._wishes.with_loaded(name, version)
            self._settle()
            failed = [self._failed[key].error for key in keys if key in self._failed]
            if len(failed) == len(keys):
                raise failed[-1]

    def unload(self, name: str, version: str | None = None) -> None:
        """Hide a version, or a model with all that comes later, until it is loaded again.

        Raises:
            ContractError: UNKNOWN_MODEL.
        """
        with self._lock:
            self._keys(name, version)
            self._wishes = self._wishes.with_unloaded(name, version)
            self._settle()

    def index(self) -> list[IndexEntry]:
        """Every version that was seen, and whether it answers."""
        with self._lock:
            reasons = {key: str(each.error) for key, each in self._failed.items()}
            broken = {k: why for k, why in self._broken.items() if self._catalog.bundle(*k) is None}
            return index(self._catalog, self._ready, self._wishes, {**broken, **reasons})

    def _keys(self, name: str, version: str | None) -> list[Key]:
        versions = self._catalog.versions(name) if version is None else (version,)
        keys = [(name, each) for each in versions if self._catalog.bundle(name, each) is not None]
        if not keys:
            what = f"model {name!r}" if version is None else f"version {version!r} of {name!r}"
            raise ContractError(Reason.UNKNOWN_MODEL, f"no {what}")
        return keys

    def _settle(self) -> list[Unusable]:
        """Load what is wanted and not ready, and show the outcome."""
        made: dict[Key, list[BatchScorer]] = {}
        views = list(self._views)
        found: list[Unusable] = []
        while True:
            catalog = sound(self._catalog, self._failed)
            keys = wanted(catalog, self._wishes, versions_max=self._versions_max)
            missing = [key for key in keys if key not in made and not self._is_ready(key)]
            if not missing:
                break
            for key in missing:
                bundle = self._catalog.releases[key[0]][key[1]]
                try:
                    made[key] = [ready_scorer(bundle) for _ in views or (None,)]
                except ContractError as error:
                    self._failed[key] = Unusable(bundle, error)
                    found.append(self._failed[key])
        self._show(visible(catalog, keys), views, made)
        return found

    def _show(
        self, shown: Catalog, views: list[RepositoryView], made: Mapping[Key, list[BatchScorer]]
    ) -> None:
        self._ready = {
            (name, version): bundle
            for name in shown.names()
            for version, bundle in shown.releases[name].items()
        }
        self._visible = shown
        for number, view in enumerate(views):
            kept = view._scorers()
            view._swap(
                shown,
                {key: made[key][number] if key in made else kept[key] for key in self._ready},
            )

    def _is_ready(self, key: Key) -> bool:
        return key in self._ready and _same(self._ready[key], self._catalog, key)


def _same(bundle: Bundle, catalog: Catalog, key: Key) -> bool:
    """Whether the catalog's release of that version is this one; the manifest has the hash."""
    now = catalog.bundle(*key)
    return now is not None and now.manifest == bundle.manifest


def ready_scorer(bundle: Bundle) -> BatchScorer:
    """A scorer that was run once in every batch size.

    Raises:
        ContractError: MODEL_HASH, MODEL_FEATURES or MODEL_INVALID.
    """
    scorer = BatchScorer(bundle)
    mean = np.array(bundle.manifest.mean, np.float32)
    for rows in (SMALL, MEDIUM, LARGE):
        scores = scorer.score(np.tile(mean, (rows, bundle.manifest.window)))
        if not np.isfinite(scores).all():
            raise ContractError(Reason.MODEL_INVALID, "the model gives no score for its own mean")
    return scorer
