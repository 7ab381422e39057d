"""The file that MLflow runs to load a final's model (see orchestrator.tracking.final_model).

Nothing imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel

from orchestrator.tracking.final_model import load_final


class Served(PythonModel):  # type: ignore[misc]  # MLflow has no other way to call our code
    """A final training's network behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Build the network from the model's artifacts."""
        self.final = load_final(Path(context.artifacts["final"]))

    # MLflow derives a schema from the type hint of the input; it leaves a plain np.ndarray alone.
    def predict(
        self,
        context: Any,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> Any:
        """Predict as `FinalModel.predict` does; there are no parameters."""
        return self.final.predict(model_input)


mlflow.models.set_model(Served())
