"""What is looked at of a release before any of it runs, one thing at a time, each in words.

In this order: who signed it, how large it is, its hash and structure, its input and output, the
operators that it needs, how old it is. That its features, units and signals are known was seen
when its manifest was read. Pure but for the question to the TFLite runtime.
"""

from dataclasses import dataclass

from schemas.errors import ContractError, Reason
from scoring.bundle import Bundle
from scoring.flatbuffer import Port, model_ports
from scoring.manifest import Manifest
from scoring.operators import lacking_operators
from scoring.signing import TrustStore, Verdict
from scoring.versions import is_older

MENDABLE = frozenset({Reason.MODEL_SIGNATURE, Reason.MODEL_VERSION})
"""Reasons that other settings or another key can mend, without another release."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a gateway demands of a release.

    Attributes:
        model_name: The only model that it takes.
        signatures_required: Whether a release needs a signature of a trusted key.
        min_version: Older ones are refused; empty: none is too old.
        trust: The trusted keys.
    """

    model_name: str
    signatures_required: bool
    min_version: str
    trust: TrustStore


def check_release(bundle: Bundle, policy: Policy) -> str:
    """Look at a release.

    Args:
        bundle: Its manifest was read; its bytes need not be verified.
        policy: Of the gateway.

    Returns:
        Who signed it, in words.

    Raises:
        ContractError: MODEL_SIGNATURE, MODEL_INVALID, MODEL_HASH, MODEL_FEATURES, MODEL_OPERATOR
            or MODEL_VERSION; the detail says what is wrong, with the facts.
        SettingsError: No TFLite runtime is installed.
    """
    signer = check_standing(bundle.manifest, policy)
    bundle.verify()
    _check_ports(bundle)
    if lacking := lacking_operators(bundle.model):
        raise ContractError(
            Reason.MODEL_OPERATOR, f"the TFLite runtime here lacks {', '.join(lacking)}"
        )
    return signer


def check_standing(manifest: Manifest, policy: Policy) -> str:
    """Look at what depends on the gateway's settings and keys alone; returns who signed it.

    Raises:
        ContractError: MODEL_INVALID: a model of another name. MODEL_SIGNATURE or MODEL_VERSION.
    """
    if manifest.name != policy.model_name:
        raise ContractError(
            Reason.MODEL_INVALID,
            f"a model named {manifest.name!r}; this gateway scores with {policy.model_name!r}",
        )
    signer = _check_signature(manifest, policy)
    if policy.min_version and is_older(manifest.version, policy.min_version):
        raise ContractError(
            Reason.MODEL_VERSION,
            f"version {manifest.version} is older than {policy.min_version}, the oldest allowed "
            "(model_min_version)",
        )
    return signer


def _check_signature(manifest: Manifest, policy: Policy) -> str:
    verdict, signature = policy.trust.judge(manifest), manifest.signature
    if signature is None:
        said = "not signed"
    elif verdict is Verdict.FORGED:
        raise ContractError(
            Reason.MODEL_SIGNATURE,
            f"the signature does not fit the release, says key {signature.key_id}: it was "
            "changed after it was signed, or signed by somebody else",
        )
    elif verdict is Verdict.UNKNOWN_KEY:
        said = f"signed by key {signature.key_id}, which is not trusted here"
    else:
        comment = policy.trust.keys[signature.key_id].comment
        said = f"signed by {signature.key_id}{f' ({comment})' if comment else ''}"
    if policy.signatures_required and verdict is not Verdict.TRUSTED:
        raise ContractError(
            Reason.MODEL_SIGNATURE, f"{said}, and signatures are required (signatures_required)"
        )
    return said


def _check_ports(bundle: Bundle) -> None:
    """One input and one output, float32, as wide as the manifest says."""
    manifest = bundle.manifest
    inputs, outputs = model_ports(bundle.model)
    for what, ports in (("input", inputs), ("output", outputs)):
        if len(ports) != 1:
            raise ContractError(Reason.MODEL_FEATURES, f"the model has {len(ports)} {what}s, not 1")
        _check_port(ports[0], what, manifest)


def _check_port(port: Port, what: str, manifest: Manifest) -> None:
    columns = len(manifest.features)
    wanted = (columns,) if manifest.window == 1 else (manifest.window, columns)
    if port.shape[1:] != wanted:
        sizes = " x ".join(map(str, wanted))
        raise ContractError(
            Reason.MODEL_FEATURES,
            f"the model's {what} has shape {list(port.shape)}; the manifest wants {sizes} behind "
            "the batch",
        )
    if not port.is_float32:
        raise ContractError(Reason.MODEL_FEATURES, f"the model's {what} is not float32")
