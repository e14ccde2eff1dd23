"""The table that gives every error of the Kafka client a meaning."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import (
    ContractError,
    FencedError,
    MotorcadeError,
    Reason,
    SettingsError,
    TransientError,
)
from transport.kafka import faults
from transport.kafka.faults import (
    AbortNeededError,
    Kind,
    ProducerLostError,
    kind_of,
    translate,
    translated,
)

CODES = {
    name: getattr(KafkaError, name)
    for name in dir(KafkaError)
    if name.strip("_")[:1].isupper() and isinstance(getattr(KafkaError, name), int)
}

# What is neither the user's nor another process's doing and passes, or is dealt with elsewhere.
# A code that a newer library brings fails the test below, and is then to be thought about.
PASSING = """
_ALL_BROKERS_DOWN _APPLICATION _ASSIGNMENT_LOST _ASSIGN_PARTITIONS _AUTO_OFFSET_RESET
_BAD_COMPRESSION _BAD_MSG _CRIT_SYS_RESOURCE _DESTROY_BROKER _EXISTING_SUBSCRIPTION _FAIL _FS
_INCONSISTENT _INTR _INVALID_DIFFERENT_RECORD _INVALID_TYPE _IN_PROGRESS _ISR_INSUFF
_KEY_DESERIALIZATION _KEY_SERIALIZATION _LOG_TRUNCATION _MAX_POLL_EXCEEDED _MSG_TIMED_OUT
_NODE_UPDATE _NOENT _NOOP _NO_OFFSET _OUTDATED _PARTIAL _PARTITION_EOF _PREV_IN_PROGRESS
_PURGE_INFLIGHT _PURGE_QUEUE _QUEUE_FULL _READ_ONLY _RESOLVE _RETRY _REVOKE_PARTITIONS
_TIMED_OUT _TIMED_OUT_QUEUE _TRANSPORT _UNDERFLOW _UNKNOWN_BROKER _UNKNOWN_PARTITION _UNKNOWN_TOPIC
_VALUE_DESERIALIZATION _VALUE_SERIALIZATION _WAIT_CACHE _WAIT_COORD
BROKER_NOT_AVAILABLE CONCURRENT_TRANSACTIONS COORDINATOR_LOAD_IN_PROGRESS
COORDINATOR_NOT_AVAILABLE DUPLICATE_RESOURCE DUPLICATE_SEQUENCE_NUMBER DUPLICATE_VOTER
ELECTION_NOT_NEEDED ELIGIBLE_LEADERS_NOT_AVAILABLE FEATURE_UPDATE_FAILED FENCED_LEADER_EPOCH
FENCED_MEMBER_EPOCH FENCED_STATE_EPOCH FETCH_SESSION_ID_NOT_FOUND GROUP_ID_NOT_FOUND
GROUP_SUBSCRIBED_TO_TOPIC ILLEGAL_GENERATION INCONSISTENT_TOPIC_ID INCONSISTENT_VOTER_SET
INVALID_COMMIT_OFFSET_SIZE INVALID_FETCH_SESSION_EPOCH INVALID_MSG INVALID_MSG_SIZE
INVALID_RECORD INVALID_RECORD_STATE INVALID_REGISTRATION INVALID_REQUEST
INVALID_SHARE_SESSION_EPOCH INVALID_TIMESTAMP INVALID_UPDATE_VERSION INVALID_VOTER_KEY
KAFKA_STORAGE_ERROR LEADER_NOT_AVAILABLE LISTENER_NOT_FOUND LOG_DIR_NOT_FOUND
MEMBER_ID_REQUIRED MISMATCHED_ENDPOINT_TYPE NETWORK_EXCEPTION NON_EMPTY_GROUP NOT_CONTROLLER
NOT_COORDINATOR NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND NOT_LEADER_FOR_PARTITION
NO_ERROR NO_REASSIGNMENT_IN_PROGRESS OFFSET_METADATA_TOO_LARGE OFFSET_NOT_AVAILABLE
OFFSET_OUT_OF_RANGE OPERATION_NOT_ATTEMPTED PREFERRED_LEADER_NOT_AVAILABLE
REASSIGNMENT_IN_PROGRESS REBALANCE_IN_PROGRESS REBOOTSTRAP_REQUIRED REPLICA_NOT_AVAILABLE
REQUEST_TIMED_OUT RESOURCE_NOT_FOUND SHARE_SESSION_LIMIT_REACHED SHARE_SESSION_NOT_FOUND
STALE_BROKER_EPOCH STALE_CTRL_EPOCH STALE_MEMBER_EPOCH STREAMS_INVALID_TOPOLOGY
STREAMS_INVALID_TOPOLOGY_EPOCH STREAMS_TOPOLOGY_FENCED TELEMETRY_TOO_LARGE
THROTTLING_QUOTA_EXCEEDED TOPIC_ALREADY_EXISTS TRANSACTION_ABORTABLE UNKNOWN
UNKNOWN_CONTROLLER_ID UNKNOWN_LEADER_EPOCH UNKNOWN_MEMBER_ID UNKNOWN_SUBSCRIPTION_ID
UNKNOWN_TOPIC_ID UNKNOWN_TOPIC_OR_PART UNRELEASED_INSTANCE_ID UNSTABLE_OFFSET_COMMIT
UNSUPPORTED_ENDPOINT_TYPE VOTER_NOT_FOUND
"""


def test_every_code_of_the_library_was_thought_about() -> None:
    silent = {name for name, code in CODES.items() if kind_of(code) is Kind.TRANSIENT}
    assert silent == {name for name in PASSING.split() if name in CODES}


def test_every_name_in_the_table_is_one_of_the_library() -> None:
    names = " ".join((faults._FENCED, faults._OVERSIZED, faults._LOST, faults._SETTINGS)).split()
    assert len(names) == len(set(names))
    assert set(names) <= set(CODES)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError._FENCED, "x", True), FencedError),
        (KafkaError(KafkaError.PRODUCER_FENCED), FencedError),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), ContractError),
        (KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED), SettingsError),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "x", False, False, True), SettingsError),
        (KafkaError(KafkaError._STATE), ProducerLostError),
        (KafkaError(KafkaError.UNKNOWN, "x", True), ProducerLostError),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, "x", False, False, True), AbortNeededError),
        (KafkaError(KafkaError._TIMED_OUT, "x", False, True), TransientError),
    ],
)
def test_flags_decide_where_the_code_does_not(
    error: KafkaError, expected: type[MotorcadeError]
) -> None:
    found = translate(error)
    assert type(found) is expected
    assert error.name() in str(found)


def test_an_oversized_record_says_so() -> None:
    found = translate(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert isinstance(found, ContractError)
    assert found.reason is Reason.OVERSIZED


def test_exceptions_leave_translated_and_keep_their_cause() -> None:
    with pytest.raises(TransientError) as caught, translated():
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))
    assert isinstance(caught.value.__cause__, KafkaException)
    with pytest.raises(TransientError), translated():
        raise KafkaException("something without a code")
