"""What an error of the Kafka client means to its caller: one table.

MotorcadeError
├── ContractError(OVERSIZED)   the record can never be stored
├── TransientError             try again
│   ├── AbortNeededError       abort the transaction, then do its work again
│   └── ProducerLostError      close the producer, make a new one, then do the work again
├── FencedError                another process took over the identity: stop
└── SettingsError              credentials, rights or configuration: tell the user
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    Reason,
    SettingsError,
    TransientError,
)


class AbortNeededError(TransientError):
    """The transaction cannot go on; abort it, and its work may be done again."""


class ProducerLostError(TransientError):
    """The producer cannot go on, and it is not known whether its last transaction was committed.

    Make a new one with the same transactional id: starting it settles the transaction one way or
    the other, and the committed offsets or positions tell which.
    """


class Kind(Enum):
    """Families of errors, by what the caller must do."""

    TRANSIENT = auto()
    LOST = auto()
    FENCED = auto()
    SETTINGS = auto()
    OVERSIZED = auto()


_FENCED = """
_FENCED PRODUCER_FENCED INVALID_PRODUCER_EPOCH FENCED_INSTANCE_ID TRANSACTION_COORDINATOR_FENCED
"""

_OVERSIZED = "MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE"

# A state error is a call that does not fit what the client went through: only a new one helps.
_LOST = """
_STATE _FATAL _GAPLESS_GUARANTEE _DESTROY INVALID_TXN_STATE INVALID_PRODUCER_ID_MAPPING
UNKNOWN_PRODUCER_ID OUT_OF_ORDER_SEQUENCE_NUMBER
"""

# No _UNKNOWN_PARTITION: the client says so of any partition while the brokers are away for longer
# than it remembers them. That a topic is not there at all is asked of the brokers themselves.
_SETTINGS = """
_AUTHENTICATION _SSL _CONFLICT _INVALID_ARG _NOT_CONFIGURED _NOT_IMPLEMENTED
_UNKNOWN_GROUP _UNKNOWN_PROTOCOL _UNSUPPORTED_FEATURE
CLUSTER_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTHORIZATION_FAILED
DELEGATION_TOKEN_AUTH_DISABLED DELEGATION_TOKEN_EXPIRED DELEGATION_TOKEN_NOT_FOUND
DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED GROUP_AUTHORIZATION_FAILED
ILLEGAL_SASL_STATE INCONSISTENT_GROUP_PROTOCOL INVALID_CONFIG INVALID_GROUP_ID
INVALID_PARTITIONS INVALID_PRINCIPAL_TYPE INVALID_REGULAR_EXPRESSION INVALID_REPLICATION_FACTOR
INVALID_REPLICA_ASSIGNMENT INVALID_REQUIRED_ACKS INVALID_SESSION_TIMEOUT
INVALID_TRANSACTION_TIMEOUT POLICY_VIOLATION PRINCIPAL_DESERIALIZATION_FAILURE
SASL_AUTHENTICATION_FAILED SECURITY_DISABLED TOPIC_AUTHORIZATION_FAILED
TOPIC_DELETION_DISABLED TOPIC_EXCEPTION TRANSACTIONAL_ID_AUTHORIZATION_FAILED
UNACCEPTABLE_CREDENTIAL UNSUPPORTED_ASSIGNOR UNSUPPORTED_COMPRESSION_TYPE
UNSUPPORTED_FOR_MESSAGE_FORMAT UNSUPPORTED_SASL_MECHANISM UNSUPPORTED_VERSION
GROUP_MAX_SIZE_REACHED
"""


def _codes(names: str) -> frozenset[int]:
    """Codes of those names that this version of the library has."""
    return frozenset(
        getattr(KafkaError, name) for name in names.split() if hasattr(KafkaError, name)
    )


_TABLE: tuple[tuple[Kind, frozenset[int]], ...] = (
    (Kind.FENCED, _codes(_FENCED)),
    (Kind.OVERSIZED, _codes(_OVERSIZED)),
    (Kind.SETTINGS, _codes(_SETTINGS)),
    (Kind.LOST, _codes(_LOST)),
)


def kind_of(code: int) -> Kind:
    """The family of an error code; what is not in the table is transient."""
    return next((kind for kind, codes in _TABLE if code in codes), Kind.TRANSIENT)


def translate(error: KafkaError) -> MotorcadeError:
    """The error to raise in place of one of the library's.

    Args:
        error: As the library reports it; its flags (fatal, transaction must be aborted) decide
            between codes that can be either.
    """
    kind = kind_of(error.code())
    text = f"Kafka: {error.str()} ({error.name()})"
    if kind is Kind.FENCED:
        return FencedError(text)
    if kind is Kind.OVERSIZED:
        return ContractError(Reason.OVERSIZED, text)
    if kind is Kind.SETTINGS:
        return SettingsError(text)
    if kind is Kind.LOST or error.fatal():
        return ProducerLostError(text)
    if error.txn_requires_abort():
        return AbortNeededError(text)
    return TransientError(text)


def kafka_error(exception: KafkaException) -> KafkaError:
    """What the exception carries; the library documents its first argument to be it."""
    error = exception.args[0] if exception.args else None
    if isinstance(error, KafkaError):
        return error
    return KafkaError(KafkaError.UNKNOWN, str(exception))


@contextmanager
def translated() -> Iterator[None]:
    """Raises errors of the library that come out of the block as ours."""
    try:
        yield
    except KafkaException as error:
        raise translate(kafka_error(error)) from error
