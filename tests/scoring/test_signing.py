"""Signatures over releases: who may sign, what is noticed, and what a trust store makes of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from scoring_bundles import small_bundle

from schemas.errors import SettingsError
from scoring.bounds import Bounds
from scoring.bundle import Bundle
from scoring.manifest import Manifest
from scoring.signature import Signature
from scoring.signing import (
    KEYS_MAX,
    PublicKey,
    SigningKey,
    TrustStore,
    Verdict,
    read_public,
    revoke,
    trust,
    with_comment,
)

KEY = SigningKey.generate()
SIGNED = KEY.sign(small_bundle().manifest)
TRUSTING = TrustStore({KEY.public.key_id: KEY.public})


def test_a_signature_is_as_the_standard_says() -> None:
    # RFC 8032, 7.1, test 1: the seed and its public key.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(seed))
    assert key.public.raw == raw
    assert key.public.key_id == "21fe31dfa154a261"


@pytest.mark.parametrize(
    ("manifest", "verdict"),
    [
        (SIGNED, Verdict.TRUSTED),
        (small_bundle().manifest, Verdict.UNSIGNED),
        (replace(SIGNED, threshold=99.0), Verdict.FORGED),
        (replace(SIGNED, version="2"), Verdict.FORGED),
        (replace(SIGNED, model_sha256="0" * 64), Verdict.FORGED),
        (replace(SIGNED, bounds=Bounds(reading_ms_max=1.0)), Verdict.FORGED),
        (replace(SIGNED, signature=Signature(KEY.public.key_id, bytes(64))), Verdict.FORGED),
        (SigningKey.generate().sign(SIGNED), Verdict.UNKNOWN_KEY),
    ],
)
def test_what_a_trust_store_makes_of_a_release(manifest: Manifest, verdict: Verdict) -> None:
    assert TRUSTING.judge(manifest) is verdict


def test_another_key_with_the_same_id_does_not_help() -> None:
    other = SigningKey.generate()
    forged = other.sign(small_bundle().manifest)
    assert forged.signature is not None
    claimed = replace(forged, signature=Signature(KEY.public.key_id, forged.signature.value))
    assert TRUSTING.judge(claimed) is Verdict.FORGED


def test_a_signature_survives_the_file_and_signing_again(tmp_path: Path) -> None:
    bundle = Bundle(SIGNED, small_bundle().model)
    bundle.save(tmp_path / "a.motorcade")
    loaded = Bundle.load(tmp_path / "a.motorcade")
    assert loaded == bundle
    assert TRUSTING.judge(loaded.manifest) is Verdict.TRUSTED
    assert KEY.sign(SIGNED) == SIGNED
    assert loaded.release_sha256 != small_bundle().release_sha256


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100))
def test_a_public_key_survives_its_line(comment: str) -> None:
    key = with_comment(KEY.public, comment)
    assert PublicKey.parse(key.to_line()) == key


def test_a_public_key_may_be_pem() -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert PublicKey.parse(pem.decode()).raw == key.public_key().public_bytes_raw()


@pytest.mark.parametrize(
    "text",
    ["", "motorcade-ed25519", "motorcade-ed25519 AAAA", "motorcade-ed25519 %%%", "ssh-rsa AAAA x"],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no public key"):
        PublicKey.parse(text)


def test_a_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "release.key"
    KEY.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path).public == read_public(path) == KEY.public
    with pytest.raises(SettingsError, match="never overwritten"):
        KEY.save(path)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="others may read"):
        SigningKey.load(path)


def test_keys_of_other_kinds_are_refused_in_words(tmp_path: Path) -> None:
    curve = generate_private_key(SECP256R1())
    private = curve.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "ec.key"
    path.touch(0o600)
    path.write_bytes(private)
    with pytest.raises(SettingsError, match="none of Ed25519"):
        SigningKey.load(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(SettingsError, match="no private key"):
        SigningKey.load(path)
    public = curve.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(SettingsError, match="none of Ed25519"):
        PublicKey.parse(public.decode())
    with pytest.raises(SettingsError, match="cannot read"):
        PublicKey.load(tmp_path / "absent")


def test_a_trust_store_is_a_directory(tmp_path: Path) -> None:
    store = tmp_path / "keys"
    assert TrustStore.load(store) == TrustStore()
    key = with_comment(KEY.public, "release desk")
    assert trust(store, key) == trust(store, key)
    (store / "broken.pub").write_text("rubbish")
    found = TrustStore.load(store)
    assert found.keys == {key.key_id: key}
    assert len(found.broken) == 1 and "broken.pub" in found.broken[0]
    [renamed] = revoke(store, key.key_id)
    assert renamed.exists() and not TrustStore.load(store).keys
    with pytest.raises(SettingsError, match="no key"):
        revoke(store, key.key_id)


def test_a_trust_store_has_an_end(tmp_path: Path) -> None:
    for number in range(KEYS_MAX):
        (tmp_path / f"{number}.pub").write_text(KEY.public.to_line())
    with pytest.raises(SettingsError, match=f"holds {KEYS_MAX} keys"):
        trust(tmp_path, SigningKey.generate().public)
    (tmp_path / "more.pub").touch()
    with pytest.raises(SettingsError, match="at most"):
        TrustStore.load(tmp_path)
