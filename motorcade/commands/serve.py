"""`motorcade serve`: the model server."""

import click

from cloud.settings import ServerSettings
from motorcade.config import Config
from motorcade.examples import ExampleCommand
from motorcade.extras import needs
from motorcade.observing import OBSERVED, observed
from motorcade.options import with_settings
from motorcade.running import emit, log_to_stderr
from motorcade.stopping import stop_on_signals
from transport.settings import KafkaSettings


@click.command(
    cls=ExampleCommand,
    example="motorcade serve --port 8000 --models-dir ./models",
    short_help="Serve the models of the log over REST, gRPC and Kafka.",
)
@with_settings("server", "kafka", *OBSERVED)
def command(config: Config) -> None:
    """Answer requests for scores with the models on `model.releases`.

    Speaks the Open Inference Protocol V2 over REST and gRPC; prints where it listens as a line of
    JSON. Answers `model.requests` in Kafka, too. Goes on without Kafka with the models that it has.
    Runs until it is told to stop, and finishes what is under way.
    """
    log_to_stderr()
    with observed(config, "motorcade-serve", extra="cloud"), needs("cloud"):
        from cloud.serving.arm_stats import counted
        from cloud.serving.server import serve_log

        kafka = config.section(KafkaSettings)
        with counted(kafka) as observer:
            serve_log(
                config.section(ServerSettings),
                kafka,
                stop=stop_on_signals(),
                on_listening=emit,
                observer=observer,
            )
