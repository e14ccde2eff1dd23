"""A scorer in a process of its own, so that a test can end it by SIGKILL.

python scorer_child.py GROUND MEMBER POLL_MESSAGES [--at-least-once]: scores until killed, or until
a line comes in.
"""

import sys
import threading

from scorer_fleet import Ground, Models, small_bundle

from cloud.scorer import ScorerParts, ScorerSettings, run_with


def stop_at_a_line(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def main() -> None:
    ground = Ground.from_json(sys.argv[1])
    stop = threading.Event()
    settings = ScorerSettings(
        group_id=f"scorer-{ground.mark}",
        transactional_id=sys.argv[2],
        model="embedded:small",
        poll_messages=int(sys.argv[3]),
        session_timeout_s=6.0,
        stats_interval_s=0.0,
        max_vehicles=1000,
        delivery="at-least-once" if "--at-least-once" in sys.argv else "exactly-once",
    )
    parts = ScorerParts(ground.ids, Models(small_bundle()), ground.topics)
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
