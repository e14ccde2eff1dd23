"""Decisions of the schema registry: what a schema is, which are the same, which are compatible.

Pure. Error codes are those of the Confluent REST interface, which its clients branch on.
"""

import json
from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.errors import MotorcadeError

LEVELS = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)
DEFAULT_LEVEL = "BACKWARD"
MODE = "READWRITE"


class Fault(Enum):
    """Everything the interface can refuse: its code, the HTTP status, and what it says."""

    SUBJECT_NOT_FOUND = (40401, HTTPStatus.NOT_FOUND, "Subject '{}' not found.")
    VERSION_NOT_FOUND = (40402, HTTPStatus.NOT_FOUND, "Version {} not found.")
    SCHEMA_NOT_FOUND = (40403, HTTPStatus.NOT_FOUND, "Schema {} not found.")
    SUBJECT_NOT_SOFT_DELETED = (
        40405,
        HTTPStatus.NOT_FOUND,
        "Subject '{}' was not deleted first before being permanently deleted.",
    )
    VERSION_NOT_SOFT_DELETED = (
        40407,
        HTTPStatus.NOT_FOUND,
        "Version {} was not deleted first before being permanently deleted.",
    )
    CONFIG_NOT_FOUND = (
        40408,
        HTTPStatus.NOT_FOUND,
        "Subject '{}' does not have subject-level compatibility configured.",
    )
    PATH_NOT_FOUND = (404, HTTPStatus.NOT_FOUND, "{} is not served here.")
    METHOD_NOT_ALLOWED = (405, HTTPStatus.METHOD_NOT_ALLOWED, "{} is not allowed here.")
    INCOMPATIBLE = (409, HTTPStatus.CONFLICT, "Schema being registered is incompatible: {}")
    TOO_LARGE = (
        413,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "A request may have {} bytes at most.",
    )
    NO_LENGTH = (411, HTTPStatus.LENGTH_REQUIRED, "A request needs a Content-Length{}.")
    MALFORMED = (400, HTTPStatus.BAD_REQUEST, "The request is malformed: {}")
    INVALID_SCHEMA = (42201, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid schema: {}")
    INVALID_VERSION = (
        42202,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The specified version '{}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest".',
    )
    INVALID_LEVEL = (
        42203,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Invalid compatibility level '{}'; there are " + ", ".join(LEVELS) + ".",
    )
    INVALID_MODE = (42204, HTTPStatus.UNPROCESSABLE_ENTITY, "Mode '{}' is not one this has.")


class RegistryError(MotorcadeError):
    """A refusal, as the interface words it.

    Attributes:
        code: Error code of the interface.
        status: HTTP status.
    """

    def __init__(self, fault: Fault, fact: object = "") -> None:
        self.code, self.status, words = fault.value
        super().__init__(words.format(fact))


def canonical(text: str) -> str:
    """One text for all spellings of a schema that differ in blanks and order of attributes only.

    Documentation, aliases and properties count: a schema that differs in them is another one.

    Raises:
        RegistryError: INVALID_SCHEMA if it is not an Avro schema.
    """
    parse(text)
    return json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True)


def parse(text: str) -> avro.schema.Schema:
    """Read an Avro schema.

    Raises:
        RegistryError: INVALID_SCHEMA, with the reason.
    """
    try:
        return avro.schema.parse(text)
    # Of odd input avro's parser lets through whatever it stumbles over.
    except (avro.errors.AvroException, ValueError, TypeError, AttributeError, KeyError) as error:
        raise RegistryError(Fault.INVALID_SCHEMA, f"{type(error).__name__}: {error}") from error
    except RecursionError as error:
        raise RegistryError(Fault.INVALID_SCHEMA, "it is nested too deeply") from error


def incompatibilities(candidate: str, earlier: Sequence[str], level: str) -> list[str]:
    """What stands against registering `candidate` after `earlier`.

    Args:
        candidate: The new schema.
        earlier: Schemas of the subject, oldest first.
        level: One of `LEVELS`. BACKWARD: the new one reads data of the old. FORWARD: the old one
            reads data of the new. Not transitive: only the newest of `earlier` counts.

    Returns:
        A sentence for each fault; empty if compatible.
    """
    if level == "NONE":
        return []
    compared = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    new = parse(candidate)
    found: list[str] = []
    for text in compared:
        old = parse(text)
        if not level.startswith("FORWARD"):
            found += _cannot_read("the new schema", new, "the old", old)
        if not level.startswith("BACKWARD"):
            found += _cannot_read("the old schema", old, "the new", new)
    return found


def _cannot_read(
    reader_name: str, reader: avro.schema.Schema, writer_name: str, writer: avro.schema.Schema
) -> list[str]:
    # A checker remembers pairs by identity of their objects, so each comparison has its own.
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(reader, writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    reasons = sorted(result.messages) or ["they do not fit"]
    return [f"{reader_name} cannot read data of {writer_name}: {reason}" for reason in reasons]
