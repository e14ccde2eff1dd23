"""What a scorer works with besides its settings."""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from cloud.scoring_step import ScorerTopics
from transport.kafka import SchemaIds
from transport.releases import Release


class ModelSource(Protocol):
    """Where models come from; `transport.releases.ReleaseFollower` is one."""

    def poll(self, timeout_s: float) -> list[Release]:
        """Releases since the last poll, oldest first; perhaps none after `timeout_s`."""
        ...


class PendingReleases:
    """Releases that were taken from a source and not dealt with yet.

    They outlive a connection: a release whose dead letter could not be written is met again. The
    source is asked only when none is left.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._waiting: deque[Release] = deque()

    def next(self, timeout_s: float) -> Release | None:
        """The oldest one; the same again until `done`. None: nothing came in time."""
        if not self._waiting:
            self._waiting.extend(self._source.poll(timeout_s))
        return self._waiting[0] if self._waiting else None

    def done(self) -> None:
        """The one that `next` gave was dealt with."""
        self._waiting.popleft()


@dataclass(frozen=True, slots=True)
class ScorerParts:
    """What a scorer works with besides its settings.

    Attributes:
        ids: Schema ids of `topics` and of `model.releases`.
        models: Where models come from.
        topics: Where to read and write.
    """

    ids: SchemaIds
    models: ModelSource
    topics: ScorerTopics = field(default_factory=ScorerTopics)
