"""One file, variables over it, flags over both; what is unknown is refused with its place."""

from pathlib import Path

import pytest

from cloud.settings import ScorerSettings
from edge.settings import GatewaySettings
from motorcade.config import load
from motorcade.sections import SECTIONS, Key, Section, attribute_docs, keys_of, members
from motorcade.toml_lines import line_of
from schemas.errors import SettingsError
from transport.limits import fault
from transport.settings import KafkaSettings, MqttSettings, TlsSettings


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "motorcade.toml") -> Path:
    path = Path(name)
    path.write_text(text, "utf-8")
    return path


def test_defaults_are_those_of_the_dataclass() -> None:
    assert load().section(MqttSettings) == MqttSettings()
    assert load().section(KafkaSettings) == KafkaSettings()


def test_environment_goes_over_file_and_flags_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[mqtt]\nhost = "file"\nport = 1\nfleet = "file"\n')
    monkeypatch.setenv("MOTORCADE_MQTT_PORT", "2")
    monkeypatch.setenv("MOTORCADE_MQTT_FLEET", "environment")
    mqtt = load(flags={"mqtt": {"fleet": "flag"}}).section(MqttSettings)
    assert (mqtt.host, mqtt.port, mqtt.fleet) == ("file", 2, "flag")


def test_only_the_first_underscore_divides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTORCADE_KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    assert load().section(KafkaSettings).bootstrap_servers == "a:1,b:2"


def test_file_by_flag_and_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    other = write('[mqtt]\nhost = "other"\n', "other.toml")
    assert load(other).section(MqttSettings).host == "other"
    monkeypatch.setenv("MOTORCADE_CONFIG", str(other))
    assert load().section(MqttSettings).host == "other"


def test_a_file_that_was_asked_for_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: no such settings file"):
        load(Path("absent.toml"))


def test_unknown_key_is_refused_with_its_line_and_what_there_is() -> None:
    write('[kafka]\n\n[mqtt]\n# a comment\nhots = "x"\n')
    with pytest.raises(SettingsError, match=r"motorcade\.toml:5: mqtt\.hots: .*host, keepalive_s"):
        load()


def test_unknown_key_of_a_table_in_a_table_is_refused() -> None:
    write('[mqtt.tls]\nca = "ca.pem"\ncert = "x"\n')
    with pytest.raises(SettingsError, match=r"motorcade\.toml:3: mqtt\.tls\.cert: .*certificate"):
        load()


def test_unknown_section_is_refused() -> None:
    write("[mqqt]\nport = 1\n")
    with pytest.raises(SettingsError, match=r"motorcade\.toml:1: mqqt: no such section, .*mqtt"):
        load()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("MOTORCADE_MQTT_HOTS", r"MOTORCADE_MQTT_HOTS: mqtt\.hots: unknown key"),
        ("MOTORCADE_MQQT_HOST", "MOTORCADE_MQQT_HOST: no such section"),
        ("MOTORCADE_MQTT_PORT", r"MOTORCADE_MQTT_PORT: mqtt\.port: .*integer"),
    ],
)
def test_bad_variable_is_refused_by_name(
    variable: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(SettingsError, match=message):
        load()


def test_wrong_type_names_file_and_line() -> None:
    write('[mqtt]\nport = "many"\n')
    with pytest.raises(SettingsError, match=r"motorcade\.toml:2: mqtt\.port: .*'many'"):
        load()


def test_value_the_room_refuses_names_file_and_line() -> None:
    write("[scorer]\npoll_messages = 0\n")
    with pytest.raises(SettingsError, match=r"motorcade\.toml:2: scorer poll_messages is 0"):
        load().section(ScorerSettings)


def test_value_out_of_range_names_file_and_line_and_what_it_may_be() -> None:
    write("[gateway]\ngroup_commit_ms = 501\nagreement_share = 1.5\n[mqtt]\nversion = 3\n")
    with pytest.raises(SettingsError) as raised:
        load()
    assert str(raised.value).split("; ") == [
        "motorcade.toml:5: mqtt.version is 3",
        "it may be 4 or 5",
        "motorcade.toml:2: gateway.group_commit_ms is 501",
        "it may be 0 to 500 ms",
        "motorcade.toml:3: gateway.agreement_share is 1.5",
        "it may be 0 to 1",
    ]


def test_value_out_of_range_of_a_flag_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"flag for gateway\.group_commit_ms: .*0 to 500 ms"):
        load(flags={"gateway": {"group_commit_ms": -1}})
    monkeypatch.setenv("MOTORCADE_GATEWAY_GATEWAY_ID", "a/b")
    with pytest.raises(SettingsError, match=r"MOTORCADE_GATEWAY_GATEWAY_ID: .*without / \+ #"):
        load()


def test_a_value_of_the_wrong_type_is_told_what_it_may_be() -> None:
    write('[gateway]\ngroup_commit_ms = "soon"\n')
    with pytest.raises(SettingsError, match=r"toml:2: .*integer.*'soon'; it may be 0 to 500 ms"):
        load()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[gateway]\ngruop_commit_ms = 5\n", "did you mean group_commit_ms?"),
        ("[gatway]\ngroup_commit_ms = 5\n", "did you mean gateway?"),
        ('[mqtt.tls]\ncertficate = "x"\n', "did you mean certificate?"),
    ],
)
def test_a_typing_error_is_told_what_was_meant(text: str, meant: str) -> None:
    write(text)
    with pytest.raises(SettingsError) as raised:
        load()
    assert meant in str(raised.value)
    assert "motorcade.toml:" in str(raised.value)


@pytest.mark.parametrize("key", keys_of(GatewaySettings), ids=lambda key: key.name)
def test_every_key_of_the_gateway_says_what_it_may_be_by_type_or_by_limit(key: Key) -> None:
    assert key.allowed or members(key.annotation)[0] in (bool, Path)
    assert fault(GatewaySettings, key.name, key.default) is None


def test_no_toml() -> None:
    write("[mqtt\n")
    with pytest.raises(SettingsError, match=r"motorcade\.toml: not TOML"):
        load()


def test_secret_from_a_file() -> None:
    write("pa ss\n", "secret")
    write('[mqtt]\nusername = "u"\npassword_file = "secret"\n')
    assert load().section(MqttSettings).password == "pa ss"


def test_secret_twice_is_refused() -> None:
    write("x", "secret")
    write('[mqtt]\npassword = "y"\npassword_file = "secret"\n')
    with pytest.raises(SettingsError, match=r"mqtt\.password and mqtt\.password_file are both set"):
        load()


def test_secret_file_that_is_not_there() -> None:
    write('[kafka]\nregistry_password_file = "absent"\n')
    with pytest.raises(SettingsError, match=r"kafka\.registry_password_file: absent: No such file"):
        load()


def test_table_in_a_table_becomes_its_dataclass() -> None:
    write('[mqtt.tls]\nca = "ca.pem"\n')
    assert load().section(MqttSettings).tls == TlsSettings(ca="ca.pem")


def test_table_in_a_table_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTORCADE_MQTT_TLS", '{"ca": "ca.pem"}')
    assert load().section(MqttSettings).tls == TlsSettings(ca="ca.pem")


def test_paths_are_paths() -> None:
    write('[gateway]\nspool_path = "a/b.db"\n')
    assert load().section(GatewaySettings).spool_path == Path("a/b.db")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_setting_is_documented(section: Section) -> None:
    undocumented = [key.name for key in section.settings() if not key.doc]
    assert not undocumented


def test_line_of_dotted_keys_and_quotes() -> None:
    text = 'mqtt.host = "x"\n["kafka"]\n"client_id" = "y"\n'
    assert line_of(text, ("mqtt", "host")) == 1
    assert line_of(text, ("kafka", "client_id")) == 3
    assert line_of(text, ("scorer",)) is None


def test_attribute_docs_join_lines_and_stop_at_the_next_heading() -> None:
    text = "X.\n\nAttributes:\n    a: One\n        two.\n    b: Three.\n\nRaises:\n    E: x.\n"
    assert list(attribute_docs(text)) == [("a", "One two."), ("b", "Three.")]
