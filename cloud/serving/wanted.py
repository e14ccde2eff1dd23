"""Which versions a model server holds ready, and what of the catalog it shows. Pure.

A version is held ready when something refers to it (it is the champion, has an alias, is an arm),
when somebody asked for it, and otherwise while there is room, the newest first.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from scoring.bundle import Bundle
from scoring.catalog import Catalog
from scoring.traffic import CHAMPION, Traffic

Key = tuple[str, str]
"""Name and version of a model."""


class State(StrEnum):
    """Of a version, in the words of the protocol's repository index."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


UNLOADED = "unloaded on request"
NO_ROOM = "not loaded: newer versions take the room"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index.

    Attributes:
        name: Model name.
        version: Its version; empty where a record did not say it.
        state: Whether it answers requests.
        reason: Why it does not; empty when it does.
    """

    name: str
    version: str
    state: State
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return self.state is State.READY


@dataclass(frozen=True, slots=True)
class Wishes:
    """What people asked of the repository, newest last.

    Attributes:
        hidden_models: Unloaded as a whole, with what comes later.
        hidden: Versions unloaded by themselves.
        asked: Versions loaded by themselves.
    """

    hidden_models: frozenset[str] = frozenset()
    hidden: frozenset[Key] = frozenset()
    asked: tuple[Key, ...] = ()

    def hides(self, key: Key) -> bool:
        """Whether a version shall not answer."""
        return key[0] in self.hidden_models or key in self.hidden

    def with_loaded(self, name: str, version: str | None) -> "Wishes":
        """A version, or all of a model, shall answer again."""
        if version is None:
            kept = frozenset(key for key in self.hidden if key[0] != name)
            return replace(self, hidden_models=self.hidden_models - {name}, hidden=kept)
        key = (name, version)
        others = tuple(each for each in self.asked if each != key)
        return replace(self, hidden=self.hidden - {key}, asked=(*others, key))

    def with_unloaded(self, name: str, version: str | None) -> "Wishes":
        """A version, or a whole model, shall not answer any more."""
        asked = tuple(key for key in self.asked if key[0] != name or version not in (None, key[1]))
        if version is None:
            return replace(self, hidden_models=self.hidden_models | {name}, asked=asked)
        return replace(self, hidden=self.hidden | {(name, version)}, asked=asked)

    def within(self, catalog: Catalog) -> "Wishes":
        """Without versions that are gone, so that they do not add up for ever."""
        return replace(
            self,
            hidden=frozenset(k for k in self.hidden if catalog.bundle(*k) is not None),
            asked=tuple(k for k in self.asked if catalog.bundle(*k) is not None),
        )


def sound(catalog: Catalog, failed: Collection[Key]) -> Catalog:
    """Without the versions that cannot be used, and with every champion named.

    Where the champion that was named cannot be used or is not there, the newest former one that
    can goes on in its place; where none was named, the newest release that can be used is it.
    """
    for name, version in failed:
        catalog = catalog.without_release(name, version)
    for name in catalog.names():
        traffic = catalog.traffic(name)
        versions = catalog.versions(name)
        named = _named_champion(traffic)
        candidates = versions[-1:] if named is None else (named, *traffic.previous)
        champion = next((version for version in candidates if version in versions), None)
        if champion is not None:
            catalog = catalog.with_traffic(traffic.with_alias(CHAMPION, champion))
    return catalog


def _named_champion(traffic: Traffic) -> str | None:
    """The champion's version; while an experiment runs, the one that it began with."""
    experiment = traffic.experiment
    if experiment is not None and (arm := experiment.arm(CHAMPION)) is not None:
        return arm.version
    return traffic.champion


def referred(catalog: Catalog) -> set[Key]:
    """Versions that the traffic of a model refers to and that are there."""
    keys = set()
    for name in catalog.names():
        traffic = catalog.traffic(name)
        experiment = traffic.experiment
        arms = () if experiment is None else tuple(arm.version for arm in experiment.arms)
        keys |= {(name, version) for version in (*traffic.aliases.values(), *arms)}
    return {key for key in keys if catalog.bundle(*key) is not None}


def wanted(catalog: Catalog, wishes: Wishes, *, versions_max: int) -> list[Key]:
    """Versions to hold ready, the most needed first.

    Args:
        catalog: As `sound` gives it.
        wishes: What people asked for.
        versions_max: Beyond it only what is referred to is held.
    """
    newest = sorted(_all(catalog), key=lambda item: item[1].manifest.created_time_ms, reverse=True)
    order: Iterable[Key] = (
        *sorted(referred(catalog)),
        *reversed(wishes.asked),
        *(key for key, _ in newest),
    )
    needed = len(referred(catalog))
    keys = list(dict.fromkeys(key for key in order if catalog.bundle(*key) is not None))
    return [key for key in keys[: max(needed, versions_max)] if not wishes.hides(key)]


def visible(catalog: Catalog, ready: Collection[Key]) -> Catalog:
    """The part of a `sound` catalog that answers requests."""
    for key in [key for key, _ in _all(catalog) if key not in ready]:
        catalog = catalog.without_release(*key)
    return catalog


def index(
    catalog: Catalog, ready: Collection[Key], wishes: Wishes, reasons: Mapping[Key, str]
) -> list[IndexEntry]:
    """Every version of the catalog and every one that cannot be used, by name and age.

    Args:
        catalog: With all releases.
        ready: Versions that answer.
        wishes: What people asked for.
        reasons: Why versions cannot be used; also of such that are not in the catalog.
    """
    keys = dict.fromkeys((*(key for key, _ in _all(catalog)), *reasons))
    return [
        IndexEntry(*key, State.READY)
        if key in ready
        else IndexEntry(*key, State.UNAVAILABLE, _why(key, wishes, reasons))
        for key in keys
    ]


def _why(key: Key, wishes: Wishes, reasons: Mapping[Key, str]) -> str:
    if key in reasons:
        return reasons[key]
    return UNLOADED if wishes.hides(key) else NO_ROOM


def _all(catalog: Catalog) -> list[tuple[Key, Bundle]]:
    return [
        ((name, version), bundle)
        for name in catalog.names()
        for version, bundle in catalog.releases[name].items()
    ]
