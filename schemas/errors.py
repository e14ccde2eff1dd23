"""The errors of Motorcade.

MotorcadeError
├── ContractError     the input breaks the contract: do not retry, dead-letter it
├── TransientError    the world is in the way (network, broker down): retry
├── FencedError       another process took over this identity: stop
└── SettingsError     the configuration cannot work: tell the user, exit
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something was refused; the `reason` of a dead letter."""

    TRUNCATED = "truncated"
    NOT_AVRO = "not-avro"
    OVERSIZED = "oversized"
    UNKNOWN_FINGERPRINT = "unknown-fingerprint"
    UNKNOWN_SCHEMA_ID = "unknown-schema-id"
    WRONG_SCHEMA = "wrong-schema"
    MALFORMED = "malformed"
    OUT_OF_RANGE = "out-of-range"
    NOT_FINITE = "not-finite"
    IDENTITY = "identity"
    MODEL_HASH = "model-hash"
    MODEL_FEATURES = "model-features"
    MODEL_INVALID = "model-invalid"
    MODEL_SIGNATURE = "model-signature"
    MODEL_OPERATOR = "model-operator"
    MODEL_VERSION = "model-version"
    MODEL_TRIAL = "model-trial"
    MODEL_BOUNDS = "model-bounds"
    UNKNOWN_MODEL = "unknown-model"
    WRONG_SHAPE = "wrong-shape"
    DEADLINE = "deadline"
    UNKNOWN_REPLY_TOPIC = "unknown-reply-topic"


class MotorcadeError(Exception):
    """Base of all errors that Motorcade raises on purpose."""


class ContractError(MotorcadeError):
    """Input that breaks the contract; trying again cannot help.

    Attributes:
        reason: The class of the fault.
        detail: One sentence for a person, with the facts.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class TransientError(MotorcadeError):
    """Something outside failed for now; trying again may help."""


class FencedError(MotorcadeError):
    """Another process with the same transactional id took over; this one must stop."""


class SettingsError(MotorcadeError):
    """A setting is missing or wrong; the message names it and what it may be."""
