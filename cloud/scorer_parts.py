"""What a scorer works with besides its settings, and what it knows of models."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cloud.scoring_step import ScorerTopics
from cloud.stats import ScorerWatch
from scoring.catalog import Catalog, ModelRef
from scoring.lineup import EMPTY, BundleKey, Lineup, lineup_of, shadow_of
from transport.catalog import CatalogNews
from transport.kafka import SchemaIds
from transport.releases import BrokenRelease

OnCatalog = Callable[[Catalog], None]


def _nobody(_: Catalog) -> None:
    """Nobody has to be told."""


class ModelSource(Protocol):
    """Where models and their traffic come from; `transport.catalog.CatalogFollower` is one."""

    def poll(self, timeout_s: float) -> CatalogNews:
        """The catalog now, and what of it is new; after at most `timeout_s`."""
        ...


@dataclass(frozen=True, slots=True)
class Role:
    """Whose scorer it is.

    Attributes:
        shadow: Experiment whose arms are scored beside the champion. Empty: the scorer is the
            champion's.
        topics: Where to read and write.
    """

    shadow: str = ""
    topics: ScorerTopics = field(default_factory=ScorerTopics)


@dataclass(frozen=True, slots=True)
class ScorerParts:
    """What a scorer works with besides its settings.

    Attributes:
        ids: Schema ids of `topics` and of `model.releases`.
        models: Where models come from.
        topics: Where to read and write.
        shadow: As of `Role`.
        watch: Counts what was scored.
    """

    ids: SchemaIds
    models: ModelSource
    topics: ScorerTopics = field(default_factory=ScorerTopics)
    shadow: str = ""
    watch: ScorerWatch | None = None


class KnownModels:
    """What a scorer knows of models. It outlives a connection.

    A record whose dead letter could not be written stays in `broken` and is met again.

    Args:
        source: Where models come from.
        ref: The model to score with.
        shadow: As of `Role`.
        on_catalog: Told of each new catalog.

    Attributes:
        broken: Records that cannot be used and were not dealt with yet, oldest first.
        unusable: Bundles that were refused; a dead letter tells of each.
        running: The lineup in use.
    """

    def __init__(
        self,
        source: ModelSource,
        ref: ModelRef,
        *,
        shadow: str = "",
        on_catalog: OnCatalog = _nobody,
    ) -> None:
        self._source = source
        self._ref = ref
        self._shadow = shadow
        self._on_catalog = on_catalog
        self._catalog = Catalog()
        self.broken: deque[BrokenRelease] = deque()
        self.unusable: set[BundleKey] = set()
        self.running: Lineup = EMPTY

    @property
    def name(self) -> str:
        """Of the model."""
        return self._ref.name

    def look(self, timeout_s: float) -> bool:
        """Ask the source. Returns whether there is anything to deal with."""
        news = self._source.poll(timeout_s)
        self.broken.extend(news.broken)
        if news.changed:
            self._catalog = news.catalog
            self._on_catalog(news.catalog)
        return news.changed or bool(self.broken)

    def wanted(self) -> Lineup:
        """Who should score now; without lanes: nobody can."""
        name, running, refused = self._ref.name, self.running, self.unusable
        if self._shadow:
            return shadow_of(self._catalog, name, self._shadow, running=running, unusable=refused)
        return lineup_of(self._catalog, self._ref, running=running, unusable=refused)
