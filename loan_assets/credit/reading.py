"""A batch as numbers, and which of its rows break the book.

Here: what is no number, empty, coded as nobody has defined, or out of range. Not here: what only many rows show
(`shapes`, `relations`), or whether the day is condemned (`quality`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Column, Kind, Role
from loan_assets.credit.norms import Norms, Numbers

if TYPE_CHECKING:
    import pandas as pd

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A batch as numbers: `values` of shape (rows, columns), NaN for what is no number; `unfit` by column and rule."""

    values: Numbers
    unfit: tuple[tuple[str, str, Flags], ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]


def read(batch: pd.DataFrame, norms: Norms) -> Reading:
    """Read the watched columns of a batch in the book's words; a column that came twice counts as nothing."""
    names = [str(name) for name in batch.columns]
    values = np.full((len(batch), len(norms.columns)), np.nan)
    text = np.zeros(values.shape, dtype=bool)
    for place, column in enumerate(norms.columns):
        if names.count(column.name) == 1:
            values[:, place], text[:, place] = _numbers(batch[column.name])
    null = np.isnan(values) & ~text
    protected = np.array([column.role is Role.PROTECTED for column in norms.columns])
    # Who sends no protected attribute need not, for one client or for all; one of them alone missing is a fault.
    withheld = null[:, protected].all(axis=1) if protected.any() else np.zeros(len(batch), dtype=bool)
    missing, left_out, unfit = [], [], []
    for place, column in enumerate(norms.columns):
        empty = null[:, place] & ~(withheld if protected[place] else False)
        if protected[place] and withheld.all():
            left_out.append(column.name)
        elif column.name not in names:
            missing.append(column.name)
        else:
            rules = _rules(column, values[:, place], text[:, place], empty, norms.each[place].null_share > 0)
            unfit += [(column.name, rule, flags) for rule, flags in rules if flags.any()]
    return Reading(values=values, unfit=tuple(unfit), missing=tuple(missing), left_out=tuple(left_out))


def _numbers(received: pd.Series[Any]) -> tuple[Numbers, Flags]:
    """A column as numbers, and where it holds something else: a number written as text is text."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(received.dtype):
        return received.to_numpy("float64", na_value=np.nan), np.zeros(len(received), dtype=bool)
    numbers = pd.to_numeric(received.astype(object), errors="coerce").to_numpy("float64", na_value=np.nan)
    known = received.notna().to_numpy()
    text = known & (np.isnan(numbers) | np.array([not _is_number(value) for value in received], dtype=bool))
    return np.where(text, np.nan, numbers), text


def _is_number(value: object) -> bool:
    from decimal import Decimal
    from numbers import Number

    return isinstance(value, Number | Decimal)


def _rules(
    column: Column, values: Numbers, text: Flags, empty: Flags, may_be_null: bool
) -> Iterator[tuple[str, Flags]]:
    """Which rows break which rule of the book."""
    infinite = np.isinf(values)
    known = np.isfinite(values)
    yield "is not a number", text
    yield "is infinite", infinite
    if not (column.nullable or may_be_null):
        yield "is empty", empty
    if column.levels is not None:
        yield "has a code outside the book", known & ~np.isin(values, list(column.levels))
    elif column.kind is Kind.INTEGER:
        yield "is not a whole number", known & (np.where(known, values, 0) % 1 != 0)
    if column.low is not None:
        yield f"is below {column.low:g}", known & (values < column.low)
    if column.high is not None:
        yield f"is above {column.high:g}", known & (values > column.high)
