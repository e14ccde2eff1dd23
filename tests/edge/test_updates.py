"""What a gateway decides of releases, on a real spool and a real store.

Good models are tried within this process, to save its time; bad ones in one of their own.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import bad_models
import pytest
from edge_parts import bundle

from edge.health import Health
from edge.model_commands import install_model, list_models, roll_back
from edge.model_files import FILES_MAX, Inbox, read_file
from edge.models import ModelStore
from edge.outcomes import Came, Source
from edge.patience import Patience
from edge.probation import Breach
from edge.rows import Kind
from edge.settings import GatewaySettings
from edge.spool import Spool
from edge.trial import Report, tried
from edge.trial_process import run_trial
from edge.updates import TRIALS_MAX, ModelUpdates, Trial
from schemas.errors import ContractError, MotorcadeError, Reason, SettingsError
from schemas.records import decode_single_object
from scoring.bounds import Bounds
from scoring.bundle import FILE_BYTES_MAX, Bundle
from scoring.signing import SigningKey, trust

KEY = SigningKey.generate()
EVERYTHING = 1 << 20


def tried_here(
    path: Path,
    payloads: list[bytes],
    *,
    timeout_s: float,
    bounds: Bounds | None,
    stopped: Callable[[], bool],
) -> Report:
    return tried(Bundle.load(path), payloads)


class Bench:
    """The updates of a gateway, which can be ended and begun again."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.wanted = settings
        self.offered: list[Bundle] = []
        self.trial: Trial = tried_here
        self.open()

    def open(self, **settings: object) -> None:
        self.wanted |= settings
        self.settings = GatewaySettings(
            "gw",
            self.directory / "spool",
            self.directory / "models",
            control_path=self.directory / "c",
            trusted_keys_path=self.directory / "keys",
            **self.wanted,  # type: ignore[arg-type]
        )
        self.health = Health()
        self.spool = Spool(self.settings.spool_path, now_ms=0)
        self.updates = ModelUpdates(
            self.settings,
            ModelStore(self.settings.models_path),
            self.spool,
            patience=Patience(threading.Event(), self.health, random.Random(1)),
            health=self.health,
            now_ms=lambda: 7,
            trial=self.trial,
        )
        self.updates.start(self.offered.append)

    def close(self) -> None:
        self.updates.close()
        self.spool.close()

    def again(self, **settings: object) -> None:
        self.close()
        self.offered.clear()
        self.open(**settings)

    def champion(self, made: Bundle, generation: int = 0) -> Came:
        return self.updates.champion(made, generation=generation).came

    def file(self, made: Bundle, name: str = "new.motorcade") -> Path:
        path = self.directory / name
        made.save(path)
        return path

    @property
    def versions(self) -> tuple[str | None, str | None]:
        index = self.updates.index
        return (
            index.current.version if index.current else None,
            index.previous.version if index.previous else None,
        )

    def told(self) -> list[tuple[str, str]]:
        """Events and dead letters: kind or 'dead-letter', and the sentence."""
        reader = self.spool.reader()
        rows = reader.priority(after=0, rows_max=EVERYTHING, bytes_max=1 << 30)
        reader.close()
        found = []
        for row in rows:
            if row.kind == Kind.EVENT:
                record = decode_single_object("ModelEvent", row.payload)
                found.append((record["kind"], record["detail"]))
            else:
                found.append((row.kind, decode_single_object("DeadLetter", row.payload)["error"]))
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def signed(made: Bundle) -> Bundle:
    return replace(made, manifest=KEY.sign(made.manifest))


def test_a_champion_is_tried_kept_and_used(bench: Bench) -> None:
    assert bench.champion(bundle("1")) is Came.INSTALLED
    assert bench.champion(bundle("1")) is Came.SAME
    assert bench.champion(bundle("2"), 1) is Came.INSTALLED
    assert bench.offered == [bundle("1"), bundle("2")]
    assert bench.versions == ("2", "1")
    assert [kind for kind, _ in bench.told()] == ["edge-installed", "edge-installed"]
    bench.again()
    assert bench.offered == [bundle("2")]


BAD = {
    "another name": (bundle("9", name="other"), Reason.MODEL_INVALID, "scores with 'anomaly'"),
    "wrong hash": (
        Bundle(bundle("9").manifest, bundle().model + b"\0"),
        Reason.MODEL_HASH,
        "has SHA-256",
    ),
    "too large": (
        Bundle(bundle("9").manifest, bytes(16_000_001)),
        Reason.MODEL_INVALID,
        "16000001 bytes",
    ),
    "no model": (bundle("9", model=b"rubbish" * 9), Reason.MODEL_INVALID, "TFL3 is missing"),
    "lacking": (
        bundle("9", model=bad_models.lacking()),
        Reason.MODEL_OPERATOR,
        "lacks CONCAT_EMBEDDINGS version 1",
    ),
    "crashing": (bundle("9", model=bad_models.crashing()), Reason.MODEL_TRIAL, "crashed"),
    "nan": (bundle("9", model=bad_models.without_numbers()), Reason.MODEL_TRIAL, "NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_champion_is_refused_once_and_the_old_one_goes_on(bench: Bench, name: str) -> None:
    made, reason, words = BAD[name]
    bench.champion(bundle("1"))
    bench.trial = run_trial
    bench.again()
    assert bench.champion(made) is Came.REFUSED
    told = bench.told()
    assert bench.champion(made) is Came.REFUSED
    bench.again()
    assert bench.champion(made) is Came.REFUSED
    assert bench.told() == told
    assert [kind for kind, _ in told] == ["edge-installed", "dead-letter", "edge-refused"]
    assert all(words in sentence for _, sentence in told[1:])
    assert bench.versions == ("1", None)
    assert bench.offered == [bundle("1")], "of the last start"
    known = bench.updates.index.refusal_of(made.release_sha256)
    assert known is not None and known.reason == reason and words in known.detail


def test_signatures_where_they_are_required(tmp_path: Path) -> None:
    bench = Bench(tmp_path, signatures_required=True)
    trust(bench.settings.trusted_keys_path, SigningKey.generate().public)
    assert bench.champion(bundle("1")) is Came.REFUSED
    assert bench.champion(signed(bundle("1"))) is Came.REFUSED
    trust(bench.settings.trusted_keys_path, KEY.public)
    assert bench.champion(signed(bundle("1"))) is Came.INSTALLED
    manifest = signed(bundle("2")).manifest
    forged = Bundle(replace(manifest, threshold=99.0), bundle().model)
    assert bench.champion(forged) is Came.REFUSED
    details = [each.detail for each in bench.updates.index.refused]
    assert "not signed, and signatures are required" in details[0]
    assert "does not fit the release" in details[1]
    assert len(details) == 2, "what became trusted is refused no more"
    bench.again()
    assert [each.manifest.version for each in bench.offered] == ["1"]
    next(bench.settings.trusted_keys_path.glob(f"{KEY.public.key_id}*")).unlink()
    bench.again()
    assert bench.offered == [] and bench.versions == (None, None)
    bench.close()


def test_a_forged_signature_is_refused_even_where_none_is_required(bench: Bench) -> None:
    trust(bench.settings.trusted_keys_path, KEY.public)
    forged = replace(signed(bundle("1")).manifest, threshold=99.0)
    assert bench.champion(Bundle(forged, bundle().model)) is Came.REFUSED
    stranger = SigningKey.generate().sign(bundle("2").manifest)
    assert bench.champion(Bundle(stranger, bundle().model)) is Came.INSTALLED
    assert bench.updates.index.current is not None
    assert "which is not trusted here" in bench.updates.index.current.signer


def test_versions_older_than_the_least(tmp_path: Path) -> None:
    bench = Bench(tmp_path, model_min_version="1.10")
    assert bench.champion(bundle("1.9")) is Came.REFUSED
    assert bench.champion(bundle("1.10")) is Came.INSTALLED
    [refused] = bench.updates.index.refused
    assert refused.reason == Reason.MODEL_VERSION and "older than 1.10" in refused.detail
    bench.again(model_min_version="1.9")
    assert bench.champion(bundle("1.9"), 1) is Came.INSTALLED
    bench.close()


def test_a_model_in_use_that_breaks_its_bounds_gives_way(bench: Bench) -> None:
    bench.champion(bundle("1"))
    bench.champion(bundle("2"))
    breach = Breach(Reason.MODEL_BOUNDS, "too many alerts")
    assert bench.updates.retreat(bundle("2"), breach) == bundle("1")
    assert bench.versions == ("1", None)
    assert bench.health.model_rollback == "2 is given up: too many alerts; back to 1"
    assert bench.champion(bundle("2")) is Came.REFUSED
    assert [kind for kind, _ in bench.told()][2:] == ["dead-letter", "edge-rolled-back"]
    bench.again()
    assert bench.health.model_rollback and bench.offered == [bundle("1")]
    assert bench.champion(bundle("2")) is Came.REFUSED
    assert bench.updates.retreat(bundle("1"), breach) is None
    assert "no model scores now" in bench.updates.index.rolled_back
    bench.again()
    assert bench.offered == []
    assert bench.champion(bundle("3")) is Came.INSTALLED


def test_a_file_by_hand_is_another_chance_and_stays(bench: Bench) -> None:
    bench.champion(bundle("1"), 1)
    bench.champion(bundle("2"), 2)
    bench.updates.retreat(bundle("2"), Breach(Reason.MODEL_BOUNDS, "too many alerts"))
    outcome = bench.updates.install(bench.file(bundle("2")))
    assert outcome.came is Came.INSTALLED and "from file" in outcome.detail
    assert bench.champion(bundle("1"), 2) is Came.INSTALLED, "another champion"
    bench.updates.install(bench.file(bundle("7")))
    assert bench.champion(bundle("1"), 2) is Came.PINNED
    bench.again()
    assert bench.champion(bundle("1"), 2) is Came.PINNED
    assert bench.champion(bundle("1"), 3) is Came.INSTALLED, "the same one, named anew"


@pytest.mark.parametrize(("champion", "came"), [("6", Came.PINNED), ("8", Came.INSTALLED)])
def test_a_choice_made_offline_gives_way_to_a_newer_version_only(
    bench: Bench, champion: str, came: Came
) -> None:
    bench.updates.install(bench.file(bundle("7")))
    assert bench.champion(bundle(champion), 5) is came
    assert bench.champion(bundle(champion), 5) in (came, Came.SAME)
    assert bench.champion(bundle("9"), 5) is Came.INSTALLED


def test_back_by_hand_and_there_until_the_fleet_decides_anew(bench: Bench) -> None:
    with pytest.raises(MotorcadeError, match="no predecessor"):
        bench.updates.roll_back()
    bench.champion(bundle("1"), 1)
    bench.champion(bundle("2"), 2)
    assert bench.updates.roll_back().version == "1"
    assert bench.versions == ("1", "2")
    assert bench.champion(bundle("2"), 2) is Came.PINNED
    assert bench.offered[-1] == bundle("1")
    assert bench.champion(bundle("3"), 3) is Came.INSTALLED


def test_a_directory_gives_its_newest_version(bench: Bench) -> None:
    stick = bench.directory / "stick"
    stick.mkdir()
    for version in ("9", "10", "2"):
        bundle(version).save(stick / f"{version}.motorcade")
    bundle("99", name="other").save(stick / "other.motorcade")
    (stick / "broken.motorcade").write_bytes(b"rubbish")
    (stick / "._9.motorcade").write_bytes(b"left by another system")
    (stick / ".motorcade").mkdir()
    assert bench.updates.install(stick).version == "10"
    (bench.directory / "empty").mkdir()
    with pytest.raises(SettingsError, match="no release of anomaly"):
        bench.updates.install(bench.directory / "empty")


def test_a_refused_file_says_why(bench: Bench) -> None:
    path = bench.file(bundle("9", model=bad_models.lacking()))
    with pytest.raises(ContractError, match="CONCAT_EMBEDDINGS"):
        bench.updates.install(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ContractError) as caught:
        bench.updates.install(path)
    assert caught.value.reason in (Reason.TRUNCATED, Reason.NOT_AVRO)


def test_an_inbox_is_judged_once(bench: Bench) -> None:
    stick = bench.directory / "stick"
    inbox = Inbox(stick)
    assert inbox.look() == []
    stick.mkdir()
    bundle("9").save(stick / "9.motorcade")
    bundle("10", model=bad_models.lacking()).save(stick / "10.motorcade")
    (stick / "broken.motorcade").write_bytes(b"rubbish")
    (stick / "link.motorcade").symlink_to(stick / "9.motorcade")
    assert inbox.look() == [], "it may still be written"
    found = inbox.look()
    assert [file.path.name for file in found] == ["10.motorcade", "9.motorcade", "broken.motorcade"]
    bench.updates.from_inbox(found)
    assert bench.versions == ("9", None)
    told = bench.told()
    assert [kind for kind, _ in told] == ["edge-refused", "edge-installed", "edge-refused"]
    assert inbox.look() == []
    bench.again()
    again = Inbox(stick)
    again.look()
    bench.updates.from_inbox(again.look())
    assert bench.told() == told
    (stick / "9.motorcade").write_bytes(b"changed")
    again.look()
    assert [file.path.name for file in again.look()] == ["9.motorcade"]


def test_files_are_read_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "huge.motorcade"
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    found = read_file(path).found
    assert isinstance(found, ContractError) and found.reason is Reason.OVERSIZED
    with pytest.raises(SettingsError, match="no file"):
        read_file(tmp_path)
    for number in range(FILES_MAX + 5):
        (tmp_path / f"{number}.motorcade").touch()
    inbox = Inbox(tmp_path)
    inbox.look()
    assert len(inbox.look()) == FILES_MAX


def test_trials_that_take_the_gateway_with_them_are_not_begun_for_ever(bench: Bench) -> None:
    store = ModelStore(bench.settings.models_path)
    bench.champion(bundle("1"))
    for _ in range(TRIALS_MAX):
        bench.close()
        with store:
            current = store.index.current
            assert current is not None
            made = bundle("2")
            store.stage(made, replace(current, version="2", release=made.release_sha256))
        bench.open()
    assert bench.champion(bundle("2")) is Came.REFUSED
    assert "did not come to an end before the gateway did" in bench.updates.index.refused[0].detail


def test_commands_without_a_gateway_work_on_the_disk(bench: Bench) -> None:
    settings = bench.settings
    bench.champion(bundle("1"))
    path = bench.file(bundle("2"))
    with pytest.raises(SettingsError):
        install_model(settings, path, now_ms=lambda: 1)
    bench.close()
    assert install_model(settings, path, now_ms=lambda: 1)["came"] == "installed"
    found = list_models(settings)
    assert (found["running"], found["current"]["version"]) == (False, "2")
    assert roll_back(settings, now_ms=lambda: 1)["version"] == "1"
    assert list_models(settings)["pin"] is not None
    bench.open()
    assert bench.versions == ("1", "2")


def test_a_settings_change_of_the_name_keeps_the_old_model(bench: Bench) -> None:
    bench.champion(bundle("1"))
    bench.again(model_name="other")
    assert bench.offered == []
    assert bench.champion(bundle("5", name="other")) is Came.INSTALLED
    assert bench.versions == ("5", None)


def test_another_source_of_a_refused_release_is_told_in_its_words(bench: Bench) -> None:
    made = bundle("9", model=bad_models.lacking())
    bench.champion(made)
    outcome = bench.updates.consider(made, Source("file x", by_hand=True, again=True))
    assert outcome.came is Came.REFUSED and "CONCAT_EMBEDDINGS" in outcome.detail
