"""A backtest from a terminal: a history in files is replayed, and what it decided is written beside it.

Here: the order in which files are read and written. Not here: their form (`histories`), the replay
(`credit.backtest`) or the rule (`credit.succession`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loan_assets.books import LoanBook, the_book
from loan_assets.credit.backtest import DayDecided, Replay
from loan_assets.credit.ledger import features_of, numbers_of
from loan_assets.credit.panels import Told
from loan_assets.credit.realised import realised
from loan_assets.credit.timeline import page_of
from loan_assets.credit.training import model_digest
from loan_assets.credit.versions import Version
from loan_assets.day_file import read_day
from loan_assets.histories import (
    DECISIONS,
    MODELS,
    REPORT,
    SCORES,
    SUMMARY,
    History,
    facts_for_summary,
    line_of,
    received_columns,
    write_scores,
)
from loan_assets.policy import Policy
from loan_assets.policy_file import policy_of, the_policy
from loan_assets.refusal import Refusal
from loan_assets.release import FACTS, MODEL, ReleaseFacts, read_release, write_release
from loan_assets.sealed import seal

# How each decision is printed.
COLOURS = {"alarm": "yellow", "retrain": "cyan", "promote": "green", "reject": "dim", "rollback": "magenta"}


def backtest(history: History, out: Path, policy_file: Path | None, seed: int) -> None:
    """Replay a history and write decisions, scores, models, summary and report into `out`.

    Raises:
        Refusal: when the reference, a folder or the policy cannot be used; nothing was written then.
    """
    book = the_book()
    policy = seeded(policy_of(policy_file) if policy_file else the_policy(), seed)
    names = history.days()
    reference, label = history.known(book)
    replay = Replay.begun(reference, label, book, policy)
    out.mkdir(parents=True, exist_ok=True)
    days: list[DayDecided] = []
    with (out / DECISIONS).open("w") as lines:
        for day in replay.over(history.over(names, book)):
            days.append(day)
            lines.write(line_of(day, policy.vigilance.retrain_above) + "\n")
    write_scores(out / SCORES, days)
    save_versions(out / MODELS, {number: replay.versions[number] for day in days for number in _in_force(day)}, book)
    worth = realised(replay, days)
    (out / SUMMARY).write_text(json.dumps(facts_for_summary(days, worth), indent=1) + "\n")
    told = Told(days=days, versions=replay.versions, worth=worth, book=book, policy=policy)
    (out / REPORT).write_text(page_of(told), encoding="utf-8")
    print_days(days)


def seeded(policy: Policy, seed: int) -> Policy:
    """The policy with every draw that a replay makes moved by a seed; 0 leaves it as it is."""
    return replace(
        policy,
        splits=replace(policy.splits, fold_seed=policy.splits.fold_seed + seed),
        boosting=replace(policy.boosting, seed=policy.boosting.seed + seed),
        vigilance=replace(policy.vigilance, seed=policy.vigilance.seed + seed),
        succession=replace(policy.succession, seed=policy.succession.seed + seed),
    )


def _in_force(day: DayDecided) -> tuple[int, int]:
    return day.served_by, day.champion


def save_versions(folder: Path, versions: Mapping[int, Version], book: LoanBook) -> None:
    """Every version that was in force, in place of those that an earlier run left."""
    for stale in sorted(folder.glob(f"*/{FACTS}")):
        shutil.rmtree(stale.parent)
    for number, version in sorted(versions.items()):
        save_version(folder / str(number), version, book)


def save_version(folder: Path, version: Version, book: LoanBook) -> None:
    """A version as a sealed release that `score` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = ReleaseFacts(
        model=MODEL,
        version=version.number,
        book=book.name,
        book_digest=book.digest,
        delivery_digest="",
        dataset_digest="",
        model_digest=model_digest(version.trees),
        features=book.feature_names,
        reasons={feature.name: feature.reason for feature in book.features},
        threshold=version.threshold,
        calibration=version.calibration,
        evidence={"rows": float(version.rows)},
    )
    write_release(folder, facts, version.trees)
    seal(folder)


def score_file(model: Path, rows: Path, out: Path) -> int:
    """Score the rows of a Parquet file with a saved version; returns how many.

    Raises:
        Refusal: when the model is no release, or the rows lack a column.
    """
    import pandas as pd

    book = the_book()
    if not rows.exists():
        raise Refusal(f"{rows} is not there.", "Give a Parquet file of applications.")
    if not (model / FACTS).exists():
        raise Refusal(f"{model} holds no model.", "Give a folder like out/models/1 of a backtest, or a release.")
    release = read_release(model, carries_reference=(model / "reference.parquet").exists())
    if release.facts.book_digest != book.digest:
        raise Refusal(
            f"{model} was made by book {release.facts.book_digest}, not {book.digest}.",
            "Score with the version of loan_assets that made it.",
        )
    table = read_day(rows, str(rows), "Mend the file.")
    named = received_columns(table, book, str(rows))
    scores = release.score(features_of(numbers_of(named, book), book))
    kept = {name: table[name] for name in table.columns if str(name) in ("request_id", "customer_id", book.key.name)}
    scored = pd.DataFrame({**kept, "model_version": str(release.facts.version), "score": scores})
    out.parent.mkdir(parents=True, exist_ok=True)
    scored.to_parquet(out, index=False)
    return len(scored)


def print_days(days: Sequence[DayDecided]) -> None:
    """The days on which something was decided or set aside."""
    console = Console(highlight=False)
    for day in days:
        for action in day.actions:
            console.print(f"  [bold]{day.date}[/] [{COLOURS[action.kind]}]{action.kind}[/] {action.cause}")
        if day.batch.status == "quarantined":
            console.print(f"  [bold]{day.date}[/] [red]batch set aside[/] {'; '.join(day.batch.reasons[:2])}")
        if day.labels == "quarantined":
            console.print(f"  [bold]{day.date}[/] [red]outcomes set aside[/] {'; '.join(day.label_reasons[:2])}")
    quiet = sum(not day.actions for day in days)
    console.print(f"  {len(days)} days, {quiet} without a decision; champion at the end: version {days[-1].champion}")
