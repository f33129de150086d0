"""The lender's own form: clients by number and applications with the book's fields, in and out.

Here: `POST /predict` and `POST /score`. Not here: how bodies are read (`reading`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bento.reading import Reader
from bento.requests import Features, Prediction, Question, Reply, Request, encode, prediction_of
from loan_assets.prediction_record import PredictionRecord


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered: which request by which release, and one prediction per row, in the order asked."""

    request_id: str
    model_version: int
    release_digest: str
    release_source: str
    predictions: Sequence[Prediction]


def read_score(request: Request, reader: Reader, features: Features) -> Question:
    """The applications of a body.

    Raises:
        BadRequest: naming the row and the field.
    """
    rows, name = reader.applications(request.body)
    return Question(rows, features, write, name)


def read_predict(request: Request, reader: Reader, features: Features) -> Question:
    """The client numbers of a body.

    Raises:
        BadRequest: naming the entry.
    """
    numbers, name = reader.clients(request.body)
    return Question(numbers, features, write, name)


def write(records: Sequence[PredictionRecord], texts: Mapping[str, str], source: str) -> Reply:
    """The answer to either."""
    first = records[0]
    return Reply(
        encode(
            Answer(
                request_id=first.request_id,
                model_version=first.model_version,
                release_digest=first.release_digest,
                release_source=source,
                predictions=[prediction_of(record, texts) for record in records],
            )
        )
    )
