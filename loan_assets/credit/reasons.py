"""Why an applicant was refused: the features that weighed most against them, and the sentence for each.

Here: from contributions to principal reasons. Not here: the contributions (`lookup`) or the sentences (`books`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loan_assets.policy import Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """The features in the model's order and what a refused applicant reads for each; several may share a sentence."""

    features: tuple[str, ...]
    texts: tuple[str, ...]


def principal_reasons(contributions: Sequence[float], sentences: Sentences, explanation: Explanation) -> list[str]:
    """The codes of the reasons for one refusal, weightiest first: one at least, the policy's most at most.

    Features that share a sentence count together, and the weightiest of them lends its name as the code. Only what
    speaks against the applicant is a reason; where nothing does, the weightiest feature is named all the same.

    Args:
        contributions: what each feature adds to the log-odds, in the order of `sentences.features`.
    """
    weight: dict[str, float] = {}
    code: dict[str, str] = {}
    against = 0.0
    for contribution, name, text in sorted(
        zip(contributions, sentences.features, sentences.texts, strict=True), reverse=True
    ):
        if contribution <= 0 and weight:
            break
        weight[text] = weight.get(text, 0.0) + contribution
        code.setdefault(text, name)
        against += contribution
    ordered = sorted(weight, key=weight.__getitem__, reverse=True)[: explanation.most]
    first, *others = ordered
    least = explanation.least_share * against
    return [code[first], *(code[text] for text in others if weight[text] >= least)]
