"""Kafka and MQTT, one module a foreign library; their errors are translated here."""
