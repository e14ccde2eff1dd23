"""Who scores which vehicle, as far as the releases that there are allow it: no I/O, no clock.

The catalog says what people want; a lineup is what a scorer does. Where a release that is wanted
is missing or cannot be used, the lineup says so in a remark and stays with what runs, so that no
reading goes without a score: a champion that is gone is replaced by none, and the vehicles of an
arm without a model are the champion's.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from schemas.errors import ContractError
from scoring.bundle import Bundle
from scoring.catalog import Catalog, ModelRef
from scoring.traffic import CHAMPION, PINNED, Arm, Experiment, Mode

BundleKey = tuple[str, str, str]
"""Name, version and SHA-256: a version that is published twice is another bundle."""

NO_LANE = -1


def bundle_key(bundle: Bundle) -> BundleKey:
    """What tells a bundle from all others."""
    manifest = bundle.manifest
    return manifest.name, manifest.version, manifest.model_sha256


@dataclass(frozen=True, slots=True)
class Lane:
    """An arm, and the bundle that scores its vehicles."""

    arm: str
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Lineup:
    """The lanes of a scorer.

    Attributes:
        lanes: The first one scores every vehicle that no other has. None of them: there is
            nothing yet to score with.
        experiment: Splits the vehicles; None where the first lane has them all. With SHADOW a
            vehicle that no lane has is not scored at all.
        remarks: What of the traffic is not followed, and why, in sentences.
    """

    lanes: tuple[Lane, ...]
    experiment: Experiment | None = None
    remarks: tuple[str, ...] = ()

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Those that are needed, each once."""
        return tuple({bundle_key(lane.bundle): lane.bundle for lane in self.lanes}.values())

    def lane_of(self, arm: str) -> int:
        """Number of the lane that has the vehicles of an arm; `NO_LANE`: they are not scored."""
        found = (i for i, lane in enumerate(self.lanes) if lane.arm == arm)
        return next(found, NO_LANE if self.is_shadow else 0)

    @property
    def is_shadow(self) -> bool:
        """Whether it scores beside the champion."""
        return self.experiment is not None and self.experiment.mode is Mode.SHADOW

    def routes_as(self, other: "Lineup") -> bool:
        """Whether every vehicle has the same lane in both."""
        return self._routing() == other._routing()

    def _routing(self) -> tuple[object, ...]:
        names = tuple(lane.arm for lane in self.lanes)
        experiment = self.experiment
        if experiment is None:
            return (names,)
        weights = tuple((arm.name, arm.weight) for arm in experiment.arms)
        identity = (experiment.id, experiment.started_time_ms)
        return names, experiment.salt, weights, experiment.mode, identity


EMPTY = Lineup(())


def lineup_of(
    catalog: Catalog,
    ref: ModelRef,
    *,
    running: Lineup = EMPTY,
    unusable: Collection[BundleKey] = (),
) -> Lineup:
    """Who scores, by the traffic of the model.

    Args:
        catalog: What there is, and what is wanted.
        ref: The model. An alias other than 'champion', or a version, takes no part in
            experiments.
        running: What scores now; its bundles stay in use where the catalog has lost them.
        unusable: Bundles that were refused.
    """
    search = _Search(catalog, ref.name, running, unusable)
    if ref.selector != CHAMPION:
        bundle, remarks = search.pinned(ref)
        return Lineup(() if bundle is None else (Lane(PINNED, bundle),), None, remarks)
    experiment = catalog.traffic(ref.name).experiment
    if experiment is not None and experiment.mode is Mode.SHADOW:
        experiment = None
    bundle, remarks = search.champion(experiment)
    if bundle is None:
        return Lineup((), None, remarks)
    champion = Lane(CHAMPION, bundle)
    if experiment is None:
        return Lineup((champion,), None, remarks)
    lanes, missing = search.lanes(arm for arm in experiment.arms if arm.name != CHAMPION)
    return Lineup((champion, *lanes), experiment, (*remarks, *missing))


def shadow_of(
    catalog: Catalog,
    name: str,
    experiment_id: str,
    *,
    running: Lineup = EMPTY,
    unusable: Collection[BundleKey] = (),
) -> Lineup:
    """Who scores beside the champion in an experiment of mode SHADOW; nobody when it is over."""
    experiment = catalog.traffic(name).experiment
    if experiment is None or experiment.id != experiment_id or experiment.mode is not Mode.SHADOW:
        return EMPTY
    lanes, missing = _Search(catalog, name, running, unusable).lanes(experiment.arms)
    return Lineup(lanes, experiment, missing)


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks for bundles that can be used."""

    catalog: Catalog
    name: str
    running: Lineup
    unusable: Collection[BundleKey]

    def champion(self, experiment: Experiment | None) -> tuple[Bundle | None, tuple[str, ...]]:
        """The champion's bundle, or the one in use, with what is to be said of it."""
        arm = None if experiment is None else experiment.arm(CHAMPION)
        named = self.catalog.traffic(self.name).champion if arm is None else arm.version
        if named is None:
            return self._newest()
        return self._or_running(self._find(named), f"champion {named}")

    def pinned(self, ref: ModelRef) -> tuple[Bundle | None, tuple[str, ...]]:
        """The bundle behind an alias or a version, or the one in use."""
        try:
            version = self.catalog.resolve(ref).manifest.version
        except ContractError:
            version = ref.selector
        return self._or_running(self._find(version), str(ref))

    def lanes(self, arms: Iterable[Arm]) -> tuple[tuple[Lane, ...], tuple[str, ...]]:
        """A lane of each arm that has vehicles and a bundle, and what is said of the others."""
        lanes, missing = [], []
        for arm in arms:
            if arm.weight == 0:
                continue
            bundle = self._find(arm.version)
            if bundle is None:
                missing.append(f"arm {arm.name}: no usable release {arm.version} of {self.name}")
            else:
                lanes.append(Lane(arm.name, bundle))
        return tuple(lanes), tuple(missing)

    def _newest(self) -> tuple[Bundle | None, tuple[str, ...]]:
        versions = self.catalog.versions(self.name)
        found = next(filter(None, map(self._find, reversed(versions))), None)
        return (found, ()) if found or not versions else self._or_running(None, self.name)

    def _or_running(self, found: Bundle | None, what: str) -> tuple[Bundle | None, tuple[str, ...]]:
        if found is not None:
            version = found.manifest.version
            if self.catalog.bundle(self.name, version) is None:
                return found, (f"release {version} of {self.name} is gone; it goes on for now",)
            return found, ()
        remark = f"there is no usable release for {what} of {self.name}"
        if not self.running.lanes:
            return None, (remark,)
        bundle = self.running.lanes[0].bundle
        return bundle, (f"{remark}; {bundle.manifest.version} goes on",)

    def _find(self, version: str) -> Bundle | None:
        held = self.catalog.bundle(self.name, version)
        candidates = [] if held is None else [held]
        candidates += [each for each in self._in_use() if each.manifest.version == version]
        usable = (each for each in candidates if bundle_key(each) not in self.unusable)
        return next(usable, None)

    def _in_use(self) -> Iterator[Bundle]:
        return (lane.bundle for lane in self.running.lanes)
