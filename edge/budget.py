"""What a power cut may cost, what the flash pays, and how long the quota lasts: pure.

A commit is one append and one `fdatasync`. It writes the frames of its rows, on average one block
more because the last one is written again by the commit behind it, and the file system's own
record of it: on ext4 up to three blocks of the journal (a descriptor, the inode, a commit). So
at most, about:

    bytes a day = 86,400 x commits a second x (rows of a commit x bytes of a row + 4 blocks)

At R messages a second a commit that waits g seconds for more holds 1 + R x g of them. Snapshots and
alerts come on top and are small. What the card itself writes to keep its pages in order is not
seen from outside, and is not in here.
"""

from dataclasses import dataclass

from edge.settings import GatewaySettings
from edge.spool.telemetry_codec import ROW_BYTES

BLOCK_BYTES = 4_096
BLOCKS_A_COMMIT = 4
"""One of data that is written twice, and three of ext4's journal."""

VEHICLE_ID_BYTES = 12
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Load:
    """What a gateway is expected to carry.

    Attributes:
        vehicles: How many.
        rate_hz: Messages a second of each.
        message_bytes: Of a message's payload.
    """

    vehicles: int = 1
    rate_hz: float = 1.0
    message_bytes: int = 300

    @property
    def messages_hz(self) -> float:
        """Messages a second of all vehicles."""
        return self.vehicles * self.rate_hz

    @property
    def row_bytes(self) -> int:
        """What a message takes in the spool."""
        return ROW_BYTES + VEHICLE_ID_BYTES + self.message_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """What follows from settings and load.

    Attributes:
        loss_ms: Age of what a power cut can take at most; all of it unacknowledged.
        commits_hz: Commits a second.
        flash_bytes_a_day: Written to the card.
        offline_s: How long the spool holds all that comes, with no uplink.
    """

    loss_ms: int
    commits_hz: float
    flash_bytes_a_day: float
    offline_s: float


def budget(settings: GatewaySettings, load: Load, *, spool_bytes_allowed: int) -> Budget:
    """The budget of a gateway.

    Args:
        settings: `group_commit_ms` and `group_commit_max` of them.
        load: What it carries.
        spool_bytes_allowed: What the spool may take, by quota and disk.

    Example:
        >>> settings = GatewaySettings(group_commit_ms=20)
        >>> found = budget(settings, Load(), spool_bytes_allowed=4 * 1024**3)
        >>> found.loss_ms, round(found.flash_bytes_a_day / 1e9, 1), round(found.offline_s / 86_400)
        (20, 1.4, 131)
    """
    rate_hz = load.messages_hz
    rows = min(1.0 + rate_hz * settings.group_commit_ms / 1_000.0, settings.group_commit_max)
    commits_hz = rate_hz / rows
    commit_bytes = rows * load.row_bytes + BLOCKS_A_COMMIT * BLOCK_BYTES
    return Budget(
        loss_ms=settings.group_commit_ms,
        commits_hz=commits_hz,
        flash_bytes_a_day=DAY_S * commits_hz * commit_bytes,
        offline_s=spool_bytes_allowed / (rate_hz * load.row_bytes),
    )
