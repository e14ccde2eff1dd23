"""Telling what becomes of models: the log, an event, a dead letter that holds the release."""

from collections.abc import Callable

from edge.dead_letters import refused_bundle
from edge.health import Health
from edge.model_events import event_row
from edge.model_index import Refusal
from edge.patience import Patience
from edge.rows import Priority
from edge.settings import GatewaySettings
from edge.spool import Spool
from schemas.errors import ContractError
from scoring.bundle import Bundle
from scoring.events import EventKind, Severity


class ModelTeller:
    """Says it in every place where somebody may look. From any thread.

    Args:
        settings: Of the gateway.
        spool: Takes events and dead letters.
        patience: Waits for a disk that refuses.
        health: For counts and the log.
        now_ms: Wall time.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        spool: Spool,
        *,
        patience: Patience,
        health: Health,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._patience = patience
        self._health = health
        self._now_ms = now_ms

    def refusal(
        self, bundle: Bundle, error: ContractError, *, source: str, signer: str = ""
    ) -> Refusal:
        """What the index keeps of a refused release."""
        return Refusal(
            version=bundle.manifest.version,
            release=bundle.release_sha256,
            reason=error.reason.value,
            detail=error.detail,
            signer=signer,
            source=source,
            time_ms=self._now_ms(),
        )

    def say(
        self,
        kind: EventKind,
        version: str,
        detail: str,
        *,
        refused: tuple[Bundle, ContractError] | None = None,
        severity: Severity | None = None,
    ) -> None:
        """Tell the log and the cloud.

        Args:
            kind: Of the event.
            version: Of the model; empty where it could not be read.
            detail: In a sentence.
            refused: What becomes a dead letter, and why.
            severity: Of the event, where it is not the usual one.
        """
        announcer, now_ms = self._health.announcer, self._now_ms()
        tell = announcer.info if kind is EventKind.EDGE_INSTALLED else announcer.warn
        tell(f"{kind} {version}", detail)
        rows: list[Priority] = []
        if refused is not None:
            rows.append(
                refused_bundle(*refused, gateway_id=self._settings.gateway_id, now_ms=now_ms)
            )
            self._health.dead_letters += 1
        rows.append(
            event_row(
                kind,
                model_name=self._settings.model_name,
                version=version,
                detail=detail,
                gateway_id=self._settings.gateway_id,
                now_ms=now_ms,
                severity=severity,
            )
        )
        self._patience.until_done("storing an event", lambda: self._spool.store_priority(rows))
