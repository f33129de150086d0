"""Figures as pictures, where people would rather look: each function returns the bytes of a small PNG.

Here: drawing. Not here: the numbers drawn, which arrive computed, or where a picture is shown.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loan_assets.credit.fairness import GroupOutcome

INK, ACCENT, WARM, PALE = "#22313f", "#1f6feb", "#d9822b", "#c9d6e5"
Numbers = NDArray[np.float64]
# As many letters of a title as fit above one plot beside the longest labels.
TITLE_WIDTH = 40


def ranking(label: NDArray[np.int64], estimate: Numbers, auc: float, ks: float) -> bytes:
    """ROC curve, and the score distributions of those who paid and those who defaulted."""
    figure, (curve, spread) = _canvas(2)
    order = np.argsort(-estimate, kind="stable")
    caught = np.cumsum(label[order]) / label.sum()
    disturbed = np.cumsum(1 - label[order]) / (1 - label).sum()
    curve.plot(disturbed[::20], caught[::20], color=ACCENT, linewidth=2)
    curve.plot([0, 1], [0, 1], color=PALE, linewidth=1)
    curve.set(
        title=f"Ranking: AUC {auc:.3f}, KS {ks:.3f}", xlabel="share of payers flagged", ylabel="defaulters caught"
    )
    bins = np.linspace(0, 1, 41).tolist()
    spread.hist(estimate[label == 0], bins, density=True, color=PALE, label="paid")
    spread.hist(estimate[label == 1], bins, density=True, color=WARM, alpha=0.7, label="defaulted")
    spread.set(title="Scores by outcome", xlabel="probability of default", ylabel="density")
    spread.legend(frameon=False)
    return _png(figure)


def calibration(expected: Numbers, observed: Numbers, error: float) -> bytes:
    """Observed default rate against mean probability, one point per bin."""
    figure, (plot,) = _canvas(1)
    top = float(max(expected.max(), observed.max())) * 1.05
    plot.plot([0, top], [0, top], color=PALE, linewidth=1)
    plot.plot(expected, observed, "o-", color=ACCENT)
    plot.set(title=f"Calibration: ECE {error:.4f}", xlabel="mean probability in the bin", ylabel="share that defaulted")
    return _png(figure)


def approvals(outcomes: Sequence[GroupOutcome], floor: float) -> bytes:
    """Approval rate of every group, with the least that the best-treated group of its attribute demands."""
    figure, (plot,) = _canvas(1, height=0.28 * len(outcomes) + 1.2)
    for row, outcome in enumerate(outcomes):
        best = max(other.approved for other in outcomes if other.attribute == outcome.attribute and other.is_judged)
        plot.barh(row, outcome.approved, color=ACCENT if outcome.is_judged else PALE, height=0.7)
        plot.plot([best * floor] * 2, [row - 0.4, row + 0.4], color=WARM, linewidth=2)
    plot.set_yticks(range(len(outcomes)), [f"{outcome.attribute}: {outcome.group}" for outcome in outcomes])
    plot.invert_yaxis()
    plot.set(title=f"Approved by group (mark: {floor:.0%} of the best; pale: too few to judge)", xlim=(0, 1))
    return _png(figure)


def importance(weights: Mapping[str, float]) -> bytes:
    """How much AUC is lost when one feature is shuffled, largest first."""
    figure, (plot,) = _canvas(1, height=0.24 * len(weights) + 1)
    ordered = sorted(weights.items(), key=lambda item: item[1])
    plot.barh([name for name, _ in ordered], [loss for _, loss in ordered], color=ACCENT)
    plot.set(title="AUC lost when the feature is shuffled")
    return _png(figure)


def distances(moved: Mapping[str, tuple[float, float]], title: str | None = None) -> bytes:
    """How far each column has moved, farthest first, with a mark at its own limit."""
    figure, (plot,) = _canvas(1, height=0.24 * len(moved) + 1)
    ordered = sorted(moved.items(), key=lambda item: item[1])
    colours = [WARM if distance > limit else ACCENT for _, (distance, limit) in ordered]
    plot.barh([name for name, _ in ordered], [distance for _, (distance, _) in ordered], color=colours)
    for row, (_, (_, limit)) in enumerate(ordered):
        plot.plot([limit] * 2, [row - 0.45, row + 0.45], color=INK, linewidth=1.5)
    over = sum(distance > limit for distance, limit in moved.values())
    chance = f"{over} of {len(moved)} columns lie beyond what a day of this size strays by chance (mark)"
    plot.set(title=title or chance)
    return _png(figure)


def intervals(figures: Mapping[str, tuple[float, float, float]], title: str) -> bytes:
    """Figures with the ends of their intervals, one below the other."""
    figure, (plot,) = _canvas(1, height=0.3 * len(figures) + 1)
    for row, (value, low, high) in enumerate(figures.values()):
        plot.plot([low, high], [row, row], color=PALE, linewidth=4)
        plot.plot([value], [row], "o", color=ACCENT)
    plot.set_yticks(range(len(figures)), list(figures))
    plot.invert_yaxis()
    plot.set(title=title)
    return _png(figure)


def histogram(values: Numbers, title: str, label: str, mark: float | None = None) -> bytes:
    """How a number is spread, with an optional mark."""
    figure, (plot,) = _canvas(1)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.005, 0.995])
    plot.hist(np.clip(finite, low, high), 50, color=ACCENT)
    if mark is not None:
        plot.axvline(mark, color=WARM, linewidth=2)
    plot.set(title=title, xlabel=label, ylabel="rows")
    return _png(figure)


def rate_by_level(levels: Sequence[str], rows: Sequence[int], rates: Sequence[float], title: str, rate: str) -> bytes:
    """How many rows each level has, and a rate over them."""
    figure, (plot,) = _canvas(1)
    plot.bar(range(len(levels)), rows, color=PALE)
    plot.set_xticks(range(len(levels)), levels, rotation=30, ha="right", fontsize=8)
    plot.set(title=title, ylabel="rows")
    beside = plot.twinx()
    beside.plot(range(len(levels)), rates, "o-", color=WARM)
    beside.set(ylabel=rate, ylim=(0, max(rates) * 1.2 or 1))
    return _png(figure)


def small_multiples(values: Mapping[str, Numbers]) -> bytes:
    """One small histogram per feature, tails clipped at half a percent."""
    from matplotlib.figure import Figure

    across = 5
    down = -(-len(values) // across)
    figure = Figure(figsize=(11, 1.5 * down), layout="constrained")
    for position, (name, numbers) in enumerate(values.items(), start=1):
        plot = figure.add_subplot(down, across, position)
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            low, high = np.quantile(finite, [0.005, 0.995])
            plot.hist(np.clip(finite, low, high), 30, color=ACCENT)
        plot.set_title(name, fontsize=8, color=INK)
        plot.set_yticks([])
        plot.tick_params(labelsize=6)
    return _png(figure)


def _canvas(plots: int, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * plots + 1, height), layout="constrained")
    axes = [figure.add_subplot(1, plots, position) for position in range(1, plots + 1)]
    for plot in axes:
        plot.spines[["top", "right"]].set_visible(False)
        plot.tick_params(labelsize=8, colors=INK)
        plot.title.set_color(INK)
    return figure, axes


def _png(figure: Figure) -> bytes:
    for plot in figure.axes:
        plot.title.set_text(textwrap.fill(plot.get_title(), TITLE_WIDTH))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return buffer.getvalue()
