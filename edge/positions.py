"""How far this gateway's spool is in Kafka, as Kafka itself tells it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.frames import position_key
from edge.marks import Mark
from edge.rows import Lane
from edge.spool import Spool
from schemas.errors import ContractError, FencedError
from schemas.records import CONFLUENT_HEADER_BYTES
from schemas.topics import GATEWAY_POSITIONS
from schemas.versions import decode_any_version
from transport.kafka import KafkaSettings, Message, latest_offsets, read_to_end

PARTITION = 0


@dataclass(slots=True)
class Committed:
    """What `gateway.positions` says.

    Attributes:
        positions: Newest position per lane; 0 where there is no record.
        foreign_spool: Another spool that wrote for this gateway after this one last did.
    """

    positions: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    foreign_spool: str | None = None


def committed(
    records: Iterable[tuple[bytes, bytes]], *, gateway_id: str, spool_id: str
) -> Committed:
    """Fold (key, value) pairs, in the order of the log, into what is committed.

    Records of other gateways, and those that are no GatewayPosition, are passed over.
    """
    lanes = {position_key(gateway_id, lane): lane for lane in Lane}
    result = Committed()
    for key, value in records:
        lane = lanes.get(key)
        if lane is None:
            continue
        try:
            record = decode_any_version("GatewayPosition", value[CONFLUENT_HEADER_BYTES:])
        except ContractError:
            continue
        if record["spool_id"] == spool_id:
            result.positions[lane] = record["position"]
            result.foreign_spool = None
        else:
            result.foreign_spool = record["spool_id"]
    return result


def remember_where_to_look(kafka: KafkaSettings, spool: Spool) -> None:
    """Before the first transaction of a spool: nothing of it stands before the present end.

    So a later start reads from there, and not a log that all gateways have filled for years. The
    mark holds the offset plus one, 0 being 'not known'.
    """
    if spool.marks[Mark.POSITIONS_OFFSET] == 0:
        end = latest_offsets(kafka, GATEWAY_POSITIONS.name)[PARTITION]
        spool.marks.note(Mark.POSITIONS_OFFSET, end + 1)
        spool.save()


def read_committed(
    kafka: KafkaSettings, spool: Spool, *, gateway_id: str, took_over: bool
) -> dict[Lane, int]:
    """Positions after which this spool is to be forwarded.

    Call it when the producer has been started, so that no transaction is open any more.

    Args:
        kafka: Where to read.
        spool: Whose positions.
        gateway_id: Whose positions.
        took_over: Whether this process has just claimed the identity on its user's behalf; a
            later reconnect must not claim it back from a successor.

    Raises:
        FencedError: Another spool has been forwarded under this gateway's id since.
        TransientError: Kafka did not answer.
        SettingsError: There is no such topic.
    """
    start = {PARTITION: spool.marks[Mark.POSITIONS_OFFSET] - 1}
    batches = read_to_end(kafka, GATEWAY_POSITIONS.name, start=start)
    found = committed(
        ((_key(m), m.value() or b"") for batch in batches for m in batch),
        gateway_id=gateway_id,
        spool_id=spool.spool_id,
    )
    if found.foreign_spool is not None and not took_over:
        raise FencedError(
            f"another gateway with the id {gateway_id!r} and the spool "
            f"{found.foreign_spool} has taken over"
        )
    return {
        lane: resume_after(
            position, known=spool.marks[Mark.forwarded(lane)], last_at_open=spool.last_at_open[lane]
        )
        for lane, position in found.positions.items()
    }


def resume_after(position: int, *, known: int, last_at_open: int) -> int:
    """After which position to go on.

    Args:
        position: What Kafka says; 0 when it says nothing.
        known: What the spool remembers of that, should the topic have lost it.
        last_at_open: Last position on the disk when the spool was opened. Kafka can be ahead of
            it only if the disk lost what it had promised to keep, or was put back from a copy.
            Positions are then given again, to other rows; those begin behind `last_at_open`.
    """
    if position > last_at_open:
        return max(known, last_at_open)
    return max(known, position)


def _key(message: Message) -> bytes:
    key = message.key()
    return key if isinstance(key, bytes) else str(key or "").encode()
