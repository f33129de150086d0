"""What came of it, on one screen: the figures a person asks for first, and what to type next.

Here: reading the stored facts and laying them out. Not here: computing any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from loan_assets.credit.drift import DriftReport
from loan_assets.credit.scorecards import Scorecard
from loan_assets.policy_file import the_policy
from loan_assets.refusal import PROGRAM, program
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.bento_store import BuiltBento
from loan_assets.resources.registry import RegisteredVersion
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings
from loan_assets.standing import Standing

POLICY = the_policy()

NEXT = (
    ("make dev", "the graph, its lineage and its pictures at http://127.0.0.1:3000"),
    ("make mlflow", "the tracked runs and versions at http://127.0.0.1:5000"),
    ("make serve", "the champion at http://127.0.0.1:8080 (POST /score, /predict)"),
    ("loan-assets doctor", "what is there, what is missing, what to do"),
    ("loan-assets simulate changed-world", "three weeks in a few minutes: alarm, retraining, promotion, return"),
)


def print_summary(settings: Settings, seconds: float | None = None) -> None:
    """Print AUC with its interval, calibration, fairness, version, Bento and what to type next.

    Raises:
        Refusal: when the graph has not been run, or a stored fact is damaged.
    """
    store = AssetStore.over(settings)
    card: Scorecard = store.read("scorecard", Scorecard)
    version: RegisteredVersion = store.read("model_version", RegisteredVersion)
    bento: BuiltBento = store.read("loan_bento", BuiltBento)
    champion = ReleaseStore.over(settings).champion()
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(_figures(card))
    console.print(_standing(card, version, bento, champion, _newest_drift(store), seconds))
    console.print("\n[bold]Next[/]")
    typed = {command.replace(PROGRAM, program()): what for command, what in NEXT}
    for command, what in typed.items():
        console.print(f"  {command:<{max(map(len, typed))}}  [dim]{what}[/]")


def print_vigilance(reports: Sequence[DriftReport]) -> None:
    """Print what the days ask for, and where to watch it."""
    limit = POLICY.vigilance
    bad = sum(report.score is not None and report.score > limit.retrain_above for report in reports)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n{bad} of {len(reports)} days over {limit.retrain_above}.")
    if bad >= limit.consecutive:
        console.print("Three in a row raise an alarm: `loan-assets decisions` prints it. With `make dev` running, a")
        console.print("challenger is trained once enough outcomes of the new world have arrived in LOAN_OUTCOMES:")
        console.print("  http://127.0.0.1:3000/runs  [dim](tagged with its cause)[/]")


def _figures(card: Scorecard) -> Table:
    table = Table(title="Scorecard, 95 % intervals", title_justify="left", box=None, pad_edge=False)
    for heading in ("", f"out of fold ({card.out_of_fold.rows:,})", _held_out(card)):
        table.add_column(heading)
    words = {
        "auc": "AUC",
        "average_precision": "PR-AUC",
        "ks": "KS",
        "brier": "Brier",
        "calibration_error": "ECE",
        "calibration_slope": "Calibration slope",
    }
    held = card.holdout.figures() if card.holdout else {}
    for name, figure in card.out_of_fold.figures().items():
        table.add_row(words[name], str(figure), str(held.get(name, "not yet")))
    return table


def _held_out(card: Scorecard) -> str:
    return f"holdout ({card.holdout.rows:,})" if card.holdout else "holdout (none yet)"


def _newest_drift(store: AssetStore) -> DriftReport | None:
    days = store.partitions("drift_report")
    return store.read(f"drift_report/{days[-1]}", DriftReport) if days else None


def _standing(
    card: Scorecard,
    version: RegisteredVersion,
    bento: BuiltBento,
    champion: Standing,
    drift: DriftReport | None,
    seconds: float | None,
) -> Table:
    alike = ", ".join(f"{name} {ratio:.3f}" for name, ratio in card.approval_ratios.items())
    rows = {
        "Approval ratio": f"{alike} (floor {POLICY.floors.approval_ratio})",
        "Threshold": f"{card.threshold} (refuses as many as default)",
        "Model version": f"{version.version}, {version.alias or 'without an alias'}, model {version.model_digest[:12]}",
        "In force": f"version {champion.version}, release {champion.digest[:12]}",
        "Bento": f"{bento.tag} ({bento.bytes / 1024:,.0f} kB)",
    }
    if drift is not None:
        score = "no score" if drift.score is None else f"{drift.score:.2f}, limit {POLICY.vigilance.retrain_above}"
        rows["Drift"] = f"{drift.day}: {drift.verdict} ({score}; {drift.rows:,} applications)"
    if seconds is not None:
        rows["Took"] = f"{seconds:.0f} seconds"
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
