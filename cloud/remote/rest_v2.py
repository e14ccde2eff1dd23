"""The Open Inference Protocol V2 over REST, as a client; the only module that imports urllib3.

Tensors travel by the binary tensor extension where the server says that it speaks it, as JSON
otherwise. JSON has no NaN: absent features are `null` there, which our server takes; a foreign
server gets normalised rows, which have none.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import urllib3
from numpy.typing import NDArray

from cloud.remote.asking import (
    FP32,
    Answer,
    Ask,
    Described,
    NotReadyError,
    Tensor,
    shaped,
    wrong_answer,
)
from schemas.errors import ContractError, MotorcadeError, Reason, TransientError
from transport.tracing import carried

IN_FLIGHT = 4
REQUEST_BYTES = 1_000_000
JSON_REQUEST_BYTES = 100_000
"""Of the matrix; a number takes about twenty characters in JSON."""

ANSWER_BYTES_MAX = 16_000_000
HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_EXTENSION = "binary_tensor_data"

_NOT_READY = frozenset({404, 409})
_TRANSIENT = frozenset({408, 423, 425, 429})


class RestV2Asker:
    """An `Asker`.

    Args:
        url: `http://host:port` or `https://host:port`.
        timeout_s: Longest wait for an answer.
        binary: Whether to use the binary tensor extension; None: where the server speaks it.
    """

    def __init__(self, url: str, *, timeout_s: float, binary: bool | None = None) -> None:
        self.address = url
        self.timeout_s = timeout_s
        self.in_flight = IN_FLIGHT
        self._asked_for = binary
        self._binary = bool(binary)
        self._pool: urllib3.HTTPConnectionPool | None = None

    @property
    def request_bytes(self) -> int:
        """As of `Asker`."""
        return REQUEST_BYTES if self._binary else JSON_REQUEST_BYTES

    def start(self) -> None:
        """As of `Asker`."""
        self._pool = urllib3.connection_from_url(self.address, maxsize=IN_FLIGHT, block=True)

    def close(self) -> None:
        """As of `Asker`; requests under way end with their time-out."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def describe(self, model: str, version: str) -> Described:
        """As of `Asker`."""
        if self._asked_for is None:
            self._binary = BINARY_EXTENSION in self._extensions()
        found = _json(self._request("GET", _path(model, version))[0])
        try:
            return Described(_tensors(found.get("inputs")), _tensors(found.get("outputs")))
        except (KeyError, TypeError, ValueError) as error:
            raise wrong_answer(f"no description of a model: {error!r}") from error

    def ask(self, ask: Ask) -> Answer:
        """As of `Asker`."""
        return self._ask_binary(ask) if self._binary else self._ask_json(ask)

    def _extensions(self) -> list[str]:
        """What the server says that it speaks; a server need not say anything."""
        try:
            return list(map(str, _json(self._request("GET", "/v2")[0]).get("extensions") or ()))
        except (NotReadyError, ContractError):
            return []

    def _ask_binary(self, ask: Ask) -> Answer:
        raw = ask.rows.tobytes()
        header = orjson.dumps(_request(ask, {"parameters": {"binary_data_size": len(raw)}}, True))
        headers = {
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(len(header)),
        }
        return _answer(*self._request("POST", _infer(ask), header + raw, headers))

    def _ask_json(self, ask: Ask) -> Answer:
        rows = ask.rows.astype(np.float64).ravel()
        body = orjson.dumps(_request(ask, {"data": rows}, False), option=orjson.OPT_SERIALIZE_NUMPY)
        headers = {"Content-Type": "application/json"}
        return _answer(*self._request("POST", _infer(ask), body, headers))

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of the answer. Raises as `ask`."""
        pool = self._pool
        if pool is None:
            raise TransientError(f"{self.address}: the connection is closed")
        try:
            response = pool.urlopen(
                method,
                path,
                body=body,
                headers={**(headers or {}), **dict(carried())},
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(total=self.timeout_s),
                pool_timeout=math.ceil(self.timeout_s),
                preload_content=False,
            )
            try:
                payload = response.read(ANSWER_BYTES_MAX + 1)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(f"{type(error).__name__}: {error}") from error
        if len(payload) > ANSWER_BYTES_MAX:
            response.close()
            raise wrong_answer(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        if response.status != 200:
            raise refusal(response.status, payload)
        return payload, response.headers


def refusal(status: int, payload: bytes) -> MotorcadeError:
    """An HTTP status that is no answer, as an error of ours."""
    said = payload[:200].decode("utf-8", "replace")
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        said = str(orjson.loads(payload).get("error", said))
    text = f"HTTP {status}: {said}"
    if status in _NOT_READY:
        return NotReadyError(text)
    if status in _TRANSIENT or status >= 500:
        return TransientError(text)
    return ContractError(Reason.MALFORMED, text)


def _path(model: str, version: str) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def _infer(ask: Ask) -> str:
    return f"{_path(ask.model, ask.version)}/infer"


def _request(ask: Ask, data: dict[str, Any], binary: bool) -> dict[str, Any]:
    """The JSON of a request; `data` says where the input's numbers are."""
    tensor = {"name": ask.input, "datatype": FP32, "shape": ask.rows.shape, **data}
    request: dict[str, Any] = {"inputs": [tensor]}
    if ask.outputs:
        wanted = {"parameters": {"binary_data": True}} if binary else {}
        request["outputs"] = [{"name": name, **wanted} for name in ask.outputs]
    elif binary:
        request["parameters"] = {"binary_data_output": True}
    return request


def _tensors(found: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(str(each["name"]), str(each["datatype"]), tuple(map(int, each["shape"])))
        for each in found or ()
    )


def _answer(payload: bytes, headers: Mapping[str, str]) -> Answer:
    """An answer from a body. Raises ContractError where it is none."""
    try:
        end = int(headers.get(HEADER_LENGTH, len(payload)))
        said = _json(payload[:end])
        outputs = _outputs(said["outputs"], payload[end:])
        sha256 = (said.get("parameters") or {}).get("sha256", "")
        return Answer(str(said.get("model_version") or ""), outputs, str(sha256))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise wrong_answer(f"no answer to an inference request: {error!r}") from error


def _outputs(said: Any, raw: bytes) -> dict[str, NDArray[np.float32]]:
    outputs = {}
    at = 0
    for each in said:
        name, shape = str(each["name"]), [int(size) for size in each["shape"]]
        if each["datatype"] != FP32:
            raise wrong_answer(f"output {name} is {each['datatype']}, not FP32")
        size = (each.get("parameters") or {}).get("binary_data_size")
        if size is None:
            numbers = _numbers(each["data"])
        else:
            numbers = np.frombuffer(raw[at : at + size], "<f4")
            at += size
        outputs[name] = shaped(name, numbers, shape)
    return outputs


def _numbers(data: Any) -> NDArray[np.float32]:
    """Numbers of JSON, nested or not, `null` for NaN."""
    numbers = np.array(data, dtype=np.float64)
    return numbers.astype(np.float32).ravel()


def _json(payload: bytes) -> Any:
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise wrong_answer(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise wrong_answer("JSON, but no object")
    return found
