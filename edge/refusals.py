"""Rows that Kafka finds too large: found one by one, and replaced by dead letters.

A broker refuses whole batches, and the limit of a topic is its own; so after a refusal the records
go in batches of one for a while, and each tells for itself. What was found is left out of the next
try, and its dead letter is in the transaction that forwards its neighbours.
"""

from typing import Any

from edge.dead_letters import dead_letter
from edge.frames import TOPIC_OF_KIND, Framer
from edge.load import Load, Origin
from edge.rows import Lane, Priority, StoredPriority
from schemas.errors import ContractError, Reason, SettingsError
from schemas.topics import DEAD_LETTERS, TELEMETRY
from transport.kafka import Outgoing

CAREFUL_TRANSACTIONS = 100
"""So many are made of batches of one after a refusal; the next large row may be near."""

_WITHOUT_PAYLOAD = 2
_HOPELESS = 3


class Refusals:
    """Which rows were refused, and how often; at most those of one transaction.

    Args:
        gateway_id: Component of the dead letters.
    """

    def __init__(self, gateway_id: str) -> None:
        self._gateway_id = gateway_id
        self._tries: dict[tuple[Lane, int], int] = {}
        self._error = ContractError(Reason.OVERSIZED, "")
        self._careful_left = 0
        self._learned = False

    @property
    def careful(self) -> bool:
        """Whether each record must tell for itself."""
        return self._careful_left > 0

    def producer_options(self) -> dict[str, Any]:
        """For the next producer."""
        return {"batch_num_messages": 1} if self.careful else {}

    def learned(self) -> bool:
        """Whether the next try will be another one; asking takes the answer away."""
        learned, self._learned = self._learned, False
        return learned

    def somewhere(self) -> None:
        """A transaction was refused, and it is not known for which record."""
        self._learned = not self.careful
        self._careful_left = CAREFUL_TRANSACTIONS

    def found(self, load: Load, numbers: set[int], error: ContractError) -> None:
        """These records of a load were refused.

        Raises:
            SettingsError: A record that cannot be made smaller was.
        """
        self._error = error
        for number in sorted(numbers):
            origin = load.origins[number]
            if origin is None:
                raise SettingsError(
                    f"{load.records[number].topic} takes not even a record of "
                    f"{len(load.records[number].value or b'')} bytes: {error}"
                )
            self._tries[key_of(origin)] = self._tries.get(key_of(origin), 0) + 1
        self._learned = True

    def __contains__(self, origin: Origin) -> bool:
        return bool(self._tries) and key_of(origin) in self._tries

    def committed(self, load: Load) -> int:
        """The load is in Kafka; how many of its rows were replaced."""
        self._careful_left = max(0, self._careful_left - 1)
        if not self._tries:
            return 0
        held = {key_of(origin) for origin in load.origins if origin is not None}
        done = held & self._tries.keys()
        for key in done:
            del self._tries[key]
        return len(done)

    def letter(self, framer: Framer, origin: Origin, *, now_ms: int) -> Outgoing:
        """The dead letter in place of a row; without its payload where that was refused, too.

        Raises:
            SettingsError: Even that was refused.
        """
        tries = self._tries[key_of(origin)]
        if tries >= _HOPELESS:
            raise SettingsError(f"{DEAD_LETTERS.name} takes no dead letter: {self._error}")
        return framer.dead_letter(
            letter_of(
                origin,
                self._error,
                gateway_id=self._gateway_id,
                now_ms=now_ms,
                with_payload=tries < _WITHOUT_PAYLOAD,
            )
        )


def key_of(origin: Origin) -> tuple[Lane, int]:
    """Lane and position of a row."""
    lane = Lane.PRIORITY if isinstance(origin, StoredPriority) else Lane.TELEMETRY
    return lane, origin.position


def letter_of(
    origin: Origin, error: ContractError, *, gateway_id: str, now_ms: int, with_payload: bool
) -> Priority:
    """The dead letter of a row that Kafka did not take as it was."""
    if isinstance(origin, StoredPriority):
        topic, key = TOPIC_OF_KIND[origin.kind], origin.message_key
        headers: list[tuple[str, bytes | None]] = []
    else:
        topic, key = TELEMETRY, origin.vehicle_id
        headers = [("boot_id", b"%d" % origin.boot_id), ("seq", b"%d" % origin.seq)]
    detail = f"{len(origin.payload)} bytes: {error.detail}"
    return dead_letter(
        ContractError(error.reason, detail),
        component_id=gateway_id,
        failed_ms=now_ms,
        topic=topic.name,
        key=key,
        headers=headers,
        payload=origin.payload,
        payload_kept=with_payload,
    )
