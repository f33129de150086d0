"""FastAPI with onnxruntime, the way its tutorials put the two together."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(f"{os.environ['BENCH']}/model.onnx", options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Rows(BaseModel):
    """Ready-made features."""

    rows: list[list[float]]


@app.post("/predict")
async def predict(asked: Rows) -> dict[str, list[float]]:
    """Probability of default per row."""
    _, probabilities = session.run(None, {session.get_inputs()[0].name: np.array(asked.rows, dtype="float32")})
    return {"default_probability": probabilities[:, 1].tolist()}
