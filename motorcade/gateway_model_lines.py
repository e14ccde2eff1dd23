"""The models of a gateway, as lines for a person. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

Found = Mapping[str, Any]


def model_lines(found: Found) -> Iterator[str]:
    """What `edge.model_commands.list_models` gave, a line a release."""
    yield from _kept("current", found["current"])
    yield from _kept("previous", found["previous"])
    if found["staged"] is not None:
        yield from _kept("staged", found["staged"])
    if found["pin"] is not None:
        yield "pinned    chosen by hand: stays until the fleet's champion is another one"
    if found["rolled_back"]:
        yield f"went back {found['rolled_back']}"
    for refusal in reversed(found["refused"]):
        yield (
            f"refused   {refusal['version'] or 'no release'}  {refusal['release'][:12]}  "
            f"{_moment(refusal['time_ms'])}  {refusal['source']}: "
            f"{refusal['reason']}: {refusal['detail']}"
        )


def _kept(name: str, kept: Found | None) -> Iterator[str]:
    if kept is None:
        yield f"{name:<10}none"
        return
    yield (
        f"{name:<10}{kept['name']}@{kept['version']}  {kept['model_sha256'][:12]}  "
        f"{_moment(kept['since_ms'])}  {kept['source']}, {kept['signer'] or 'not looked at'}"
    )


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
