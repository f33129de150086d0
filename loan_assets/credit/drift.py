"""Whether a day's applicants still look like those the champion learned from.

Here: which rows and columns are compared, and Evidently's verdict on them. Not here: the same distances in plain numpy
(`straying`), what follows from drift (`succession`) or where days are read (`resources.prediction_logs`).

Numbers are compared by the Wasserstein distance in standard deviations of the reference, codes by the Jensen-Shannon
distance (natural logarithm). The limit of each column is how far chance alone takes a day of that size (`straying`):
a small day is not called changed for being small. A day that is no fair picture of its applicants (`quality`) is not
compared at all.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loan_assets.books import Column, LoanBook, Role
from loan_assets.policy import Policy, Vigilance

if TYPE_CHECKING:
    import pandas as pd

    from loan_assets.credit.daily import JudgedBatch
    from loan_assets.credit.straying import Reference

VERDICTS = STEADY, DRIFTED, TOO_FEW, UNFIT = "steady", "drifted", "not enough data", "quality failure"
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

    `score` is the share of compared columns over their limit, None where no check was possible; `shares` are the same
    against other versions, by number, the champion's among them. `failures` says why a day is unfit, `left_out` which
    columns nobody sent, `set_aside` which single rows were not compared. `page` is Evidently's own report, empty where
    none was made.
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
    shares: Mapping[int, float] = field(default_factory=dict)
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
        facts["shares"] = {int(number): share for number, share in facts["shares"].items()}
        facts |= {name: tuple(facts[name]) for name in ("left_out", "failures", "set_aside")}
        return cls(page=(folder / PAGE).read_bytes(), **facts)


def watched(book: LoanBook) -> tuple[Column, ...]:
    """The columns that are compared: everything received about an applicant, protected attributes included."""
    return book.with_role(Role.FEATURE, Role.PROTECTED)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a released version learned from, measured once for all the days that are compared with it."""

    version: int
    digest: str
    received: pd.DataFrame
    reference: Reference

    @classmethod
    def of(cls, version: int, digest: str, received: pd.DataFrame, book: LoanBook, policy: Policy) -> Learned:
        """Measure the received columns of a version's training part."""
        from loan_assets.credit.straying import Reference

        return cls(
            version=version,
            digest=digest,
            received=received,
            reference=Reference.of(received, watched(book), policy.vigilance),
        )


def report_on(
    day: str,
    answers: pd.DataFrame,
    batch: JudgedBatch,
    champion: Learned,
    others: Sequence[Learned],
    book: LoanBook,
    policy: Policy,
) -> DriftReport:
    """Compare a day's applications with what the champion learned from, or say why that cannot be done.

    Args:
        day: its name.
        answers: the table of `books.tables.predictions`; answers by client number carry no received columns.
        batch: the verdict on the day's applications; only healthy ones are compared.
        others: former champions, against which the same is measured without a page.
    """
    from loan_assets.credit.daily import applications_of
    from loan_assets.credit.quality import OK, QUARANTINED, REQUEST

    received = applications_of(answers)
    healthy = received.loc[received[REQUEST].isin(batch.healthy)]
    distances: dict[str, float] = {}
    limits: dict[str, float] = {}
    page = b""
    failures: tuple[str, ...] = ()
    verdict = TOO_FEW
    if batch.status == QUARANTINED:
        verdict, failures = UNFIT, batch.reasons
    elif batch.status == OK and len(healthy) >= policy.vigilance.smallest_day:
        compared = [column for column in watched(book) if column.name not in batch.left_out]
        limits = champion.reference.limits(len(healthy))
        distances, page = by_evidently(healthy, champion.received, compared, limits, policy.vigilance)
        verdict = STEADY
    drifted = {name: distance > limits[name] for name, distance in distances.items()}
    score = sum(drifted.values()) / len(drifted) if drifted else None
    if score is not None and score > policy.vigilance.retrain_above:
        verdict = DRIFTED
    shares = {} if score is None else {champion.version: score}
    if score is not None:
        shares |= {other.version: other.reference.share(healthy, len(healthy))[0] for other in others}
    return DriftReport(
        day=day,
        model_version=champion.version,
        release_digest=champion.digest,
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
        shares=shares,
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
        with _without_pictures_of_columns():
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


@contextmanager
def _without_pictures_of_columns() -> Iterator[None]:
    """Let Evidently draw no column by itself: the preset's page shows the pictures of its own table instead.

    Those that nobody sees are a third of the time that a report takes.
    """
    columns: Any = import_module("evidently.metrics.column_statistics").ValueDriftCalculation
    drawn, columns._render = columns._render, lambda *_: []
    try:
        yield
    finally:
        columns._render = drawn


def _without_chance(page: str) -> str:
    """Evidently's page with the ids that it draws at random numbered instead: the same day gives the same bytes."""
    start = page.index("var metric_")
    drawn = DRAWN.findall(page, start, page.index("</script>", start))
    for number, name in enumerate(dict.fromkeys(drawn)):
        page = page.replace(name, f"{number:0{len(name)}}")
    return page
