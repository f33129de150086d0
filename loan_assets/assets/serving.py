"""Serving: the model as something that can leave the platform, and every client's score.

Here: the release, the Bento and the batch. Not here: the release's format (`release`), the stores (`resources`) or the
box that answers requests (`bento`).
"""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from loan_assets.books import Role, tables, the_book
from loan_assets.credit.candidates import newest
from loan_assets.credit.scorecards import Scorecard, metrics_of
from loan_assets.credit.scoring import is_refused
from loan_assets.credit.training import TRAIN, FittedModel, calibrated, dataset_digest, onnx_probability
from loan_assets.policy_file import the_policy
from loan_assets.refusal import Refusal
from loan_assets.release import MODEL, ONNX, ORIGIN, REFERENCE, ReleaseFacts, read_release, write_release
from loan_assets.resources.asset_store import write_table
from loan_assets.resources.bento_store import BentoStore, BuiltBento
from loan_assets.resources.catalog import picture, table_type
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.live_history import Memory
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.registry import RegisteredVersion
from loan_assets.resources.release_store import ReleaseStore

BOOK = the_book()
POLICY = the_policy()
KEY = BOOK.key.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRelease:
    """A release in the release store."""

    version: int
    digest: str
    threshold: float


@dg.asset(kinds={"onnx", "numpy"})
def model_release(
    context: dg.AssetExecutionContext,
    release_store: ReleaseStore,
    memory: Memory,
    model_version: RegisteredVersion,
    default_model: FittedModel,
    scorecard: Scorecard,
    training_set: pd.DataFrame,
    raw_loan_book: pd.DataFrame,
) -> PublishedRelease:
    """The model as a sealed folder of plain files: trees, ONNX copy, threshold, reasons, reference rows, every digest.

    It can be scored without Dagster, MLflow, scikit-learn or pickle, and may be put in force once it has been read back
    and scores like its ONNX copy. Parts that do not speak of one judged model are refused.
    """
    _refuse_a_mixture(model_version, default_model, scorecard, training_set)
    facts = ReleaseFacts(
        model=MODEL,
        version=model_version.version,
        book=BOOK.name,
        book_digest=BOOK.digest,
        delivery_digest=dataset_digest(raw_loan_book),
        dataset_digest=default_model.dataset_digest,
        model_digest=default_model.model_digest,
        features=default_model.features,
        reasons={feature.name: feature.reason for feature in BOOK.features},
        threshold=scorecard.threshold,
        calibration=default_model.calibration,
        evidence=metrics_of(scorecard),
    )
    reference = _reference_rows(default_model, training_set, raw_loan_book, memory)

    def fill(folder: Path) -> None:
        write_release(folder, facts, default_model.trees, default_model.onnx)
        write_table(reference, folder / REFERENCE)
        (folder / ORIGIN).write_text(scorecard.origin)

    digest, folder = release_store.publish(model_version.version, fill)
    unlike = _unlike_its_onnx_copy(_gap_to_its_onnx_copy(folder, digest, training_set))
    if unlike:
        raise Refusal(f"{unlike} It is not put in force.", "Materialize default_model again and what follows from it.")
    context.add_output_metadata(
        {
            "version": facts.version,
            "digest": digest,
            "threshold": facts.threshold,
            "folder": dg.MetadataValue.path(str(folder)),
            "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        }
    )
    return PublishedRelease(version=facts.version, digest=digest, threshold=facts.threshold)


@dg.asset_check(asset=model_release, additional_ins={"training_set": dg.AssetIn()}, blocking=True)
def release_scores_like_its_onnx_copy(
    release_store: ReleaseStore, model_release: PublishedRelease, training_set: pd.DataFrame
) -> dg.AssetCheckResult:
    """Read back from disk and verified, the release and the ONNX file in it give the same score for every client."""
    folder = release_store.folder_of(model_release.version, model_release.digest)
    gap = _gap_to_its_onnx_copy(folder, model_release.digest, training_set)
    unlike = _unlike_its_onnx_copy(gap)
    return dg.AssetCheckResult(
        passed=unlike is None,
        description=unlike,
        metadata={"rows": len(training_set), "gap": gap, "allowed": POLICY.parity.onnx},
    )


@dg.asset_check(asset=model_release, additional_ins={"training_set": dg.AssetIn()}, blocking=True)
def reasons_add_up_to_the_score(
    release_store: ReleaseStore, model_release: PublishedRelease, training_set: pd.DataFrame
) -> dg.AssetCheckResult:
    """For every client, what the features add to the log-odds sums up to the score, so that no reason is invented."""
    from loan_assets.credit.lookup import TreeTables

    release = read_release(release_store.folder_of(model_release.version, model_release.digest))
    features = training_set[list(release.facts.features)].to_numpy("float32")
    tables = TreeTables.of(release.trees, features.shape[1])
    entries = tables.entries_of(features)
    added = tables.contributions(entries).sum(axis=1) + tables.expected
    gap = float(np.abs(added - release.trees.log_odds(features)).max())
    return dg.AssetCheckResult(
        passed=gap <= POLICY.parity.reasons,
        description=f"reasons and score differ by up to {gap:.1e} in log-odds",
        metadata={"rows": len(features), "gap": gap, "allowed": POLICY.parity.reasons},
    )


def _refuse_a_mixture(
    version: RegisteredVersion, model: FittedModel, card: Scorecard, training_set: pd.DataFrame
) -> None:
    """Release only what was registered, judged and trained as one; a refused model leaves the version before behind."""
    digests = {
        "model_version": version.model_digest,
        "default_model": model.model_digest,
        "scorecard": card.model_digest,
    }
    if len(set(digests.values())) > 1:
        held = ", ".join(f"{name} of {digest[:12]}" for name, digest in digests.items())
        raise Refusal(
            f"These are not of one model: {held}. Nothing was released.",
            "Materialize scorecard, then model_version; a model that is refused there cannot be released.",
        )
    if dataset_digest(training_set) != model.dataset_digest:
        raise Refusal(
            f"The model was trained on data {model.dataset_digest[:12]}, which is not the training set in force.",
            "Materialize default_model first, then scorecard, model_version and model_release.",
        )


def _reference_rows(
    model: FittedModel, training_set: pd.DataFrame, received: pd.DataFrame, memory: Memory
) -> pd.DataFrame:
    """The received columns of what the model stands for: the training part, or the newest days of a changed world."""
    if model.origin is not None:
        ledger = memory.of(BOOK).ledger(model.origin.ordered)
        return pd.DataFrame(newest(ledger.since(model.origin.since, labelled=False), POLICY).received)
    seen = training_set.loc[training_set["part"] == TRAIN, KEY].astype("int64")
    unknown = int((~seen.isin(received[KEY])).sum())
    if unknown:
        raise Refusal(
            f"{unknown:,} clients of the training set are not in the delivery in force.",
            "Materialize training_set from this delivery, then default_model and what follows.",
        )
    columns = [column.name for column in BOOK.with_role(Role.FEATURE, Role.PROTECTED)]
    return received.set_index(KEY).loc[seen, columns]


def _gap_to_its_onnx_copy(folder: Path, digest: str, training_set: pd.DataFrame) -> float:
    """The largest difference in probability, over every client, between a verified release and the ONNX file in it."""
    release = read_release(folder, expected=digest)
    features = training_set[list(release.facts.features)].to_numpy("float32")
    portable = calibrated(onnx_probability((folder / ONNX).read_bytes(), features), release.facts.calibration)
    return float(np.abs(release.score(features) - portable).max())


def _unlike_its_onnx_copy(gap: float) -> str | None:
    """What to say of a gap that is over the policy's parity."""
    allowed = POLICY.parity.onnx
    return None if gap <= allowed else f"The release is {gap:.1e} off its ONNX copy, where {allowed:.0e} is allowed."


@dg.asset(kinds={"bentoml"})
def loan_bento(
    context: dg.AssetExecutionContext,
    bento_store: BentoStore,
    release_store: ReleaseStore,
    model_release: PublishedRelease,
) -> BuiltBento:
    """The endpoint as one package: the serving box, the book and the release, with nothing of the platform in it."""
    folder = release_store.folder_of(model_release.version, model_release.digest)
    built = bento_store.build(folder, model_release.digest, model_release.version, BOOK)
    context.add_output_metadata(
        {
            "tag": built.tag,
            "bytes": built.bytes,
            "release_digest": built.release_digest,
            "folder": dg.MetadataValue.path(str(bento_store.folder_of(built.tag))),
        }
    )
    return built


@dg.asset_check(asset=loan_bento, blocking=True)
def bento_carries_the_release(bento_store: BentoStore, loan_bento: BuiltBento) -> dg.AssetCheckResult:
    """Every file in the Bento is the one that was packed; its release verifies, and carries no client's row."""
    folder = bento_store.verified(loan_bento) / "src" / "release"
    carried = read_release(folder, expected=loan_bento.release_digest, carries_reference=False)
    wrong = ["it carries the reference rows"] if (folder / REFERENCE).exists() else []
    if carried.facts.book_digest != BOOK.digest:
        wrong.append(f"its release is of book {carried.facts.book_digest}, not {BOOK.digest}")
    return dg.AssetCheckResult(
        passed=not wrong,
        description="; ".join(wrong) or None,
        metadata={"model_version": carried.facts.version, "book_digest": carried.facts.book_digest},
    )


@dg.asset(
    kinds={"numpy", "parquet"},
    deps=["champion", "online_features"],
    dagster_type=table_type("BatchScores", tables.scores(BOOK), [KEY]),
)
def batch_scores(
    context: dg.AssetExecutionContext,
    release_store: ReleaseStore,
    feature_store: FeatureStoreDoor,
    online_tables: OnlineTables,
    default_outcomes: pd.DataFrame,
) -> pd.DataFrame:
    """Every client scored by the champion's release, with the decision, the version and the date of the features."""
    from loan_assets.credit.pictures import histogram

    release, online = release_store.champion_release(), online_tables.table().facts
    _refuse_another_book({"champion": release.facts.book_digest, "online table": online.book_digest})
    newest = pd.Timestamp(online.features_as_of).as_unit("us")
    offline = feature_store.newest(BOOK).set_index(KEY).reindex(default_outcomes[KEY]).reset_index()
    last, known_since = offline[tables.EVENT_TIME.name], offline[tables.CREATED_TIME.name]
    # Who left a feature's life ago keeps the score of the last statement, as at the endpoint; what became known after
    # the newest month is known by now.
    asked = known_since.where((last < newest - BOOK.feature_life) | (known_since > newest), newest)
    decisions = default_outcomes[[KEY]].assign(**{tables.EVENT_TIME.name: asked})
    known = feature_store.as_known_at(decisions, BOOK)
    estimates = release.score(known[list(release.facts.features)].to_numpy("float32"))
    refused = is_refused(estimates, release.facts.threshold)
    scores = pd.DataFrame(
        {
            KEY: known[KEY],
            "features_as_of": last,
            "default_probability": estimates,
            "decision": np.where(refused, "refuse", "approve"),
            "model_version": release.facts.version,
            "release_digest": release.digest[:12],
        }
    )
    drawn = histogram(estimates, "Scores in force (mark: threshold)", "probability of default", release.facts.threshold)
    context.add_output_metadata(
        {
            "model_version": release.facts.version,
            "refused": int(refused.sum()),
            "refused_share": round(float(refused.mean()), 4),
            "mean_probability": round(float(estimates.mean()), 4),
            "scores": picture(drawn, "scores in force"),
        }
    )
    return scores


@dg.asset_check(asset=batch_scores, additional_ins={"default_outcomes": dg.AssetIn()}, blocking=True)
def every_client_is_scored_once(
    release_store: ReleaseStore, batch_scores: pd.DataFrame, default_outcomes: pd.DataFrame
) -> dg.AssetCheckResult:
    """One score for every client, all from one version and by its own book, and refusals exactly at the threshold."""
    astray = len(set(batch_scores[KEY]) ^ set(default_outcomes[KEY]))
    versions = batch_scores["model_version"].nunique()
    approved = batch_scores.loc[batch_scores["decision"] == "approve", "default_probability"]
    refused = batch_scores.loc[batch_scores["decision"] == "refuse", "default_probability"]
    split = approved.max() < refused.min() if len(approved) and len(refused) else True
    book_digest = release_store.champion_release().facts.book_digest
    wrong = {
        f"{astray:,} clients without exactly one score": astray > 0,
        f"scores of {versions} versions": versions != 1,
        "approvals and refusals that overlap": not split,
        f"features of book {BOOK.digest} scored by a model of book {book_digest}": book_digest != BOOK.digest,
    }
    return dg.AssetCheckResult(
        passed=not any(wrong.values()),
        description="; ".join(said for said, holds in wrong.items() if holds) or None,
        metadata={"clients": len(batch_scores), "astray": astray, "versions": int(versions), "book": book_digest},
    )


def _refuse_another_book(digests: dict[str, str]) -> None:
    """Score only where the model learned from the very formulas that made the features."""
    others = [f"the {name} is of book {digest}" for name, digest in digests.items() if digest != BOOK.digest]
    if others:
        raise Refusal(
            f"The book in force is {BOOK.digest}, but {' and '.join(others)}; nobody was scored.",
            "Materialize online_features by this book; a champion trained on another one scores again once the version "
            "trained on this book, which waits as challenger, is made champion and released.",
        )
