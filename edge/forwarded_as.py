"""Under which gateway id a spool was last forwarded: a small file beside it.

A transaction that a killed gateway left open is settled by whoever claims its transactional id.
Who changes the gateway's id has to settle it under the old one first, or what it holds might come
true after it was forwarded again; and what the old id is, only the disk knows.
"""

from pathlib import Path

from scoring.whole_file import write_whole

SUFFIX = ".forwarded-as"


class ForwardedAs:
    """The id under which a transaction of the spool may be open.

    Args:
        spool_path: Of the spool; the file stands beside it.
    """

    def __init__(self, spool_path: Path) -> None:
        self._path = spool_path.with_name(spool_path.name + SUFFIX)

    def read(self, spool_id: str) -> str | None:
        """The gateway id; None where this spool was never forwarded."""
        try:
            spool, _, gateway_id = self._path.read_text("utf-8").partition("\n")
        except FileNotFoundError:
            return None
        return gateway_id if spool == spool_id and gateway_id else None

    def write(self, spool_id: str, gateway_id: str) -> None:
        """Remember an id before anything is forwarded under it; on the disk when it returns.

        Raises:
            OSError: The disk refuses; the file is as it was.
        """
        write_whole(self._path, f"{spool_id}\n{gateway_id}".encode())
