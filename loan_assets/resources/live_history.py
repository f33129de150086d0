"""What the platform remembers, put together from its stores: the ledger up to a day, and versions that can be compared.

Here: reading days and releases back. Not here: how a day is judged (`credit.daily`), or what is decided from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from loan_assets.books import LoanBook
from loan_assets.books.tables import EVENT_TIME
from loan_assets.bucket import bucket_at
from loan_assets.credit.daily import Arrived, Feed, JudgedBatch, Outcome, applications_of, ask, take_over
from loan_assets.credit.drift import watched
from loan_assets.credit.label_quality import LabelMemory
from loan_assets.credit.ledger import UNKNOWN, Ledger
from loan_assets.credit.quality import REQUEST
from loan_assets.credit.straying import Reference
from loan_assets.credit.succession import CANARY, SHADOW, Served
from loan_assets.credit.versions import Origin, Version
from loan_assets.policy import Policy
from loan_assets.policy_file import the_policy
from loan_assets.refusal import Refusal
from loan_assets.release import ORIGIN, REFERENCE, read_release
from loan_assets.resources.asset_store import AssetStore, read_table
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

LOG, BATCHES, ARRIVALS = "prediction_log", "batch_quality", "outcome_quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHistory:
    """Days and versions as they rest in the asset store and the release store."""

    store: AssetStore
    releases: ReleaseStore
    book: LoanBook
    policy: Policy

    def days(self, shelf: str, before: str) -> list[str]:
        """The days of an asset that are stored, oldest first, up to but not including a day."""
        return [day for day in self.store.partitions(shelf) if day < before]

    def feed_before(self, day: str) -> Feed:
        """What was known of batches when a day began."""
        days = self.days(BATCHES, day)
        kept: JudgedBatch | None = self.store.read(f"{BATCHES}/{days[-1]}", JudgedBatch) if days else None
        return kept.feed if kept else Feed()

    def labels_before(self, day: str) -> LabelMemory:
        """What was known of arrivals of outcomes when a day began."""
        days = self.days(ARRIVALS, day)
        kept: Arrived | None = self.store.read(f"{ARRIVALS}/{days[-1]}", Arrived) if days else None
        return kept.memory if kept else LabelMemory()

    def ledger(self, until: str, *, outcomes_before: str | None = None) -> Ledger:
        """Everything known at the end of a day.

        Args:
            until: the last day.
            outcomes_before: leave out outcomes that arrived on this day or later.
        """
        ledger, held = Ledger(book=self.book), dict[str, tuple[Outcome, ...]]()
        end = _after(until)
        batches, arrivals = set(self.days(BATCHES, end)), set(self.days(ARRIVALS, outcomes_before or end))
        for day in sorted(batches | arrivals):
            if day in batches:
                answers: pd.DataFrame = self.store.read(f"{LOG}/{day}", object)
                ask(ledger, day, answers, self.store.read(f"{BATCHES}/{day}", JudgedBatch))
            if day in arrivals:
                arrived: Arrived = self.store.read(f"{ARRIVALS}/{day}", Arrived)
                held[day] = arrived.held
                take_over(ledger, day, arrived, held)
        return ledger

    def answers(self, until: str, days: int | None = None) -> pd.DataFrame:
        """The logged applications of every stored day up to one, or of the last few, each with its `day`."""
        import pandas as pd

        kept = self.days(BATCHES, _after(until))[-days if days else None :]
        logs = [applications_of(self.store.read(f"{LOG}/{day}", object)).assign(day=day) for day in kept]
        logs = [log for log in logs if len(log)]
        return pd.concat(logs, ignore_index=True) if logs else pd.DataFrame()

    def served(self, version: Version, since: str, stage: str) -> Served:
        """What a challenger answered, or would have in shadow, from a day on, beside what it should have said."""
        answers, farthest, is_shadow = 0, 0.0, stage == SHADOW
        said = "shadow_probability" if is_shadow else "default_probability"
        by = "shadow_version" if is_shadow else "model_version"
        for day in self.days(BATCHES, "9999"):
            if day < since:
                continue
            log: pd.DataFrame = self.store.read(f"{LOG}/{day}", object)
            own = log.loc[(log[by] == version.number) & ((log["arm"] == CANARY) | is_shadow)]
            if len(own):
                should = version.score(own[list(self.book.feature_names)].to_numpy(dtype="float32"))
                answers += len(own)
                farthest = max(farthest, float(np.abs(own[said].to_numpy("float64") - should).max()))
        return Served(answers=answers, farthest=farthest)

    def settled(self) -> pd.DataFrame:
        """Every healthy logged application with a known outcome, oldest first: key, instant, name, label, features."""
        import pandas as pd

        ledger = self.ledger("9999")
        columns = [self.book.key.name, EVENT_TIME.name, REQUEST, self.book.label.name, *self.book.feature_names]
        parts = []
        for one in ledger.days:
            applications = applications_of(self.store.read(f"{LOG}/{one.date}", object))
            day = applications.rename(columns={"answered_at": EVENT_TIME.name})
            day[self.book.label.name] = one.label
            parts.append(day.loc[one.healthy & (one.label != UNKNOWN), columns])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def version(self, number: int, ledger: Ledger | None = None) -> Version:
        """A released version as decisions see it.

        Args:
            ledger: tells its last day among those that the version learned from; without it, none of them.

        Raises:
            Refusal: when it has no release, or one that does not say how it was made.
        """
        digest, folder = self.releases.shelf_of(number)
        release = read_release(folder, expected=digest)
        if not (folder / ORIGIN).exists():
            raise Refusal(
                f"The release of version {number} does not say how it was made.", "Run the whole graph again."
            )
        origin = Origin.from_json((folder / ORIGIN).read_text())
        known = [one.day for one in ledger.days if one.date <= origin.learned_until] if ledger else []
        return Version(
            number=number,
            recipe=origin.recipe,
            trees=release.trees,
            calibration=release.facts.calibration,
            threshold=release.facts.threshold,
            reference=Reference.of(read_table(folder / REFERENCE), watched(self.book), self.policy.vigilance),
            normal=origin.normal,
            rows=origin.rows,
            learned_until=known[-1] if known else -1,
            chosen_by=origin.chosen_by,
        )

    def versions(self, numbers: set[int], ledger: Ledger) -> dict[int, Version]:
        """Several versions by number."""
        return {number: self.version(number, ledger) for number in sorted(numbers)}

    def first_version(self) -> Version:
        """The version whose scores outcomes are held against: the first that was released."""
        return self.version(min(self.releases.released()))


class Memory(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The door to what the platform remembers: assets below `store`, releases below `releases`, or in their buckets."""

    store: str
    releases: str
    store_bucket: str = ""
    releases_bucket: str = ""

    @classmethod
    def over(cls, settings: Settings) -> Memory:
        """The memory of a home."""
        return cls(
            store=str(settings.store),
            releases=str(settings.releases),
            store_bucket=bucket_at(settings.store_place),
            releases_bucket=bucket_at(settings.releases_place),
        )

    def of(self, book: LoanBook) -> LiveHistory:
        """The history of a book."""
        policy = the_policy()
        return LiveHistory(
            store=AssetStore(root=self.store, keep=policy.versions_kept, bucket=self.store_bucket),
            releases=ReleaseStore(root=self.releases, bucket=self.releases_bucket),
            book=book,
            policy=policy,
        )


def _after(day: str) -> str:
    """The smallest name after a day's."""
    return f"{day}~"
