"""The store of the gateway: what is in here is safe, and nothing else is."""

from edge.spool.errors import SpoolDamagedError, SpoolError
from edge.spool.limits import SpoolLimits
from edge.spool.reader import SpoolReader
from edge.spool.spool import Spool

__all__ = ["Spool", "SpoolDamagedError", "SpoolError", "SpoolLimits", "SpoolReader"]
