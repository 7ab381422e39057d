"""What MLflow runs to load a final's model: see orchestrator.final_model. Nothing imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

from orchestrator.final_model import load_final


class Served(PythonModel):  # type: ignore[misc]  # MLflow has no other way to call our code
    """A final training's network behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        self.final = load_final(Path(context.artifacts["final"]))

    # MLflow would read type hints here as a schema and complain of arrays.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return self.final.predict(model_input)


mlflow.models.set_model(Served())
