"""What the newest assets say: how fresh features are, how groups fare, which columns moved, when data arrived.

Here: figures read off materializations as they are recorded, each of them once. Not here: how any of it was measured
(`assets`), what was decided on it (`journal_figures`), or what the runs cost (`run_figures`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import dagster as dg
from prometheus_client.core import Metric

from loan_assets.books import LoanBook
from loan_assets.books.calendar import decision_day, statement_day
from loan_assets.credit.drift import VERDICTS
from loan_assets.figures import counters, gauge, gauges
from loan_assets.policy import Policy

RATIO, ERROR = "approval_ratio_", "standard_error_of_"
AT_ONCE = 500


class AssetFigures:
    """The materializations of one history that say something about data, read as they come."""

    def __init__(self, instance: dg.DagsterInstance, book: LoanBook, policy: Policy) -> None:
        self._instance, self._book, self._policy = instance, book, policy
        self._read: dict[str, Callable[[dg.AssetMaterialization, float], None]] = {
            "raw_loan_book": self._delivered,
            "outcomes": self._told,
            "monthly_statements": self._stated,
            "online_features": self._online,
            "drift_report": self._compared,
            "live_fairness": self._fared,
        }
        self._after: dict[str, int | None] = dict.fromkeys(self._read)
        self.deliveries: list[float] = []
        self.outcomes: list[float] = []
        self._digest = ""
        self._newest_month = ""
        self._features_as_of: datetime | None = None
        self._reports: Counter[str] = Counter()
        self._day_compared = self._day_fared = ""
        self._moved: dict[tuple[str, ...], float] = {}
        self._ratios: dict[tuple[str, ...], float] = {}
        self._errors: dict[tuple[str, ...], float] = {}
        self._applications = 0

    def look(self) -> None:
        """Read what was materialized since the last look."""
        for name, read in self._read.items():
            has_more = True
            while has_more:
                wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), after_storage_id=self._after[name])
                found = self._instance.fetch_materializations(wanted, limit=AT_ONCE, ascending=True)
                for record in found.records:
                    self._after[name] = record.storage_id
                    if record.asset_materialization is not None:
                        read(record.asset_materialization, record.timestamp)
                has_more = found.has_more

    def figures(self) -> Iterator[Metric]:
        """Freshness, fairness and drift of the newest data; what was never made has no figure."""
        if self._features_as_of is not None:
            age = (self._today - self._features_as_of).total_seconds()
            yield gauge("loan_features_age_seconds", "How far the online features lie behind the book's clock", age)
        life = self._book.feature_life.total_seconds()
        yield gauge("loan_features_life_seconds", "How old features may be before they are stale, by the book", life)
        reports: dict[tuple[str, ...], float] = {(verdict,): float(self._reports[verdict]) for verdict in VERDICTS}
        yield counters("loan_drift_reports", "Days compared with the training data", ("verdict",), reports)
        if self._day_compared:
            day = datetime.fromisoformat(self._day_compared).replace(tzinfo=UTC).timestamp()
            yield gauge("loan_drift_day_timestamp_seconds", "Midnight of the newest day that was compared", day)
            said = "How far a column has moved on the newest day compared, over its limit"
            yield gauges("loan_drift_distance_ratio", said, ("column",), self._moved)
        if self._day_fared:
            said = "The least approved group's approval rate over the most approved's, over a month of applications"
            yield gauges("loan_approval_ratio", said, ("attribute",), self._ratios)
            said = "The standard error of that ratio"
            yield gauges("loan_approval_ratio_standard_error", said, ("attribute",), self._errors)
            said = "Applications over which groups were compared"
            yield gauge("loan_fairness_applications", said, self._applications)
        floor = self._policy.floors.approval_ratio
        yield gauge("loan_approval_ratio_floor", "The approval ratio that policy asks for", floor)

    @property
    def _today(self) -> datetime:
        """The business day: of the book's decision, or the newest statement where later ones have arrived."""
        known = [decision_day(self._book)]
        if self._newest_month:
            known.append(statement_day(self._newest_month))
        if self._features_as_of is not None:
            known.append(self._features_as_of)
        return max(known)

    def _delivered(self, made: dg.AssetMaterialization, at: float) -> None:
        digest = str(_said(made, "sha256"))
        if digest != self._digest:
            self._digest = digest
            self.deliveries.append(at)

    def _told(self, made: dg.AssetMaterialization, at: float) -> None:
        if _said(made, "has_arrived"):
            put = _said(made, "arrived_at")
            self.outcomes.append(datetime.fromisoformat(str(put)).timestamp() if put else at)

    def _stated(self, made: dg.AssetMaterialization, _at: float) -> None:
        self._newest_month = max(self._newest_month, made.partition or "")

    def _online(self, made: dg.AssetMaterialization, _at: float) -> None:
        as_of = datetime.fromisoformat(str(_said(made, "features_as_of")))
        self._features_as_of = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)

    def _compared(self, made: dg.AssetMaterialization, _at: float) -> None:
        self._reports[str(_said(made, "verdict"))] += 1
        day = made.partition or ""
        columns = made.metadata.get("columns")
        if day >= self._day_compared and isinstance(columns, dg.TableMetadataValue):
            self._day_compared = day
            rows = [record.data for record in columns.records]
            self._moved = {(str(row["column"]),): _over(row["distance"], row["limit"]) for row in rows}

    def _fared(self, made: dg.AssetMaterialization, _at: float) -> None:
        day = made.partition or ""
        ratios = _begun_with(RATIO, made)
        if day >= self._day_fared and ratios:
            self._day_fared, self._applications = day, int(str(_said(made, "applications")))
            self._ratios, self._errors = ratios, _begun_with(ERROR, made)


def _said(made: dg.AssetMaterialization, name: str) -> object:
    """What the metadata say under a name; nothing where they do not."""
    value = made.metadata.get(name)
    return value.value if value is not None else None


def _begun_with(prefix: str, made: dg.AssetMaterialization) -> dict[tuple[str, ...], float]:
    """The figures whose names begin alike, by the rest of their names."""
    names = [name for name in made.metadata if name.startswith(prefix)]
    return {(name.removeprefix(prefix),): float(str(_said(made, name))) for name in names}


def _over(distance: object, limit: object) -> float:
    return float(str(distance)) / max(float(str(limit)), 1e-9)
