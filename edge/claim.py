"""The gateway's identity at Kafka: claimed once, kept over reconnects, never claimed back.

`transactional.id` is the gateway's id: whoever starts a producer with it fences the one before. So
a gateway that was away looks first whether another one has taken over, and writes into
`gateway.positions` as soon as it has claimed the id itself, so that others see it.
"""

from edge.forwarded_as import ForwardedAs
from edge.marks import Mark
from edge.positions import Committed, Positions, read_committed, remember_where_to_look, resumed
from edge.spool import Spool
from schemas.errors import FencedError, TransientError
from transport.kafka import KafkaSettings, TransactionalProducer

ANSWER_TIMEOUT_S = 30.0


class Claim:
    """Takes the identity, and says from where to go on.

    Args:
        gateway_id: The identity.
        kafka: Where it counts.
        spool: Whose positions are wanted.
    """

    def __init__(self, gateway_id: str, kafka: KafkaSettings, spool: Spool) -> None:
        self._gateway_id = gateway_id
        self._kafka = kafka
        self._spool = spool
        self._forwarded_as = ForwardedAs(spool.path)
        self._told = False

    def take(self, producer: TransactionalProducer) -> Positions:
        """Start the producer, which settles what was left open, and read what is in Kafka.

        The first time it claims the id on its user's behalf, whoever has it. `told` must be called
        once the positions that this returns are in Kafka.

        Raises:
            FencedError: Another gateway has taken over since.
            TransientError: Kafka, or the disk, did not do its part.
            SettingsError: Kafka refuses this client.
        """
        remember_where_to_look(self._kafka, self._spool)
        self._settle_former()
        if self._told:
            self._refuse_successor(self._read())  # Before the start, which would fence it.
        producer.start(ANSWER_TIMEOUT_S)
        found = self._read()
        if self._told:
            self._refuse_successor(found)
        return {
            lane: resumed(
                done,
                known=self._spool.marks[Mark.forwarded(lane)],
                last_at_open=None if self._told else self._spool.last_at_open[lane],
            )
            for lane, done in found.positions.items()
        }

    def told(self) -> None:
        """The positions are in Kafka: this spool owns the id, and whoever looks can see it."""
        self._told = True

    def _settle_former(self) -> None:
        """End what may be open under the id that the spool was forwarded as before.

        Where another spool has been forwarded under that id since, it has settled it, and is not
        to be fenced.
        """
        former = self._forwarded_as.read(self._spool.spool_id)
        if former == self._gateway_id:
            return
        if former is not None:
            found = read_committed(self._kafka, self._spool, (former,))
            if found.successor(former, self._spool.spool_id) is None:
                settler = TransactionalProducer(self._kafka, former)
                try:
                    settler.start(ANSWER_TIMEOUT_S)
                finally:
                    settler.close()
        try:
            self._forwarded_as.write(self._spool.spool_id, self._gateway_id)
        except OSError as error:
            raise TransientError(f"cannot remember the gateway's id: {error}") from error

    def _read(self) -> Committed:
        return read_committed(self._kafka, self._spool, (self._gateway_id,))

    def _refuse_successor(self, found: Committed) -> None:
        successor = found.successor(self._gateway_id, self._spool.spool_id)
        if successor is not None:
            raise FencedError(
                f"another gateway with the id {self._gateway_id!r} and the spool "
                f"{successor} has taken over"
            )
