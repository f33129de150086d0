"""What is known of arrivals of outcomes, and whether they go with anything known about the applicants.

Here: the sums by which an arrival is remembered, and what several show together. Not here: the labels themselves, or
the verdict on them (`label_quality`).

Outcomes shuffled among requests look, to the score alone, like a world in which it has become useless. They differ in
that they go with nothing else either, so every column known about the applicants is asked. An arrival that shows
nothing is held, and released where those after it go on to show a relation that it bears out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.policy import LabelQuality

if TYPE_CHECKING:
    import pandas as pd

DAY, SCORE = "day", "score"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is remembered of one arrival.

    `expected` is the sum of the champion's scores. `pulls` are, for the score and each further column, the sums of the
    standard ranks of those who defaulted, `weight` the variance that these sums have by chance.
    """

    day: str
    labels: int
    defaults: int
    expected: float
    columns: tuple[str, ...]
    pulls: tuple[float, ...]
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMemory:
    """What is known of earlier arrivals.

    `healthy` are the last ones taken over, `doubtful` those of them since one showed a relation by itself; `held` were
    refused because they go with nothing; `leaning` are the last in a row whose base rate leans towards a bound, taken
    over or not; `waiting` are labels too few to judge.
    """

    healthy: tuple[Arrival, ...] = ()
    doubtful: tuple[Arrival, ...] = ()
    held: tuple[Arrival, ...] = ()
    leaning: tuple[Arrival, ...] = ()
    waiting: tuple[tuple[str, int, str], ...] = ()

    def to_json(self) -> str:
        """The memory as text, about 1 kB an arrival."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LabelMemory:
        """Read what `to_json` wrote."""
        facts = json.loads(text)

        def arrivals(name: str) -> tuple[Arrival, ...]:
            return tuple(
                Arrival(**{**one, "columns": tuple(one["columns"]), "pulls": tuple(one["pulls"])})
                for one in facts.get(name, ())
            )

        waiting = tuple((str(request), int(label), str(at)) for request, label, at in facts["waiting"])
        names = ("healthy", "doubtful", "held", "leaning")
        return cls(**{name: arrivals(name) for name in names}, waiting=waiting)


def arrival_of(day: str, label: NDArray[np.int64], about: pd.DataFrame) -> Arrival:
    """The sums by which an arrival is remembered: the score's first, folded too, then every numeric column's."""
    numeric = about.drop(columns=[DAY, SCORE]).select_dtypes("number")
    ranks = np.column_stack([_standard_ranks(about[[SCORE]]), _standard_ranks(numeric)])
    folded = np.abs(ranks[:, :1]) - np.abs(ranks[:, :1]).mean()
    spread = float(folded.std())
    ranks = np.column_stack([ranks, folded / spread if spread > 0 else folded])
    rows, defaults = len(label), int(label.sum())
    return Arrival(
        day=day,
        labels=rows,
        defaults=defaults,
        expected=float(about[SCORE].sum()),
        columns=(SCORE, *(str(name) for name in numeric.columns), f"{SCORE} from its middle"),
        pulls=tuple(float(pull) for pull in ranks[label == 1].sum(axis=0)),
        weight=defaults * (rows - defaults) / max(rows - 1, 1),
    )


def _standard_ranks(table: pd.DataFrame) -> Numbers:
    """Average ranks with mean 0 and deviation 1; 0 for the unknown and for columns that do not vary."""
    ranks = table.rank()
    centred = (ranks - ranks.mean()).fillna(0.0).to_numpy("float64")
    spread = centred.std(axis=0)
    standard: Numbers = centred / np.where(spread > 0, spread, np.inf)
    return standard


def level(arrivals: Sequence[Arrival]) -> float:
    """How many times the scores' sum the defaults were; once where nothing is known."""
    expected = sum(arrival.expected for arrival in arrivals)
    defaults = sum(arrival.defaults for arrival in arrivals)
    return defaults / expected if defaults and expected > 0 else 1.0


def errors_of(*arrivals: Arrival) -> Numbers:
    """By how many standard errors the ranks of those who defaulted differ, for every column, over all arrivals."""
    weight = sum(arrival.weight for arrival in arrivals)
    pulls: Numbers = np.array([arrival.pulls for arrival in arrivals], dtype="float64").sum(axis=0)
    return pulls / float(max(weight, 1e-9) ** 0.5)


def is_informative(labels: LabelQuality, *arrivals: Arrival, share: float = 1.0) -> bool:
    """Whether defaults go with the score, or with anything else known about the applicants, beyond chance.

    `share` is how much of what is usually asked for is enough.
    """
    errors = errors_of(*arrivals)
    return bool(errors[0] >= share * labels.score_errors or np.abs(errors).max() >= share * labels.column_errors)


def goes_with_nothing(arrival: Arrival, memory: LabelMemory, labels: LabelQuality) -> bool:
    """Whether the score has lost what it had and no other column has anything; the score alone cannot tell.

    One such arrival may be the first of a world in which little is left of what was known. It is held like those after
    it, while all of them together show nothing, and two of them not even a hint.
    """
    has_others = len(arrival.columns) > len((SCORE, "folded"))
    doubtful = [one for one in (*memory.doubtful, *memory.held) if one.columns == arrival.columns]
    if not has_others or is_informative(labels, arrival) or are_released(memory, arrival, labels):
        return False
    together = (*doubtful[-labels.remembered_doubts :], arrival)
    weight = sum(one.weight for one in together)
    is_less = errors_of(*together)[0] < usual_effect(memory, labels) * weight**0.5 - labels.drop_errors
    share = labels.hint_share if len(doubtful) == 1 else 1.0
    return bool(is_less) and not is_informative(labels, *together, share=share)


def usual_effect(memory: LabelMemory, labels: LabelQuality) -> float:
    """The difference in the score's standard ranks between those who defaulted and those who paid, of late."""
    weight = sum(one.weight for one in memory.healthy)
    if weight > 0:
        return sum(one.pulls[0] for one in memory.healthy) / weight
    return float(12**0.5) * (labels.usual_auc - 0.5)


def are_released(memory: LabelMemory, arrival: Arrival, labels: LabelQuality) -> bool:
    """Whether held arrivals show the relation that this one shows, or together with it one that none shows alone.

    A relation that this one shows is looked for in them by itself. A feed in which the score is what it was has been
    repaired, and vouches for little that came before; one in which it is still less tells of a world that has changed.
    """
    alike = [one for one in memory.held if one.columns == arrival.columns]
    if not alike:
        return False
    if not is_informative(labels, arrival):
        return is_informative(labels, *alike, arrival)
    shown = errors_of(arrival)
    clearest = int(np.abs(shown).argmax())
    is_as_usual = shown[0] > usual_effect(memory, labels) * arrival.weight**0.5 - labels.changed_errors
    enough = labels.released_errors if is_as_usual else labels.changed_released_errors
    return bool(errors_of(*alike)[clearest] * np.sign(shown[clearest]) >= enough)
