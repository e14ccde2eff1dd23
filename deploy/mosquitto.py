"""Mosquitto, what a Raspberry Pi runs, as the stack's MQTT broker where it is installed."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploy import probes
from deploy.ports import LOOPBACK
from schemas.errors import SettingsError

IN_FLIGHT_MAX = 2_000
"""Unacknowledged messages to one client. More than twice a gateway's commit of 500, so that one
fills while another is written; what a client asks for by its receive maximum is less."""

QUEUED_MESSAGES_MAX = 20_000
QUEUED_BYTES_MAX = 32 << 20
"""What waits for one client that is away. At the limit the newest is dropped: a vehicle keeps what
the gateway has not acknowledged, and sends it again."""

PACKET_BYTES_MAX = 1 << 20
AUTOSAVE_S = 1

# Debian installs it where an ordinary user's PATH does not look.
_SYSTEM_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin")


def find_mosquitto() -> str | None:
    """Path of the program, if it is installed."""
    found = shutil.which("mosquitto")
    return found or shutil.which("mosquitto", path=os.pathsep.join(_SYSTEM_DIRECTORIES))


def mosquitto_conf(directory: Path, port: int) -> str:
    """The settings of a broker that keeps sessions and retained messages in `directory`.

    Everyone is let in, which the loopback listener alone makes harmless. The store is written
    once a second: a broker killed at once forgets the last seconds, and the acknowledgement from
    end to end makes that good. `per_listener_settings` stays off: with it 2.0.11 loses sessions.
    """
    return f"""\
listener {port} {LOOPBACK}
allow_anonymous true
persistence true
persistence_location {directory}/
autosave_interval {AUTOSAVE_S}
persistent_client_expiration 7d
max_inflight_messages {IN_FLIGHT_MAX}
max_queued_messages {QUEUED_MESSAGES_MAX}
max_queued_bytes {QUEUED_BYTES_MAX}
max_packet_size {PACKET_BYTES_MAX}
set_tcp_nodelay true
connection_messages false
log_dest file {directory}/mosquitto.log
log_type error
log_type warning
log_timestamp_format %Y-%m-%dT%H:%M:%S
"""


@dataclass(frozen=True)
class Mosquitto:
    """MQTT part of the stack, by Mosquitto.

    Attributes:
        directory: Its own directory.
        port: Port for clients, MQTT 5 and 3.1.1.
    """

    directory: Path
    port: int
    name: str = "mqtt"
    program: str = "Eclipse Mosquitto"

    @property
    def ports(self) -> tuple[int, ...]:
        """For clients."""
        return (self.port,)

    @property
    def log(self) -> Path:
        """Mosquitto's own log; warnings and errors only."""
        return self.directory / "mosquitto.log"

    def prepare(self) -> None:
        """Write the settings."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # Started as root it would become the user `mosquitto`, who may not write here.
        drop = "user root\n" if os.geteuid() == 0 else ""
        self._settings.write_text(drop + mosquitto_conf(self.directory, self.port), "utf-8")

    def command(self) -> list[str]:
        """Run the broker in the foreground."""
        path = find_mosquitto()
        if path is None:
            raise SettingsError("mosquitto is not installed; leave the choice to 'auto'")
        return [path, "-c", str(self._settings)]

    def answers(self) -> bool:
        """Whether it accepts an MQTT 5 connection."""
        return probes.mqtt_answers(self.port)

    @property
    def _settings(self) -> Path:
        return self.directory / "mosquitto.conf"
