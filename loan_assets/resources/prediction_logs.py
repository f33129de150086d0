"""Where the endpoint's log rests, read as a table.

Here: days of log lines as frames. Not here: what a line is (`prediction_record`) or who writes it (`bento`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from loan_assets.books import Kind, LoanBook
from loan_assets.books.tables import predictions
from loan_assets.bucket import Bucket, bucket_at
from loan_assets.prediction_record import Damage, PredictionRecord, has_real_answer, read_day, real_or_rehearsed
from loan_assets.settings import Settings
from loan_assets.shipped_log import ShippedLog

if TYPE_CHECKING:
    import pandas as pd

FRAME_TYPES = {
    Kind.INTEGER: "int64",
    Kind.NUMBER: "float64",
    Kind.RATIO: "float32",
    Kind.TIME: "datetime64[us, UTC]",
    Kind.WORD: "object",
}


class PredictionLogs(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The log below `folder`, a folder a day; with a bucket, this machine's copy of what endpoints have shipped."""

    folder: str
    bucket: str = ""

    @classmethod
    def over(cls, settings: Settings) -> PredictionLogs:
        """The log that the settings name."""
        return cls(folder=str(settings.predictions), bucket=bucket_at(settings.predictions_place))

    def days(self) -> tuple[str, ...]:
        """The days on record, oldest first."""
        if self.bucket:
            return Bucket(self.bucket).folders()
        return tuple(sorted(path.name for path in Path(self.folder).glob("????-??-??")))

    def records(self, day: str) -> tuple[list[PredictionRecord], tuple[Damage, ...]]:
        """A day's answers as they were written, and the lines that could not be read.

        Raises:
            Refusal: when the day's folder or a file in it may not be read.
        """
        return read_day(self._folder_of(day))

    def has_real_answer(self, day: str) -> bool:
        """Whether a day has an answer that was not rehearsed.

        Raises:
            Refusal: when the day's folder or a file in it may not be read.
        """
        return has_real_answer(self._folder_of(day))

    def _folder_of(self, day: str) -> Path:
        """A day's folder, with what endpoints have shipped."""
        if self.bucket:
            ShippedLog(Bucket(self.bucket), Path(self.folder)).bring(day)
        return Path(self.folder) / day

    def read(self, day: str, book: LoanBook) -> tuple[pd.DataFrame, tuple[Damage, ...]]:
        """A day's answers as the table of `books.tables.predictions`, and the lines that could not be read.

        Answers about another book are left out: their columns mean something else. Rehearsed answers count on days
        without a real one, those of the newest rehearsal.

        Raises:
            Refusal: when the day's folder or a file in it may not be read.
        """
        import pandas as pd

        records, damages = self.records(day)
        columns = predictions(book)
        ours = [record for record in real_or_rehearsed(records) if record.book == book.name]
        rows = [_row(record, book) for record in ours]
        frame = pd.DataFrame(rows, columns=[column.name for column in columns])
        for column in columns:
            if column.kind is Kind.TIME:
                frame[column.name] = pd.to_datetime(frame[column.name], utc=True, format="ISO8601")
        typed: pd.DataFrame = frame.astype({column.name: FRAME_TYPES[column.kind] for column in columns})
        return typed, damages


def _row(record: PredictionRecord, book: LoanBook) -> dict[str, Any]:
    """A record as a row of the table of `books.tables.predictions`."""
    # Features of another digest of the book may be others, in another order: then only the answer is taken.
    features = zip(book.feature_names, record.features, strict=True) if record.book_digest == book.digest else ()
    return {
        "prediction_id": record.prediction_id,
        "request_id": record.request_id,
        "answered_at": record.answered_at,
        "route": record.route,
        "asked_by": record.asked_by,
        book.key.name: record.client_id,
        "default_probability": record.default_probability,
        "decision": record.decision,
        "reasons": " ".join(record.reasons),
        "model_version": record.model_version,
        "release_digest": record.release_digest,
        "arm": record.arm,
        "features_as_of": record.features_as_of,
        "is_stale": record.is_stale,
        "shadow_probability": record.shadow.default_probability if record.shadow else None,
        "shadow_version": record.shadow.model_version if record.shadow else None,
        **record.received,
        **dict(features),
    }
