"""What goes into one transaction: records, and which row each stands for."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.rows import StoredPriority, StoredTelemetry
from transport.kafka import Outgoing

Origin = StoredTelemetry | StoredPriority


@dataclass(slots=True)
class Load:
    """Records in the order in which they go.

    Attributes:
        records: The priority lane first.
        origins: The row of each record; None for what stands for no row.
    """

    records: list[Outgoing] = field(default_factory=list)
    origins: list[Origin | None] = field(default_factory=list)

    def add(self, record: Outgoing, origin: Origin | None = None) -> None:
        """One more record."""
        self.records.append(record)
        self.origins.append(origin)

    def extend(self, records: Iterable[Outgoing], origins: Iterable[Origin]) -> None:
        """Several more, one for each row."""
        self.records.extend(records)
        self.origins.extend(origins)
