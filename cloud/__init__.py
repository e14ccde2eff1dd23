"""Central scorer, trainer and watcher on the Kafka log."""
