"""FastAPI with the scikit-learn pipeline itself."""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

model = joblib.load(f"{os.environ['BENCH']}/model.joblib")
app = FastAPI()


class Rows(BaseModel):
    """Ready-made features."""

    rows: list[list[float]]


@app.post("/predict")
async def predict(asked: Rows) -> dict[str, list[float]]:
    """Probability of default per row."""
    return {"default_probability": model.predict_proba(np.array(asked.rows))[:, 1].tolist()}
