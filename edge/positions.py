"""How far this gateway's spool is in Kafka, as Kafka itself tells it.

Positions belong to the spool and are found by its id, under whatever gateway id they were written:
another `gateway_id` goes on where the one before was.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.frames import position_key
from edge.marks import Mark
from edge.ranges import Ranges
from edge.rows import Lane
from edge.spool import Spool
from schemas.errors import ContractError
from schemas.records import CONFLUENT_HEADER_BYTES
from schemas.topics import GATEWAY_POSITIONS
from schemas.versions import decode_any_version
from transport.kafka import KafkaSettings, Message, latest_offsets, read_to_end

PARTITION = 0

Positions = dict[Lane, Ranges]
"""What of each lane is in Kafka."""


@dataclass(slots=True)
class Committed:
    """What `gateway.positions` says of one spool.

    Attributes:
        positions: Newest of each lane; nothing where there is no record.
        owners: Gateway id to the spool that last wrote under it.
    """

    positions: Positions = field(default_factory=lambda: {lane: Ranges() for lane in Lane})
    owners: dict[str, str] = field(default_factory=dict)

    def successor(self, gateway_id: str, spool_id: str) -> str | None:
        """Another spool that wrote under the id after this one last did; None without one."""
        owner = self.owners.get(gateway_id, spool_id)
        return None if owner == spool_id else owner


def committed(
    records: Iterable[tuple[bytes, bytes]], *, gateway_ids: Iterable[str], spool_id: str
) -> Committed:
    """Fold (key, value) pairs, in the order of the log, into what is committed.

    Args:
        records: What is no GatewayPosition is passed over.
        gateway_ids: Whose owners are wanted; bounds what is kept.
        spool_id: Whose positions.
    """
    wanted = {position_key(name, lane): name for name in gateway_ids for lane in Lane}
    mark = spool_id.encode()
    result = Committed()
    for key, value in records:
        gateway_id = wanted.get(key)
        if gateway_id is None and mark not in value:
            continue
        try:
            record = decode_any_version("GatewayPosition", value[CONFLUENT_HEADER_BYTES:])
        except ContractError:
            continue
        if gateway_id is not None:
            result.owners[gateway_id] = record["spool_id"]
        if record["spool_id"] == spool_id and record["lane"] in set(Lane):
            result.positions[Lane(record["lane"])] = Ranges.of(
                record["position"], ((r["first"], r["last"]) for r in record["ranges"])
            )
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


def read_committed(kafka: KafkaSettings, spool: Spool, gateway_ids: Iterable[str]) -> Committed:
    """What is in Kafka of a spool, and who wrote last under these ids.

    Call it when no transaction of this spool can be open any more, or what it holds is missed.

    Raises:
        TransientError: Kafka did not answer.
        SettingsError: There is no such topic.
    """
    start = {PARTITION: spool.marks[Mark.POSITIONS_OFFSET] - 1}
    batches = read_to_end(kafka, GATEWAY_POSITIONS.name, start=start)
    return committed(
        ((_key(m), m.value() or b"") for batch in batches for m in batch),
        gateway_ids=gateway_ids,
        spool_id=spool.spool_id,
    )


def resumed(found: Ranges, *, known: int, last_at_open: int | None) -> Ranges:
    """From where to go on in a lane.

    Args:
        found: What Kafka says.
        known: Contiguous part as the spool remembers it, should the topic have lost it.
        last_at_open: Last position on the disk when the spool was opened; None once this process
            has written to Kafka what it goes on from. Before that Kafka can be ahead of the disk
            only if the disk lost what it had promised to keep, or was put back from a copy.
            Positions are then given again, to other rows; those begin behind `last_at_open`.
    """
    done = found.copy() if last_at_open is None else found.up_to(last_at_open)
    done.add(1, known)
    return done


def _key(message: Message) -> bytes:
    key = message.key()
    return key if isinstance(key, bytes) else str(key or "").encode()
