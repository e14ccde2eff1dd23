"""A real Mosquitto with the Raspberry Pi's settings, in a directory of a test's own."""

import os
import shutil
import subprocess
from pathlib import Path

from mosquitto_broker import MOSQUITTO, MosquittoBroker, free_port
from pi_files import FILES

from transport.settings import MqttSettings, TlsSettings

FLEET = "depot-7"
ETC = "/etc/motorcade/mosquitto"
STATE = "/var/lib/mosquitto/"


class PiBroker(MosquittoBroker):
    """The settings as they are shipped, but for paths, ports and the user.

    Args:
        directory: For everything.
        authority: As certificates.sh made it.
    """

    def __init__(self, directory: Path, authority: Path) -> None:
        super().__init__(directory)
        self.password_port = free_port()
        self._authority = authority

    def start(self) -> None:
        assert MOSQUITTO is not None
        etc = self._directory / "etc"
        (etc / "conf.d").mkdir(parents=True, exist_ok=True)
        for name in ("ca.crt", "revoked.crl", "issued/server.crt", "issued/server.key"):
            shutil.copy(self._authority / name, etc)
        acl = (FILES / "mosquitto" / "acl").read_text("utf-8")
        (etc / "acl").write_text(acl.replace("FLEET", FLEET), "utf-8")
        self._write("passwords.conf", etc / "conf.d" / "passwords.conf")
        config = self._write("mosquitto.conf", etc / "mosquitto.conf")
        with (self._directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=log, stderr=log)
        self._wait_listening()

    def settings(self, who: str, *, authority: Path | None = None) -> MqttSettings:
        """Of a client with the certificate of `who`."""
        issued = (authority or self._authority) / "issued"
        tls = TlsSettings(
            ca=str(self._authority / "ca.crt"),
            certificate=str(issued / f"{who}.crt"),
            key=str(issued / f"{who}.key"),
        )
        return MqttSettings(host=self.host, port=self.port, fleet=FLEET, tls=tls)

    def _write(self, source: str, target: Path) -> Path:
        text = (FILES / "mosquitto" / source).read_text("utf-8")
        text = text.replace(ETC, str(self._directory / "etc"))
        text = text.replace(STATE, f"{self._directory}/")
        text = text.replace("listener 8883", f"listener {self.port} {self.host}")
        text = text.replace("listener 8884", f"listener {self.password_port} {self.host}")
        if os.geteuid() == 0 and source == "mosquitto.conf":
            text = f"user root\n{text}"
        target.write_text(text, "utf-8")
        return target
