"""The policies to compare with: each lives through a history day by day and says which model served when.

Here: never retraining, weekly, the plain rule in three forms, and the yardstick, which is told the days of the changes
and of the broken files but waits for outcomes like everyone else. Not here: our own policy (`run` calls it by its
command), or the judging (`judged`). What is decided at the end of a day serves from the next; nobody looks ahead.

The rivals take files as they come: they set nothing aside, a repeated request counts once, the newest outcome wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from histories import History
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from verdicts import Change
from worlds import fitted, inputs_of

from loan_assets.books import Role, the_book
from loan_assets.credit.drift import watched
from loan_assets.credit.scoring import FlatTrees, probability
from loan_assets.credit.straying import Scale
from loan_assets.policy import POLICY

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]
WEEK = 7
FEWEST_NEW = 400  # with fewer, no model of the new world is reliably better than the old one
FEW = 1_500  # up to here a single held-out fourth is too small to choose by
LATEST = 3_000

# The limit that Evidently sets for large samples, for numbers and for codes.
MOVED = 0.1


class Observed:
    """A history as the policies see it: inputs by request, outcomes by the day on which they were told."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.reference = _in_our_words(history.reference())
        self.reference_inputs = inputs_of(self.reference)
        self.reference_label = self.reference["label"].to_numpy("int64")
        self.files = {day: _in_our_words(rows) for day, rows in history.arrived("predictions").items()}
        asked = pd.concat([rows.assign(day=day) for day, rows in self.files.items()], ignore_index=True)
        asked = asked.drop_duplicates("request_id", ignore_index=True)
        self.request, self.day = asked["request_id"].to_numpy(), asked["day"].to_numpy("int64")
        self.inputs = inputs_of(asked)
        told = pd.concat([rows.assign(told=day) for day, rows in history.arrived("labels").items()], ignore_index=True)
        at = pd.Index(self.request).get_indexer(pd.Index(told["request_id"]))
        self.told_on, self.told_of = told["told"].to_numpy("int64")[at >= 0], at[at >= 0]
        self.told_label = told["label"].to_numpy("int64")[at >= 0]
        self._shares: dict[int, float] = {}
        self._models: dict[int, FlatTrees] = {}

    @cached_property
    def first_model(self) -> FlatTrees:
        """The champion with which every policy begins."""
        return fitted(self.reference_inputs, self.reference_label)

    def known(self, day: int, without: tuple[int, ...] = ()) -> tuple[NDArray[np.int64], Labels]:
        """Which requests' outcomes are known at the end of a day, in the order in which they applied, and the outcomes.

        `without` are arrival days whose labels are left alone.
        """
        seen = (self.told_on <= day) & ~np.isin(self.told_on, without)
        # Labels are in order of arrival: the last entry of a request is the newest.
        request, newest = np.unique(self.told_of[seen][::-1], return_index=True)
        return request, self.told_label[seen][::-1][newest]

    def everything(self, day: int) -> tuple[Inputs, Labels]:
        """The reference and every outcome known at the end of a day."""
        request, label = self.known(day)
        inputs = np.concatenate([self.reference_inputs, self.inputs[request]])
        return inputs, np.concatenate([self.reference_label, label])

    def model_of_everything(self, day: int) -> FlatTrees:
        """A model of the reference and every outcome known at the end of a day; several policies ask for the same."""
        if day not in self._models:
            self._models[day] = fitted(*self.everything(day))
        return self._models[day]

    def drift_share(self, day: int) -> float:
        """The share of columns over the fixed thresholds on one day; a column without values has moved."""
        if day not in self._shares:
            self._shares[day] = float(np.mean(self._moved(self.files[day]))) if day in self.files else 0.0
        return self._shares[day]

    def _moved(self, rows: pd.DataFrame) -> list[bool]:
        return [not scale.distance(rows[scale.column.name].to_numpy("float64")) < MOVED for scale in self._scales]

    @cached_property
    def _scales(self) -> list[Scale]:
        columns = watched(the_book())
        return [Scale.of(self.reference[column.name].to_numpy("float64"), column) for column in columns]


def _in_our_words(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns under the book's names."""
    columns = the_book().with_role(Role.FEATURE, Role.PROTECTED)
    return rows.rename(columns={str(column.source): column.name for column in columns})


@dataclass(slots=True, kw_only=True)
class Course:
    """What a policy did: `serving[day]` is the number in `models` that served on that day."""

    models: list[FlatTrees]
    serving: list[int] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)
    retrainings: list[int] = field(default_factory=list)
    promotions: list[int] = field(default_factory=list)
    rollbacks: list[int] = field(default_factory=list)

    @property
    def champion(self) -> int:
        """The number of the newest model."""
        return len(self.models) - 1

    def promote(self, day: int, model: FlatTrees) -> None:
        """A new model serves from the next day on."""
        self.models.append(model)
        self.promotions.append(day)


Policy = Callable[[Observed], Course]


def scores(observed: Observed, course: Course) -> pd.DataFrame:
    """Every request's score by the model in force when it arrived: request_id, model_version (from 1), score."""
    version = np.array(course.serving)[observed.day]
    score = np.empty(len(observed.day))
    for number in np.unique(version):
        served = version == number
        score[served] = probability(course.models[number].log_odds(observed.inputs[served]))
    return pd.DataFrame({"request_id": observed.request, "model_version": version + 1, "score": score})


def never(observed: Observed) -> Course:
    """The first model serves for ever."""
    return Course(models=[observed.first_model], serving=[0] * observed.history.days)


def weekly(observed: Observed) -> Course:
    """Every week a model of everything that is labelled replaces the one before."""
    course = Course(models=[observed.first_model])
    for day in range(observed.history.days):
        course.serving.append(course.champion)
        if day % WEEK == WEEK - 1:
            course.retrainings.append(day)
            course.promote(day, observed.model_of_everything(day))
    return course


def _plain(observed: Observed, in_a_row: int, challenge: Callable[[Observed, Course, int], FlatTrees | None]) -> Course:
    """An alarm after so many days over the limit; each asks for a new model, and the count begins again."""
    course, streak = Course(models=[observed.first_model]), 0
    for day in range(observed.history.days):
        course.serving.append(course.champion)
        streak = streak + 1 if observed.drift_share(day) > POLICY.vigilance.retrain_above else 0
        if streak < in_a_row:
            continue
        streak = 0
        course.alarms.append(day)
        course.retrainings.append(day)
        model = challenge(observed, course, day)
        if model is not None:
            course.promote(day, model)
    return course


def plain_once(observed: Observed) -> Course:
    """One day over the limit: train on everything, promote."""
    return _plain(observed, 1, _of_everything)


def plain_three_times(observed: Observed) -> Course:
    """Three days over the limit in a row: train on everything, promote."""
    return _plain(observed, POLICY.vigilance.consecutive, _of_everything)


def plain_with_gate(observed: Observed) -> Course:
    """As the plain rule three times, and promoted only if it ranks the newest fifth of the outcomes better."""
    return _plain(observed, POLICY.vigilance.consecutive, _if_better)


def _of_everything(observed: Observed, _: Course, day: int) -> FlatTrees:
    return observed.model_of_everything(day)


def _if_better(observed: Observed, course: Course, day: int) -> FlatTrees | None:
    request, label = observed.known(day)
    newest = len(request) // 5
    if newest == 0 or len(np.unique(label[-newest:])) < 2:
        return None
    inputs, labels = observed.everything(day)
    challenger = fitted(inputs[:-newest], labels[:-newest])
    held_out = inputs[-newest:]
    return (
        challenger
        if _auc(challenger, held_out, label[-newest:]) > _auc(course.models[-1], held_out, label[-newest:])
        else None
    )


def _auc(model: FlatTrees, inputs: Inputs, label: Labels) -> float:
    return float(roc_auc_score(label, model.log_odds(inputs)))


def yardstick(observed: Observed) -> Course:
    """Told when the world changes and back, and which files are broken; trains as outcomes of the new world come in.

    It trains anew whenever there are a third more of them, with none, some or all of the older outcomes, whichever
    ranked held-out new ones best, and serves the result if that beats the model in force there.
    """
    history = observed.history
    course = Course(models=[observed.first_model])
    serving, learned = 0, 0.0
    for day in range(history.days):
        course.serving.append(serving)
        starts = [change for change in history.changes if change.first <= day]
        if any(change.first == day for change in history.changes):
            learned = 0.0
        if any(change.first + (change.cause != "inputs") * history.soonest == day for change in history.changes):
            course.alarms.append(day)
        if any(change.ends and change.last == day for change in history.changes):
            course.rollbacks += [day] if serving else []
            serving = 0
        now = starts[-1] if starts and starts[-1].last > day else None
        found = _renewed(observed, course.models[serving], now, day, learned) if now is not None else None
        if found is None:
            continue
        learned, model = found
        course.retrainings.append(day)
        if model is not None:
            course.promote(day, model)
            serving = course.champion
    return course


def _renewed(
    observed: Observed, current: FlatTrees, change: Change, day: int, learned: float
) -> tuple[float, FlatTrees | None] | None:
    """How many new outcomes were used and the better model they gave, if any; None while there are too few more."""
    verdict = observed.history.verdict
    request, label = observed.known(day, without=(*verdict.refused, *verdict.refusable))
    sound = ~np.isin(observed.day[request], verdict.quarantined)
    request, label = request[sound], label[sound]
    is_new = observed.day[request] >= change.first
    if is_new.sum() < max(FEWEST_NEW, 1.33 * learned):
        return None
    past = np.concatenate([observed.reference_inputs, observed.inputs[request[~is_new]]])
    past_label = np.concatenate([observed.reference_label, label[~is_new]])
    here, here_label = observed.inputs[request[is_new]], label[is_new]

    def trained(older: int, rows: NDArray[np.bool_]) -> FlatTrees:
        start = len(past) - older
        return fitted(
            np.concatenate([past[start:], here[rows]]), np.concatenate([past_label[start:], here_label[rows]])
        )

    part = np.random.default_rng(day).integers(0, 4, len(here))
    held = [part == number for number in range(3 if len(here) < FEW else 1)]
    mean = {
        older: np.mean([_auc(trained(older, ~out), here[out], here_label[out]) for out in held])
        for older in (0, LATEST, len(past))
    }
    best = max(mean, key=lambda older: mean[older])
    is_better = mean[best] > np.mean([_auc(current, here[out], here_label[out]) for out in held])
    # A model that has learned this world already has seen the rows held out here; one with more rows replaces it.
    return len(here), trained(best, np.ones(len(here), dtype=bool)) if is_better or learned else None


POLICIES: dict[str, Policy] = {
    "never": never,
    "weekly": weekly,
    "plain once": plain_once,
    "plain x3": plain_three_times,
    "plain x3, gate": plain_with_gate,
    "yardstick": yardstick,
}
