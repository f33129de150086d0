"""A model made to order: the rule has found a change, and says since when and what is to be replaced.

Here: from the training set and an order to a fitted challenger. Not here: when one is ordered (`succession`), how the
recipes are fitted and chosen (`candidates`), or how it is judged against the champion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loan_assets.books import LoanBook
from loan_assets.books.tables import EVENT_TIME
from loan_assets.credit.candidates import RECIPES, REFITS, Scorer, learned, pipeline_of
from loan_assets.credit.ledger import Rows
from loan_assets.credit.scoring import probability
from loan_assets.credit.training import LOGGED, TRAIN, FittedModel, inputs_of, proved
from loan_assets.credit.versions import Origin
from loan_assets.policy import Policy
from loan_assets.prediction_record import DAY

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A retraining that was decided: when, against which champion, for the world since which day.

    `is_first` says that the world has no model of its own yet.
    """

    day: str
    champion: int
    since: str
    is_first: bool


def made_to_order(
    training_set: pd.DataFrame,
    order: Order,
    champion: Scorer,
    champions_boosting: Callable[[], Pipeline],
    book: LoanBook,
    policy: Policy,
) -> tuple[Pipeline, FittedModel]:
    """The challenger that an order asks for, as scikit-learn holds it and in portable form.

    Args:
        training_set: the table of `books.tables.training_set`.
        champion: what is to be replaced.
        champions_boosting: gives the champion's own fitted trees, asked for where they are kept.
    """
    from sklearn.pipeline import Pipeline

    from loan_assets.credit.calibrated import CalibratedBoosting

    old, new = rows_before_and_since(training_set, order.since, book)
    made, train, _ = learned(RECIPES if order.is_first else REFITS, old, new, champion, book, policy)
    boosting = pipeline_of(made.recipe, old, train, book, policy) or champions_boosting()
    line = made.calibration
    calibrated: Any = CalibratedBoosting(boosting, slope=line.slope, intercept=line.intercept)
    pipeline = Pipeline([("calibrated", calibrated)])
    origin = Origin(
        recipe=made.recipe.name,
        rows=made.rows,
        normal=made.normal,
        since=order.since,
        learned_until=_day_of(made.learned_until),
        champion=order.champion,
        ordered=order.day,
        chosen_by=made.chosen_by,
    )
    model = proved(pipeline, line, training_set, made.rows, book)
    return pipeline, replace(model, threshold=made.threshold, origin=origin, estimates=probability(made.estimates))


def rows_before_and_since(training_set: pd.DataFrame, since: str, book: LoanBook) -> tuple[Rows, Rows]:
    """What is known of the world before a day and from it on; the frozen fifth is in neither.

    A row's `day` counts days of the calendar; the book's own rows belong to none.
    """
    is_logged = (training_set["part"] == LOGGED).to_numpy()
    day = training_set[EVENT_TIME.name].dt.strftime(DAY).to_numpy()
    number = (training_set[EVENT_TIME.name] - _epoch()).dt.days.to_numpy(dtype=np.int64)
    rows = Rows(
        features=inputs_of(training_set, book).astype("float32"),
        label=training_set[book.label.name].to_numpy(dtype=np.int64),
        day=np.where(is_logged, number, -1),
    )
    is_known = (training_set["part"] == TRAIN).to_numpy() | (is_logged & (day < since))
    return rows.where(is_known), rows.where(is_logged & (day >= since))


def _epoch() -> pd.Timestamp:
    import pandas as pd

    return pd.Timestamp("1970-01-01", tz="UTC")


def _day_of(number: int) -> str:
    import pandas as pd

    return str((_epoch() + pd.Timedelta(days=number)).strftime(DAY))
