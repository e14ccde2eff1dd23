"""The Raspberry Pi's Mosquitto: who is let in, and to which topics."""

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mosquitto_broker import MOSQUITTO
from pi_broker import FLEET, PiBroker
from pi_files import carry_out, certificates, need, run

import deploy
from schemas.errors import MotorcadeError, SettingsError
from transport.mqtt import Incoming, MqttClient, SessionSettings
from transport.settings import MqttSettings, TlsSettings

PATIENCE_S = 60.0
VEHICLE, OTHER = "car-1", "car-2"
CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"
ACCEPTED = b"\x20\x02\x00\x00"
ROOT = Path(deploy.__file__).parents[1]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    roles = [("role", name) for name in ("gateway", "watcher", "fleet")]
    vehicles = [("vehicle", name) for name in (VEHICLE, OTHER, "stolen", "laptop-00000")]
    place = certificates(tmp_path_factory.mktemp("of"), ("server",), *roles, *vehicles)
    for kept in ("stolen.crt", "stolen.key"):
        shutil.copy(place / "issued" / kept, place.parent)
    carry_out(place, "revoke", "stolen")
    return place


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[PiBroker]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    directory = tmp_path_factory.mktemp("broker")
    password_file = directory / "etc" / "passwords"
    password_file.parent.mkdir()
    password_file.touch(0o600)
    done = run(need("mosquitto_passwd"), "-b", str(password_file), VEHICLE, "secret")
    assert done.returncode == 0, done.stderr
    running = PiBroker(directory, authority)
    running.start()
    yield running
    running.stop()


@contextlib.contextmanager
def client(
    settings: MqttSettings, name: str, received: list[str] | None = None
) -> Iterator[MqttClient]:
    """A connected client that notes the topics of what it gets."""
    taken: list[str] = [] if received is None else received

    def note(message: Incoming) -> None:
        taken.append(message.topic)

    session = SessionSettings(f"test-{name}", clean_start=True, manual_ack=False)
    with MqttClient(settings, session, on_message=note) as connected:
        connected.wait_connected(PATIENCE_S)
        yield connected


def published(to: MqttClient, topic: str, payload: bytes = b"x") -> MotorcadeError | None:
    """Publish and wait for the broker's answer: None, or why it refused."""
    answered = threading.Event()
    answers: list[MotorcadeError | None] = []

    def note(error: MotorcadeError | None) -> None:
        answers.append(error)
        answered.set()

    to.publish(topic, payload, on_published=note)
    assert answered.wait(PATIENCE_S)
    return answers[0]


def waited(condition: Callable[[], bool]) -> None:
    """Until a condition holds; bounded."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it did not come to that"
        time.sleep(0.02)


def let_in(broker: PiBroker, tls: TlsSettings | None) -> bool:
    """Whether the broker accepts an MQTT connection with these certificates; None: without TLS."""
    with socket.create_connection((broker.host, broker.port), PATIENCE_S) as plain:
        try:
            with contextlib.nullcontext(plain) if tls is None else wrapped(plain, tls) as line:
                line.sendall(CONNECT)
                return line.recv(4) == ACCEPTED
        except (ssl.SSLError, ConnectionError):
            return False


def wrapped(plain: socket.socket, tls: TlsSettings) -> ssl.SSLSocket:
    return context_of(tls).wrap_socket(plain, server_hostname="localhost")


def context_of(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def topic(vehicle: str, rest: str) -> str:
    return f"v1/{FLEET}/{vehicle}/{rest}"


def test_a_vehicle_publishes_its_own_topics_alone(broker: PiBroker) -> None:
    got: list[str] = []
    with (
        client(broker.settings("gateway"), "gateway", got) as gateway,
        client(broker.settings(VEHICLE), "car") as car,
    ):
        gateway.subscribe([topic("+", "telemetry"), topic("+", "label")])
        assert published(gateway, topic(OTHER, "ack")) is None  # the subscription stands by now
        for own in ("telemetry", "label", "state/link"):
            assert published(car, topic(VEHICLE, own)) is None
        for wrong in (
            topic(OTHER, "telemetry"),
            topic(VEHICLE, "ack"),
            topic(VEHICLE, "alert/anomaly"),
            topic(VEHICLE, "state/health"),
            f"v1/other/{VEHICLE}/telemetry",
            "telemetry",
        ):
            assert published(car, wrong) is not None, wrong
        assert published(car, topic(VEHICLE, "telemetry")) is None
        waited(lambda: len(got) == 3)
    assert set(got) == {topic(VEHICLE, "telemetry"), topic(VEHICLE, "label")}


def test_a_vehicle_reads_its_own_alerts_and_acknowledgements_alone(broker: PiBroker) -> None:
    got: list[str] = []
    with (
        client(broker.settings("gateway"), "gateway") as gateway,
        client(broker.settings(VEHICLE), "car", got) as car,
    ):
        car.subscribe([f"v1/{FLEET}/+/ack", f"v1/{FLEET}/+/alert/+", f"v1/{FLEET}/+/telemetry"])
        assert published(car, topic(VEHICLE, "telemetry")) is None
        for vehicle in (OTHER, VEHICLE):
            for rest in ("ack", "alert/anomaly"):
                assert published(gateway, topic(vehicle, rest)) is None
        waited(lambda: topic(VEHICLE, "alert/anomaly") in got)
    assert set(got) == {topic(VEHICLE, "ack"), topic(VEHICLE, "alert/anomaly")}


def test_a_watcher_sees_alerts_and_health_and_publishes_nothing(broker: PiBroker) -> None:
    got: list[str] = []
    with (
        client(broker.settings("gateway"), "gateway") as gateway,
        client(broker.settings("watcher"), "watcher", got) as watcher,
        client(broker.settings(VEHICLE), "car") as car,
    ):
        watcher.subscribe([f"v1/{FLEET}/#"])
        assert published(watcher, topic(VEHICLE, "telemetry")) is not None
        assert published(car, topic(VEHICLE, "telemetry")) is None
        assert published(gateway, topic(VEHICLE, "alert/anomaly")) is None
        assert published(gateway, topic("gateway-1", "state/health")) is None
        waited(lambda: topic("gateway-1", "state/health") in got)
    assert topic(VEHICLE, "telemetry") not in got


def test_who_has_no_good_certificate_is_not_let_in(
    broker: PiBroker, authority: Path, tmp_path: Path
) -> None:
    ours = tls_of(broker, VEHICLE)
    assert let_in(broker, ours)
    foreign = certificates(tmp_path, ("vehicle", VEHICLE)) / "issued" / VEHICLE
    stolen = authority.parent / "stolen"
    for name in (foreign, stolen):
        assert not let_in(broker, replace(ours, certificate=f"{name}.crt", key=f"{name}.key"))
    assert not let_in(broker, replace(ours, certificate=None, key=None))
    assert not let_in(broker, None)


def tls_of(broker: PiBroker, who: str) -> TlsSettings:
    tls = broker.settings(who).tls
    assert tls is not None
    return tls


def test_a_client_believes_no_foreign_broker(broker: PiBroker, tmp_path: Path) -> None:
    foreign = certificates(tmp_path) / "ca.crt"
    assert not let_in(broker, replace(tls_of(broker, VEHICLE), ca=str(foreign)))


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_is_1_2_or_newer(broker: PiBroker, version: ssl.TLSVersion, spoken: bool) -> None:
    context = context_of(tls_of(broker, VEHICLE))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that this side would speak the old one
    context.minimum_version = context.maximum_version = version
    with socket.create_connection((broker.host, broker.port), PATIENCE_S) as plain:
        if spoken:
            context.wrap_socket(plain, server_hostname="localhost").close()
            return
        with pytest.raises(ssl.SSLError, match=r"(?i)version"):
            context.wrap_socket(plain, server_hostname="localhost")


def test_a_password_lets_a_vehicle_in_where_that_is_turned_on(
    broker: PiBroker, authority: Path
) -> None:
    tls = TlsSettings(ca=str(authority / "ca.crt"))
    settings = replace(
        broker.settings(VEHICLE), port=broker.password_port, tls=tls, username=VEHICLE
    )
    with client(replace(settings, password="secret"), "by password") as car:
        assert published(car, topic(VEHICLE, "telemetry")) is None
        assert published(car, topic(OTHER, "telemetry")) is not None
    for wrong in (
        replace(settings, password="guessed"),
        replace(settings, username=None),
        replace(settings, username="gateway", password="secret"),
    ):
        with pytest.raises(SettingsError), client(wrong, "wrong"):
            pass


def test_the_real_gateway_takes_what_a_simulated_vehicle_sends(
    broker: PiBroker, tmp_path: Path
) -> None:
    gateway = motorcade(
        tmp_path,
        broker.settings("gateway"),
        *("gateway", "run", "--spool-path", f"{tmp_path}/spool.db"),
        *("--models-path", f"{tmp_path}/models", "--control-path", f"{tmp_path}/control"),
        *("--kafka-bootstrap-servers", "127.0.0.1:1", "--progress"),
    )
    with gateway as process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        driving = ["simulate", "--vehicles", "1", "--duration-s", "3", "--name", "laptop"]
        with motorcade(tmp_path, broker.settings("laptop-00000"), *driving) as car:
            said, complaints = car.communicate(timeout=PATIENCE_S)
    assert car.returncode == 0, complaints
    counts = re.match(r"measured (\d+) readings, acknowledged (\d+)", said)
    assert counts is not None, said
    assert int(counts[1]) == int(counts[2]) > 0


@contextlib.contextmanager
def motorcade(
    directory: Path, mqtt: MqttSettings, *arguments: str
) -> Iterator["subprocess.Popen[str]"]:
    """A command with the settings of an MQTT client; ended with SIGTERM."""
    assert mqtt.tls is not None
    config = directory / f"{arguments[0]}.toml"
    config.write_text(
        f'[mqtt]\nhost = "{mqtt.host}"\nport = {mqtt.port}\nfleet = "{mqtt.fleet}"\n[mqtt.tls]\n'
        f'ca = "{mqtt.tls.ca}"\ncertificate = "{mqtt.tls.certificate}"\nkey = "{mqtt.tls.key}"\n',
        "utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "motorcade", "--config", str(config), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
