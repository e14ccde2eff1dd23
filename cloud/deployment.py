"""Where the scorer's network runs: one switch, `motorcade score --model SPEC`.

| SPEC                                        | the network runs                              |
| ------------------------------------------- | --------------------------------------------- |
| `embedded:NAME[@SELECTOR]`                  | in the scorer's process                       |
| `rpc://HOST:PORT/NAME[@SELECTOR]`           | at a server of the Open Inference Protocol V2 |
|                                             | over gRPC; `rpcs://` with TLS                 |
| `rpc+http://HOST:PORT/NAME[@SELECTOR]`      | the same over REST; `rpc+https://` with TLS   |
| `tfserving://HOST:PORT/NAME[@SELECTOR]`     | at TensorFlow Serving, over gRPC              |
| `kafka://NAME[@SELECTOR]`                   | at whoever answers `model.requests`           |

NAME and SELECTOR (an alias or a version; `champion` by default) say which releases of
`model.releases` are used; the server is asked for the exact version of the release, so that the
same release gives the same bits wherever it runs. Options follow as in a URL, `?a=1&b=2`:

- `versions=off`: the server is addressed without a version (a foreign one that holds one model);
  `versions=on` with `tfserving:`, whose versions are numbers, addresses it with one
- `timeout_s=5`: longest wait for one answer before it is asked for again
- `refused_s=60`: how long a refusal is asked again before the scorer ends
- `signature=serving_default`: which of a model's signatures; `tfserving:` only
- `binary=off` or `on`: JSON or the binary tensor extension, whatever the server says that it
  speaks; `rpc+http:` only

Light: reading a spec imports no client library and no array.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from schemas.errors import ContractError, SettingsError
from scoring.model_ref import ModelRef
from transport.settings import KafkaSettings

if TYPE_CHECKING:
    from cloud.remote.hold import Hold
    from cloud.remote.link import Link

DEFAULT_MODEL = "embedded:anomaly@champion"

WHAT_MAY_STAND = (
    "it may be embedded:NAME[@SELECTOR], rpc://HOST:PORT/NAME[@SELECTOR] (gRPC), "
    "rpc+http://HOST:PORT/NAME[@SELECTOR] (REST), tfserving://HOST:PORT/NAME[@SELECTOR] or "
    "kafka://NAME[@SELECTOR]"
)

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WAITS = ("timeout_s", "refused_s")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "embedded": (),
    "rpc": ("versions", *_WAITS),
    "rpcs": ("versions", *_WAITS),
    "rpc+http": ("versions", "binary", *_WAITS),
    "rpc+https": ("versions", "binary", *_WAITS),
    "tfserving": ("versions", "signature", *_WAITS),
    "kafka": _WAITS,
}


class Kind(StrEnum):
    """The three ways to deploy a model."""

    EMBEDDED = "embedded"
    RPC = "rpc"
    KAFKA = "kafka"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a model runs and which one it is.

    Attributes:
        ref: The model and which of its versions.
        scheme: 'embedded', 'rpc', 'rpcs', 'rpc+http', 'rpc+https', 'tfserving', 'kafka'.
        target: `host:port`; empty where there is no server to be named.
        with_version: Whether a server is asked for the exact version.
        timeout_s: Longest wait for one answer.
        refused_s: How long a refusal is asked again.
        signature: Of TensorFlow Serving.
        binary: Whether REST uses the binary tensor extension; None: where the server speaks it.
    """

    ref: ModelRef
    scheme: str = "embedded"
    target: str = ""
    with_version: bool = True
    timeout_s: float = 5.0
    refused_s: float = 60.0
    signature: str = "serving_default"
    binary: bool | None = None

    @staticmethod
    def parse(spec: str) -> "Deployment":
        """Read what stands behind `--model`.

        Raises:
            SettingsError: It does not read so; the message says what may stand there.

        Example:
            >>> Deployment.parse("rpc://127.0.0.1:8001/anomaly@challenger?timeout_s=2").target
            '127.0.0.1:8001'
        """
        url = urlsplit(spec)
        if url.scheme not in _OPTIONS or url.fragment:
            raise _bad(spec, WHAT_MAY_STAND)
        named = _named(spec, url)
        options = _options(spec, url)
        return Deployment(
            ref=_ref(spec, named),
            scheme=url.scheme,
            target=_target(spec, url),
            with_version=_switch(spec, options, "versions", default=url.scheme != "tfserving"),
            timeout_s=_seconds(spec, options, "timeout_s", 5.0),
            refused_s=_seconds(spec, options, "refused_s", 60.0),
            signature=options.get("signature", "serving_default"),
            binary=_switch(spec, options, "binary", default=True) if "binary" in options else None,
        )

    @property
    def kind(self) -> Kind:
        """Which of the three ways it is."""
        if self.scheme in (Kind.EMBEDDED, Kind.KAFKA):
            return Kind(self.scheme)
        return Kind.RPC

    def link(self, kafka: KafkaSettings, hold: "Hold") -> "Link":
        """What makes the scorers of bundles.

        Args:
            kafka: Where requests go with `kafka:`.
            hold: Told while a server is waited for.
        """
        from cloud.remote.link import Link

        return Link(self, kafka, hold)


def _named(spec: str, url: SplitResult) -> str:
    """`NAME[@SELECTOR]` of a spec."""
    if url.scheme == "embedded":
        named = url.path if not url.netloc else ""
    elif url.scheme == "kafka":
        named = url.netloc if url.path in ("", "/") else ""
    else:
        named = url.path.removeprefix("/")
    if not named:
        raise _bad(spec, WHAT_MAY_STAND)
    return named


def _ref(spec: str, named: str) -> ModelRef:
    try:
        ref = ModelRef.parse(named)
    except ContractError as error:
        raise _bad(spec, error.detail) from error
    for part in (ref.name, ref.selector):
        if not _PLAIN.fullmatch(part):
            raise _bad(spec, f"{part!r} is not a plain name")
    return ref


def _target(spec: str, url: SplitResult) -> str:
    """`host:port` where a server is named."""
    if url.scheme in ("embedded", "kafka"):
        return ""
    try:
        host, port = url.hostname, url.port
    except ValueError as error:
        raise _bad(spec, str(error)) from error
    if not host or not port or "@" in url.netloc:
        raise _bad(spec, f"HOST:PORT is wanted, not {url.netloc!r}")
    return url.netloc


def _options(spec: str, url: SplitResult) -> dict[str, str]:
    known = _OPTIONS[url.scheme]
    found = dict(parse_qsl(url.query, keep_blank_values=True))
    for name in found:
        if name not in known:
            may = f"there are: {', '.join(known)}" if known else "there are none"
            raise _bad(spec, f"no option {name!r} with {url.scheme}:; {may}")
    return found


def _switch(spec: str, options: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = options.get(name, "on" if default else "off")
    if text not in ("on", "off"):
        raise _bad(spec, f"{name} is {text!r}; on or off")
    return text == "on"


def _seconds(spec: str, options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.01 <= seconds <= 3600:
        raise _bad(spec, f"{name} is {text!r}; 0.01 to 3600 seconds")
    return seconds


def _bad(spec: str, what: str) -> SettingsError:
    return SettingsError(f"scorer model {spec!r}: {what}")
