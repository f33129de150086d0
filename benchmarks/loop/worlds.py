"""What may truly change about a bank's clients: what is reported of them, who they are, and what makes them default.

Here: the real table and functions from rows to rows, in the book's words, the outcome included. Not here: faults of a
feed (`faults`), or on which day a change comes (`kinds`).

Outcomes of a changed world are drawn anew from a stated relation. Where only the rate moves, as few outcomes as
possible are turned over, so that the ranking stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loan_assets.books import LoanBook, compute_features, the_book
from loan_assets.credit.scoring import FlatTrees, probability
from loan_assets.credit.training import fit, flatten
from loan_assets.policy import POLICY
from loan_assets.resources.loan_source import LoanSource

Numbers = NDArray[np.float64]
World = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]
Relation = Callable[[dict[str, Numbers], pd.DataFrame, Numbers], Numbers]

STATUSES = [f"pay_status_{month}" for month in range(1, 7)]
BILLS = [f"bill_amount_{month}" for month in range(1, 7)]
PAYMENTS = [f"payment_amount_{month}" for month in range(1, 7)]
BASE_RATE = 0.2212
BASE_LOG_ODDS = float(np.log(BASE_RATE / (1 - BASE_RATE)))


@cache
def clients() -> pd.DataFrame:
    """The real table in the book's words, one row a client."""
    received, _ = LoanSource().read(the_book())
    return received


def features_of(rows: pd.DataFrame, book: LoanBook) -> dict[str, Numbers]:
    """The book's features of received rows, each of shape (rows,); missing values stay missing."""
    columns = {name: rows[name].to_numpy("float64") for feature in book.features for name in feature.inputs}
    return compute_features(book, columns)


def inputs_of(rows: pd.DataFrame) -> NDArray[np.float32]:
    """The model's inputs of received rows, shape (rows, features)."""
    computed = features_of(rows, the_book())
    return np.column_stack([computed[name] for name in the_book().feature_names]).astype("float32")


def fitted(inputs: NDArray[np.float32], label: NDArray[np.int64]) -> FlatTrees:
    """A model as the platform fits it."""
    return flatten(fit(inputs.astype("float64"), label, the_book(), POLICY.boosting))


@cache
def _nature() -> FlatTrees:
    """What the whole table says about who defaults: from it the outcomes of changed worlds are drawn."""
    return fitted(inputs_of(clients()), clients()["defaulted"].to_numpy("int64"))


def _log_odds(rows: pd.DataFrame) -> Numbers:
    return _nature().log_odds(inputs_of(rows))


@cache
def _sorted(feature: str) -> Numbers:
    return np.sort(features_of(clients(), the_book())[feature])


def standing(feature: str, values: Numbers) -> Numbers:
    """Where values stand among all clients, from -1 to 1."""
    ordered = _sorted(feature)
    middle = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return np.asarray(2 * middle / len(ordered) - 1)


@cache
def _level(relation: Relation, rate: float) -> float:
    """What must be added to a relation's log-odds so that, over all clients, outcomes have this rate."""
    relative = _related(relation, clients())
    low, high = -20.0, 20.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if probability(relative + middle).mean() > rate else (middle, high)
    return low


def _related(relation: Relation, rows: pd.DataFrame) -> Numbers:
    return relation(features_of(rows, the_book()), rows, _log_odds(rows) - BASE_LOG_ODDS)


def follows(relation: Relation, rate: float = BASE_RATE) -> World:
    """The world in which outcomes follow another relation and the inputs stay as they are."""

    def world(rows: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
        chance = probability(_related(relation, rows) + _level(relation, rate))
        return rows.assign(defaulted=(generator.random(len(rows)) < chance).astype("int64"))

    return world


def rate_moves(log_odds: float) -> World:
    """The world in which every client's odds of default are multiplied and their ranking stays."""

    def world(rows: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
        usual = _log_odds(rows)
        then, now = probability(usual), probability(usual + log_odds)
        label, drawn = rows["defaulted"].to_numpy(), generator.random(len(rows))
        falls = (label == 0) & (drawn < (now - then) / (1 - then))
        recovers = (label == 1) & (drawn < (then - now) / then)
        return rows.assign(defaulted=np.where(falls, 1, np.where(recovers, 0, label)).astype("int64"))

    return world


def scaled(factor: float, columns: list[str]) -> World:
    """The world in which amounts are larger by a factor, as after years of inflation."""

    def world(rows: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{name: (rows[name] * factor).round() for name in columns})

    return world


def recoded(codes: dict[int, int]) -> World:
    """The world in which the statements use other codes for how a bill was paid."""

    def world(rows: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{name: rows[name].replace(codes) for name in STATUSES})

    return world


def both(first: World, then: World) -> World:
    """One change after the other on the same rows."""

    def world(rows: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
        return then(first(rows, generator), generator)

    return world


def what_is_left(rows: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Statements say what is left of the limit in place of the balance, what is still due in place of the payment."""
    free = {name: rows["credit_limit"] - rows[name] for name in BILLS}
    due = {paid: (rows[bill] - rows[paid]).clip(lower=0) for bill, paid in zip(BILLS, PAYMENTS, strict=True)}
    return rows.assign(**free, **due)


def new_core_system(rows: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Bills say what is left of the limit; the minimum counts as one month behind, and what was behind as one more."""
    later = {name: np.where(rows[name] >= 0, np.minimum(rows[name] + 1, 9), rows[name]) for name in STATUSES}
    return rows.assign(**{name: rows["credit_limit"] - rows[name] for name in BILLS}, **later)


def another_clientele(rows: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Older, more often married, more often university graduates; their limits are higher, their habits the same."""
    return rows.assign(
        age=np.minimum(rows["age"] + 6, 79),
        marital_status=np.where(
            (rows["marital_status"] == 2) & (rows["client_id"] % 3 == 0), 1, rows["marital_status"]
        ),
        sex=np.where((rows["sex"] == 2) & (rows["client_id"] % 4 == 0), 1, rows["sex"]),
        education=np.where((rows["education"] == 3) & (rows["client_id"] % 2 == 0), 2, rows["education"]),
        credit_limit=(rows["credit_limit"] * 1.3).round(),
        **{name: (rows[name] * 1.3).round() for name in (*BILLS, *PAYMENTS)},
    )


def paydays(rows: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Those who come just after payday: everything they pay and owe is larger by a third."""
    return rows.assign(**{name: (rows[name] * 1.35).round() for name in (*BILLS, *PAYMENTS)})


def taken_over(rows: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Half of the applicants are those of a bank taken over: small limits, paid by direct debit, undone by debt.

    Direct debit means that they are hardly ever behind on paper; who among them defaults is told by the share of the
    limit in use.
    """
    theirs = generator.random(len(rows)) < 0.5
    moved = rows.assign(
        credit_limit=np.maximum((rows["credit_limit"] * 0.4).round(-4), 10_000),
        age=np.maximum(rows["age"] - 8, 21),
        **{name: (rows[name] * 0.4).round() for name in (*BILLS, *PAYMENTS)},
        **{name: np.where(rows[name] >= 1, 0, np.where(rows[name] == 0, -1, rows[name])) for name in STATUSES},
    )
    used = features_of(moved, the_book())["average_utilisation"]
    chance = probability(-1.3 + 1.9 * standing("average_utilisation", used))
    moved["defaulted"] = (generator.random(len(rows)) < chance).astype("int64")
    return pd.concat([rows[~theirs], moved[theirs]]).loc[rows.index]


def payment_holiday(features: dict[str, Numbers], _: pd.DataFrame, usual: Numbers) -> Numbers:
    """Delays are forgiven and tell little; those deep in debt default."""
    return 0.45 * usual + 1.4 * standing("average_utilisation", features["average_utilisation"])


def lost_jobs(_: dict[str, Numbers], rows: pd.DataFrame, usual: Numbers) -> Numbers:
    """Graduates, who were the safe ones, lose their jobs: among them the careful default and the late muddle on."""
    return np.where(rows["education"] == 1, 0.35 - 0.2 * usual, usual)


def lost_deposits(features: dict[str, Numbers], _: pd.DataFrame, usual: Numbers) -> Numbers:
    """Those who paid in full did so from deposits that are now gone."""
    return 0.8 * usual + 0.33 * features["months_paid_in_full"]


def large_lines_fail(features: dict[str, Numbers], _: pd.DataFrame, usual: Numbers) -> Numbers:
    """Large unused limits are drawn all at once before a default."""
    return 0.85 * usual + 1.3 * standing("headroom", features["headroom"])
