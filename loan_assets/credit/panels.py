"""The rows of a backtest's timeline: decisions, drift, ranking, default rates and evidence over the same days.

Here: what each row shows, its axis, its key and its tooltips. Not here: how elements are drawn (`day_axis`), or the
page around them (`timeline`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from loan_assets.books import LoanBook
from loan_assets.credit import chronicle
from loan_assets.credit.backtest import DayDecided
from loan_assets.credit.day_axis import Axis, Panel, framed, mark, named
from loan_assets.credit.performance import Ranking
from loan_assets.credit.quality import QUARANTINED
from loan_assets.credit.realised import Realised, Week
from loan_assets.credit.succession import Kind
from loan_assets.credit.versions import Version
from loan_assets.policy import Policy

LANE, ROW = 22.0, 128.0
UP_TO = "requests of the seven days up to then whose outcome is known by now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Everything that the page tells of."""

    days: Sequence[DayDecided]
    versions: Mapping[int, Version]
    worth: Realised
    book: LoanBook
    policy: Policy

    @property
    def axis(self) -> Axis:
        """The days of the replay."""
        return Axis(days=tuple(day.date for day in self.days))

    def count(self, kind: Kind) -> int:
        """How many decisions of a kind there were."""
        return sum(action.kind == kind for day in self.days for action in day.actions)


def rows_of(told: Told) -> str:
    """Every row, one under the other."""
    return "\n".join(draw(told) for draw in (_decisions, _drift, _ranking, _rates, _evidence))


def _decisions(told: Told) -> str:
    """Signs of what was decided, and the version that serves."""
    axis, lanes = told.axis, list(chronicle.NAMES.items())
    panel = Panel(axis=axis, height=LANE * (len(lanes) + 1) + 8)
    parts = [*_ground(told, panel, ())]
    for lane, (kind, name) in enumerate(lanes):
        y = LANE * (lane + 0.5)
        parts.append(named(axis.start(0) - 8, y + 4, name, "end"))
        for position, day in enumerate(told.days):
            words = "; ".join(action.cause for action in day.actions if action.kind == kind)
            if words:
                parts.append(mark(kind, axis.at(position), y, f"{day.date} {name}: {chronicle.in_words(words)}"))
    parts += _serving(told, LANE * len(lanes) + 6)
    what = "What was decided at the end of each day, and the version that serves."
    return _figure(told, "Decisions", what, (), framed(panel, parts, _summary(told), dates=True))


def _serving(told: Told, y: float) -> list[str]:
    axis = told.axis
    parts, position = [named(axis.start(0) - 8, y + 15, "serves", "end")], 0
    for number, run in groupby(day.served_by for day in told.days):
        long = len(list(run))
        x, wide = axis.start(position), axis.step * long
        words = f"version {number}, {told.days[position].date} to {told.days[position + long - 1].date}"
        parts.append(
            f'<rect class="serves" x="{x + 1:.1f}" y="{y:.1f}" width="{max(wide - 2, 1):.1f}" height="{LANE - 2:.0f}">'
            f"<title>{words}</title></rect>"
        )
        name = f"version {number}" if wide > 70 else str(number)
        parts.append(named(x + wide / 2, y + 14.5, name, "middle", "serves-name"))
        position += long
    return parts


def _drift(told: Told) -> str:
    """The share of columns beyond their limit."""
    limit = told.policy.vigilance.retrain_above
    shares = [day.share for day in told.days]
    high = max(0.4, *(share for share in shares if share is not None), limit * 1.5) if any(shares) else 0.4
    panel = Panel(axis=told.axis, height=ROW, high=min(high * 1.12, 1.0))
    over = [share is not None and share > limit for share in shares]
    parts = [
        *_ground(told, panel, _percents(panel.high)),
        *panel.bars(shares, over),
        *panel.limit(limit, f"limit {percent(limit)}"),
    ]
    for position, day in enumerate(told.days):
        if over[position] and day.share is not None and day.consecutive and told.axis.step >= 8:
            y = max(panel.y(day.share) - 4, 3)
            parts.append(named(told.axis.at(position), y, str(day.consecutive), "middle", "count"))
    said = [
        f"{day.date}: no check"
        if day.share is None
        else f"{day.date}: {percent(day.share)} of {len(day.columns)} columns beyond their limit"
        for day in told.days
    ]
    parts += panel.touch(said)
    what = (
        "Share of columns that lie farther from what the serving version learned than chance takes a day of that size. "
        f"Numbered days count: {told.policy.vigilance.consecutive} in a row raise an alarm."
    )
    return _figure(
        told, "Drift of the inputs", what, (), framed(panel, parts, "Share of drifted columns by day", dates=False)
    )


def _ranking(told: Told) -> str:
    """AUC of the three courses over the last week's requests."""
    weeks = told.worth.weeks
    policy, never, plain = ([_auc(pick(week)) for week in weeks] for pick in _COURSES)
    lows = [None if week.policy is None else week.policy.low for week in weeks]
    highs = [None if week.policy is None else week.policy.high for week in weeks]
    known = [value for values in (lows, highs, never, plain) for value in values if value is not None]
    low, high = (min(known) - 0.01, max(known) + 0.01) if known else (0.5, 1.0)
    panel = Panel(axis=told.axis, height=ROW + 40, low=max(low, 0.0), high=min(high, 1.0))
    parts = [
        *_ground(told, panel, _tenths(panel)),
        *panel.interval(lows, highs),
        *panel.line(never, "never"),
        *panel.line(plain, "plain"),
        *panel.line(policy, "policy"),
        *panel.touch([_said_ranking(day.date, week) for day, week in zip(told.days, weeks, strict=True)]),
    ]
    what = f"AUC over the {UP_TO}; the tint is the 95 % interval of this policy."
    keys = (("policy", "this policy"), ("never", "never retraining"), ("plain", "the plain rule"))
    return _figure(told, "How well the scores rank", what, keys, framed(panel, parts, "AUC by day", dates=False))


def _rates(told: Told) -> str:
    """Observed and expected default rates."""
    weeks = told.worth.weeks
    observed, expected = [week.observed for week in weeks], [week.expected for week in weeks]
    known = [value for value in (*observed, *expected) if value is not None]
    panel = Panel(axis=told.axis, height=ROW, high=min(max(known, default=0.3) * 1.2, 1.0) or 0.3)
    said = [
        ""
        if week.observed is None or week.expected is None
        else f"{day.date}: {week.observed:.1%} defaulted, {week.expected:.1%} expected, {week.rows:,} requests"
        for day, week in zip(told.days, weeks, strict=True)
    ]
    parts = [
        *_ground(told, panel, _percents(panel.high)),
        *panel.line(expected, "expected"),
        *panel.line(observed, "policy"),
        *panel.touch(said),
    ]
    what = f"Share of defaults among the {UP_TO}, and what the scores that were served expected of them."
    keys = (("policy", "observed"), ("expected", "expected"))
    return _figure(told, "Default rate", what, keys, framed(panel, parts, "Default rate by day", dates=False))


def _evidence(told: Told) -> str:
    """How surely the scores mean something else than they did."""
    limit = told.policy.succession.change_evidence
    values = [None if day.facts.change is None else max(day.facts.change.evidence, 0.0) for day in told.days]
    most = max((value for value in values if value is not None), default=0.0)
    panel = Panel(axis=told.axis, height=ROW, high=max(limit * 1.6, min(most * 1.1, limit * 4)))
    said = [
        f"{day.date}: no outcomes to judge by"
        if day.facts.change is None
        else f"{day.date}: evidence {day.facts.change.evidence:.1f} of a change since {day.facts.change.since}, "
        f"slope {day.facts.change.slope:.2f}, default rate {day.facts.change.rate_ratio:.2f} of the expected"
        for day in told.days
    ]
    apart = 10 if panel.high < 60 else 25
    ticks = [(float(value), str(value)) for value in range(0, int(panel.high) + 1, apart)]
    parts = [
        *_ground(told, panel, ticks),
        *panel.line(values, "policy"),
        *panel.over_the_top(values),
        *panel.limit(limit, f"limit {limit:g}"),
        *panel.touch(said),
    ]
    what = (
        "How surely the newest outcomes say that the scores mean something else than they did (twice the log "
        "likelihood ratio). An alarm also asks that the change be large enough to matter."
    )
    return _figure(
        told, "Evidence of a change in the outcomes", what, (), framed(panel, parts, "Evidence by day", dates=True)
    )


def _ground(told: Told, panel: Panel, ticks: Sequence[tuple[float, str]]) -> list[str]:
    """What lies under every panel: days set aside, grid, and where another version took over."""
    changes = [
        position
        for position, day in enumerate(told.days)
        if any(action.kind in (Kind.PROMOTE, Kind.ROLLBACK) for action in day.actions)
    ]
    return [
        *panel.spans([day.batch.status == QUARANTINED for day in told.days], "aside-requests"),
        *panel.spans([day.labels == QUARANTINED for day in told.days], "aside-outcomes"),
        *panel.grid(ticks),
        *panel.uprights(changes),
    ]


def _figure(told: Told, title: str, what: str, keys: Sequence[tuple[str, str]], drawing: str) -> str:
    shown = "".join(f'<span class="key">{_sample(style)}{name}</span>' for style, name in keys)
    legend = f"<p>{shown}</p>" if shown else ""
    caption = f"<figcaption><h3>{escape(title)}</h3><p>{escape(what)}</p>{legend}</figcaption>"
    wide = f"min-width:{told.axis.least_width:.0f}px"
    return f'<figure class="panel" style="{wide}">{caption}{drawing}</figure>'


def _sample(style: str) -> str:
    line = f'<line class="line {style}" x1="1" x2="29" y1="5" y2="5"/>'
    return f'<svg width="30" height="10" viewBox="0 0 30 10" aria-hidden="true">{line}</svg>'


_COURSES: tuple[Callable[[Week], Ranking | None], ...] = (
    lambda week: week.policy,
    lambda week: week.never,
    lambda week: week.plain,
)


def _auc(ranking: Ranking | None) -> float | None:
    return None if ranking is None else ranking.auc


def _said_ranking(date: str, week: Week) -> str:
    if week.policy is None or week.never is None or week.plain is None:
        return f"{date}: too few outcomes"
    return (
        f"{date}: this policy {week.policy.auc:.3f} ({week.policy.low:.3f} to {week.policy.high:.3f}), "
        f"never retraining {week.never.auc:.3f}, plain rule {week.plain.auc:.3f}, {week.rows:,} requests"
    )


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{share:.0%}".replace("%", " %")


def _percents(high: float) -> list[tuple[float, str]]:
    apart = next(step for step in (5, 10, 20, 25) if high * 100 / step <= 5 or step == 25)
    return [(value / 100, f"{value} %") for value in range(0, int(high * 100) + 1, apart)]


def _tenths(panel: Panel) -> list[tuple[float, str]]:
    apart = 5 if panel.high - panel.low < 0.3 else 10
    return [
        (value / 100, f"{value / 100:.2f}") for value in range(0, 101, apart) if panel.low <= value / 100 <= panel.high
    ]


def _summary(told: Told) -> str:
    return "Decisions by day: " + ", ".join(f"{told.count(kind)} {chronicle.MANY[kind]}" for kind in chronicle.NAMES)
