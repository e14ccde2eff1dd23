"""The store of the gateway: what is in here is safe, and nothing else is."""

from edge.spool.sqlite_spool import Spool
from edge.spool_reader import SpoolReader
from edge.spool_schema import SpoolDamagedError, SpoolError

__all__ = ["Spool", "SpoolDamagedError", "SpoolError", "SpoolReader"]
