"""From one poll of requests to all that is written for it. No clock but for how long it takes.

Hot path: requests of one model version are scored as one matrix and answered as arrays; what is
refused goes one at a time.
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloud.dead_letters import Refused, Undertaker
from cloud.serving.kafka_poll import Answers, RequestPoll, ResponseBatch
from cloud.serving.kafka_settings import DoorTopics
from cloud.serving.observer import ServingObserver
from cloud.serving.repository import RepositoryView, Served
from schemas.errors import ContractError, Reason
from schemas.request_json import encode_json_responses
from schemas.requests import (
    AnswerableError,
    Envelope,
    RequestColumns,
    Scored,
    Verdict,
    decode_requests,
    encode_responses,
)
from transport.kafka import Outgoing, SchemaIds, TopicDirectory

DEPLOYMENT = "kafka"
RESPONSE_BYTES_MAX = 990_000
"""Largest response; a larger one is an error response. Leaves room for key and headers."""

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Reply:
    """Where the responses to an envelope go: topic, and partition or -1."""

    topic: str
    partition: int


@dataclass(slots=True)
class _Sheet:
    """What is written for the requests of one poll, by their position in it.

    Attributes:
        request: The poll.
        values: Of the responses; None: nothing yet.
        replies: Where they go.
        refused: What cannot be answered.
    """

    request: RequestPoll
    values: list[bytes | None]
    replies: list[_Reply | None]
    refused: list[tuple[int, ContractError]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class RequestStep:
    """Answers polls. For one thread.

    Attributes:
        view: Of the models.
        ids: Schema ids of the topics.
        directory: Which reply topics there are.
        reply_topics: Which of them a request may name.
        undertaker: Writes what cannot be answered.
        observer: Told of what was scored and refused.
        topics: Where to read and write.
    """

    view: RepositoryView
    ids: SchemaIds
    directory: TopicDirectory
    reply_topics: re.Pattern[str]
    undertaker: Undertaker
    observer: ServingObserver
    topics: DoorTopics = field(default_factory=DoorTopics)

    def run(self, request: RequestPoll, *, received_s: float, now_ms: int) -> Answers:
        """Answer a poll.

        Args:
            request: What came.
            received_s: When, by the monotonic clock.
            now_ms: Since the epoch; deadlines before it have passed.

        Raises:
            TransientError: The brokers did not say which topics there are.
        """
        columns = decode_requests(
            request.poll.payloads, schema_id=self.ids.id_of(self.topics.requests)
        )
        count = len(request.poll.payloads)
        sheet = _Sheet(request, [None] * count, [None] * count)
        turn = _Turn(self, sheet, columns, received_s, now_ms)
        turn.refuse_rejected()
        turn.score(turn.alive(turn.addressed()))
        return self._answers(sheet)

    def _answers(self, sheet: _Sheet) -> Answers:
        request = sheet.request
        letters = [self._letter(sheet, at, error) for at, error in sorted_by_place(sheet.refused)]
        for _, error in sheet.refused:
            self.observer.failed("", error, deployment=DEPLOYMENT)
        topic = self.topics.requests.name
        headerless = request.headers is None
        return Answers(
            scores=_batches(sheet) if headerless else [],
            others=letters if headerless else [*_singles(sheet), *letters],
            offsets={(topic, p): offset for p, offset in request.poll.next_offsets().items()},
            requests=len(sheet.values),
            rows=sheet.counts["rows"],
            errors=sheet.counts["errors"],
            expired=sheet.counts["expired"],
            dead_letters=len(letters),
            payload_bytes=sum(len(value) for value in sheet.values if value is not None),
        )

    def _letter(self, sheet: _Sheet, at: int, error: ContractError) -> Outgoing:
        refused = Refused.of(sheet.request.poll.messages[at])
        now_ms = time.time_ns() // 1_000_000
        return self.undertaker.letter(refused, error, now_ms=now_ms, model_version=None)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One poll on its way through a `RequestStep`."""

    step: RequestStep
    sheet: _Sheet
    columns: RequestColumns
    received_s: float
    now_ms: int

    def refuse_rejected(self) -> None:
        """Answer what broke the contract and says where to answer; bury the rest."""
        for each in self.columns.rejected:
            error = each.error
            if not isinstance(error, AnswerableError):
                self.sheet.refused.append((each.index, error))
                continue
            reply = self._replies([error.envelope])[0]
            if isinstance(reply, ContractError):
                self.sheet.refused.append((each.index, reply))
                continue
            self.sheet.replies[each.index] = reply
            self._write_error([each.index], [error.correlation_id], error.envelope, error)

    def addressed(self) -> NDArray[np.bool_]:
        """Which requests can be answered; buries the others. Shape (M,)."""
        columns = self.columns
        replies = self._replies(columns.envelopes)
        good = np.ones(len(columns.index), np.bool_)
        for number, reply in enumerate(replies):
            chosen = np.flatnonzero(columns.envelope == number)
            places = columns.index[chosen].tolist()
            if isinstance(reply, ContractError):
                good[chosen] = False
                self.sheet.refused += [(at, reply) for at in places]
                continue
            for at in places:
                self.sheet.replies[at] = reply
        return good

    def alive(self, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of these have not expired; answers the others. Shape (M,)."""
        deadline_ms = self.columns.deadline_ms
        late = good & (deadline_ms > 0) & (deadline_ms < self.now_ms)
        if late.any():
            error = ContractError(Reason.DEADLINE, "the deadline had passed when it was read")
            self._refuse(np.flatnonzero(late), error)
            self.sheet.counts["expired"] += int(late.sum())
        return good & ~late

    def score(self, good: NDArray[np.bool_]) -> None:
        """Score and answer these, all of one model version together."""
        columns = self.columns
        asked = [(envelope.model, envelope.version) for envelope in columns.envelopes]
        for name, version in dict.fromkeys(asked):
            wanted = np.array([each == (name, version) for each in asked], np.bool_)
            chosen = np.flatnonzero(good & wanted[columns.envelope])
            if chosen.size == 0:
                continue
            try:
                groups = self._served(name, version, chosen)
            except ContractError as error:
                self._refuse(chosen, error)
                continue
            for served, some in groups:
                self._score_version(served, some)

    def _served(self, name: str, version: str, chosen: Longs) -> list[tuple[Served, Longs]]:
        """Which model scores which requests. Raises ContractError (UNKNOWN_MODEL)."""
        if version:
            return [(self.step.view.pinned(name, version), chosen)]
        found = self.step.view.routed(name, self._vehicle_ids(chosen))
        numbers: dict[int, int] = {}
        number = np.array([numbers.setdefault(id(each), len(numbers)) for each in found])
        firsts = [int(np.argmax(number == n)) for n in range(len(numbers))]
        return [(found[first], chosen[number == n]) for n, first in enumerate(firsts)]

    def _vehicle_ids(self, chosen: Longs) -> list[bytes]:
        """Vehicle ids; the record's key where a request has none."""
        columns, keys = self.columns, self.sheet.request.keys
        return [
            columns.vehicle_ids[number] or keys[at] or b""
            for number, at in zip(chosen.tolist(), columns.index[chosen].tolist(), strict=True)
        ]

    def _score_version(self, served: Served, chosen: Longs) -> None:
        columns = self.columns
        width = served.scorer.columns
        fits = columns.widths[chosen] == width
        if not fits.all():
            self._refuse_widths(served, chosen[~fits])
        wants = np.array([envelope.reconstruction for envelope in columns.envelopes], np.bool_)
        both = wants[columns.envelope[chosen]]
        for some, reconstruction in ((chosen[fits & ~both], False), (chosen[fits & both], True)):
            if some.size:
                self._score_matrix(served, some, reconstruction)

    def _refuse_widths(self, served: Served, chosen: Longs) -> None:
        manifest, widths = served.bundle.manifest, self.columns.widths[chosen]
        for wrong in np.unique(widths).tolist():
            error = ContractError(
                Reason.WRONG_SHAPE,
                f"rows of {wrong} features; {manifest.name} {manifest.version} takes "
                f"{served.scorer.columns}",
            )
            self._refuse(chosen[widths == wrong], error)

    def _score_matrix(self, served: Served, chosen: Longs, reconstruction: bool) -> None:
        features = self.columns.matrix(chosen, served.scorer.columns)
        began_s = time.monotonic()
        made = np.empty((0, 0), np.float32)
        try:
            if reconstruction:
                scores, made = served.scorer.score_and_reconstruct(features)
            else:
                scores = served.scorer.score(features)
        except ContractError as error:
            self._refuse(chosen, error)
            return
        compute_us = round((time.monotonic() - began_s) * 1e6)
        queue_us = max(0, round((began_s - self.received_s) * 1e6))
        manifest = served.bundle.manifest
        verdict = Verdict(manifest.name, manifest.version, manifest.model_sha256, served.arm)
        rows = self.columns.rows[chosen]
        self._write(
            chosen,
            Scored(
                verdict=verdict,
                correlation_ids=[self.columns.correlation_ids[n] for n in chosen.tolist()],
                rows=rows,
                scores=scores,
                reconstruction=made,
                score_time_ms=self.now_ms,
                queue_us=queue_us,
                compute_us=compute_us,
            ),
        )
        self.sheet.counts["rows"] += len(scores)
        self.step.observer.observed(
            served,
            features,
            scores,
            queue_us=[queue_us] * len(chosen),
            compute_us=compute_us,
            deployment=DEPLOYMENT,
        )

    def _write(self, chosen: Longs, scored: Scored) -> None:
        """Put responses in their places; those that asked in JSON are answered in it."""
        columns = self.columns
        is_json = np.array([envelope.json for envelope in columns.envelopes], np.bool_)
        json = is_json[columns.envelope[chosen]]
        for form, encode in ((False, self._encode), (True, encode_json_responses)):
            some = np.flatnonzero(json == form)
            if some.size == 0:
                continue
            part = scored if some.size == chosen.size else _part(scored, some)
            places = columns.index[chosen[some]].tolist()
            for number, (at, value) in enumerate(zip(places, encode(part), strict=True)):
                if len(value) > RESPONSE_BYTES_MAX:
                    self._write_oversized(int(chosen[some[number]]), len(value))
                else:
                    self.sheet.values[at] = value

    def _encode(self, scored: Scored) -> list[bytes]:
        return encode_responses(scored, schema_id=self.step.ids.id_of(self.step.topics.responses))

    def _write_oversized(self, number: int, size: int) -> None:
        detail = f"a response of {size} bytes; {RESPONSE_BYTES_MAX} are allowed: send fewer rows"
        self._refuse(np.array([number]), ContractError(Reason.OVERSIZED, detail))

    def _refuse(self, chosen: Longs, error: ContractError) -> None:
        """Answer good requests with an error."""
        columns = self.columns
        for number in np.unique(columns.envelope[chosen]).tolist():
            some = chosen[columns.envelope[chosen] == number]
            self._write_error(
                columns.index[some].tolist(),
                [columns.correlation_ids[each] for each in some.tolist()],
                columns.envelopes[number],
                error,
            )

    def _write_error(
        self,
        places: Sequence[int],
        correlation_ids: Sequence[bytes],
        envelope: Envelope,
        error: ContractError,
    ) -> None:
        scored = Scored(
            verdict=Verdict(envelope.model, reason=error.reason.value, error=error.detail),
            correlation_ids=correlation_ids,
            rows=np.zeros(len(places), np.int64),
            scores=np.empty(0, np.float32),
            reconstruction=np.empty((0, 0), np.float32),
            score_time_ms=self.now_ms,
            queue_us=0,
            compute_us=0,
        )
        values = encode_json_responses(scored) if envelope.json else self._encode(scored)
        for at, value in zip(places, values, strict=True):
            self.sheet.values[at] = value
        self.sheet.counts["errors"] += len(places)
        for _ in places:
            self.step.observer.failed(envelope.model, error, deployment=DEPLOYMENT)

    def _replies(self, envelopes: Sequence[Envelope]) -> list[_Reply | ContractError]:
        """Where the responses to each envelope go, or why nowhere."""
        step = self.step
        names = [envelope.reply_topic or step.topics.responses.name for envelope in envelopes]
        allowed = {
            name
            for name in names
            if name == step.topics.responses.name or step.reply_topics.fullmatch(name)
        }
        counts = step.directory.partitions(allowed)
        return [
            _reply(name, envelope.reply_partition, counts)
            for name, envelope in zip(names, envelopes, strict=True)
        ]


def _reply(topic: str, partition: int, counts: dict[str, int]) -> _Reply | ContractError:
    if topic not in counts:
        detail = f"reply topic {topic!r} is not one of those allowed"
    elif counts[topic] == 0:
        detail = f"there is no reply topic {topic!r}"
    elif partition >= counts[topic]:
        detail = f"reply topic {topic!r} has no partition {partition}"
    else:
        return _Reply(topic, partition)
    return ContractError(Reason.UNKNOWN_REPLY_TOPIC, detail)


def _part(scored: Scored, some: Longs) -> Scored:
    """Of the requests of one run, some."""
    ends = np.cumsum(scored.rows)
    chosen = np.zeros(len(scored.scores), np.bool_)
    for number in some.tolist():
        chosen[ends[number] - scored.rows[number] : ends[number]] = True
    return Scored(
        verdict=scored.verdict,
        correlation_ids=[scored.correlation_ids[number] for number in some.tolist()],
        rows=scored.rows[some],
        scores=scored.scores[chosen],
        reconstruction=scored.reconstruction[chosen] if scored.reconstruction.size else _NONE,
        score_time_ms=scored.score_time_ms,
        queue_us=scored.queue_us,
        compute_us=scored.compute_us,
    )


_NONE = np.empty((0, 0), np.float32)


def sorted_by_place(
    refused: list[tuple[int, ContractError]],
) -> list[tuple[int, ContractError]]:
    """In the order in which they came."""
    return sorted(refused, key=lambda each: each[0])


def _batches(sheet: _Sheet) -> list[ResponseBatch]:
    """Responses without headers, by where they go, in the order of the requests."""
    found: dict[_Reply, list[dict[str, bytes | None]]] = {}
    for value, reply, key in zip(sheet.values, sheet.replies, sheet.request.keys, strict=True):
        if value is not None and reply is not None:
            found.setdefault(reply, []).append({"value": value, "key": key})
    return [
        ResponseBatch(reply.topic, reply.partition, messages) for reply, messages in found.items()
    ]


def _singles(sheet: _Sheet) -> list[Outgoing]:
    """Responses with the headers of their requests, in the order of the requests."""
    headers = sheet.request.headers or [()] * len(sheet.values)
    return [
        Outgoing(reply.topic, value, key, reply.partition, each)
        for value, reply, key, each in zip(
            sheet.values, sheet.replies, sheet.request.keys, headers, strict=True
        )
        if value is not None and reply is not None
    ]
