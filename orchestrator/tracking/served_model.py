"""What MLflow runs to load a final's model (see orchestrator.tracking.final_model).

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
        self.final = load_final(Path(context.artifacts["final"]))

    # MLflow reads the hint of the input as a schema: plain np.ndarray is one that it leaves alone.
    def predict(
        self,
        context: Any,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> Any:
        return self.final.predict(model_input)


mlflow.models.set_model(Served())
