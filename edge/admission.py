"""What becomes of a group of received messages: pure but for the book of identities.

A whole group is decoded at once, as arrays. Each message ends in exactly one place: a telemetry
row, a priority row (label, dead letter), or nowhere because it is a duplicate. All of them may be
acknowledged once the rows are on the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.dead_letters import dead_letter
from edge.identity import IdentityBook, Verdict
from edge.intake import Inbound
from edge.rows import Kind, Priority, Telemetry
from edge.timekeeper import known_ms
from schemas.codec import Framing, TelemetryColumns, decode_telemetry
from schemas.errors import ContractError, Reason
from schemas.records import decode_single_object
from schemas.topics import MQTT_ROOT
from transport.tracing import extract

TELEMETRY_LEAF = "telemetry"
LABEL_LEAF = "label"

_SETTLED_BY_CONTENT = (Reason.OUT_OF_RANGE, Reason.NOT_FINITE)
"""Refused for a value: the record itself can be read, and names its identity."""


@dataclass(slots=True)
class Admitted:
    """What a group of messages comes to.

    Attributes:
        telemetry: New batches.
        priority: Labels and dead letters.
        answer: The (vehicle, boot, seq) that the vehicles wait to hear of.
        settled_dead: Whether a dead letter settled an identity, which then must be saved with it.
        duplicates: Batches that were there already.
        dead_letters: How many of `priority` are dead letters.
    """

    telemetry: list[Telemetry] = field(default_factory=list)
    priority: list[Priority] = field(default_factory=list)
    answer: list[tuple[str, int, int]] = field(default_factory=list)
    settled_dead: bool = False
    duplicates: int = 0
    dead_letters: int = 0


class Admission:
    """Decides on groups of messages.

    Args:
        gateway_id: Written into dead letters.
        fleet: Second level of every topic.
        max_payload_bytes: A greater payload is refused.
    """

    def __init__(self, *, gateway_id: str, fleet: str, max_payload_bytes: int) -> None:
        self._gateway_id = gateway_id
        self._prefix = f"{MQTT_ROOT}/{fleet}/"
        self._max_payload_bytes = max_payload_bytes

    def admit(self, messages: Sequence[Inbound], book: IdentityBook) -> Admitted:
        """Decide on a group, in order of arrival; settles in `book` what is accepted."""
        result = Admitted()
        batches: list[Inbound] = []
        vehicles: list[str] = []
        for message in messages:
            vehicle_id, leaf = self._split(message.topic)
            if leaf == TELEMETRY_LEAF:
                batches.append(message)
                vehicles.append(vehicle_id)
            elif leaf == LABEL_LEAF:
                self._label(message, vehicle_id, result)
            else:
                self._refuse(message, None, _wrong_topic(message.topic), result)
        if batches:
            self._batches(batches, vehicles, book, result)
        return result

    def _split(self, topic: str) -> tuple[str, str]:
        """Vehicle and last level of a topic; two empty strings when it is none of ours."""
        if not topic.startswith(self._prefix):
            return "", ""
        vehicle_id, _, leaf = topic[len(self._prefix) :].partition("/")
        return (vehicle_id, leaf) if vehicle_id else ("", "")

    def _batches(
        self,
        messages: Sequence[Inbound],
        vehicles: Sequence[str],
        book: IdentityBook,
        result: Admitted,
    ) -> None:
        columns = decode_telemetry(
            [message.payload for message in messages],
            framing=Framing.SINGLE_OBJECT,
            signals=(),
            max_bytes=self._max_payload_bytes,
        )
        self._all_decoded(columns, messages, vehicles, book, result)
        self._all_rejected(columns, messages, vehicles, book, result)

    def _all_decoded(
        self,
        columns: TelemetryColumns,
        messages: Sequence[Inbound],
        vehicles: Sequence[str],
        book: IdentityBook,
        result: Admitted,
    ) -> None:
        identities = zip(
            columns.index.tolist(),
            columns.vehicle_ids,
            columns.boot_id.tolist(),
            columns.seq.tolist(),
            columns.oldest_seq.tolist(),
            strict=True,
        )
        for index, vehicle, boot_id, seq, oldest_seq in identities:
            message, vehicle_id = messages[index], vehicles[index]
            if vehicle.decode() != vehicle_id:
                error = _wrong_vehicle(vehicle.decode(), message.topic)
                self._refuse(message, vehicle_id, error, result)
                continue
            verdict = book.admit(vehicle_id, boot_id, seq, oldest_seq)
            if verdict is Verdict.NEW:
                result.telemetry.append(
                    Telemetry(
                        vehicle_id,
                        boot_id,
                        seq,
                        oldest_seq,
                        message.received_ms,
                        message.payload,
                        extract(message.user_properties),
                        message.gateway_boot,
                        message.monotonic_ms,
                    )
                )
            elif verdict is Verdict.DUPLICATE:
                result.duplicates += 1
            else:
                self._refuse(message, vehicle_id, _unclear(verdict, boot_id, seq), result)
            if verdict is not Verdict.TOO_MANY_GAPS:  # which the book could not take note of
                result.answer.append((vehicle_id, boot_id, seq))

    def _all_rejected(
        self,
        columns: TelemetryColumns,
        messages: Sequence[Inbound],
        vehicles: Sequence[str],
        book: IdentityBook,
        result: Admitted,
    ) -> None:
        for rejected in columns.rejected:
            self._rejected(
                messages[rejected.index], vehicles[rejected.index], rejected.error, book, result
            )

    def _rejected(
        self,
        message: Inbound,
        vehicle_id: str,
        error: ContractError,
        book: IdentityBook,
        result: Admitted,
    ) -> None:
        """Dead-letter a batch, and settle its identity so that the vehicle does not resend it."""
        identity = _identity_of(message, vehicle_id, error)
        if identity is not None:
            boot_id, seq, oldest_seq = identity
            result.answer.append((vehicle_id, boot_id, seq))
            if book.admit(vehicle_id, boot_id, seq, oldest_seq) is Verdict.DUPLICATE:
                result.duplicates += 1
                return
            result.settled_dead = True
        self._refuse(message, vehicle_id, error, result)

    def _label(self, message: Inbound, vehicle_id: str, result: Admitted) -> None:
        """Store a label. It has no identity: one that MQTT repeats is stored again."""
        try:
            if len(message.payload) > self._max_payload_bytes:
                raise ContractError(Reason.OVERSIZED, f"{len(message.payload)} bytes of a label")
            record = decode_single_object("VehicleLabel", message.payload)
            if record["vehicle_id"] != vehicle_id:
                raise _wrong_vehicle(record["vehicle_id"], message.topic)
        except ContractError as error:
            self._refuse(message, vehicle_id, error, result)
            return
        result.priority.append(
            Priority(Kind.LABEL, vehicle_id, _known_ms(message), message.payload)
        )

    def _refuse(
        self, message: Inbound, vehicle_id: str | None, error: ContractError, result: Admitted
    ) -> None:
        result.dead_letters += 1
        result.priority.append(
            dead_letter(
                error,
                component_id=self._gateway_id,
                failed_ms=message.received_ms,
                topic=message.topic,
                key=vehicle_id,
                headers=[(name, value.encode()) for name, value in message.user_properties],
                payload=message.payload,
            )._replace(received_ms=_known_ms(message))
        )


def _identity_of(
    message: Inbound, vehicle_id: str, error: ContractError
) -> tuple[int, int, int] | None:
    """(boot_id, seq, oldest_seq) of a refused batch, where they can be known."""
    if error.reason in _SETTLED_BY_CONTENT:
        try:
            record = decode_single_object("TelemetryBatch", message.payload)
        except ContractError:
            record = {}
        if record.get("vehicle_id") == vehicle_id:
            return _plausible(record["boot_id"], record["seq"], record["oldest_seq"])
    properties = dict(message.user_properties)
    try:
        return _plausible(int(properties["boot_id"]), int(properties["seq"]), 1)
    except (KeyError, ValueError):
        return None


def _plausible(boot_id: int, seq: int, oldest_seq: int) -> tuple[int, int, int] | None:
    sound = 0 <= boot_id < 1 << 63 and 1 <= oldest_seq <= seq < 1 << 63
    return (boot_id, seq, oldest_seq) if sound else None


def _wrong_topic(topic: str) -> ContractError:
    return ContractError(Reason.IDENTITY, f"nothing is expected on the topic {topic}")


def _wrong_vehicle(vehicle_id: str, topic: str) -> ContractError:
    return ContractError(Reason.IDENTITY, f"vehicle {vehicle_id!r} writes on {topic}")


def _unclear(verdict: Verdict, boot_id: int, seq: int) -> ContractError:
    if verdict is Verdict.BOOT_FORGOTTEN:
        detail = f"boot {boot_id} is older than those remembered: batch {seq} may be a duplicate"
    else:
        detail = f"batch {seq} of boot {boot_id} opens more gaps than are remembered"
    return ContractError(Reason.IDENTITY, detail)


def _known_ms(message: Inbound) -> int:
    return known_ms(message.received_ms, message.gateway_boot)
