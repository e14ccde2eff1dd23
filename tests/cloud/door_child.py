"""A Kafka door in a process of its own, so that a test can end it by SIGKILL.

python door_child.py GROUND MEMBER EXACTLY_ONCE: answers until killed, or until its input ends.
"""

import sys
import threading

from door_ground import Ground, repository_of
from serving_models import catalog_of, release

from cloud.serving.kafka_door import DoorParts, KafkaDoor


def main() -> None:
    ground = Ground.from_json(sys.argv[1])
    stop = threading.Event()

    def stop_at_the_end() -> None:
        sys.stdin.read()
        stop.set()

    settings = ground.settings(
        transactional_id=sys.argv[2],
        exactly_once=sys.argv[3] == "True",
        poll_messages=20,
        stats_interval_s=0.0,
    )
    view = repository_of(catalog_of(release("1"))).view()
    parts = DoorParts(view, topics=ground.topics, ids=ground.ids)
    threading.Thread(target=stop_at_the_end, daemon=True).start()
    door = KafkaDoor(
        settings,
        ground.kafka,
        parts,
        on_stats=lambda stats: print(stats.requests, flush=True),
    )
    door.run(stop)


if __name__ == "__main__":
    main()
