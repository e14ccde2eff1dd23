"""Events of models: a record holds all that the value does."""

import pytest

from schemas.errors import ContractError, Reason
from schemas.records import decode_body, encode_body
from scoring.events import EventKind, ModelEvent, Severity

PLAIN = ModelEvent(EventKind.PROMOTED, "anomaly", "2 is champion", "ann", 1_790_000_000_123)
FULL = ModelEvent(
    EventKind.GUARD_TRIPPED,
    "anomaly",
    "arm new opens 9 times as many alerts",
    "monitor",
    1_790_000_000_123,
    model_version="3",
    arm="new",
    experiment="e1",
    severity=Severity.CRITICAL,
    values={"alert_ratio": 9.0},
)


@pytest.mark.parametrize("event", [PLAIN, FULL])
def test_an_event_comes_back_from_its_record(event: ModelEvent) -> None:
    body = encode_body("ModelEvent", event.to_record())
    assert ModelEvent.from_record(decode_body("ModelEvent", body)) == event
    assert event.key == b"anomaly"


def test_a_kind_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        ModelEvent.from_record({**PLAIN.to_record(), "kind": "merged"})
    assert caught.value.reason is Reason.MALFORMED
