"""The local stack of real brokers."""
