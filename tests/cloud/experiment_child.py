"""A scorer of an experiment in a process of its own, so that a test can end it by SIGKILL.

python experiment_child.py GROUND MEMBER WEIGHT: scores until killed, or until a line comes in;
prints how many messages it has answered.
"""

import sys
import threading

from experiment_fleet import models_of, traffic_of
from scorer_child import stop_at_a_line
from scorer_fleet import Ground

from cloud.scorer import ScorerParts, ScorerSettings, run_with


def main() -> None:
    ground = Ground.from_json(sys.argv[1])
    stop = threading.Event()
    settings = ScorerSettings(
        group_id=f"scorer-{ground.mark}",
        transactional_id=sys.argv[2],
        model="embedded:small",
        poll_messages=100,
        session_timeout_s=6.0,
        stats_interval_s=0.0,
        max_vehicles=1000,
    )
    parts = ScorerParts(ground.ids, models_of(traffic_of(float(sys.argv[3]))), ground.topics)
    threading.Thread(target=stop_at_a_line, args=[stop], daemon=True).start()
    run_with(
        settings,
        ground.kafka,
        parts,
        stop=stop,
        on_stats=lambda stats: print(stats.messages, flush=True),
    )


if __name__ == "__main__":
    main()
