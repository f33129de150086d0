"""KServe's V1 protocol: rows as objects or as lists in, predictions out.

Here: `:predict` and the model's status. Not here: the fields of a row (`reading`).
Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bento.reading import Reader, as_object
from bento.requests import Features, Question, Reply, Request, encode, prediction_of
from loan_assets.prediction_record import PredictionRecord
from loan_assets.release import MODEL


def models() -> Reply:
    """The models there are."""
    return Reply(encode({"models": [MODEL]}))


def status() -> Reply:
    """The model's readiness: a box without a model does not start."""
    return Reply(encode({"name": MODEL, "ready": True}))


def read(request: Request, reader: Reader, features: Features) -> Question:
    """The instances of a body, each an object with the book's fields or a list of them in the documented order.

    Raises:
        BadRequest: naming the row and the field.
    """
    asked = as_object(reader.decode(request.body), "instances")
    rows = [
        reader.application(given, f"instances[{row}]")
        for row, given in enumerate(reader.entries(asked["instances"], "instances"))
    ]
    return Question(rows, features, write)


def write(records: Sequence[PredictionRecord], texts: Mapping[str, str], source: str) -> Reply:
    """The predictions, with who made them."""
    first = records[0]
    said = {
        "model_name": MODEL,
        "model_version": str(first.model_version),
        "request_id": first.request_id,
        "release_digest": first.release_digest,
        "release_source": source,
        "predictions": [prediction_of(record, texts) for record in records],
    }
    return Reply(encode(said))
