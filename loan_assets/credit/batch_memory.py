"""What is remembered of earlier batches, so that a file sent twice is known again.

Here: digests of request ids and of applications, bounded, as JSON. Not here: what follows from one (`quality`).

Of each day only the smallest digests are kept. Whether one of today's is among a day's can be told for all that are
not above the largest kept, which is a random part of both days: a share is measured however large the days were.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.policy import Quality

if TYPE_CHECKING:
    import pandas as pd

Digests = NDArray[np.uint64]
# 53 bits are exact in every reader of JSON; two of a million digests meet with a chance of one in 10,000.
BITS = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class DayPrint:
    """One healthy day: the smallest digests of its request ids and of its applications, ascending.

    `requests_up_to` and `applications_up_to` are the digests up to which the day is known completely.
    """

    day: str
    requests: tuple[int, ...]
    requests_up_to: int
    applications: tuple[int, ...]
    applications_up_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMemory:
    """The last healthy days, oldest first."""

    days: tuple[DayPrint, ...] = ()

    def after(self, day: str, requests: Digests, applications: Digests, quality: Quality) -> BatchMemory:
        """The memory with one more healthy day; a day that is told again replaces what was known of it."""
        kept, up_to = _smallest(requests, quality.remembered_rows)
        rows, rows_up_to = _smallest(applications, quality.remembered_rows)
        new = DayPrint(day=day, requests=kept, requests_up_to=up_to, applications=rows, applications_up_to=rows_up_to)
        days = sorted((*self.before(day).days, new, *self.since(day)), key=lambda known: known.day)
        return replace(self, days=tuple(days[-quality.remembered_days :]))

    def before(self, day: str) -> BatchMemory:
        """What was known before a day, for judging it again."""
        return replace(self, days=tuple(known for known in self.days if known.day < day))

    def since(self, day: str) -> tuple[DayPrint, ...]:
        """The days after a day."""
        return tuple(known for known in self.days if known.day > day)

    def seen_requests(self, requests: Digests) -> NDArray[np.bool_]:
        """Which of these request ids are known from an earlier day."""
        known = [np.array(day.requests, dtype=np.uint64) for day in self.days]
        return np.isin(requests, np.concatenate(known)) if known else np.zeros(len(requests), dtype=bool)

    def seen_share(self, requests: Digests) -> float:
        """The share of these request ids that one earlier day had, of the day where it is largest."""
        return max((_share(requests, day.requests, day.requests_up_to) for day in self.days), default=0.0)

    def repeated_share(self, applications: Digests) -> float:
        """The share of these applications that one earlier day had, of the day where it is largest."""
        return max((_share(applications, day.applications, day.applications_up_to) for day in self.days), default=0.0)

    def to_json(self) -> str:
        """The memory as text, at most 20 kB a day."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BatchMemory:
        """Read what `to_json` wrote."""
        days = json.loads(text)["days"]
        return cls(
            days=tuple(
                DayPrint(**{**day, "requests": tuple(day["requests"]), "applications": tuple(day["applications"])})
                for day in days
            )
        )


def digests_of_words(words: pd.Series[Any]) -> Digests:
    """A digest for each value as text, the same in every process."""
    import pandas as pd

    return pd.util.hash_array(words.astype(str).to_numpy(dtype=object), categorize=False) >> np.uint64(64 - BITS)


def digests_of_rows(values: NDArray[np.float64], keys: Digests) -> Digests:
    """A digest for each row of numbers together with its key; the order of the columns counts."""
    bits = np.ascontiguousarray(np.where(np.isnan(values), np.nan, values) + 0.0).view(np.uint64)
    places = np.arange(1, values.shape[1] + 1, dtype=np.uint64)
    mixed = _mixed(bits + _mixed(places)[None, :]).sum(axis=1, dtype=np.uint64)
    return _mixed(mixed + _mixed(keys)) >> np.uint64(64 - BITS)


def _mixed(bits: Digests) -> Digests:
    """The finisher of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input reaches every bit out."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _smallest(digests: Digests, most: int) -> tuple[tuple[int, ...], int]:
    ordered = np.unique(digests)
    kept = tuple(int(digest) for digest in ordered[:most])
    return kept, kept[-1] if len(ordered) > most else 2**BITS


def _share(digests: Digests, known: tuple[int, ...], up_to: int) -> float:
    comparable = digests[digests <= np.uint64(up_to)]
    return float(np.isin(comparable, np.array(known, dtype=np.uint64)).mean()) if len(comparable) else 0.0
