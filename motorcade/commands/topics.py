"""`motorcade topics`: what brokers of your own must have before anything runs."""

import click

from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.options import with_settings
from transport.settings import KafkaSettings


@click.group(
    cls=ExampleGroup,
    example="motorcade topics create --kafka-bootstrap-servers kafka-1.example.org:9092",
    short_help="Topics and schemas on brokers of your own.",
)
def command() -> None:
    """Topics and schemas on brokers of your own; `motorcade stack up` makes its own."""


@command.command(example="motorcade topics create --kafka-replication-factor 3")
@with_settings(None, "kafka")
def create(config: Config) -> None:
    """Make the topics that are missing and register their schemas. Harmless when repeated."""
    with needs("cloud"):
        from transport.kafka import ensure_topics, partition_counts, register_schemas
    from schemas.topics import TOPICS

    kafka = config.section(KafkaSettings)
    ensure_topics(kafka)
    ids = register_schemas(kafka)
    counts = partition_counts(kafka, [topic.name for topic in TOPICS])
    for topic in TOPICS:
        name = topic.name
        click.echo(f"{name:<22} {counts[name]} partitions  schema {ids.id_of(topic)}  {topic.doc}")
