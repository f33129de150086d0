"""A model version in memory, as far as decisions about it need: how it scores, and what it learned from.

Here: one frozen version, and what is written down of its making. Not here: how it is fitted (`candidates`), released
(`release`) or registered.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.performance import Comparison, Line
from loan_assets.credit.scoring import Calibration, FlatTrees, probability
from loan_assets.credit.straying import Reference

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version that can score.

    `reference` is what it learned from, for drift. `normal` is what its scores meant on rows that it was not trained
    on, the line from which a change is told. `threshold` is the probability at or above which it refuses. `recipe` and
    `rows` say how it was made, and of how many rows; `learned_until` is the ledger's last day among them.
    `chosen_by` is the champion of the time against its recipe on those rows, cross-validated.
    """

    number: int
    recipe: str
    trees: FlatTrees
    calibration: Calibration
    threshold: float
    reference: Reference
    normal: Line
    rows: int
    learned_until: int
    chosen_by: Comparison | None = None

    def log_odds(self, features: NDArray[np.float32]) -> Numbers:
        """Calibrated log-odds of default, shape (rows,)."""
        raw = self.trees.log_odds(features)
        return raw * self.calibration.slope + self.calibration.intercept

    def score(self, features: NDArray[np.float32]) -> Numbers:
        """Probability of default, shape (rows,), to the bit as a release of this version gives it."""
        return probability(self.trees.log_odds(features), self.calibration)

    def called(self, number: int) -> Version:
        """The same version under its number in the registry."""
        return replace(self, number=number)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a version was made, as its release says it; what `Version` is made from, besides the trees.

    `since` is the first day of the world it was made for and `learned_until` the last day it learned from, both empty
    for a version made from the book. `champion` is the version it was to replace, 0 where there was none, and `ordered`
    the day on which the retraining was decided.
    """

    recipe: str
    rows: int
    normal: Line
    since: str = ""
    learned_until: str = ""
    champion: int = 0
    ordered: str = ""
    chosen_by: Comparison | None = None

    def to_json(self) -> str:
        """As text; equal origins give equal bytes."""
        return json.dumps(self.as_facts(), indent=1, sort_keys=True) + "\n"

    def as_facts(self) -> dict[str, Any]:
        """As plain data."""
        normal = {**asdict(self.normal), "information": self.normal.information.tolist()}
        return {**asdict(self), "normal": normal}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Origin:
        """Read what `as_facts` gave."""
        normal, chosen_by = facts["normal"], facts["chosen_by"]
        line = Line(**{**normal, "information": np.array(normal["information"], dtype="float64")})
        return cls(**{**facts, "normal": line, "chosen_by": Comparison(**chosen_by) if chosen_by else None})

    @classmethod
    def from_json(cls, text: str) -> Origin:
        """Read what `to_json` wrote."""
        return cls.from_facts(json.loads(text))
