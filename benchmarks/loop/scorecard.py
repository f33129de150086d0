"""The scorecard: one row a figure, one column a policy, from what was judged history by history.

Here: figures over many histories, the table, the lines of what was missed, the chart. Not here: judging (`judged`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from judged import Judged

COLUMNS = ("never", "weekly", "plain once", "plain x3", "plain x3, gate", "ours", "yardstick")
USUAL = 250
Group = Sequence[Judged]


def table(judged: Group) -> list[str]:
    """The table in Markdown; a policy that was not run has no column."""
    usual = [one for one in judged if one.rows_a_day == USUAL]
    policies = [name for name in COLUMNS if any(one.policy == name for one in judged)]
    lines = [f"| | {' | '.join(policies)} |", f"|---|{'---|' * len(policies)}"]
    for title, figure in _figures(usual):
        cells = [figure([one for one in usual if one.policy == name]) for name in policies]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for volume in sorted({one.rows_a_day for one in judged}):
        cells = [
            _false_alarms([one for one in judged if one.policy == name and one.rows_a_day == volume])
            for name in policies
        ]
        lines.append(f"| false alarms per 100 quiet days at {volume:,} rows a day | {' | '.join(cells)} |")
    return lines


def _figures(usual: Group) -> list[tuple[str, Callable[[Group], str]]]:
    """Every row's title and how its cell is computed from one policy's histories."""
    return [
        ("right alarms, promotions and rollbacks", lambda group: _of(sum(not one.missed for one in group), len(group))),
        ("right, what is set aside included", _right),
        ("promotions that should never happen", lambda group: str(sum(one.wrong_promotions for one in group))),
        ("broken days of applications set aside", _feeds),
        ("broken days of labels refused", _label_feeds),
        ("alarm after a sudden harmful input shift, days", lambda group: _delays(group, "alarm_after_inputs")),
        ("alarm after a sudden concept change, label delay +", lambda group: _delays(group, "alarm_after_concept")),
        ("old model back after a change of inputs ended, days", lambda group: _delays(group, "back_after_inputs")),
        ("… after one of the concept ended, label delay +", lambda group: _delays(group, "back_after_concept")),
        ("AUC of all requests, mean", lambda group: f"{statistics.mean(one.auc for one in group):.4f}"),
        ("AUC since the first harmful change, mean", _after),
        ("share of the yardstick recovered", lambda group: _percent(recovered(group, usual))),
        ("promotions that made ranking worse, of all", _worse),
        ("retraining runs (per 26 histories)", _retrainings),
        ("seconds a history", lambda group: f"{statistics.mean(one.seconds for one in group):.1f}"),
    ]


def recovered(group: Group, usual: Group) -> float | None:
    """What a policy wins over never retraining as a share of what the yardstick wins, AUC since the change, pooled."""
    known = {(one.policy, one.history): one.auc_after for one in usual if one.auc_after is not None}
    ours = best = 0.0
    for one in group:
        never, yardstick = known.get(("never", one.history)), known.get(("yardstick", one.history))
        if one.auc_after is not None and never is not None and yardstick is not None:
            ours, best = ours + one.auc_after - never, best + yardstick - never
    return ours / best if best > 0 else None


def lines(judged: Group) -> list[str]:
    """One line for everything that our policy missed, and for the others how many were right."""
    said = []
    for one in judged:
        wrong = [*one.missed, *(one.set_aside_wrongly or ())]
        after = "" if one.auc_after is None else f", since the change {one.auc_after:.4f}"
        verdict = "right" if not wrong else "; ".join(wrong)
        said.append(f"- `{one.history}` {one.policy}: AUC {one.auc:.4f}{after}; {verdict}")
    return said


def draw(judged: Group, place: Path) -> None:
    """Two bars a policy: what it recovered of the yardstick, and how many verdicts were right."""
    from matplotlib.figure import Figure

    usual = [one for one in judged if one.rows_a_day == USUAL]
    policies = [name for name in reversed(COLUMNS) if any(one.policy == name for one in usual)]
    groups = [[one for one in usual if one.policy == name] for name in policies]
    shares = [100 * (recovered(group, usual) or 0.0) for group in groups]
    right = [100 * sum(not one.missed for one in group) / len(group) for group in groups]
    colours = ["#1f6feb" if name == "ours" else "#c9d6e5" for name in policies]
    figure = Figure(figsize=(9, 0.45 * len(policies) + 1.2), layout="constrained")
    titles = ("Won back after harmful changes, % of the yardstick", "Right alarms, promotions and rollbacks, %")
    for number, (title, widths) in enumerate(zip(titles, (shares, right), strict=True)):
        plot = figure.add_subplot(1, 2, number + 1)
        plot.bar_label(plot.barh(policies, widths, color=colours), [f" {width:.0f}" for width in widths], fontsize=8)
        plot.spines[["top", "right"]].set_visible(False)
        plot.axvline(0, color="#57606a", linewidth=0.8)
        plot.margins(x=0.15)
        plot.set_title(title, fontsize=9)
        if number:
            plot.set_yticks([])
    figure.savefig(place, dpi=100, metadata={"Software": None})


def _right(group: Group) -> str:
    if any(one.set_aside_wrongly is None for one in group):
        return "–"
    return _of(sum(not one.missed and not one.set_aside_wrongly for one in group), len(group))


def _false_alarms(group: Group) -> str:
    days = sum(one.calm_days for one in group)
    return f"{100 * sum(one.false_alarms for one in group) / days:.2f} ({days:,} days)" if days else "–"


def _feeds(group: Group) -> str:
    found, days = sum(one.broken_found for one in group), sum(one.broken_days for one in group)
    return f"{_of(found, days)}, {sum(one.healthy_lost for one in group)} healthy lost"


def _label_feeds(group: Group) -> str:
    found, days = sum(one.broken_labels_found for one in group), sum(one.broken_labels for one in group)
    return f"{_of(found, days)}, {sum(one.healthy_labels_lost for one in group)} healthy lost"


def _delays(group: Group, name: str) -> str:
    delays = [delay for one in group for delay in getattr(one, name)]
    came = sorted(delay for delay in delays if delay is not None)
    if not delays:
        return "–"
    never = f", {len(delays) - len(came)} of {len(delays)} never" if len(came) < len(delays) else ""
    return f"{statistics.median(came):+.0f} ({came[0]:+d} to {came[-1]:+d}){never}" if came else "never"


def _after(group: Group) -> str:
    known = [one.auc_after for one in group if one.auc_after is not None]
    return f"{statistics.mean(known):.4f}" if known else "–"


def _worse(group: Group) -> str:
    return f"{sum(one.worse_promotions for one in group)} of {sum(one.promotions for one in group)}"


def _retrainings(group: Group) -> str:
    runs = sum(one.retrainings for one in group)
    return f"{runs} ({26 * runs / len(group):.0f})"


def _of(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
