"""Registry: which fitted models became versions, and on what evidence.

Here: the one asset that registers. Not here: the floors (`policy`), the judgement (`credit`), MLflow (`resources`).
"""

import hashlib

import dagster as dg

from loan_assets.books import the_book
from loan_assets.credit.scorecards import Scorecard, metrics_of
from loan_assets.credit.training import FittedModel
from loan_assets.refusal import Refusal
from loan_assets.resources.registry import Candidate, RegisteredVersion, Registry

BOOK = the_book()


@dg.asset(kinds={"mlflow"})
def model_version(
    context: dg.AssetExecutionContext, registry: Registry, default_model: FittedModel, scorecard: Scorecard
) -> RegisteredVersion:
    """The model's version in the registry, with the evidence it was admitted on. Below the floors nothing is admitted.

    The first version becomes the champion; later ones stand as challengers. Training again on identical data gives an
    identical model and no new version.
    """
    if scorecard.model_digest != default_model.model_digest:
        raise Refusal(
            f"The scorecard judges model {scorecard.model_digest[:12]}, not {default_model.model_digest[:12]}.",
            "Materialize scorecard, then model_version.",
        )
    if scorecard.below_the_floors:
        raise Refusal(
            f"The model is not registered: {'; '.join(scorecard.below_the_floors)}.",
            "Look at the scorecard; mend the data or the features, or change the floors in policy.py with a reason. "
            "The champion stays in force.",
        )
    evidence = {name: f"{value:.6f}" for name, value in metrics_of(scorecard).items()}
    version, is_new = registry.register(
        Candidate(
            identity=_identity(default_model, scorecard),
            model_digest=default_model.model_digest,
            evidence={"dataset_digest": default_model.dataset_digest, "book_digest": BOOK.digest, **evidence},
            standing="on trial" if default_model.origin else "passed the floors",
        )
    )
    context.add_output_metadata(
        {
            "version": version.version,
            "alias": version.alias or "none",
            "is_new": is_new,
            "learned": "a new version"
            if is_new
            else f"nothing new to learn: the same data gave version {version.version}",
            "model_digest": version.model_digest,
            **{name: float(value) for name, value in evidence.items()},
        }
    )
    return version


def _identity(model: FittedModel, scorecard: Scorecard) -> str:
    """What makes two versions the same: the trees, the data with their split, the book, the threshold, the reasons."""
    reasons = [f"{feature.name}: {feature.reason}" for feature in BOOK.features]
    decided_by = (model.model_digest, model.dataset_digest, BOOK.digest, repr(scorecard.threshold), *reasons)
    return hashlib.sha256("\n".join(decided_by).encode()).hexdigest()
