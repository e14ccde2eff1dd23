"""Who vouches for a release: a signature as a value; `scoring.signing` makes and checks it."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from schemas.errors import ContractError, Reason
from scoring.strict import Fields

ALGORITHM = "ed25519"
VALUE_BYTES = 64

_KEY_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Signature:
    """An Ed25519 signature over a manifest, and so over the bytes whose SHA-256 it states.

    Attributes:
        key_id: First 16 hex digits of the SHA-256 of the raw public key; says which key to try.
        value: 64 bytes, RFC 8032.

    Raises:
        ContractError: MODEL_INVALID: another form.
    """

    key_id: str
    value: bytes

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.key_id):
            raise ContractError(Reason.MODEL_INVALID, "signature: key_id is not 16 hex digits")
        if len(self.value) != VALUE_BYTES:
            raise ContractError(Reason.MODEL_INVALID, f"signature of {len(self.value)} bytes")

    def to_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "algorithm": ALGORITHM,
            "key_id": self.key_id,
            "value": base64.b64encode(self.value).decode(),
        }

    @staticmethod
    def from_object(parsed: object) -> "Signature":
        """Read what `to_object` gave. Raises ContractError (MODEL_INVALID)."""
        fields = Fields(parsed, "signature")
        if (algorithm := fields.text("algorithm")) != ALGORITHM:
            raise ContractError(Reason.MODEL_INVALID, f"signature by {algorithm!r}")
        key_id, coded = fields.text("key_id"), fields.text("value")
        fields.end()
        try:
            value = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ContractError(Reason.MODEL_INVALID, f"signature: no base64: {error}") from error
        return Signature(key_id, value)
