"""A BentoML service the way its documentation shows one."""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1)
class LoanDefault:
    """The pipeline behind one API."""

    def __init__(self) -> None:
        self.model = joblib.load(f"{os.environ['BENCH']}/model.joblib")

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[float]:
        """Probability of default per row."""
        return self.model.predict_proba(np.array(rows))[:, 1].tolist()
