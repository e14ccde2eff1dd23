"""Metrics and traces of a command, for as long as it runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from motorcade.config import Config
from motorcade.extras import needs
from transport.settings import MetricsSettings, TracingSettings

_LOG = logging.getLogger("motorcade")

OBSERVED = ("metrics", "tracing")
"""Sections whose flags a command takes that calls `observed`."""


@contextmanager
def observed(config: Config, service: str, *, extra: str) -> Iterator[None]:
    """Serve metrics and send traces where the settings ask for it.

    Args:
        config: Of the command.
        service: What the process is called in traces, unless the settings say otherwise.
        extra: Brings what serves the metrics.

    Raises:
        MissingExtraError: Asked for, and the library is not installed.
        SettingsError: The port cannot be had, or the file cannot be written.
    """
    with measured(config, extra=extra), traced(config, service):
        yield


@contextmanager
def measured(config: Config, *, extra: str) -> Iterator[None]:
    """The half of `observed` that serves metrics."""
    settings = config.section(MetricsSettings)
    if not settings.port:
        yield
        return
    with needs(extra):
        from transport.exporter import exported
    with exported(settings.host, settings.port) as port:
        _LOG.info("metrics at http://%s:%d/metrics", settings.host, port)
        yield


@contextmanager
def traced(config: Config, service: str) -> Iterator[None]:
    """The half of `observed` that sends traces."""
    settings = config.section(TracingSettings)
    if settings.exporter == "off":
        yield
        return
    with needs("tracing"):
        from transport.otel import exported
    with exported(settings, service):
        yield
