"""The wire contract: Avro schemas, signals, topics, codec and errors. No transport, no clock."""
