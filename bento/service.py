"""The BentoML service: one class, two routes, around the scorer and its log.

Here: HTTP in BentoML's terms. Not here: what a score is (`scorer`), what is written of it (`prediction_log`).

LOAN_ONLINE names the folder of the online table, LOAN_PREDICTIONS that of the log (default `predictions` in the working
directory), LOAN_REHEARSED_DAY a day under which a rehearsal is logged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import bentoml

from bento.prediction_log import CannotRecord, PredictionLog, clock
from bento.scorer import Asked, BadRequest, NobodyKnown, Scorer
from loan_assets.online_table import OnlineStore
from loan_assets.refusal import Refusal

RELEASE = Path(__file__).resolve().parents[1] / "release"


# Our own errors as the status that says whose turn it is: the caller's, or the engineer's on call.
STATUS: dict[type[Exception], HTTPStatus] = {
    NobodyKnown: HTTPStatus.NOT_FOUND,
    BadRequest: HTTPStatus.BAD_REQUEST,
    CannotRecord: HTTPStatus.SERVICE_UNAVAILABLE,
    Refusal: HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_SECONDS = "5"


def without_what_was_sent(record: logging.LogRecord) -> bool:
    """Keep a log line and drop its traceback where that repeats a body that could not be read as JSON."""
    if record.exc_info and type(record.exc_info[1]).__name__ == "ValidationError":
        record.exc_info = record.exc_text = None
    return True


# BentoML logs the exception of a body that is not JSON, with the body in it.
logging.getLogger("bentoml._internal.server.http_app").addFilter(without_what_was_sent)


@bentoml.service(name="loan_default", traffic={"timeout": 10})
class LoanDefault:
    """Scores applications and clients with the release packed beside this file; every answer is on record."""

    def __init__(self) -> None:
        self.scorer = Scorer.open(RELEASE)
        self.online = OnlineStore(Path(os.environ.get("LOAN_ONLINE", "online")))
        self.log = PredictionLog(Path(os.environ.get("LOAN_PREDICTIONS", "predictions")))
        self.now = clock(os.environ.get("LOAN_REHEARSED_DAY"))

    # What a request carries is read by the scorer: a typed argument would have its values printed when it does not fit.
    @bentoml.api(route="/score")  # type: ignore[untyped-decorator]
    def score(self, ctx: bentoml.Context, applications: Any = None) -> Any:
        """Probability of default, decision and model version for each application, in the order received."""
        return self._answer(ctx, lambda: self.scorer.read_applications(applications))

    @bentoml.api(route="/score_clients")  # type: ignore[untyped-decorator]
    def score_clients(self, ctx: bentoml.Context, client_ids: Any = None) -> Any:
        """The same for clients of the bank, from their newest features in the online table."""
        return self._answer(ctx, lambda: self.scorer.read_clients(client_ids, self.online.table()))

    def _answer(self, ctx: bentoml.Context, read: Callable[[], Asked]) -> Any:
        try:
            records = self.scorer.answer(read(), self.now)
            self.log.append(records)
        except tuple(STATUS) as error:
            status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
            ctx.response.status_code = status
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                ctx.response.headers["retry-after"] = RETRY_SECONDS
            return {"error": str(error)}
        return [
            {
                "prediction_id": record.prediction_id,
                "default_probability": record.default_probability,
                "decision": record.decision,
                "model_version": record.model_version,
                "release_digest": record.release_digest,
            }
            for record in records
        ]
