"""The page of a backtest: what happened, what it was worth, and every day on one axis.

Here: the order of the page and its sentences. Not here: the figures (`backtest`, `realised`), rows (`panels`), tables
(`chronicle`) or style (`pages`).
"""

from __future__ import annotations

from html import escape

from loan_assets.credit import chronicle
from loan_assets.credit.pages import page, paragraph, section
from loan_assets.credit.panels import Told, percent, rows_of
from loan_assets.credit.performance import TWO_SIDED, Comparison
from loan_assets.credit.quality import QUARANTINED
from loan_assets.credit.realised import Realised

HATCH = (
    '<svg width="0" height="0" style="position:absolute;width:0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" x1="0" x2="0" y1="0" y2="6"/></pattern></defs></svg>'
)


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
    said = (
        "All rows share the days. Thin upright lines are where another version took over. Grey days: their requests "
        "were set aside as a broken feed; hatched days: the outcomes that arrived were. Neither was learned from."
    )
    return section("Day by day", (paragraph(said, "soft"), f'<div class="scroll" tabindex="0">{rows_of(told)}</div>'))


def _tables(told: Told) -> tuple[str, ...]:
    quantile = percent(told.policy.vigilance.quantile)
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


def _swatch(style: str) -> str:
    box = f'<rect class="{style}" width="13" height="13"/>'
    return f'<svg width="13" height="13" viewBox="0 0 13 13" aria-hidden="true">{box}</svg>'


def _signed(gain: float) -> str:
    return f"{gain:+.3f}".replace("-", "−") if round(gain, 3) else "0.000"


def _requests(told: Told) -> int:
    return sum(len(day.requests) for day in told.days)


def _counted(number: int, one: str, many: str) -> str:
    return f"<b>{number}</b> {one if number == 1 else many}"


def _some(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
