"""The exported network as MLflow's registry keeps it: a pyfunc model "from code".

`training.register` has MLflow copy this file into the model, beside the TorchScript file, and MLflow runs the copy
wherever the model is loaded. So it needs PyTorch, NumPy and MLflow, nothing of this project, and there is no pickle.
"""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

TORCHSCRIPT = "torchscript"  # the artifact's name
BATCH = 1024  # images; bounds the memory that a large input takes


class CifarModel(PythonModel):
    """Pixels in, probabilities out, on the CPU."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the TorchScript file that lies in the model's folder."""
        self._network = torch.jit.load(context.artifacts[TORCHSCRIPT], map_location="cpu").eval()

    # A bare np.ndarray: MLflow warns at any other hint, and at none. The signature says more, and MLflow enforces it.
    @torch.inference_mode()
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Turn images (N, 32, 32, 3), uint8, RGB, into probabilities (N, 10), float32; rows sum to 1."""
        images = torch.from_numpy(np.ascontiguousarray(model_input))
        probabilities: np.ndarray = torch.cat([self._network(batch) for batch in images.split(BATCH)]).numpy()
        return probabilities


set_model(CifarModel())
