"""From settings to the client's configuration, and what the client makes of it."""

import pytest

from schemas.errors import SettingsError, TransientError
from transport.kafka import KafkaSettings, TransactionalProducer, make_consumer, register_schemas
from transport.kafka.config import client_config, producer_config, registry_config
from transport.settings import TlsSettings


def test_without_credentials_it_is_plain() -> None:
    config = client_config(KafkaSettings("a:1"))
    assert config["bootstrap.servers"] == "a:1"
    assert config["security.protocol"] == "PLAINTEXT"
    assert not any(key.startswith(("sasl.", "ssl.")) for key in config)


@pytest.mark.parametrize(
    ("username", "tls", "protocol"),
    [
        ("me", None, "SASL_PLAINTEXT"),
        (None, TlsSettings(), "SSL"),
        ("me", TlsSettings(ca="ca.pem"), "SASL_SSL"),
    ],
)
def test_credentials_and_certificates_choose_the_protocol(
    username: str | None, tls: TlsSettings | None, protocol: str
) -> None:
    settings = KafkaSettings(username=username, password="secret", tls=tls)
    config = client_config(settings)
    assert config["security.protocol"] == protocol
    assert config.get("sasl.password") == ("secret" if username else None)
    assert config.get("ssl.ca.location") == (tls.ca if tls else None)


def test_passwords_do_not_show() -> None:
    settings = KafkaSettings(password="secret", registry_password="secret")
    assert "secret" not in repr(settings)


def test_the_registry_has_credentials_of_its_own() -> None:
    settings = KafkaSettings(
        registry_url="https://r",
        registry_username="me",
        registry_password="x",
        tls=TlsSettings("c"),
    )
    config = registry_config(settings)
    assert config["basic.auth.user.info"] == "me:x"
    assert config["ssl.ca.location"] == "c"
    assert "ssl.ca.location" not in registry_config(KafkaSettings(tls=TlsSettings("c")))


@pytest.mark.parametrize(
    ("name", "value"),
    [("bootstrap_servers", ""), ("sasl_mechanism", "GUESS"), ("compression", "zip")],
)
def test_settings_that_cannot_work_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        KafkaSettings(**{name: value})  # type: ignore[arg-type]


def test_what_the_client_refuses_is_a_setting() -> None:
    with pytest.raises(SettingsError, match="No such configuration"):
        make_consumer(KafkaSettings(), "g", no_such_option=1).start()


def test_nobody_at_home_is_transient() -> None:
    nowhere = KafkaSettings("127.0.0.1:1", "http://127.0.0.1:1")
    with pytest.raises(TransientError):
        TransactionalProducer(nowhere, "id").start(timeout_s=0.3)
    with pytest.raises(TransientError, match="schema registry"):
        register_schemas(nowhere)


def test_a_client_that_was_not_started_says_so() -> None:
    with pytest.raises(TransientError, match="not started"):
        TransactionalProducer(KafkaSettings(), "id").begin()
    with pytest.raises(TransientError, match="not started"):
        make_consumer(KafkaSettings(), "g").consume(1, 0)


def test_compression_is_the_users_choice() -> None:
    assert producer_config(KafkaSettings(compression="lz4"))["compression.type"] == "lz4"
