"""How the Kafka door works, and between which topics."""

import re
import socket
from dataclasses import dataclass

from schemas.errors import SettingsError
from schemas.topics import DEAD_LETTERS, REQUESTS, RESPONSES, Topic


@dataclass(frozen=True, slots=True)
class KafkaDoorSettings:
    """How the model server answers requests in Kafka.

    Attributes:
        group_id: Consumer group. Replicas of one group share the partitions of the requests.
        exactly_once: Answer in transactions that carry the offsets: each request has one response
            among the committed ones. Otherwise a server that dies may answer some twice.
        transactional_id: Identity of this replica where exactly_once is on, its own in the group
            and the same after a restart. Empty: group and host name.
        reply_topics: Regular expression; a request may name these topics for its response.
        poll_messages: Most requests taken and scored at once.
        poll_bytes: Payload bytes aimed at for one poll; large requests are taken fewer at once.
        in_flight_messages: Most responses on their way; beyond it no more requests are taken.
        in_flight_bytes: Most bytes of them.
        linger_ms: How long a response waits for company on its way to Kafka.
        session_timeout_s: After so long a silence the other replicas take over the partitions.
        transaction_timeout_s: After it the brokers abort what a dead replica left open. Until then
            readers of committed records do not see what is behind it in its partitions.
        backoff_max_s: Longest pause before trying again when Kafka is down.
        stats_interval_s: Time between two reports.
    """

    group_id: str = "motorcade-server"
    exactly_once: bool = False
    transactional_id: str = ""
    reply_topics: str = r"model\.responses(\..+)?"
    poll_messages: int = 10_000
    poll_bytes: int = 8_000_000
    in_flight_messages: int = 100_000
    in_flight_bytes: int = 64_000_000
    linger_ms: float = 0.0
    session_timeout_s: float = 10.0
    transaction_timeout_s: float = 10.0
    backoff_max_s: float = 10.0
    stats_interval_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.poll_messages <= 100_000:
            raise SettingsError(f"kafka door poll_messages is {self.poll_messages}; 1 to 100000")
        if self.in_flight_messages < 1 or self.in_flight_bytes < 1:
            raise SettingsError("kafka door in_flight_messages and in_flight_bytes are at least 1")
        if self.session_timeout_s < 6:
            raise SettingsError(
                "kafka door session_timeout_s is below 6, the least that brokers take"
            )
        try:
            re.compile(self.reply_topics)
        except re.error as error:
            raise SettingsError(f"kafka door reply_topics is no pattern: {error}") from error

    @property
    def member_id(self) -> str:
        """`transactional_id`, or what stands for it where it is empty."""
        return self.transactional_id or f"{self.group_id}-{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class DoorTopics:
    """Where the door reads and writes.

    Attributes:
        requests: What is asked.
        responses: Where to answer if the request does not say.
        dead_letters: For what cannot be answered.
    """

    requests: Topic = REQUESTS
    responses: Topic = RESPONSES
    dead_letters: Topic = DEAD_LETTERS
