"""Whether a day's applicants still look like those the champion learned from.

Here: which rows and columns are compared, Evidently's verdict on them, and the same distances in plain numpy. Not here:
what follows from drift (`vigilance`) or where days are read (`resources.prediction_logs`).

Numbers are compared by the Wasserstein distance in standard deviations of the reference, codes by the Jensen-Shannon
distance (natural logarithm). The limit of each column is how far chance alone takes a day of that size (`straying`):
a small day is not called changed for being small. A day that is no fair picture of its applicants (`quality`) is not
compared at all.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Column, LoanBook, Role
from loan_assets.policy import Policy, Vigilance

if TYPE_CHECKING:
    import pandas as pd

STEADY, DRIFTED, TOO_FEW, UNFIT = "steady", "drifted", "not enough data", "quality failure"
FACTS, PAGE = "drift.json", "report.html"
DRAWN = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<=metric_)[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """How far one column has moved: its distance, the limit for a day of this size, and whether it is over it."""

    column: str
    distance: float
    limit: float
    has_drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One day against the training reference of one model version.

    `score` is the share of compared columns over their limit, None where no check was possible; `failures` says why a
    day is unfit, `left_out` which columns nobody sent, `set_aside` which single rows were not compared. `page` is
    Evidently's own report, empty where none was made.
    """

    day: str
    model_version: int
    release_digest: str
    answers: int
    rows: int
    verdict: str
    score: float | None
    columns: tuple[ColumnDrift, ...]
    left_out: tuple[str, ...]
    failures: tuple[str, ...]
    set_aside: tuple[str, ...] = ()
    page: bytes = b""

    def save(self, folder: Path) -> None:
        """Write the figures and the page as files."""
        facts = asdict(self)
        (folder / PAGE).write_bytes(facts.pop("page"))
        (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")

    def pages(self) -> tuple[str, ...]:
        """The files that a person would open."""
        return (PAGE,) if self.page else ()

    @classmethod
    def load(cls, folder: Path) -> DriftReport:
        """Read what `save` wrote."""
        facts = json.loads((folder / FACTS).read_text())
        facts["columns"] = tuple(ColumnDrift(**column) for column in facts["columns"])
        facts |= {name: tuple(facts[name]) for name in ("left_out", "failures", "set_aside")}
        return cls(page=(folder / PAGE).read_bytes(), **facts)


def watched(book: LoanBook) -> tuple[Column, ...]:
    """The columns that are compared: everything received about an applicant, protected attributes included."""
    return book.with_role(Role.FEATURE, Role.PROTECTED)


def report_on(
    day: str,
    answers: pd.DataFrame,
    reference: pd.DataFrame,
    release: tuple[int, str],
    book: LoanBook,
    policy: Policy,
) -> DriftReport:
    """Compare a day's applications with the reference, or say why that cannot be done.

    Args:
        day: its name.
        answers: the table of `books.tables.predictions`; answers by client number carry no received columns.
        reference: the received columns of the champion's training part.
        release: the champion's version and digest.
    """
    from loan_assets.credit.norms import norms_of
    from loan_assets.credit.quality import QUARANTINED, judge_batch
    from loan_assets.credit.straying import Reference
    from loan_assets.prediction_record import BY_APPLICATION

    received = answers.loc[answers["asked_by"] == BY_APPLICATION]
    # The log names every answer for ever, also where two requests go by one name.
    named = received.assign(request_id=received["prediction_id"])
    batch = judge_batch(named, norms_of(reference, book, policy.quality), book, (), policy.quality)
    healthy = received.loc[batch.healthy] if len(received) else received
    measured = Reference.of(reference, watched(book), policy.vigilance)
    distances: dict[str, float] = {}
    limits = measured.limits(len(healthy))
    page = b""
    failures: tuple[str, ...] = ()
    if len(received) < policy.vigilance.smallest_day:
        verdict = TOO_FEW
    elif batch.status == QUARANTINED:
        verdict, failures = UNFIT, batch.reasons
    elif len(healthy) < policy.vigilance.smallest_day:
        verdict = TOO_FEW
    else:
        compared = [column for column in watched(book) if column.name not in batch.left_out]
        distances, page = by_evidently(healthy, reference, compared, limits, policy.vigilance)
        verdict = STEADY
    drifted = {name: distance > limits[name] for name, distance in distances.items()}
    score = sum(drifted.values()) / len(drifted) if drifted else None
    if score is not None and score > policy.vigilance.retrain_above:
        verdict = DRIFTED
    return DriftReport(
        day=day,
        model_version=release[0],
        release_digest=release[1],
        answers=len(answers),
        rows=len(received),
        verdict=verdict,
        score=score,
        columns=tuple(
            ColumnDrift(column=name, distance=distance, limit=limits[name], has_drifted=drifted[name])
            for name, distance in sorted(distances.items(), key=lambda item: -item[1])
        ),
        left_out=tuple(sorted(batch.left_out)),
        failures=failures,
        set_aside=batch.set_aside if distances else (),
        page=page,
    )


def by_evidently(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    columns: Sequence[Column],
    limits: Mapping[str, float],
    vigilance: Vigilance,
) -> tuple[dict[str, float], bytes]:
    """Evidently's distance for each column, and its report as a self-contained HTML page that marks the same limits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own deprecations and divisions
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        names = [column.name for column in columns]
        definition = DataDefinition(
            numerical_columns=[column.name for column in columns if column.levels is None],
            categorical_columns=[column.name for column in columns if column.levels is not None],
        )
        preset = DataDriftPreset(
            columns=names,
            num_method="wasserstein",
            cat_method="jensenshannon",
            per_column_threshold={name: limits[name] for name in names},
            drift_share=vigilance.retrain_above,
        )
        snapshot = Report([preset]).run(
            Dataset.from_pandas(current[names].astype("float64"), data_definition=definition),
            Dataset.from_pandas(reference[names].astype("float64"), data_definition=definition),
        )
        scores = {
            metric["config"]["column"]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
            if "column" in metric["config"]
        }
        page = _without_chance(snapshot.get_html_str(as_iframe=False))
        return {name: scores[name] for name in names}, page.encode()


def distance(current: NDArray[np.float64], reference: NDArray[np.float64], column: Column) -> float:
    """Evidently's distance for one column without Evidently, for many days at once; missing values are left out."""
    now, then = current[np.isfinite(current)], reference[np.isfinite(reference)]
    if column.levels is None:
        from scipy.stats import wasserstein_distance

        # Evidently's floor under the spread keeps a constant reference from dividing by nothing.
        return float(wasserstein_distance(then, now) / max(float(np.std(then)), 0.001))
    from scipy.spatial.distance import jensenshannon

    codes = np.union1d(now, then)
    shares = [[float((values == code).mean()) for code in codes] for values in (then, now)]
    return float(jensenshannon(*shares))


def _without_chance(page: str) -> str:
    """Evidently's page with the ids that it draws at random numbered instead: the same day gives the same bytes."""
    start = page.index("var metric_")
    drawn = DRAWN.findall(page, start, page.index("</script>", start))
    for number, name in enumerate(dict.fromkeys(drawn)):
        page = page.replace(name, f"{number:0{len(name)}}")
    return page
