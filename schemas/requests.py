"""Requests to the model server and its responses, a whole poll at a time, at array speed.

`decode_requests` and `encode_requests` are each other's inverse, and so are `decode_responses`
and `encode_responses`. They agree with fastavro on every input (`schemas.request_record` is what
that means). A request may also be JSON, the body of the Open Inference Protocol's infer call; its
response then is so too (`schemas.request_json`).
"""

from schemas.request_columns import (
    ANY_PARTITION,
    MAX_ID_BYTES,
    MAX_REQUEST_BYTES,
    AnswerableError,
    Envelope,
    RejectedRequest,
    RequestColumns,
    ResponseColumns,
    Verdict,
)
from schemas.request_decode import decode_requests
from schemas.request_encode import encode_requests
from schemas.response_decode import decode_responses
from schemas.response_encode import Scored, encode_responses

__all__ = [
    "ANY_PARTITION",
    "MAX_ID_BYTES",
    "MAX_REQUEST_BYTES",
    "AnswerableError",
    "Envelope",
    "RejectedRequest",
    "RequestColumns",
    "ResponseColumns",
    "Scored",
    "Verdict",
    "decode_requests",
    "decode_responses",
    "encode_requests",
    "encode_responses",
]
