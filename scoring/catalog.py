"""The models that there are and what each is used for, as a value: no I/O, no clock.

Whoever follows `model.releases` and `model.traffic` makes a new `Catalog` from the old one with
each record; whoever scores takes the newest one between two batches. A catalog never changes, so
threads share it without a lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.model_ref import CHAMPION, ModelRef
from scoring.traffic import CHALLENGER, Traffic

__all__ = ["Catalog", "ModelRef"]

_NONE: Mapping[str, Bundle] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every sound release and the traffic of each model.

    Attributes:
        releases: Name to version to bundle, in the order in which the log has them.
        traffics: Name to what `model.traffic` says.
    """

    releases: Mapping[str, Mapping[str, Bundle]] = field(default_factory=dict)
    traffics: Mapping[str, Traffic] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Models with a release, by name."""
        return tuple(sorted(name for name, versions in self.releases.items() if versions))

    def versions(self, name: str) -> tuple[str, ...]:
        """Versions of a model, oldest first."""
        return tuple(self.releases.get(name, _NONE))

    def bundle(self, name: str, version: str) -> Bundle | None:
        """The release of that version."""
        return self.releases.get(name, _NONE).get(version)

    def traffic(self, name: str) -> Traffic:
        """What the model is used for; generation 0 where nobody said anything."""
        return self.traffics.get(name) or Traffic(name)

    def champion(self, name: str) -> str | None:
        """The champion's version: the one that was named, if it is there, else the newest."""
        named = self.traffic(name).champion
        versions = self.versions(name)
        if named is not None:
            return named if named in versions else None
        return versions[-1] if versions else None

    def former_champions(self, name: str) -> tuple[str, ...]:
        """Where a rollback may go, newest first: former champions that are there.

        While nobody named a champion each release was it in its turn.
        """
        named = self.traffic(name).champion
        versions = self.versions(name)
        if named is None:
            return versions[-2::-1]
        return tuple(v for v in self.traffic(name).previous if v in versions and v != named)

    def resolve(self, ref: ModelRef) -> Bundle:
        """The bundle behind a name and an alias or a version; an alias goes first.

        Raises:
            ContractError: UNKNOWN_MODEL.
        """
        version: str | None = self.traffic(ref.name).aliases.get(ref.selector, ref.selector)
        if ref.selector == CHAMPION:
            version = self.champion(ref.name)
        found = None if version is None else self.bundle(ref.name, version)
        if found is None:
            raise ContractError(Reason.UNKNOWN_MODEL, self._unknown(ref))
        return found

    def with_release(self, bundle: Bundle) -> "Catalog":
        """With a release as the newest; one of the same version is replaced.

        It loses its place, because compaction takes that out of the log, and followers that
        started before and after it must agree on which release is the newest.
        """
        manifest = bundle.manifest
        versions = dict(self.releases.get(manifest.name, _NONE))
        versions.pop(manifest.version, None)
        versions[manifest.version] = bundle
        return replace(self, releases={**self.releases, manifest.name: versions})

    def without_release(self, name: str, version: str) -> "Catalog":
        """Without a release."""
        kept = {v: bundle for v, bundle in self.releases.get(name, {}).items() if v != version}
        return replace(self, releases={**self.releases, name: kept})

    def with_traffic(self, traffic: Traffic) -> "Catalog":
        """With what the newest record says."""
        return replace(self, traffics={**self.traffics, traffic.name: traffic})

    def without_traffic(self, name: str) -> "Catalog":
        """As if nobody had said anything of the model."""
        kept = {n: traffic for n, traffic in self.traffics.items() if n != name}
        return replace(self, traffics=kept)

    def aliases_of(self, name: str, version: str) -> tuple[str, ...]:
        """What a version is called, 'champion' and 'challenger' first."""
        held = [a for a, v in self.traffic(name).aliases.items() if v == version and a != CHAMPION]
        if self.champion(name) == version:
            held.append(CHAMPION)
        order = (CHAMPION, CHALLENGER)
        return tuple(sorted(held, key=lambda a: (order.index(a) if a in order else 2, a)))

    def _unknown(self, ref: ModelRef) -> str:
        if not self.versions(ref.name):
            known = ", ".join(self.names()) or "none"
            return f"no model {ref.name!r}; there are: {known}"
        return f"model {ref.name} has no alias or version {ref.selector!r}"
