"""The process that scores beside the champion: `python -m cloud.shadow`, started by a scorer.

Its first line of standard input says what to do. When the input ends, because whoever started it
closed it or died, even by SIGKILL, the shadow ends too. It has the lowest priority: what it takes
of a core is what the champion leaves.

It is a scorer as the champion's: exactly once, with a group, a transactional id and topics of its
own. It begins with what comes when it starts first, and passes over what is older than its
experiment. Messages that cannot be read are the champion's to refuse.
"""

import dataclasses
import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.catalog_watch import CatalogWatch
from cloud.scorer import run_as
from cloud.scorer_parts import Role
from cloud.scorer_stats import ScorerStats, StatsBoard
from cloud.scoring_step import ScorerTopics
from cloud.settings import ScorerSettings
from schemas.topics import SHADOW_ALERTS, SHADOW_ALERTS_STATE, SHADOW_SCORES
from transport.settings import KafkaSettings, TlsSettings

LOGGER = logging.getLogger("motorcade.shadow")

NICENESS = 19
"""Lowest priority, where the system knows one."""

END_PATIENCE_S = 10.0
"""Time for the transaction under way when the input has ended; then the process ends as it is."""

TOPICS = ScorerTopics(scores=SHADOW_SCORES, alerts=SHADOW_ALERTS, alerts_state=SHADOW_ALERTS_STATE)


@dataclass(frozen=True, slots=True)
class ShadowTask:
    """What a shadow does.

    Attributes:
        experiment: Whose arms it scores.
        scorer: Of the scorer that it stands beside.
        kafka: Where Kafka is.
    """

    experiment: str
    scorer: ScorerSettings
    kafka: KafkaSettings

    @property
    def settings(self) -> ScorerSettings:
        """With a group and a transactional id of its own."""
        end = f"-shadow-{self.experiment}"
        return dataclasses.replace(
            self.scorer,
            group_id=self.scorer.group_id + end,
            transactional_id=self.scorer.member_id + end,
        )

    def to_line(self) -> bytes:
        """As standard input carries it; holds passwords."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "ShadowTask":
        """What `to_line` made."""
        facts = json.loads(line)
        return ShadowTask(
            facts["experiment"], ScorerSettings(**facts["scorer"]), _kafka(facts["kafka"])
        )


def _kafka(facts: Mapping[str, Any]) -> KafkaSettings:
    tls = facts["tls"]
    return KafkaSettings(**{**facts, "tls": None if tls is None else TlsSettings(**tls)})


class _StateLog:
    """Logs what the shadow is doing when that changes."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._said = ("", "")

    def __call__(self, stats: ScorerStats) -> None:
        said = stats.state, stats.remark
        if said != self._said:
            self._said = said
            LOGGER.info(
                "shadow of experiment %s: %s", self._experiment, " ".join(filter(None, said))
            )


def score(task: ShadowTask, stop: threading.Event) -> None:
    """Score the experiment's share until told to stop. Raises as `cloud.scorer.run`."""
    settings = task.settings
    board = StatsBoard(_StateLog(task.experiment), settings.stats_interval_s)
    with CatalogWatch(task.kafka, [settings.deployment.ref.name]) as models:
        run_as(Role(task.experiment, TOPICS), settings, task.kafka, models, board, stop=stop)


def main() -> None:
    """Shadow until standard input ends."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # The schema registry's client logs every request.
    for chatty in ("httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    line = sys.stdin.buffer.readline()
    if not line:
        return  # Who started it is gone already.
    task = ShadowTask.from_line(line)
    stop = threading.Event()

    def end_with_input() -> None:
        sys.stdin.buffer.read()
        stop.set()
        # A transaction that is open then is aborted by the brokers, and scored again.
        timer = threading.Timer(END_PATIENCE_S, os._exit, [1])
        timer.daemon = True
        timer.start()

    threading.Thread(target=end_with_input, name="input", daemon=True).start()
    score(task, stop)


if __name__ == "__main__":
    main()
