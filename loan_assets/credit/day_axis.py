"""Panels over a common axis of days, as inline SVG: lines, bars, bands, limits, marks, each with its tooltip.

Here: from numbers to elements, every text escaped. Not here: the numbers, colours (classes that a style sheet knows,
`pages`) or what stands around a panel (`timeline`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from itertools import pairwise

LEFT, RIGHT, WIDTH, DAY = 76.0, 66.0, 1000.0, 6.0
TICK_ROOM = 76.0
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
Values = Sequence[float | None]

SHAPES = {
    "alarm": "M0,-6.5 L6.5,5 L-6.5,5 Z",
    "retrain": "M0,-5 A5,5 0 1 1 -0.01,-5 Z",
    "promote": "M0,-7 L6,0 L2.2,0 L2.2,6 L-2.2,6 L-2.2,0 L-6,0 Z",
    "reject": "M-5,-5 L5,5 M5,-5 L-5,5",
    "rollback": "M-7,0 L0,-6 L0,-2.2 L6,-2.2 L6,2.2 L0,2.2 L0,6 Z",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The days from left to right; long histories get a wider drawing, which scrolls."""

    days: tuple[str, ...]

    @property
    def width(self) -> float:
        """The drawing's width in its own units."""
        return max(WIDTH, LEFT + RIGHT + DAY * len(self.days))

    @property
    def least_width(self) -> float:
        """The pixels below which its words would be too small to read; narrower screens scroll."""
        return self.width * 0.88

    @property
    def step(self) -> float:
        """The width of a day."""
        return (self.width - LEFT - RIGHT) / max(len(self.days), 1)

    def start(self, position: int) -> float:
        """Where a day begins."""
        return LEFT + position * self.step

    def at(self, position: int) -> float:
        """The middle of a day."""
        return self.start(position) + self.step / 2

    def ticks(self) -> Iterator[tuple[int, str]]:
        """Every so many whole weeks, a day and its name; the year where it is new."""
        apart = 7 * max(1, -(-int(TICK_ROOM / self.step) // 7))
        year = 0
        for position in range(0, len(self.days), apart):
            day = date.fromisoformat(self.days[position])
            named = f"{day.day} {MONTHS[day.month - 1]}" + (f" {day.year}" if day.year != year else "")
            year = day.year
            yield position, named


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A row of the timeline: `low` and `high` are the values at its foot and head; what lies beyond is cut off."""

    axis: Axis
    height: float
    low: float = 0.0
    high: float = 1.0

    def y(self, value: float) -> float:
        """How far down a value lies."""
        inside = min(max(value, self.low), self.high)
        return self.height - (inside - self.low) / (self.high - self.low) * self.height

    def grid(self, ticks: Sequence[tuple[float, str]]) -> Iterator[str]:
        """Faint lines for values, named at the left, and for the days that the axis names."""
        for position, _ in self.axis.ticks():
            x = self.axis.start(position)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{self.height:.1f}"/>'
        for value, named in ticks:
            y, end = self.y(value), self.axis.width - RIGHT
            yield f'<line class="grid" x1="{LEFT}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(LEFT - 8, y + 4, named, "end")

    def line(self, values: Values, style: str) -> Iterator[str]:
        """A line through what is known; a day alone is a dot."""
        for run in _runs(values):
            points = [f"{self.axis.at(position):.1f},{self.y(value):.1f}" for position, value in run]
            if len(points) == 1:
                x, y = points[0].split(",")
                yield f'<circle class="dot {style}" cx="{x}" cy="{y}" r="2.5"/>'
            else:
                yield f'<polyline class="line {style}" points="{" ".join(points)}"/>'

    def interval(self, lows: Values, highs: Values) -> Iterator[str]:
        """A tinted band between two lines."""
        for run in _runs(lows):
            upper = [(position, highs[position]) for position, _ in reversed(run)]
            around = [*run, *((position, value) for position, value in upper if value is not None)]
            points = " ".join(f"{self.axis.at(position):.1f},{self.y(value):.1f}" for position, value in around)
            yield f'<polygon class="interval" points="{points}"/>'

    def bars(self, values: Values, strong: Sequence[bool]) -> Iterator[str]:
        """One bar a day; a strong one is darker and has a cap."""
        wide = self.axis.step * 0.7
        for position, value in enumerate(values):
            if value is None:
                continue
            x, y = self.axis.at(position) - wide / 2, self.y(value)
            style = "bar strong" if strong[position] else "bar"
            tall = max(self.height - y, 1.0)
            yield (
                f'<rect class="{style}" x="{x:.1f}" y="{min(y, self.height - 1):.1f}" '
                f'width="{wide:.1f}" height="{tall:.1f}"/>'
            )

    def limit(self, value: float, named: str) -> Iterator[str]:
        """A dashed line across, with its name beside it."""
        y, end = self.y(value), self.axis.width - RIGHT
        yield f'<line class="limit" x1="{LEFT}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(end + 6, y + 4, named, "start", "limit-name")

    def spans(self, is_shaded: Sequence[bool], style: str) -> Iterator[str]:
        """Whole days, shaded from head to foot."""
        for first, last in _stretches(is_shaded):
            x, wide = self.axis.start(first), self.axis.step * (last - first + 1)
            yield f'<rect class="{style}" x="{x:.1f}" y="0" width="{wide:.1f}" height="{self.height:.1f}"/>'

    def uprights(self, positions: Sequence[int]) -> Iterator[str]:
        """Thin lines at the ends of days, from head to foot."""
        for position in positions:
            x = self.axis.start(position + 1)
            yield f'<line class="upright" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{self.height:.1f}"/>'

    def touch(self, said: Sequence[str]) -> Iterator[str]:
        """What a pointer reads on each day."""
        for position, words in enumerate(said):
            if words:
                yield (
                    f'<rect class="touch" x="{self.axis.start(position):.1f}" y="0" width="{self.axis.step:.1f}" '
                    f'height="{self.height:.1f}"><title>{escape(words)}</title></rect>'
                )

    def over_the_top(self, values: Values) -> Iterator[str]:
        """A small arrow at the head of each day whose value is cut off."""
        for position, value in enumerate(values):
            if value is not None and value > self.high:
                yield f'<path class="cut" d="M{self.axis.at(position):.1f},1 l3.5,6 l-7,0 Z"/>'


def mark(kind: str, x: float, y: float, words: str = "") -> str:
    """The sign of a decision."""
    title = f"<title>{escape(words)}</title>" if words else ""
    moved = f"translate({x:.1f},{y:.1f})"
    return f'<path class="mark {escape(kind)}" d="{SHAPES[kind]}" transform="{moved}">{title}</path>'


def named(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    """Words at a place."""
    return _text(x, y, words, anchor, style)


def framed(panel: Panel, parts: Sequence[str], said: str, *, dates: bool) -> str:
    """A panel as an SVG element that a screen reader can name, with the days below it where wanted."""
    below = 24.0 if dates else 8.0
    axis = panel.axis
    words = (
        [_text(axis.start(position), panel.height + 18, name, "start") for position, name in axis.ticks()]
        if dates
        else []
    )
    size = f"0 -8 {axis.width:.0f} {panel.height + 8 + below:.0f}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(said)}">{"".join(parts)}{"".join(words)}</svg>'


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    styled = f' class="{style}"' if style else ""
    return f'<text{styled} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _runs(values: Values) -> list[list[tuple[int, float]]]:
    """Neighbouring days that have a value."""
    runs: list[list[tuple[int, float]]] = []
    for position, value in enumerate(values):
        if value is None:
            continue
        if runs and runs[-1][-1][0] == position - 1:
            runs[-1].append((position, value))
        else:
            runs.append([(position, value)])
    return runs


def _stretches(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last position of each run of true flags."""
    edges = [position for position, (one, other) in enumerate(pairwise((False, *flags, False))) if one != other]
    return [(first, end - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]
