"""From a deployment to scorers: the connection, and what makes a bundle ready for use over it."""

from types import TracebackType
from typing import Self

from cloud.deployment import Deployment, Kind
from cloud.remote.asking import Asker
from cloud.remote.hold import Hold
from cloud.remote.patience import Patience, PatientAsker
from cloud.remote.remote_scorer import RemoteScorer
from schemas.errors import SettingsError
from scoring.scorer import BatchScorer, MakeScorer
from transport.settings import KafkaSettings


class Link:
    """Makes scorers of a deployment; while it is open, they may be used. For one thread.

    Args:
        deployment: Where the network runs.
        kafka: Where requests go with `kafka:`.
        hold: Told while a server is waited for.
    """

    def __init__(self, deployment: Deployment, kafka: KafkaSettings, hold: Hold) -> None:
        self.make_scorer: MakeScorer = BatchScorer
        self._patient: PatientAsker | None = None
        if deployment.kind is not Kind.EMBEDDED:
            self._ask_a_server(deployment, kafka, hold)

    def __enter__(self) -> Self:
        """Get ready; talks to no server yet. Raises SettingsError."""
        if self._patient is not None:
            self._patient.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._patient is not None:
            self._patient.close()

    def _ask_a_server(self, deployment: Deployment, kafka: KafkaSettings, hold: Hold) -> None:
        patience = Patience(refused_s=deployment.refused_s)
        patient = PatientAsker(_asker(deployment, kafka), hold, patience)
        self._patient = patient
        self.make_scorer = lambda bundle: RemoteScorer(
            bundle, patient, model=deployment.ref.name, with_version=deployment.with_version
        )


def _asker(deployment: Deployment, kafka: KafkaSettings) -> Asker:
    target, timeout_s = deployment.target, deployment.timeout_s
    match deployment.scheme:
        case "rpc" | "rpcs":
            from cloud.remote.grpc_v2 import GrpcV2Asker

            return GrpcV2Asker(target, timeout_s=timeout_s, tls=deployment.scheme == "rpcs")
        case "rpc+http" | "rpc+https":
            from cloud.remote.rest_v2 import RestV2Asker

            url = f"{deployment.scheme.removeprefix('rpc+')}://{target}"
            return RestV2Asker(url, timeout_s=timeout_s, binary=deployment.binary)
        case "tfserving":
            from cloud.remote.tfserving import TfServingAsker

            return TfServingAsker(target, timeout_s=timeout_s, signature=deployment.signature)
        case "kafka":
            from cloud.remote.kafka import KafkaAsker
            from transport.kafka_models import KafkaModelClient

            return KafkaAsker(KafkaModelClient(kafka), timeout_s=timeout_s)
        case _:
            raise SettingsError(f"no model server is asked with {deployment.scheme}:")
