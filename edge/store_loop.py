"""The storing thread: groups of messages from the queue to the disk, then the acknowledgements.

Nothing is acknowledged, to the broker or to a vehicle, before the commit that holds it returned.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from edge.acks import AckBook
from edge.admission import Admission, Admitted
from edge.health import Health
from edge.identity import IdentityBook
from edge.intake import Inbound, Intake
from edge.patience import Patience
from edge.settings import GatewaySettings
from edge.spans import begin_spans
from edge.spool import Spool

IDLE_S = 0.25

GROUP_BYTES_MAX = 4 * 1024 * 1024
GROUPS_IN_QUOTA = 16
"""A group is stored whole, so it is kept small beside what the spool may take."""


class StoreLoop:
    """Owner of the identities and the only writer of telemetry.

    Args:
        settings: Of the gateway.
        spool: Where messages become safe.
        book: What is settled.
        intake: Where messages come from; when it is closed and empty, the loop ends.
        admission: Decides on messages.
        patience: Waits for a disk that refuses.
        health: Gets the counts.
        acknowledge: Tells the MQTT broker that messages are safe, by their tokens.
        send_acks: Tells vehicles, each a (vehicle, Ack payload).
    """

    def __init__(
        self,
        settings: GatewaySettings,
        spool: Spool,
        *,
        book: IdentityBook,
        intake: Intake,
        admission: Admission,
        patience: Patience,
        health: Health,
        acknowledge: Callable[[Iterable[int]], object],
        send_acks: Callable[[Sequence[tuple[str, bytes]]], object],
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._book = book
        self._intake = intake
        self._admission = admission
        self._patience = patience
        self._health = health
        self._acknowledge = acknowledge
        self._send_acks = send_acks
        self._acks = AckBook(
            settings.gateway_id, interval_s=lambda: settings.ack_interval_ms / 1000.0
        )

    def run(self, *, ended: Callable[[], bool]) -> None:
        """Store until `ended` says that nothing more comes, and the queue is empty.

        Raises:
            GaveUpError: Stopped while the disk refused; what was not stored is not acknowledged.
            SpoolDamagedError: The spool is broken.
        """
        while True:
            ending = ended()
            if not self.step() and ending:
                break
        while self._flush_acks(float("inf")):
            pass
        self._patience.until_done("saving identities", lambda: self._spool.save(self._book))

    def step(self) -> int:
        """Store one group; how many messages it had."""
        now_s = time.monotonic()
        group = self._intake.take(
            group_max=self._settings.group_commit_max,
            group_s=self._settings.group_commit_ms / 1000.0,
            group_bytes_max=min(GROUP_BYTES_MAX, self._settings.spool_bytes_max // GROUPS_IN_QUOTA),
            timeout_s=self._acks.wait_s(now_s, idle_s=IDLE_S),
        )
        if group:
            self._store(group)
        self._flush_acks(time.monotonic())
        return len(group)

    def _store(self, group: list[Inbound]) -> None:
        admitted = self._admission.admit(group, self._book)
        if admitted.telemetry or admitted.priority:
            admitted.telemetry, spans = begin_spans(
                "gateway store", admitted.telemetry, since_receipt=True
            )
            with spans:
                self._patience.until_done("storing messages", lambda: self._write(admitted))
        self._acknowledge(message.token for message in group)
        for vehicle_id, boot_id, seq in admitted.answer:
            self._acks.add(vehicle_id, boot_id, seq)
        self._count(len(group), admitted)

    def _write(self, admitted: Admitted) -> None:
        self._spool.store(
            admitted.telemetry,
            admitted.priority,
            self._book,
            save_identity=admitted.settled_dead,
        )

    def _count(self, received: int, admitted: Admitted) -> None:
        health = self._health
        health.received += received
        health.stored += len(admitted.telemetry)
        health.duplicates += admitted.duplicates
        health.dead_letters += admitted.dead_letters
        health.vehicle_drops = self._book.vehicle_drops
        if admitted.dead_letters:
            health.announcer.warn(
                "dead letter", f"{admitted.dead_letters} messages refused; see dead-letters"
            )

    def _flush_acks(self, now_s: float) -> int:
        """Send what is due; how many there were."""
        due = self._acks.due(now_s, self._book.state)
        if due:
            self._send_acks(due)
            self._health.acks += len(due)
        return len(due)
