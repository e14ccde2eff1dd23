"""The Java programs of the local stack: locked, fetched once, checked before every use.

A lock (`jars_kafka.txt`, `jars_artemis.txt` beside this module) is a flat list of Maven
coordinates, each with the SHA-256 of its jar, so that nothing a repository serves later can change
what runs. jgo fetches single jars by coordinate; it knows where from. `MOTORCADE_MAVEN_MIRROR`
names another repository, for a network that reaches the public one only through a mirror.

The cache is shared by all checkouts of a user: `$MOTORCADE_CACHE`, else
`$XDG_CACHE_HOME/motorcade`, else `~/.cache/motorcade`. A jar lies under its own hash and arrives
there by an atomic rename, so any number of programs may fetch at once. What is there is never
fetched again.

    python -m deploy.artifacts fetch [kafka] [artemis]    bring what the cache lacks
    python -m deploy.artifacts relock [kafka] [artemis]   resolve, hash and write the locks anew
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from schemas.errors import MotorcadeError, SettingsError, TransientError

CACHE_VARIABLE = "MOTORCADE_CACHE"
MIRROR_VARIABLE = "MOTORCADE_MAVEN_MIRROR"
PROGRAMS = ("kafka", "artemis")

FETCH_TRIES = 4
FETCH_WORKERS = 4
FETCH_TIMEOUT_S = 60
_FETCH_PAUSE_S = 1.0
_HASH_CHUNK_BYTES = 1 << 20
_HEX_DIGITS = 64

_FETCH_COMMAND = "python -m deploy.artifacts fetch"


class DamagedArtifactError(SettingsError):
    """A jar is not the one the lock names; it is not run."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of a lock.

    Attributes:
        group: Maven group.
        artifact: Maven artifact.
        version: Exact version.
        sha256: Hex digest of the jar.
    """

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """`group:artifact:version`, as people write it."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        """Name of the file, the same as in a Maven repository."""
        return f"{self.artifact}-{self.version}.jar"


def cache_directory() -> Path:
    """Where jars are kept for all checkouts of this user; it need not exist yet."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "motorcade"


def lock_text(program: str) -> str:
    """The lock of `program` as it stands in the checkout."""
    return resources.files("deploy").joinpath(f"jars_{program}.txt").read_text("utf-8")


def parse_lock(text: str) -> list[Jar]:
    """Read a lock: `group:artifact:version sha256` a line, `#` begins a comment.

    Raises:
        SettingsError: A line is not of that form; the message has it.
    """
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [_parse_line(line) for line in lines if line]


def _parse_line(line: str) -> Jar:
    coordinate, _, digest = line.partition(" ")
    parts = coordinate.split(":")
    digest = digest.strip()
    if len(parts) != 3 or not all(parts) or not _is_digest(digest):
        raise SettingsError(f"not a line of a lock (group:artifact:version sha256): {line!r}")
    return Jar(parts[0], parts[1], parts[2], digest)


def _is_digest(text: str) -> bool:
    return len(text) == _HEX_DIGITS and set(text) <= set("0123456789abcdef")


def jars_of(program: str) -> list[Jar]:
    """The locked jars of `kafka` or `artemis`, in class path order."""
    return parse_lock(lock_text(program))


def path_of(jar: Jar, cache: Path | None = None) -> Path:
    """Where the cache keeps `jar`, present or not."""
    return (cache or cache_directory()) / "jars" / jar.sha256 / jar.filename


def missing(program: str, cache: Path | None = None) -> list[Jar]:
    """The jars of `program` that a fetch would have to bring; the network is not asked."""
    return [jar for jar in jars_of(program) if not path_of(jar, cache).is_file()]


def class_path(program: str, cache: Path | None = None) -> str:
    """Check every jar of `program` against the lock and name them for `java -cp`.

    Reads all of them (45 MB, about 0.1 s), so that a jar changed on the disk never runs.

    Raises:
        SettingsError: A jar is not in the cache; the message has the fix.
        DamagedArtifactError: A jar is not the one the lock names.
    """
    jars = jars_of(program)
    for jar in jars:
        _require_sound(jar, path_of(jar, cache))
    return os.pathsep.join(str(path_of(jar, cache)) for jar in jars)


def _require_sound(jar: Jar, path: Path) -> None:
    if not path.is_file():
        raise SettingsError(f"{jar.coordinate} is not in the cache; run: {_FETCH_COMMAND}")
    found = sha256_of(path)
    if found != jar.sha256:
        raise DamagedArtifactError(
            f"{path} is not the jar that the lock names: its SHA-256 is {found}, "
            f"{jar.sha256} was expected. It is not run. To replace it, run: {_FETCH_COMMAND}"
        )


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


Download = Callable[[Jar, Path], Path]
"""Brings a jar into a directory of the caller's and says where it lies."""


def fetch(
    program: str,
    cache: Path | None = None,
    *,
    download: Download | None = None,
    on_jar: Callable[[Jar], None] | None = None,
) -> int:
    """Bring every jar of `program` that the cache lacks, and replace damaged ones.

    Asks the network for nothing that is there and sound. Each jar is checked before it is
    placed. A jar that cannot be had is tried `FETCH_TRIES` times.

    Args:
        program: `kafka` or `artemis`.
        cache: Cache directory, made if absent; `cache_directory()` if not given.
        download: How a jar is brought; by jgo if not given.
        on_jar: Called from worker threads for each jar placed.

    Returns:
        How many jars were brought.

    Raises:
        TransientError: A jar could not be had, or the cache cannot be written.
        DamagedArtifactError: What came is not the jar that the lock names.
    """
    cache = cache or cache_directory()
    wanted = [jar for jar in jars_of(program) if not _is_sound(jar, path_of(jar, cache))]
    if not wanted:
        return 0
    with _incoming(cache) as incoming, ThreadPoolExecutor(FETCH_WORKERS) as workers:

        def bring(jar: Jar) -> None:
            _place(jar, _try_download(jar, incoming, download or download_by_jgo), cache)
            if on_jar is not None:
                on_jar(jar)

        for _ in workers.map(bring, wanted):
            pass
    return len(wanted)


def _is_sound(jar: Jar, path: Path) -> bool:
    return path.is_file() and sha256_of(path) == jar.sha256


def _incoming(cache: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="incoming-", dir=cache)
    except OSError as error:
        raise TransientError(
            f"the cache {cache} cannot be written ({error}); name another in {CACHE_VARIABLE}"
        ) from error


def _try_download(jar: Jar, incoming: str, download: Download) -> Path:
    """A sound jar in a directory of its own, or the error of the last try."""
    for left in reversed(range(FETCH_TRIES)):
        # A directory of its own a try: what a broken transfer left must not be taken for the jar.
        directory = Path(tempfile.mkdtemp(dir=incoming))
        try:
            return _checked(jar, download(jar, directory))
        except (TransientError, DamagedArtifactError):
            if left == 0:
                raise
            time.sleep(_FETCH_PAUSE_S * (FETCH_TRIES - left))
    raise AssertionError("unreachable")


def _checked(jar: Jar, arrived: Path) -> Path:
    found = sha256_of(arrived)
    if found != jar.sha256:
        raise DamagedArtifactError(
            f"what came for {jar.coordinate} is not what the lock names: its SHA-256 is {found}, "
            f"{jar.sha256} was expected. Nothing was kept. Does a proxy change downloads here?"
        )
    return arrived


def _place(jar: Jar, arrived: Path, cache: Path) -> None:
    target = path_of(jar, cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived.replace(target)


def download_by_jgo(jar: Jar, directory: Path) -> Path:
    """Fetch one jar, unresolved, into `directory`.

    Raises:
        TransientError: The repository did not give it.
    """
    from jgo.maven import MavenContext

    mirror = os.environ.get(MIRROR_VARIABLE)
    context = MavenContext(
        repo_cache=directory,
        local_repos=[],
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
        timeout=FETCH_TIMEOUT_S,
    )
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    try:
        path = component.artifact().resolve()
    # jgo lets the OSError of its HTTP library through, and says "not found" by RuntimeError.
    except (OSError, RuntimeError) as error:
        raise TransientError(
            f"{jar.coordinate} could not be fetched: {error}. The first run needs the network; "
            f"behind a mirror, name it in {MIRROR_VARIABLE}"
        ) from error
    return Path(path)


def resolve_closure(coordinates: Sequence[str]) -> list[str]:
    """All jars that `coordinates` need at run time, as coordinates, by jgo's resolver.

    Each root is resolved by itself and the first to name an artifact decides its version: jgo
    lets the dependency management of one root rule the others, and log4j's would pull Kafka's
    own client back to an older release. Fails on the POM of Artemis (jgo does not follow its
    `project.basedir`), which therefore has a flat list.
    """
    chosen: dict[tuple[str, str], str] = {}
    for root in coordinates:
        for group, artifact, version in _closure_of(root):
            chosen.setdefault((group, artifact), version)
    return [f"{group}:{artifact}:{version}" for (group, artifact), version in chosen.items()]


def _closure_of(root: str) -> list[tuple[str, str, str]]:
    from jgo.maven import Dependency, MavenContext

    group, artifact, version = root.split(":")
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch), local_repos=[])
        component = context.project(group, artifact).at_version(version)
        wanted = Dependency(component.artifact(), scope="compile")
        direct, transitive = context.resolver.resolve([wanted])
    return [
        (d.groupId, d.artifactId, d.version) for d in (*direct, *transitive) if d.scope != "test"
    ]


_ROOTS = {
    "kafka": (
        "org.apache.kafka:kafka_2.13:4.2.2",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
    )
}
"""What `relock` resolves. Kafka's own closure has no SLF4J binding, so its log would go nowhere.

Kafka is the newest that keeps acknowledged transactions of a lone node through kill -9. From 4.3.0
to 4.4.0, the newest there is, `KRaftMetadataCache.getPartitionLeaderEndpoint` calls a partition
without a leader absent (KAFKA-20734), and the transaction coordinator then takes it for deleted and
completes the transaction without its marker. All partitions of a lone node lose their leader for a
moment when it comes back. `tests/deploy/test_kafka_kills.py` says whether a newer one will do.
"""


def relock(program: str) -> Path:
    """Resolve and hash what the repository serves now, and write the lock; review the change.

    A program without roots keeps the coordinates of its lock.
    """
    if program in _ROOTS:
        coordinates = resolve_closure(_ROOTS[program])
    else:
        coordinates = [jar.coordinate for jar in jars_of(program)]
    lines = ["# Made by: python -m deploy.artifacts relock"]
    with tempfile.TemporaryDirectory() as scratch:
        for coordinate in coordinates:
            group, artifact, version = coordinate.split(":")
            jar = Jar(group, artifact, version, sha256="")
            lines.append(f"{coordinate} {sha256_of(download_by_jgo(jar, Path(scratch)))}")
    path = Path(__file__).with_name(f"jars_{program}.txt")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _fetch(program: str) -> None:
    count = len(missing(program))
    if count:
        print(f"fetching {program}: {count} jars into {cache_directory()}", flush=True)
    fetch(program)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.artifacts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["fetch", "relock"])
    parser.add_argument("programs", nargs="*", help="kafka, artemis; both if none is named")
    given = parser.parse_args(arguments)
    if unknown := set(given.programs) - set(PROGRAMS):
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    act = _fetch if given.command == "fetch" else relock
    try:
        for program in given.programs or PROGRAMS:
            act(program)
    except MotorcadeError as error:
        print(f"motorcade: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
