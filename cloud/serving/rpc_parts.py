"""What both RPC doors work with."""

from dataclasses import dataclass

from cloud.serving.backroom import BackRoom
from cloud.serving.batcher import Batcher
from cloud.serving.budget import ByteBudget
from cloud.serving.observer import ServingObserver
from cloud.serving.repository import ModelRepository
from cloud.serving.tensors import Limits


@dataclass(slots=True)
class RpcParts:
    """Of one server; used on the loop's thread.

    Attributes:
        repository: The models.
        batcher: Answers small requests.
        back_room: Answers large ones, and loads and unloads.
        observer: Told what fails before it reaches the batcher.
        limits: Of one request.
        budget: Of the bytes of all requests.
        names: Models that must answer before the server is ready; empty: any one.
        draining: Set when the server is about to stop: it answers, and says that it is not ready.
    """

    repository: ModelRepository
    batcher: Batcher
    back_room: BackRoom
    observer: ServingObserver
    limits: Limits
    budget: ByteBudget
    names: frozenset[str] = frozenset()
    draining: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        catalog = self.repository.catalog()
        answering = {name for name in catalog.names() if catalog.champion(name) is not None}
        return not self.draining and bool(answering) and self.names <= answering
