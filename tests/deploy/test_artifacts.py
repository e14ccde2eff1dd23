"""Locked jars: fetched once, verified, refused when they are not what the lock names."""

import hashlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy import artifacts
from deploy.artifacts import DamagedArtifactError, Jar
from schemas.errors import SettingsError, TransientError

CONTENT = {"one": b"first jar", "two": b"second jar"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


LOCK = "".join(f"org.example:{name}:1.0 {digest(content)}\n" for name, content in CONTENT.items())


@pytest.fixture(autouse=True)
def _small_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "lock_text", lambda program: LOCK)
    monkeypatch.setattr(artifacts, "_FETCH_PAUSE_S", 0.0)


def give(jar: Jar, directory: Path) -> Path:
    path = directory / jar.filename
    path.write_bytes(CONTENT[jar.artifact])
    return path


def refuse(jar: Jar, directory: Path) -> Path:
    raise AssertionError(f"the network was asked for {jar.coordinate}")


def test_what_is_fetched_lies_under_its_hash_and_is_not_fetched_again(tmp_path: Path) -> None:
    assert artifacts.fetch("kafka", tmp_path, download=give) == 2
    assert artifacts.missing("kafka", tmp_path) == []
    assert artifacts.fetch("kafka", tmp_path, download=refuse) == 0
    jars = artifacts.jars_of("kafka")
    expected = [tmp_path / "jars" / jar.sha256 / jar.filename for jar in jars]
    assert artifacts.class_path("kafka", tmp_path).split(":") == [str(path) for path in expected]


def test_nothing_but_the_jars_is_left_in_the_cache(tmp_path: Path) -> None:
    artifacts.fetch("kafka", tmp_path, download=give)
    assert [path.name for path in tmp_path.iterdir()] == ["jars"]


def test_a_tampered_jar_in_the_cache_is_refused_in_words_and_replaced_by_a_fetch(
    tmp_path: Path,
) -> None:
    artifacts.fetch("kafka", tmp_path, download=give)
    victim = artifacts.path_of(artifacts.jars_of("kafka")[1], tmp_path)
    victim.write_bytes(b"malice")
    with pytest.raises(DamagedArtifactError, match=r"not the jar that the lock names.*fetch"):
        artifacts.class_path("kafka", tmp_path)
    assert artifacts.fetch("kafka", tmp_path, download=give) == 1
    artifacts.class_path("kafka", tmp_path)


def test_a_tampered_download_is_refused_and_not_kept(tmp_path: Path) -> None:
    def lie(jar: Jar, directory: Path) -> Path:
        path = give(jar, directory)
        path.write_bytes(path.read_bytes() + b"!")
        return path

    with pytest.raises(DamagedArtifactError, match=r"org.example:\w+:1.0 is not what the lock"):
        artifacts.fetch("kafka", tmp_path, download=lie)
    assert len(artifacts.missing("kafka", tmp_path)) == 2


def test_a_transfer_that_fails_or_is_cut_short_is_tried_again(tmp_path: Path) -> None:
    tries: dict[str, int] = {}
    lock = threading.Lock()

    def stumble(jar: Jar, directory: Path) -> Path:
        with lock:
            tries[jar.artifact] = tries.get(jar.artifact, 0) + 1
        if tries[jar.artifact] == 1:
            raise TransientError("cut")
        path = give(jar, directory)
        if tries[jar.artifact] == 2:
            path.write_bytes(b"fir")
        return path

    assert artifacts.fetch("kafka", tmp_path, download=stumble) == 2
    assert tries == {"one": 3, "two": 3}


def test_a_repository_that_does_not_answer_is_given_up_after_a_bounded_number_of_tries(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    def fail(jar: Jar, directory: Path) -> Path:
        asked.append(jar.artifact)
        raise TransientError(f"{jar.coordinate} could not be fetched")

    with pytest.raises(TransientError, match="could not be fetched"):
        artifacts.fetch("kafka", tmp_path, download=fail)
    assert len(asked) <= 2 * artifacts.FETCH_TRIES


def test_programs_that_fetch_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def together(_: int) -> int:
        barrier.wait()
        return artifacts.fetch("kafka", tmp_path, download=give)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(together, range(4)))
    artifacts.class_path("kafka", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["jars"]


def test_what_is_not_fetched_yet_is_said_with_the_command_that_does(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"org.example:one:1.0.*python -m deploy.artifacts"):
        artifacts.class_path("kafka", tmp_path)


def test_a_cache_that_cannot_be_written_is_said_with_the_variable(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(TransientError, match="MOTORCADE_CACHE"):
        artifacts.fetch("kafka", in_the_way / "cache", download=give)


@pytest.mark.parametrize(
    "line",
    ["org.example:one", "org.example:one:1.0", f"a:b:c {'x' * 64}", f"a::c {'0' * 64}", "a b c"],
)
def test_a_line_that_is_not_one_of_a_lock_is_refused(line: str) -> None:
    with pytest.raises(SettingsError, match="not a line of a lock"):
        artifacts.parse_lock(line)


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(artifacts.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert artifacts.cache_directory() == tmp_path / "xdg" / "motorcade"
    monkeypatch.setenv(artifacts.CACHE_VARIABLE, str(tmp_path / "own"))
    assert artifacts.cache_directory() == tmp_path / "own"


class TestRealLocks:
    @pytest.fixture(autouse=True)
    def _real_lock(self, _small_lock: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()

    @pytest.mark.parametrize("program", artifacts.PROGRAMS)
    def test_each_names_an_artifact_once_and_no_address(self, program: str) -> None:
        jars = artifacts.jars_of(program)
        assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars) > 40
        assert "//" not in artifacts.lock_text(program)

    def test_kafka_runs_with_its_own_client_and_writes_its_log(self) -> None:
        versions = {jar.artifact: jar.version for jar in artifacts.jars_of("kafka")}
        assert versions["kafka-clients"] == versions["kafka_2.13"]
        assert "log4j-slf4j-impl" in versions

    def test_java_refuses_to_run_a_tampered_jar_of_the_real_cache(
        self, java_artifacts: None, tmp_path: Path
    ) -> None:
        shutil.copytree(artifacts.cache_directory() / "jars", tmp_path / "jars")
        victim = artifacts.path_of(artifacts.jars_of("kafka")[0], tmp_path)
        victim.write_bytes(victim.read_bytes()[:-1] + b"\0\0")
        with pytest.raises(DamagedArtifactError, match="It is not run"):
            artifacts.class_path("kafka", tmp_path)
        artifacts.class_path("artemis", tmp_path)
