"""Days of applications and outcomes, drawn from the real table: every client arrives once.

Here: `Timeline`, on which a kind writes its changes and faults, and the files that it becomes. Not here: which changes
and faults there are (`worlds`, `faults`) or which kinds of history (`kinds`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
from faults import Fault
from verdicts import Change
from worlds import World, clients

from loan_assets.books import Role, the_book

FIRST_DAY = date(2006, 1, 2)  # a Monday in the year after the table was taken
REFERENCE_ROWS, REFERENCE_DAYS, MOST_DAYS = 15_000, 90, 60
NEVER = -1


def day_name(day: int) -> str:
    """The name of a day's file, without its ending."""
    return (FIRST_DAY + timedelta(days=day)).isoformat()


def day_number(name: str) -> int:
    """The day that a file or a line is named after."""
    return (date.fromisoformat(name) - FIRST_DAY).days


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A history as it is written: tables by day number, in the source's dialect."""

    reference: pd.DataFrame
    predictions: dict[int, pd.DataFrame]
    labels: dict[int, pd.DataFrame]
    truth: pd.DataFrame


@dataclass(slots=True, kw_only=True)
class Correction:
    """The right outcomes of some arrival days, sent once more on a later one."""

    of: tuple[int, ...]
    on: int


@dataclass(slots=True, kw_only=True)
class Timeline:
    """The days of one history while it is written.

    `rows` holds every arriving client in the book's words with the true outcome, the `day`, the `request_id` and
    `arrives`, the day on which the outcome is told, `soonest` to `delay` days later. `change_day` is when the first
    change comes, by the seed.
    """

    reference: pd.DataFrame
    rows: pd.DataFrame
    days: int
    rows_a_day: int
    generator: np.random.Generator
    key: str
    change_day: int
    soonest: int = 5
    delay: int = 5
    changes: list[Change] = field(default_factory=list)
    worlds: list[World] = field(default_factory=list)
    feed_faults: list[tuple[int, Fault]] = field(default_factory=list)
    label_faults: list[tuple[int, Fault]] = field(default_factory=list)
    sent_again: set[int] = field(default_factory=set)
    corrections: list[Correction] = field(default_factory=list)

    @classmethod
    def drawn(cls, rows_a_day: int, generator: np.random.Generator, key: str) -> Timeline:
        """Unchanged days, sixty or as many as there are clients for; outcomes are told five days later."""
        days = min(MOST_DAYS, (len(clients()) - REFERENCE_ROWS) // rows_a_day)
        order = generator.permutation(len(clients()))[: REFERENCE_ROWS + rows_a_day * days]
        rows = clients().iloc[order[REFERENCE_ROWS:]].reset_index(drop=True)
        rows["day"] = np.repeat(np.arange(days), rows_a_day)
        rows["request_id"] = [f"r{number:06}" for number in range(len(rows))]
        rows["arrives"] = rows["day"] + 5
        return cls(
            reference=clients().iloc[order[:REFERENCE_ROWS]].reset_index(drop=True),
            rows=rows,
            days=days,
            rows_a_day=rows_a_day,
            generator=generator,
            key=key,
            change_day=int(generator.integers(14, 21)),
        )

    def change(
        self, world: World, first: int, last: int | None = None, *, ramp: int = 0, cause: str, harms: bool
    ) -> Change:
        """The world is another one from a day on; with a ramp, for a growing share of the clients."""
        end = self.days - 1 if last is None else last
        strength = (self.rows["day"] - first + 1) / (ramp + 1)
        touched = self.rows["day"].between(first, end) & (self.generator.random(len(self.rows)) < strength)
        changed = world(self.rows[touched], self.generator)
        self.rows.loc[touched, changed.columns] = changed
        here = Change(cause=cause, first=first, last=end, ramp=ramp, harms=harms, ends=last is not None)
        self.changes.append(here)
        self.worlds.append(world)
        return here

    def visit(self, world: World, days: Iterable[int]) -> None:
        """Some days only are different, which is no change of the world."""
        visited = self.rows["day"].isin(list(days))
        changed = world(self.rows[visited], self.generator)
        self.rows.loc[visited, changed.columns] = changed

    def labels_come_after(self, soonest: int, latest: int | None = None) -> None:
        """Outcomes are told so many days later, at random where two numbers are given."""
        self.soonest, self.delay = soonest, latest if latest is not None else soonest
        self.rows["arrives"] = self.rows["day"] + self.generator.integers(soonest, self.delay + 1, len(self.rows))

    def labels_are_partial(self, share: float) -> None:
        """Only a share of the outcomes is ever told."""
        never = self.generator.random(len(self.rows)) >= share
        self.rows.loc[never, "arrives"] = NEVER

    def labels_wait(self, first: int, last: int) -> None:
        """No outcome is told in these days; all of them come on the day after."""
        self.rows.loc[self.rows["arrives"].between(first, last), "arrives"] = last + 1

    def thin_out(self, days: Iterable[int], share: float) -> None:
        """Only a share of the applications comes on these days; none where the share is 0."""
        gone = self.rows["day"].isin(list(days)) & (self.generator.random(len(self.rows)) >= share)
        self.rows = self.rows[~gone].reset_index(drop=True)

    def break_feed(self, fault: Fault, days: Iterable[int]) -> None:
        """The applications of these days arrive broken."""
        self.feed_faults += [(day, fault) for day in days]

    def send_again(self, days: Iterable[int]) -> None:
        """In place of these days' files, those of the day before arrive once more."""
        self.sent_again |= set(days)

    def break_labels(self, fault: Fault, days: Iterable[int]) -> None:
        """The outcomes that arrive on these days are broken."""
        self.label_faults += [(day, fault) for day in days]

    def correct(self, of: Iterable[int], on: int) -> None:
        """The right outcomes of some arrival days come once more, with the file of a later day."""
        self.corrections.append(Correction(of=tuple(of), on=on))

    def files(self) -> Files:
        """Everything as it arrives; a request that is in no file has no outcome either."""
        predictions = self._predictions()
        known = pd.concat([file["request_id"] for file in predictions.values()]).unique()
        asked = self.rows[self.rows["request_id"].isin(known)]
        truth = asked[["request_id", "day"]].assign(label=asked["defaulted"].to_numpy("int64"))
        return Files(
            reference=self._reference(),
            predictions=predictions,
            labels=self._labels(asked),
            truth=truth.reset_index(drop=True),
        )

    def _reference(self) -> pd.DataFrame:
        days = np.sort(self.generator.integers(-REFERENCE_DAYS, 0, len(self.reference)))
        table = self._in_dialect(self.reference, days)
        return table.assign(label=self.reference["defaulted"].to_numpy("int64"))

    def _predictions(self) -> dict[int, pd.DataFrame]:
        table = self._in_dialect(self.rows, self.rows["day"].to_numpy())
        table.insert(0, "request_id", self.rows["request_id"].to_numpy())
        files = {int(str(day)): rows.reset_index(drop=True) for day, rows in table.groupby(self.rows["day"].to_numpy())}
        for day in sorted(self.sent_again):
            files[day] = files[day - 1]
        for day, fault in self.feed_faults:
            files[day] = fault(files[day], self.generator)
        return files

    def _in_dialect(self, rows: pd.DataFrame, days: np.ndarray) -> pd.DataFrame:
        """Rows under the source's names with the moment at which each came, in order within the day."""
        received = the_book().with_role(Role.FEATURE, Role.PROTECTED)
        moments = _moments(days, self.generator)
        columns = {str(column.source): rows[column.name].to_numpy().round().astype("int64") for column in received}
        return pd.DataFrame({self.key: rows["client_id"].to_numpy("int64"), "event_timestamp": moments} | columns)

    def _labels(self, asked: pd.DataFrame) -> dict[int, pd.DataFrame]:
        told = asked[asked["arrives"].between(0, self.days - 1)]
        moments = _moments(told["arrives"].to_numpy(), self.generator)
        table = pd.DataFrame(
            {
                "request_id": told["request_id"].to_numpy(),
                "label": told["defaulted"].to_numpy("int64"),
                "label_timestamp": moments,
            }
        )
        right = {int(str(day)): rows.reset_index(drop=True) for day, rows in table.groupby(told["arrives"].to_numpy())}
        files = dict(right)
        for day, fault in self.label_faults:
            files[day] = fault(files[day], self.generator)
        for correction in self.corrections:
            again = pd.concat([right[day] for day in correction.of], ignore_index=True)
            again["label_timestamp"] = _moments(np.full(len(again), correction.on), self.generator)
            files[correction.on] = pd.concat([files[correction.on], again], ignore_index=True)
        return files


def _moments(days: np.ndarray, generator: np.random.Generator) -> pd.DatetimeIndex:
    """A moment in UTC on each of the days, later rows of a day later."""
    seconds = generator.integers(0, 86_400, len(days))
    moments = np.asarray(days, dtype="int64") * 86_400 + seconds
    order = np.argsort(days, kind="stable")
    in_order = np.empty_like(moments)
    in_order[order] = np.sort(moments)
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    return pd.DatetimeIndex(pd.Timestamp(start) + pd.to_timedelta(in_order, unit="s")).as_unit("us")
