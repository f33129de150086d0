"""What goes wrong between a bank and its platform: feeds of applications and of outcomes that do not say what is true.

Here: functions from one day's file to the broken one, in the source's dialect. Not here: true changes (`worlds`), or on
which day a fault strikes (`kinds`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

Fault = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def emptied(column: str) -> Fault:
    """A column arrives without a single value."""
    return lambda rows, _: rows.assign(**{column: np.full(len(rows), np.nan)})


def constant(column: str, value: int) -> Fault:
    """A column arrives with the same value in every row."""
    return lambda rows, _: rows.assign(**{column: np.full(len(rows), value)})


def in_another_unit(columns: list[str], factor: float) -> Fault:
    """Amounts arrive in thousands, or in thousandths."""
    return lambda rows, _: rows.assign(**{name: rows[name] * factor for name in columns})


def swapped(one: str, other: str) -> Fault:
    """Two columns arrive under each other's name."""
    return lambda rows, _: rows.assign(**{one: rows[other], other: rows[one]})


def unseen(column: str, code: int, share: float) -> Fault:
    """A code that nobody has defined arrives in a share of the rows."""
    return lambda rows, generator: rows.assign(
        **{column: np.where(generator.random(len(rows)) < share, code, rows[column])}
    )


def patchy(columns: list[str], share: float) -> Fault:
    """Several columns arrive with holes."""
    return lambda rows, generator: rows.assign(
        **{name: rows[name].mask(generator.random(len(rows)) < share) for name in columns}
    )


def twice(share: float) -> Fault:
    """A share of the requests is in the file two times."""
    return lambda rows, generator: pd.concat([rows, rows[generator.random(len(rows)) < share]], ignore_index=True)


def cut(share: float) -> Fault:
    """Only the beginning of the file arrived."""
    return lambda rows, _: rows.head(int(len(rows) * share))


def all_the_same(label: int) -> Fault:
    """Every outcome of the file is the same."""
    return lambda labels, _: labels.assign(label=label)


def flipped(labels: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Paid and defaulted are exchanged."""
    return labels.assign(label=1 - labels["label"])


def shuffled(labels: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """The outcomes are real ones, but other clients'."""
    return labels.assign(label=generator.permutation(labels["label"].to_numpy()))


def half_missing(labels: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Half of the outcomes did not come, whichever they were."""
    return labels[generator.random(len(labels)) < 0.5]


def defaults_missing(labels: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Nearly all defaults are left out: the file of the collection department did not come."""
    return labels[(labels["label"] == 0) | (generator.random(len(labels)) < 0.05)]


def of_unknown_requests(labels: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """The outcomes of another system's requests."""
    return labels.assign(request_id="other-" + labels["request_id"].astype(str))


def with_strangers(labels: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """A tenth more outcomes, of requests that nobody made."""
    strangers = of_unknown_requests(labels[generator.random(len(labels)) < 0.1], generator)
    return pd.concat([labels, strangers], ignore_index=True)


def contradictory(labels: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Half of the requests come twice at the same instant, once as paid and once as defaulted."""
    other = flipped(labels[generator.random(len(labels)) < 0.5], generator)
    return pd.concat([labels, other], ignore_index=True).sample(frac=1, random_state=int(generator.integers(2**31)))
