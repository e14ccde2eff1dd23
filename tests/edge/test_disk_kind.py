"""Which directories lie on memory."""

from pathlib import Path

import pytest

from edge.disk_kind import memory_behind

PLAIN = """\
22 1 179:2 / / rw,relatime shared:1 - ext4 /dev/mmcblk0p2 rw
30 22 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=190284k
31 22 0:26 / /mnt/a\\040b rw shared:6 - tmpfs tmpfs rw
40 22 179:3 / /var/lib/motorcade rw shared:9 - ext4 /dev/mmcblk0p3 rw
"""

OVERLAY = """\
20 1 0:24 / / rw shared:1 - overlay overlayroot rw,upperdir=/media/root-rw/overlay,workdir=/w
21 20 179:2 / /media/root-ro ro - ext4 /dev/mmcblk0p2 ro
22 20 0:22 / /media/root-rw rw - tmpfs tmpfs-root rw
40 20 179:3 / /mnt/data rw shared:9 - ext4 /dev/mmcblk0p3 rw
"""

CONTAINER = """\
20 1 0:24 / / rw - overlay overlay rw,lowerdir=/l/1,upperdir=/l/2/diff,workdir=/l/2/work
21 20 0:25 / /dev rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("mounts", "directory", "found"),
    [
        (PLAIN, "/var/lib/motorcade", None),
        (PLAIN, "/var/lib", None),
        (PLAIN, "/run/motorcade", "tmpfs at /run"),
        (PLAIN, "/runner", None),
        (PLAIN, "/mnt/a b/spool", "tmpfs at /mnt/a b"),
        (OVERLAY, "/var/lib/motorcade", "tmpfs at /media/root-rw"),
        (OVERLAY, "/mnt/data/spool", None),
        (CONTAINER, "/var/lib/motorcade", None),
        ("", "/anywhere", None),
    ],
)
def test_memory_is_told_from_a_disk(mounts: str, directory: str, found: str | None) -> None:
    assert memory_behind(Path(directory), mounts) == found


def test_what_is_mounted_last_hides_what_was_there() -> None:
    hidden = PLAIN + "41 40 0:30 / /var/lib/motorcade rw - tmpfs tmpfs rw\n"
    assert memory_behind(Path("/var/lib/motorcade"), hidden) == "tmpfs at /var/lib/motorcade"


def test_this_machine_says_so_too() -> None:
    mounts = Path("/proc/self/mountinfo").read_text("utf-8")
    if " /dev/shm " not in mounts:
        pytest.skip("not here: no /dev/shm")
    assert memory_behind(Path("/dev/shm"), mounts) == "tmpfs at /dev/shm"
