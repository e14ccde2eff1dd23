"""A bare network inside MLServer: the only module that imports `mlserver`.

It runs in MLServer's own environment (`deploy/mlserver_env.py`) and takes the TFLite runtime by
the same door as the scorers, so that a row gives the same bits there.
"""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from scoring.interpreter import TfliteModel

INPUT = "input"
OUTPUT = "output"


class NetworkModel(MLModel):  # type: ignore[misc]  # not installed beside mypy
    """Rows of FP32 in, rows of FP32 out, both of `columns` columns."""

    async def load(self) -> bool:
        """Load the network, and run it in every batch size."""
        parameters = self.settings.parameters
        columns = int(parameters.extra["columns"])
        path = Path(self.settings._source).parent / parameters.uri
        self._model = TfliteModel(path.read_bytes(), n_inputs=columns, n_outputs=columns)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One input, one output."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        outputs = self._model.run(rows)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(OUTPUT, outputs)],
        )
