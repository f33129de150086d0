"""Whether the share of defaults among outcomes that arrive is one that a change of the world explains.

Here: the verdict on an arrival's base rate, together with those before it that lean the same way. Not here: anything
else that an arrival may suffer from (`label_quality`), or what is remembered of it (`arrivals`).

One arrival of a feed that loses most of its defaults has too few rows to be told from a recovery; two have enough. So
arrivals in a row that lean towards a bound are judged as one, those that were refused among them. The first that lies
beyond the bound is held: the next one shows whether it was the beginning of a fault, a day of its own, or the new
world, in which case it is released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loan_assets.credit.arrivals import Arrival, LabelMemory, level
from loan_assets.policy import LabelQuality

IMPOSSIBLE = "has a base rate that no change of the world explains"
DOUBTFUL = "has a base rate beyond those known, held for the next arrival"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateVerdict:
    """The verdict on an arrival's base rate.

    `reason` says why it is not taken over, empty where it is; `released` are earlier arrivals that it vouches for.
    `leaning` are those that the next one is judged with, this one the last of them; none where it is an ordinary one.
    """

    reason: str = ""
    leaning: tuple[Arrival, ...] = ()
    released: tuple[Arrival, ...] = ()


def judge_rate(arrival: Arrival, memory: LabelMemory, labels: LabelQuality) -> RateVerdict:
    """Judge an arrival's base rate by what the scores came to before it, and before its like."""
    like = {one.day for one in memory.leaning}
    usual = level([one for one in memory.healthy if one.day not in like])
    is_low = arrival.defaults < usual * arrival.expected
    before = [one for one in memory.leaning if (one.defaults < usual * one.expected) == is_low]
    alone, together = _Rate.of([arrival], usual, labels), _Rate.of([*before, arrival], usual, labels)
    if alone.from_bound >= alone.from_usual:
        return RateVerdict()
    leaning = (*before, arrival)[-labels.leaning_arrivals :]
    certain, enough = (-float(np.log(chance)) for chance in (labels.rate_chance, labels.rate_chance_together))
    if together.is_beyond and together.from_bound > (enough if before else certain):
        return RateVerdict(reason=IMPOSSIBLE, leaning=leaning)
    is_first = not before or _Rate.of(before, usual, labels).from_usual <= certain
    if is_first and alone.is_beyond and alone.from_usual > certain:
        return RateVerdict(reason=DOUBTFUL, leaning=leaning)
    taken = {one.day for one in memory.healthy}
    return RateVerdict(leaning=leaning, released=tuple(one for one in before if one.day not in taken))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rate:
    """How far a default rate lies from the usual one, and from the bound on its side of it.

    Distances are in nats: minus the logarithm of what chance gives such a rate at most (Chernoff).
    """

    is_beyond: bool
    from_bound: float
    from_usual: float

    @classmethod
    def of(cls, arrivals: Sequence[Arrival], usual: float, labels: LabelQuality) -> _Rate:
        """The rate of several arrivals as one."""
        rows = sum(one.labels for one in arrivals)
        rate = sum(one.defaults for one in arrivals) / rows
        mean = float(np.clip(usual * sum(one.expected for one in arrivals) / rows, 1e-6, 1 - 1e-6))
        least, most = labels.lowest_rate * mean, min(labels.highest_rate * mean, labels.ceiling)
        return cls(
            is_beyond=not least <= rate <= most,
            from_bound=rows * _divergence(rate, least if rate < mean else most),
            from_usual=rows * _divergence(rate, mean),
        )


def _divergence(rate: float, other: float) -> float:
    """Of one rate from another, in nats a row."""
    return _part(rate, other) + _part(1 - rate, 1 - other)


def _part(share: float, other: float) -> float:
    return share * float(np.log(share / other)) if share > 0 else 0.0
