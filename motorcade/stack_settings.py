"""What `motorcade stack` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class StackSettings:
    """The local brokers. Port 0 means any free one; it is then remembered in the directory.

    Attributes:
        directory: Where data, logs and process ids of the brokers live.
        mqtt: `mosquitto`, `artemis`, or `auto`: Mosquitto where it is installed, else Artemis.
        kafka_port: Where Kafka's clients find it.
        controller_port: Kafka's own.
        mqtt_port: Where MQTT clients find their broker.
        registry_port: Where the schema registry answers HTTP.
    """

    directory: Path = Path(".motorcade/stack")
    mqtt: Literal["auto", "mosquitto", "artemis"] = "auto"
    kafka_port: int = 9092
    controller_port: int = 9093
    mqtt_port: int = 1883
    registry_port: int = 8081
