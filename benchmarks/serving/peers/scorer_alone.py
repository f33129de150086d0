"""Our look-up of trees behind bare uvicorn: ready-made features in, probabilities out, nothing else."""

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loan_assets.credit.lookup import TreeTables
from loan_assets.release import read_release

release = read_release(Path(os.environ["BENCH"]) / "box" / "release", carries_reference=False)
tables = TreeTables.of(release.trees, len(release.facts.features))
rows = msgspec.json.Decoder(list[list[float]])


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    body = (await receive())["body"]
    if body:
        entries = tables.entries_of(np.array(rows.decode(body), dtype="float32"))
        body = msgspec.json.encode(release.probability(tables.log_odds(entries)).tolist())
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
