"""Signatures over releases; the only module that imports `cryptography`.

Ed25519 (RFC 8032) over `Manifest.signed_bytes()`, which states the SHA-256 of the model's bytes,
so that one signature vouches for all of a release. A private key is a PKCS8 file in PEM that
nobody but its owner may read; a public key is one line of text,

    motorcade-ed25519 BASE64 WORDS

or PEM. A trust store is a directory of public keys. No clock.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import SettingsError
from scoring.manifest import Manifest
from scoring.signature import Signature

PUBLIC_SUFFIX = ".pub"
REVOKED_SUFFIX = ".revoked"
KEY_BYTES_MAX = 4_096
"""A greater file is no key."""

KEYS_MAX = 64
"""Keys in a trust store at most; more are refused."""

_LINE_WORD = "motorcade-ed25519"
_RAW_BYTES = 32
_KEY_ID_DIGITS = 16
_PRIVATE_MODE = 0o600
_OTHERS = 0o077
_COMMENT = re.compile(r"[^\x00-\x1f\x7f]{0,100}")


class Verdict(StrEnum):
    """What a trust store says of a release."""

    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown-key"
    FORGED = "forged"
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whose signatures can be checked.

    Attributes:
        raw: 32 bytes.
        comment: Words of its owner, one line; not signed by anybody.
    """

    raw: bytes
    comment: str = ""

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the SHA-256 of the raw key."""
        return hashlib.sha256(self.raw).hexdigest()[:_KEY_ID_DIGITS]

    def verifies(self, manifest: Manifest) -> bool:
        """Whether the manifest's signature was made with this key over just this manifest."""
        if manifest.signature is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(
                manifest.signature.value, manifest.signed_bytes()
            )
        except InvalidSignature:
            return False
        return True

    def to_line(self) -> str:
        """The key as one line of text."""
        return f"{_LINE_WORD} {base64.b64encode(self.raw).decode()} {self.comment}".rstrip() + "\n"

    @staticmethod
    def parse(text: str) -> "PublicKey":
        """Read a line that `to_line` wrote, or PEM.

        Raises:
            SettingsError: It is neither.
        """
        if text.lstrip().startswith("-----BEGIN"):
            return PublicKey(_raw_of_pem(text))
        words = text.strip().split(maxsplit=2)
        if len(words) < 2 or words[0] != _LINE_WORD:
            raise SettingsError(f"no public key: wanted one line `{_LINE_WORD} …`, or PEM")
        try:
            raw = base64.b64decode(words[1], validate=True)
        except (binascii.Error, ValueError) as error:
            raise SettingsError(f"no public key: {error}") from error
        if len(raw) != _RAW_BYTES:
            raise SettingsError(f"no public key: {len(raw)} bytes, not {_RAW_BYTES}")
        return PublicKey(raw, _checked_comment(words[2] if len(words) > 2 else ""))

    @staticmethod
    def load(path: Path) -> "PublicKey":
        """Read a public key's file.

        Raises:
            SettingsError: It cannot be read, or holds none; names the file.
        """
        try:
            return PublicKey.parse(_read(path))
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error


class SigningKey:
    """A private key. Never printed, and written only by `save`.

    Args:
        key: Of the library.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @staticmethod
    def generate() -> "SigningKey":
        """A new key, from the system's randomness."""
        return SigningKey(Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, manifest: Manifest) -> Manifest:
        """The manifest with this key's signature, in place of any that it had."""
        value = self._key.sign(manifest.signed_bytes())
        return replace(manifest, signature=Signature(self.public.key_id, value))

    def save(self, path: Path) -> None:
        """Write the private key into a new file that only its owner may read.

        Raises:
            SettingsError: There is a file already, or the disk refuses.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(descriptor)
        except FileExistsError as error:
            raise SettingsError(f"{path} is there already; keys are never overwritten") from error
        except OSError as error:
            raise SettingsError(f"cannot write {path}: {error.strerror}") from error

    @staticmethod
    def load(path: Path) -> "SigningKey":
        """Read a private key's file.

        Raises:
            SettingsError: It cannot be read, others may read it, or it holds no Ed25519 key.
        """
        text = _read(path)
        mode = path.stat().st_mode
        if mode & _OTHERS:
            raise SettingsError(
                f"{path}: others may read this private key (mode {mode & 0o777:o}); "
                f"`chmod 600 {path}`, and think about a new one"
            )
        try:
            key = serialization.load_pem_private_key(text.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SettingsError(f"{path}: no private key in PEM without a password") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(f"{path}: a private key, but none of Ed25519")
        return SigningKey(key)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """The keys whose signatures count.

    Attributes:
        keys: By key id.
        broken: Files that should be keys and are not, each with what is wrong; they count for
            nothing.
    """

    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    broken: tuple[str, ...] = ()

    @staticmethod
    def load(directory: Path) -> "TrustStore":
        """Read a directory of `*.pub`; one that is not there trusts nobody.

        Raises:
            SettingsError: The directory cannot be read, or holds over `KEYS_MAX` keys.
        """
        try:
            paths = sorted(directory.glob(f"*{PUBLIC_SUFFIX}"))
        except OSError as error:
            raise SettingsError(f"cannot read {directory}: {error.strerror}") from error
        if len(paths) > KEYS_MAX:
            raise SettingsError(f"{directory} holds {len(paths)} keys, at most {KEYS_MAX} may be")
        keys: dict[str, PublicKey] = {}
        broken: list[str] = []
        for path in paths:
            try:
                key = PublicKey.load(path)
            except SettingsError as error:
                broken.append(str(error))
            else:
                keys[key.key_id] = key
        return TrustStore(keys, tuple(broken))

    def judge(self, manifest: Manifest) -> Verdict:
        """What the signature of a release is worth here."""
        if manifest.signature is None:
            return Verdict.UNSIGNED
        key = self.keys.get(manifest.signature.key_id)
        if key is None:
            return Verdict.UNKNOWN_KEY
        return Verdict.TRUSTED if key.verifies(manifest) else Verdict.FORGED


def read_public(path: Path) -> PublicKey:
    """The public key of a file that holds one, or its private key.

    Raises:
        SettingsError: It cannot be read, or holds neither.
    """
    if "PRIVATE KEY-----" in _read(path):
        return SigningKey.load(path).public
    return PublicKey.load(path)


def trust(directory: Path, key: PublicKey) -> Path:
    """Put a key into a trust store; harmless when repeated. Returns its file.

    Raises:
        SettingsError: The disk refuses, or the store is full.
    """
    path = directory / f"{key.key_id}{PUBLIC_SUFFIX}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if len({*directory.glob(f"*{PUBLIC_SUFFIX}"), path}) > KEYS_MAX:
            raise SettingsError(f"{directory} holds {KEYS_MAX} keys already; revoke one")
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(key.to_line(), "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error
    return path


def revoke(directory: Path, key_id: str) -> list[Path]:
    """Take a key out of a trust store. Its files stay, renamed, to tell what was trusted.

    Raises:
        SettingsError: There is no such key, or the disk refuses.
    """
    try:
        paths = sorted(directory.glob(f"*{PUBLIC_SUFFIX}"))
        renamed = [
            path.replace(path.with_name(path.name + REVOKED_SUFFIX))
            for path in paths
            if _key_id_in(path) == key_id
        ]
    except OSError as error:
        raise SettingsError(f"cannot change {directory}: {error.strerror}") from error
    if not renamed:
        known = ", ".join(sorted(TrustStore.load(directory).keys)) or "none"
        raise SettingsError(f"no key {key_id} in {directory}; there are: {known}")
    return renamed


def with_comment(key: PublicKey, comment: str) -> PublicKey:
    """A key with words of its owner. Raises SettingsError where they are not one short line."""
    return replace(key, comment=_checked_comment(comment))


def _checked_comment(text: str) -> str:
    if not _COMMENT.fullmatch(text):
        raise SettingsError("the comment of a key is one line of at most 100 characters")
    return text.strip()


def _key_id_in(path: Path) -> str | None:
    """Key id of a file of a trust store; None where it holds no key."""
    try:
        return PublicKey.load(path).key_id
    except SettingsError:
        return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(KEY_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > KEY_BYTES_MAX:
        raise SettingsError(f"{path}: too large for a key")
    return content.decode("utf-8", errors="replace")


def _raw_of_pem(text: str) -> bytes:
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError("no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError("a public key, but none of Ed25519")
    return key.public_bytes_raw()
