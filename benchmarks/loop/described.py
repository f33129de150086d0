"""What each change costs and what a new model would win back, measured.

Here: the table of `histories.py --describe`. A change that is said to harm must be repairable by 0.03 AUC at least; one
that is said not to must leave less than 0.012 to win (the AUC before and after differ by chance). Not here: policies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from histories import compose
from kinds import Kind
from rivals import MOVED
from sklearn.metrics import roc_auc_score
from timeline import Timeline
from verdicts import Change
from worlds import fitted, inputs_of

from loan_assets.books import the_book
from loan_assets.credit.drift import watched
from loan_assets.credit.scoring import FlatTrees
from loan_assets.credit.straying import Scale

ENOUGH = 0.03
HARMLESS = 0.012


def describe(kinds: Sequence[Kind], seed: int) -> None:
    """Print one line per change, or one for a kind without any, and say which is not what it is said to be."""
    print(
        f"{'kind':40} {'aside':5} {'cause':8} {'days':7} before  after  renewed  by 2,000  rate before/after  drift  "
    )
    for kind in kinds:
        timeline, _ = compose(kind, seed)
        champion = _model(timeline.reference)
        changes: Sequence[Change | None] = timeline.changes or [None]
        for change in changes:
            print(
                f"{kind.name:40} {'aside' if kind.kept_aside else '':5} {_line(timeline, champion, change)}", flush=True
            )


def _line(timeline: Timeline, champion: FlatTrees, change: Change | None) -> str:
    rows = timeline.rows
    start = min((change.first for change in timeline.changes), default=timeline.days)
    before = rows[rows["day"] < start]
    if change is None:
        return f"{'':8} {'':7} {_auc(champion, before):.3f}{'':27} {before['defaulted'].mean():.3f}"
    full = rows[rows["day"].between(change.first + change.ramp, _until(timeline, change))]
    renewed = _model(_in_force(timeline, full["day"].iloc[-1]))
    split = full["day"] < change.first + change.ramp + 8
    early, late = full[split], full[~split]
    by_few = f"{_auc(_model(early), late):.3f}" if len(late) > 500 else "  -  "
    old, new = _auc(champion, full), _auc(renewed, full)
    fits = new - old >= ENOUGH if change.harms else new - old < HARMLESS
    return (
        f"{change.cause:8} {change.first:2}-{change.last:2}   {_auc(champion, before):.3f}   {old:.3f}  {new:.3f}    "
        f"{by_few}     {before['defaulted'].mean():.3f} / {full['defaulted'].mean():.3f}     "
        f"{_moved(full, timeline.reference):.2f}   {'' if fits else 'NOT AS SAID'}"
    )


def _until(timeline: Timeline, change: Change) -> int:
    """The last day on which this change is the newest."""
    later = [other.first for other in timeline.changes if other.first > change.first]
    return min([change.last, *(first - 1 for first in later)])


def _in_force(timeline: Timeline, day: int) -> pd.DataFrame:
    """The reference's clients, had they lived in the world of a day: much data of the new world."""
    rows = timeline.reference
    generator = np.random.default_rng(0)
    for change, world in zip(timeline.changes, timeline.worlds, strict=True):
        if change.first <= day <= change.last:
            rows = world(rows, generator)
    return rows


def _model(rows: pd.DataFrame) -> FlatTrees:
    return fitted(inputs_of(rows), rows["defaulted"].to_numpy("int64"))


def _auc(model: FlatTrees, rows: pd.DataFrame) -> float:
    return float(roc_auc_score(rows["defaulted"], model.log_odds(inputs_of(rows))))


def _moved(rows: pd.DataFrame, reference: pd.DataFrame) -> float:
    """The share of columns over the fixed thresholds, by a thousand rows."""
    now = rows.head(1_000)
    scales = [Scale.of(reference[column.name].to_numpy("float64"), column) for column in watched(the_book())]
    return float(np.mean([scale.distance(now[scale.column.name].to_numpy("float64")) >= MOVED for scale in scales]))
