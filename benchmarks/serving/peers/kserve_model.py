"""The KServe SDK with a custom model, as in its documentation."""

import os
from typing import Any

import joblib
import numpy as np
from kserve import Model, ModelServer


class LoanDefault(Model):
    """The pipeline behind KServe's V1 protocol."""

    def __init__(self) -> None:
        super().__init__("loan-default")
        self.load()

    def load(self) -> bool:
        """Read the pipeline."""
        self.pipeline = joblib.load(f"{os.environ['BENCH']}/model.joblib")
        self.ready = True
        return self.ready

    def predict(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Probability of default per instance."""
        return {"predictions": self.pipeline.predict_proba(np.array(payload["instances"]))[:, 1].tolist()}


if __name__ == "__main__":
    ModelServer(workers=1).start([LoanDefault()])
