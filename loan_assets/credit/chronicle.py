"""What a replay decided, as tables: decisions, versions, columns that drifted, what was set aside, what was chosen.

Here: rows in plain words, from decided days and versions; no value of any applicant. Not here: how a table looks
(`pages`) or the pictures beside them (`timeline`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from loan_assets.books import LoanBook
from loan_assets.credit.backtest import DayDecided
from loan_assets.credit.candidates import Trial
from loan_assets.credit.day_axis import SHAPES
from loan_assets.credit.pages import Cell, Heading, Markup, table
from loan_assets.credit.quality import INSUFFICIENT, QUARANTINED, WHOLE_TABLE
from loan_assets.credit.succession import Kind
from loan_assets.credit.versions import Version
from loan_assets.policy import POLICY, Policy

NAMES = {
    Kind.ALARM: "alarm",
    Kind.RETRAIN: "retraining",
    Kind.PROMOTE: "promotion",
    Kind.REJECT: "refusal",
    Kind.ROLLBACK: "rollback",
}
MANY = {kind: f"{name}s" for kind, name in NAMES.items()}
FARTHEST_LISTED = 6
SPELT_OUT = (
    (r"^share over ([\d.]+) against version (\d+) on ", r"a drift share over \1 from what version \2 learned, on "),
    (r"\(inputs\)$", "(after an alarm by the inputs)"),
    (r"\(outcomes\)$", "(after an alarm by the outcomes)"),
    (r"\((inputs, outcomes|outcomes, inputs)\)$", "(after alarms by inputs and outcomes)"),
    (r"\bauc\b", "AUC"),
    (r"\blog_loss\b", "log loss"),
    (r" later rows$", " later requests"),
)
METER = 2.0
MOST_METER = 6.0
REASON = re.compile(r"(?P<column>.+?): (?P<rule>.+) \((?P<rows>[\d,]+) rows?\)")
LISTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Life:
    """What became of a version: the day it was trained on, its last trial, the verdict and the requests it scored."""

    trained: str = ""
    trial: Trial | None = None
    verdict: str = ""
    requests: int = 0


def sign(kind: str) -> str:
    """The sign of a decision, as small as a letter."""
    return (
        f'<svg width="13" height="13" viewBox="-8 -8 16 16" aria-hidden="true">'
        f'<path class="mark {kind}" d="{SHAPES[kind]}"/></svg>'
    )


def decisions(days: Sequence[DayDecided]) -> str:
    """Every decision in order."""
    rows: list[tuple[Cell, ...]] = [
        (
            day.date,
            Markup(f'<span class="key">{sign(action.kind)}{NAMES[action.kind]}</span>'),
            str(action.version),
            in_words(action.cause),
        )
        for day in days
        for action in day.actions
    ]
    headings = (Heading("Date", "whole"), Heading("Decision"), Heading("Version", "number"), Heading("Cause", "long"))
    return table(headings, rows, "Nothing was decided.")


def versions(made: Mapping[int, Version], days: Sequence[DayDecided]) -> str:
    """Every version, how it was made, and how its trial ended."""
    rows: list[tuple[Cell, ...]] = []
    for number, version in sorted(made.items()):
        life = _life(number, days)
        rows.append(
            (
                str(number),
                "the whole reference" if version.recipe == "reference" else version.recipe,
                f"{version.rows:,}",
                life.trained or "–",
                f"{version.threshold:.3f}",
                _gate(life.trial),
                life.verdict or ("served from the first day" if number == 1 else "still on trial"),
                f"{life.requests:,}",
            )
        )
    headings = (
        Heading("Version", "number"),
        Heading("Recipe", "recipe"),
        Heading("New rows", "number"),
        Heading("Trained on", "whole"),
        Heading("Refuses from", "number"),
        Heading("Gate: version against champion", "long"),
        Heading("What became of it", "recipe"),
        Heading("Requests scored", "number"),
    )
    return table(headings, rows, "There is no version.")


def drifted(made: Mapping[int, Version], days: Sequence[DayDecided], book: LoanBook) -> str:
    """At each alarm, the columns that lay farthest beyond what chance does to a batch of that size."""
    rows = [
        row
        for day in days
        if any(action.kind == Kind.ALARM for action in day.actions)
        for row in _farthest(day, made[day.served_by], book)
    ]
    headings = (
        Heading("Alarm on", "whole"),
        Heading("Column", "whole"),
        Heading("Meaning", "long"),
        Heading("Distance", "number"),
        Heading("Limit", "number"),
        Heading("Times its limit", "whole"),
    )
    return table(headings, rows, "There was no alarm.")


def set_aside(days: Sequence[DayDecided]) -> str:
    """Days of requests and arrivals of outcomes that nothing was learned from, and why."""
    rows: list[tuple[Cell, ...]] = []
    for day in days:
        if day.batch.status == QUARANTINED:
            rows.append((day.date, "requests set aside", told_together(day.batch.reasons)))
        if day.batch.status == INSUFFICIENT and day.batch.rows:
            rows.append((day.date, "requests not compared", told_together(day.batch.reasons)))
        if day.labels == QUARANTINED:
            rows.append((day.date, "outcomes set aside", told_together(day.label_reasons)))
        if day.released:
            rows.append((day.date, "outcomes taken after all", f"those that were held on {', '.join(day.released)}"))
    headings = (Heading("Date", "whole"), Heading("What", "whole"), Heading("Why", "long"))
    return table(headings, rows, "Nothing was set aside.")


def chosen(policy: Policy) -> str:
    """The policy's numbers that differ from those of `policy.py`."""
    rows: list[tuple[Cell, ...]] = [
        (Markup(f"<code>{name}</code>"), str(here), str(usual)) for name, here, usual in departures(policy, POLICY)
    ]
    headings = (Heading("Field", "whole"), Heading("Here", "number"), Heading("Default", "number"))
    return table(headings, rows, "Every number is the default of policy.py.")


def departures(policy: Any, usual: Any, within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields that two policies hold differently: dotted name, value here, value there."""
    for one in fields(usual):
        here, there, name = getattr(policy, one.name), getattr(usual, one.name), f"{within}{one.name}"
        if is_dataclass(there):
            yield from departures(here, there, f"{name}.")
        elif here != there:
            yield name, here, there


def told_together(reasons: Sequence[str]) -> str:
    """Reasons in a sentence: columns that broke the same rule in as many rows are named together."""
    columns: dict[str, list[str]] = {}
    for reason in reasons:
        found = REASON.fullmatch(reason)
        rule = f"{found['rule']} ({found['rows']} rows)" if found else reason
        is_column = found is not None and found["column"] != WHOLE_TABLE
        columns.setdefault(rule, []).extend([found["column"]] if found and is_column else [])
    said = []
    for rule, named in columns.items():
        more = f" and {len(named) - LISTED} more columns" if len(named) > LISTED else ""
        said.append(f"{', '.join(named[:LISTED])}{more}: {rule}" if named else rule)
    return "; ".join(said)


def in_words(cause: str) -> str:
    """A cause as people write it."""
    for pattern, words in SPELT_OUT:
        cause = re.sub(pattern, words, cause)
    return cause


def _life(number: int, days: Sequence[DayDecided]) -> _Life:
    trained, verdict, trial = "", "", None
    for day in days:
        for action in day.actions:
            if action.version != number:
                continue
            if action.kind == Kind.RETRAIN:
                trained = day.date
            if action.kind == Kind.PROMOTE:
                verdict = f"promoted on {day.date}"
            if action.kind == Kind.REJECT:
                verdict = f"refused on {day.date}"
            if action.kind == Kind.ROLLBACK:
                verdict = f"brought back on {day.date}"
        if day.trial is not None and trained and _on_trial(day, days) == number:
            trial = day.trial
    requests = sum(len(day.requests) for day in days if day.served_by == number)
    return _Life(trained=trained, trial=trial, verdict=verdict, requests=requests)


def _on_trial(today: DayDecided, days: Sequence[DayDecided]) -> int:
    """The newest version that had been trained by the end of a day."""
    return max(
        (
            action.version
            for day in days
            if day.date <= today.date
            for action in day.actions
            if action.kind == Kind.RETRAIN
        ),
        default=0,
    )


def _gate(trial: Trial | None) -> str:
    if trial is None:
        return "–"
    metric = "log loss" if trial.metric == "log_loss" else "AUC"
    gain = f"{trial.z:+.1f}".replace("-", "−")
    against = f"; against it: {'; '.join(trial.against)}" if trial.against else ""
    return (
        f"{metric} {trial.challenger:.3f} against {trial.champion:.3f} on {trial.rows:,} later requests, "
        f"{gain} standard errors{against}"
    )


def _farthest(day: DayDecided, version: Version, book: LoanBook) -> list[tuple[Cell, ...]]:
    if not day.columns:
        return [(day.date, "–", "no day's requests were compared", "–", "–", "–")]
    limits = version.reference.limits(int(day.batch.healthy.sum()))
    columns = {column.name: column for column in book.received}
    times = {name: distance / limits[name] for name, distance in day.columns.items() if name in limits}
    farthest = sorted(times, key=lambda name: -times[name])[:FARTHEST_LISTED]
    rows: list[tuple[Cell, ...]] = []
    for name in [name for name in farthest if times[name] > 1]:
        meter = f'<span class="meter" style="width:{min(times[name], MOST_METER * METER) / METER:.2f}rem"></span>'
        unit = "SD" if columns[name].levels is None else "JS"
        rows.append(
            (
                day.date,
                Markup(f"<code>{name}</code>"),
                columns[name].meaning,
                f"{day.columns[name]:.3f} {unit}",
                f"{limits[name]:.3f} {unit}",
                Markup(f"{times[name]:.1f}{meter}"),
            )
        )
    return rows or [(day.date, "–", "no column lay beyond its limit: the outcomes alone spoke", "–", "–", "–")]
