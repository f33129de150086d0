"""The BentoML service: one class, one route, around the scorer.

Here: HTTP in BentoML's terms. Not here: what a score is (`scorer`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import InvalidArgument

from bento.scorer import BadApplication, Scorer

RELEASE = Path(__file__).resolve().parents[1] / "release"


@bentoml.service(name="loan_default", traffic={"timeout": 10})
class LoanDefault:
    """Scores loan applications with the release packed beside this file."""

    def __init__(self) -> None:
        self.scorer = Scorer.open(RELEASE)

    @bentoml.api(route="/score")  # type: ignore[untyped-decorator]
    def score(self, applications: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Probability of default, decision and model version for each application, in the order received."""
        try:
            return self.scorer.answer(applications)
        except BadApplication as bad:
            raise InvalidArgument(str(bad)) from bad
