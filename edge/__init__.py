"""The gateway: MQTT in, a spool on disk, scoring, exactly once to Kafka."""
