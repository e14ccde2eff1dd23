"""The models in the log and what each is used for, followed and changed.

follower ─► builder ─► shelf        records to a catalog, within limits
    ▲          └─────► breakages    what cannot be used, told once
    └─ writer                       changes traffic, deletes versions; one writer a model
"""

from transport.catalog.follower import CatalogFollower, CatalogNews
from transport.catalog.shelf import NEEDED_ONLY, Entry, Limits
from transport.catalog.writer import delete_version, write_traffic

__all__ = [
    "NEEDED_ONLY",
    "CatalogFollower",
    "CatalogNews",
    "Entry",
    "Limits",
    "delete_version",
    "write_traffic",
]
