"""Where the endpoint's log rests, read as a table.

Here: days of log lines as frames. Not here: what a line is (`prediction_record`) or who writes it (`bento`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets.books import Kind, LoanBook
from loan_assets.books.tables import predictions
from loan_assets.prediction_record import Damage, read_day

if TYPE_CHECKING:
    import pandas as pd

FRAME_TYPES = {
    Kind.INTEGER: "int64",
    Kind.NUMBER: "float64",
    Kind.TIME: "datetime64[us, UTC]",
    Kind.WORD: "object",
}


class PredictionLogs(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The log below `folder`, a folder a day."""

    folder: str

    def read(self, day: str, book: LoanBook) -> tuple[pd.DataFrame, tuple[Damage, ...]]:
        """A day's answers as the table of `books.tables.predictions`, and the lines that could not be read.

        Answers about another book are left out: their columns mean something else.

        Raises:
            Refusal: when the day's folder or a file in it may not be read.
        """
        import pandas as pd

        records, damages = read_day(Path(self.folder) / day)
        columns = predictions(book)
        rows = [
            {
                "prediction_id": record.prediction_id,
                "answered_at": record.answered_at,
                "asked_by": record.asked_by,
                book.key.name: record.client_id,
                "default_probability": record.default_probability,
                "decision": record.decision,
                "model_version": record.model_version,
                "release_digest": record.release_digest,
                **record.received,
            }
            for record in records
            if record.book == book.name
        ]
        frame = pd.DataFrame(rows, columns=[column.name for column in columns])
        frame["answered_at"] = pd.to_datetime(frame["answered_at"], utc=True, format="ISO8601")
        typed: pd.DataFrame = frame.astype({column.name: FRAME_TYPES[column.kind] for column in columns})
        return typed, damages
