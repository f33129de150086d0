"""A request and a reply as the box's rooms hand them to each other.

Here: the two forms, and what stops a request short. Not here: where they come from (`application`) or what becomes of
them (`protocols`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from bento.scorer import Asked
from loan_assets.policy import POLICY
from loan_assets.prediction_record import PredictionRecord

JSON = b"application/json"
AGAIN = [(b"retry-after", str(POLICY.endpoint.retry_after).encode())]
encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Request:
    """What has been read of one HTTP request."""

    route: str
    headers: Mapping[bytes, bytes]
    body: bytes = b""
    version: str | None = None
    caller: str = ""


@dataclass(slots=True)
class Reply:
    """What is sent back."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()


Features = Callable[[Sequence[Any]], Asked | Awaitable[Asked]]
Write = Callable[[Sequence[PredictionRecord], Mapping[str, str], str], Reply]


@dataclass(slots=True)
class Question:
    """A scoring request in no protocol's words.

    `rows` are the applications or client numbers that were read, `features` makes of them what is scored, `write` words
    the answer, `name` is the caller's own name for the request, `version` the one that it wants to be answered by.
    """

    rows: Sequence[Any]
    features: Features
    write: Write
    name: str | None = None
    version: str | None = None


class Problem(Exception):
    """A request that ends without an answer; the message is for the caller and repeats nothing of what was sent."""

    def __init__(self, status: HTTPStatus, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers

    def reply(self) -> Reply:
        """The problem in the form that all three protocols give it."""
        return Reply(encode({"error": str(self)}), self.status, JSON, self.headers)


class Reason(msgspec.Struct, frozen=True):
    """Why an applicant was refused: a code for machines, a sentence for the applicant."""

    code: str
    text: str


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One row of an answer."""

    client_id: int | None
    default_probability: float
    decision: str
    reasons: tuple[Reason, ...]
    features_as_of: str | None
    stale: bool


def prediction_of(record: PredictionRecord, texts: Mapping[str, str]) -> Prediction:
    """A record as a caller reads it."""
    return Prediction(
        client_id=record.client_id,
        default_probability=record.default_probability,
        decision=record.decision,
        reasons=tuple([Reason(code, texts[code]) for code in record.reasons]),
        features_as_of=record.features_as_of,
        stale=record.is_stale,
    )
