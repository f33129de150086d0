"""Parquet files as other systems write them, read so that a request is called the same in every file.

Here: from bytes to a table, requests by their names as text. Not here: where files lie (`histories`,
`resources.outcome_landing`) or whether what they say is fit to use (`credit.quality`, `credit.label_quality`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from loan_assets.credit.quality import REQUEST
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd


def read_day(file: Path | BinaryIO, name: str, next_step: str) -> pd.DataFrame:
    """A Parquet file as a table.

    Args:
        name: what the file is called in a refusal.
        next_step: what to do about a file that cannot be read.

    Raises:
        Refusal: when it is no Parquet file or was cut short.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file).read()
        for place, column in enumerate(table.column_names):
            if column == REQUEST:
                table = table.set_column(place, column, _as_text(table.column(place)))
        frame: pd.DataFrame = table.to_pandas()
    except (OSError, ValueError, pa.ArrowException) as unreadable:
        raise Refusal(f"{name} cannot be read as Parquet ({type(unreadable).__name__})", next_step) from None
    return frame


def _as_text(names: Any) -> Any:
    """Numbers as text: one empty name among them would turn all others into fractions, and 7 would be called 7.0."""
    import pyarrow as pa

    if pa.types.is_dictionary(names.type):
        names = names.cast(names.type.value_type)
    if pa.types.is_floating(names.type):
        try:
            names = names.cast(pa.int64())
        except pa.ArrowInvalid:
            return names
    return names.cast(pa.string()) if pa.types.is_integer(names.type) else names
