"""A real Mosquitto on a free port, for tests; its sessions outlive a restart."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MosquittoBroker:
    """One broker process with its data in `directory`."""

    def __init__(self, directory: Path, *, extra: str = "") -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._directory = directory
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        config = self._directory / "mosquitto.conf"
        # Started by root, Mosquitto becomes a user who may not enter a test's directory.
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user}listener {self.port} {self.host}\nallow_anonymous true\n"
            f"persistence true\npersistence_location {self._directory}/\nautosave_interval 1\n"
            f"max_queued_messages 100000\n{self._extra}\n",
            "utf-8",
        )
        with (self._directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=log, stderr=log)
        self._wait_listening()

    def stop(self) -> None:
        """Stop in order: sessions and their queues are saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9: what was not saved is gone."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def _wait_listening(self) -> None:
        until_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until_s:
            try:
                socket.create_connection((self.host, self.port), 1.0).close()
                return
            except OSError:
                time.sleep(0.02)
        self.kill()
        log = (self._directory / "mosquitto.log").read_text("utf-8")
        raise AssertionError(f"mosquitto did not start to listen:\n{log}")
