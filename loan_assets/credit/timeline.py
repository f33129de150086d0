"""The page of a backtest: what happened, what it was worth, and every day on one axis.

Here: the order of the page, its sentences and its pictures. Not here: the figures (`backtest`, `realised`), tables
(`chronicle`), drawing (`day_axis`) or style (`pages`).
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
from loan_assets.credit.pages import page, paragraph, section
from loan_assets.credit.performance import TWO_SIDED, Comparison, Ranking
from loan_assets.credit.quality import QUARANTINED
from loan_assets.credit.realised import Realised, Week
from loan_assets.credit.succession import Kind
from loan_assets.credit.versions import Version
from loan_assets.policy import Policy

LANE, ROW = 22.0, 128.0
HATCH = (
    '<svg width="0" height="0" style="position:absolute;width:0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" x1="0" x2="0" y1="0" y2="6"/></pattern></defs></svg>'
)
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


def page_of(told: Told) -> str:
    """The whole page as HTML; the same replay gives the same bytes."""
    first, last = told.days[0].date, told.days[-1].date
    title = f"Backtest {first} to {last}"
    return page(
        title,
        (
            HATCH,
            f"<header><h1>{escape(title)}</h1>",
            paragraph(f"{told.book.title}. {len(told.days)} days, {_requests(told):,} requests.", "soft"),
            "</header>",
            paragraph(sentence(told), "lead"),
            _worth(told.worth),
            _counts(told),
            _timeline(told),
            *_tables(told),
        ),
    )


def sentence(told: Told) -> str:
    """What happened and what it was worth, in one sentence."""
    worth = told.worth
    if worth.over_never is None or worth.over_plain is None:
        return (
            f"The outcomes of {worth.rows:,} requests are known, too few or too alike to say how well any policy ranks."
        )
    promoted = len(worth.plain_course.promoted)
    unseen = (
        f", which would have promoted {_some(promoted, 'model')} without a trial"
        if promoted
        else ", which would not have acted"
    )
    return (
        f"On the {worth.rows:,} of {_requests(told):,} requests whose outcome is known, the scores that this policy "
        f"served rank defaulters with an AUC of {worth.policy:.3f}: {_beside(worth.over_never, 'never retraining')}, "
        f"and {_beside(worth.over_plain, 'the plain rule')}{unseen}."
    )


def _beside(found: Comparison, other: str) -> str:
    if found.auc_gain == 0:
        return f"exactly as {other} ({found.auc_first:.3f})"
    if abs(found.auc_z) < TWO_SIDED:
        return f"no clear difference from {other} ({found.auc_first:.3f})"
    how = "better" if found.auc_gain > 0 else "worse"
    return f"clearly {how} than {other} ({found.auc_first:.3f})"


def _worth(worth: Realised) -> str:
    """The three figures side by side."""
    never, plain = worth.over_never, worth.over_plain
    shown = (
        ("This policy", worth.policy, f"on {worth.rows:,} requests with a known outcome", never and never.loss_second),
        ("Never retraining", worth.never, _gain(never), never and never.loss_first),
        ("The plain rule", worth.plain, _gain(plain), plain and plain.loss_first),
    )
    boxes = "".join(
        f"<div><dt>{name}: AUC</dt><dd>{'–' if auc is None else f'{auc:.3f}'}<small>{escape(words)}</small>"
        f"<small>{'' if loss is None else f'log loss {loss:.3f}'}</small></dd></div>"
        for name, auc, words, loss in shown
    )
    explained = (
        "AUC is the chance that a client who defaulted had been scored riskier than one who paid: 0.5 is a coin, 1 is "
        "certainty. Log loss also counts how far the probabilities themselves are off; less is better. The plain rule "
        "looks for more than a fifth of the columns at a distance of 0.1 or more on three days in a row, trains on "
        "everything that has an outcome by then, and promotes at once."
    )
    return f'<dl class="worth">{boxes}</dl>' + paragraph(explained, "soft small")


def _gain(found: Comparison | None) -> str:
    if found is None:
        return ""
    if found.auc_gain == 0 or found.auc_z == 0:
        return "the policy is exactly as good"
    error = TWO_SIDED * found.auc_gain / found.auc_z
    low, high = found.auc_gain - error, found.auc_gain + error
    how = "better" if found.auc_gain > 0 else "worse"
    return f"the policy is {how} by {abs(found.auc_gain):.3f} (95 % interval {_signed(low)} to {_signed(high)})"


def _counts(told: Told) -> str:
    """How many decisions there were of each kind, and days set aside."""
    shown = [
        f"<li>{chronicle.sign(kind)}{_counted(told.count(kind), name, chronicle.MANY[kind])}</li>"
        for kind, name in chronicle.NAMES.items()
    ]
    batches = sum(day.batch.status == QUARANTINED for day in told.days)
    arrivals = sum(day.labels == QUARANTINED for day in told.days)
    shown.append(
        f"<li>{_swatch('aside-requests')}{_counted(batches, 'day of requests', 'days of requests')} set aside</li>"
    )
    told_of = _counted(arrivals, "arrival of outcomes", "arrivals of outcomes")
    shown.append(f"<li>{_swatch('aside-outcomes')}{told_of} set aside</li>")
    return f'<ul class="counts">{"".join(shown)}</ul>'


def _timeline(told: Told) -> str:
    panels = (_decisions, _drift, _ranking, _rates, _evidence)
    drawn = "\n".join(draw(told) for draw in panels)
    said = (
        "All rows share the days. Thin upright lines are where another version took over. Grey days: their requests "
        "were set aside as a broken feed; hatched days: the outcomes that arrived were. Neither was learned from."
    )
    return section("Day by day", (paragraph(said, "soft"), f'<div class="scroll" tabindex="0">{drawn}</div>'))


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
        *panel.limit(limit, f"limit {_percent(limit)}"),
    ]
    for position, day in enumerate(told.days):
        if over[position] and day.share is not None and day.consecutive and told.axis.step >= 8:
            y = max(panel.y(day.share) - 4, 3)
            parts.append(named(told.axis.at(position), y, str(day.consecutive), "middle", "count"))
    said = [
        f"{day.date}: no check"
        if day.share is None
        else f"{day.date}: {_percent(day.share)} of {len(day.columns)} columns beyond their limit"
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


def _tables(told: Told) -> tuple[str, ...]:
    quantile = _percent(told.policy.vigilance.quantile)
    drift = (
        "Distances are in standard deviations of the reference for amounts and counts (SD), and Jensen-Shannon "
        f"distances for codes (JS). {quantile} of unchanged days of that size stay below the limit."
    )
    return (
        section("Decisions", (chronicle.decisions(told.days),)),
        section("Versions", (chronicle.versions(told.versions, told.days),)),
        section(
            "Columns that drifted most at each alarm",
            (paragraph(drift, "soft"), chronicle.drifted(told.versions, told.days, told.book)),
        ),
        section("Set aside", (chronicle.set_aside(told.days),)),
        section("Policy", (chronicle.chosen(told.policy),)),
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


def _swatch(style: str) -> str:
    box = f'<rect class="{style}" width="13" height="13"/>'
    return f'<svg width="13" height="13" viewBox="0 0 13 13" aria-hidden="true">{box}</svg>'


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


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _signed(gain: float) -> str:
    return f"{gain:+.3f}".replace("-", "−") if round(gain, 3) else "0.000"


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


def _requests(told: Told) -> int:
    return sum(len(day.requests) for day in told.days)


def _counted(number: int, one: str, many: str) -> str:
    return f"<b>{number}</b> {one if number == 1 else many}"


def _some(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
