"""A history lived through for real, day by day: asked over HTTP, watched, decided upon, and acted on.

Here: the order of a day, and the line in which it is told. Not here: the home in which that happens
(`simulated_home`), the files of a history (`histories`), or the rule that decides (`credit.succession`).

One endpoint goes on from day to day and follows whoever is put in force, so that its metrics tell the whole story.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from http import HTTPStatus
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.markup import escape

from loan_assets.backtesting import COLOURS
from loan_assets.books import LoanBook, the_book
from loan_assets.credit.backtest import DayOfHistory
from loan_assets.credit.daily import Arrived, JudgedBatch
from loan_assets.credit.quality import QUARANTINED
from loan_assets.credit.succession import Action
from loan_assets.due_runs import DueRuns, eventually
from loan_assets.endpoint import HOST, Endpoint, Reply, error_of, served
from loan_assets.example_history import CHANGED_WORLD, Course, history_at
from loan_assets.histories import SUFFIX, History
from loan_assets.policy_file import the_policy
from loan_assets.refusal import BadInput, Refusal, program
from loan_assets.rehearsal import days_up_to_today, named_requests, watch_day
from loan_assets.reign import Reign
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import DAYS
from loan_assets.resources.decisions import WATCH
from loan_assets.running import only_run_in
from loan_assets.settings import Settings
from loan_assets.simulated_home import begin, example_in, own_home, typed_with

POLICY = the_policy()

CLOCK = "simulated_day"
# Until the endpoint has followed the pointer, which it looks at twice a second.
LONGEST_SWAP = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DayLived:
    """A day as it is told.

    `rows` were answered, by the versions `answered_by`; `refused` counts the others by what the endpoint said. `share`
    is that of the columns over their limit, None where no check was possible.
    """

    date: str
    rows: int
    refused: dict[str, int]
    share: float | None
    answered_by: tuple[int, ...]
    actions: tuple[Action, ...]
    troubles: tuple[str, ...]
    seconds: float

    def line(self) -> str:
        """The day in one line."""
        share = "no check" if self.share is None else f"{self.share:.2f} over their limit"
        by = f"by version {', '.join(map(str, self.answered_by))}" if self.answered_by else "nobody asked"
        facts = f"  [bold]{self.date}[/] {self.rows:>5,} rows {by}, {share}, {self.seconds:.1f} s"
        said = [f"[{COLOURS[action.kind]}]{action.kind}[/] {escape(action.cause)}" for action in self.actions]
        said += [f"[red]{escape(trouble)}[/]" for trouble in self.troubles]
        said += [f"[red]{rows:,} refused[/] {escape(why)}" for why, rows in self.refused.items()]
        return "; ".join([facts, *said])


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A history in progress in a home of its own, with an endpoint that goes on from day to day."""

    settings: Settings
    history: History
    book: LoanBook
    endpoint: Endpoint
    due_runs: DueRuns

    def live(self, day: DayOfHistory) -> DayLived:
        """Ask what was asked on a day, take in what was told on it, look at it, and carry out what is due."""
        began = time.monotonic()
        tell_day(self.settings, day.date)
        requests = day.requests if not day.unreadable_requests else None
        bodies = named_requests(requests, self.book) if requests is not None else []
        replies = self.endpoint.ask_each("/score", bodies)
        answers = [reply.body for reply in replies if reply.status == HTTPStatus.OK]
        steps = len(self.due_runs.reign.decisions.steps())
        # Once its outcomes lie there a sensor may take in the day, which is to be looked at as a whole first.
        self.due_runs.until_quiet()
        self._outcomes_land(day.date)
        report = watch_day(self.due_runs.instance, self._store, day.date)
        troubles = [day.unreadable_requests, *self._set_aside(day.date), *self.due_runs.carry_out()]
        self._until_followed()
        decided = self.due_runs.reign.decisions.steps()[steps:]
        return DayLived(
            date=day.date,
            rows=len(answers),
            refused=refused_by_cause(replies),
            share=report.score,
            answered_by=tuple(sorted({int(answer["model_version"]) for answer in answers})),
            actions=tuple(action for step in decided for action in step.actions),
            troubles=tuple(trouble for trouble in troubles if trouble),
            seconds=time.monotonic() - began,
        )

    @property
    def _store(self) -> AssetStore:
        return AssetStore.over(self.settings)

    def _outcomes_land(self, day: str) -> None:
        """Put a day's outcomes where outcomes arrive, byte for byte, fit or not."""
        file, place = self.history.labels / f"{day}{SUFFIX}", Path(self.settings.outcomes)
        if file.exists():
            place.mkdir(parents=True, exist_ok=True)
            arriving = place / f".{day}.arriving"
            arriving.write_bytes(file.read_bytes())
            arriving.replace(place / file.name)

    def _set_aside(self, day: str) -> list[str]:
        """What of a day was found unfit as a whole, and why."""
        batch: JudgedBatch = self._store.read(f"batch_quality/{day}", JudgedBatch)
        arrived: Arrived = self._store.read(f"outcome_quality/{day}", Arrived)
        judged: dict[str, JudgedBatch | Arrived] = {"batch set aside": batch, "outcomes set aside": arrived}
        unfit = {what: one for what, one in judged.items() if one.status == QUARANTINED}
        return [f"{what}: {'; '.join(one.reasons[:2])}" for what, one in unfit.items()]

    def _until_followed(self) -> None:
        """Wait until those answer who stand: the endpoint follows the pointer by itself."""

        def stands() -> tuple[object, ...]:
            now = self.due_runs.reign.history.releases.standings()
            beside = now.challenger
            return now.champion.version, (beside.version, beside.mode.value, beside.share) if beside else None

        def answers() -> tuple[object, ...]:
            said = self.endpoint.tell("/standing")
            beside = said["challenger"]
            named = (beside["model_version"], beside["mode"], beside["share"]) if beside else None
            return said["champion"]["model_version"], named

        if not eventually(lambda: answers() == stands(), LONGEST_SWAP):
            raise Refusal(
                f"The endpoint has not followed the champion for {LONGEST_SWAP:.0f} s.",
                f"See {self.settings.home / 'endpoint.log'}, then run again.",
            )


def simulate_history(everyday: Settings, folder: Path, until: str, *, anew: bool) -> None:
    """Live through a history in files.

    Args:
        everyday: of the home below which the simulation has its own.
        until: the last day, 2026-11-24 style; all of them where it is empty.
        anew: from the first day on, instead of going on where it was left.

    Raises:
        Refusal: before anything is done, when the history cannot be lived through; later, when it cannot go on.
    """
    folder = folder.resolve()
    history = history_at(folder, until)
    days_of(history)
    settings = own_home(everyday, folder.name, str(folder), anew=anew)
    begin(settings)
    live_through(settings, history, folder.name)


def simulate_changed_world(everyday: Settings, until: str, *, anew: bool) -> None:
    """Live through the example, whose last outcomes arrive today.

    Args and Raises: as for `simulate_history`.
    """
    settings = own_home(everyday, CHANGED_WORLD, CHANGED_WORLD, anew=anew)
    begin(settings)
    course = Course()
    (first, *_) = days_up_to_today(course.days + course.later)
    history = replace(example_in(settings, date.fromisoformat(first), course), until=until)
    live_through(settings, history, CHANGED_WORLD)


def days_of(history: History) -> tuple[str, ...]:
    """The days of a history, each of which the prediction log can hold.

    Raises:
        BadInput: naming the folder, the file or the day that cannot be lived through.
    """
    folder = history.predictions.parent
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder.", "Give a folder that holds predictions/ and labels/.")
    try:
        days = history.days()
    except Refusal as refusal:
        raise BadInput(refusal.cause, refusal.next_step) from None
    held = set(DAYS.get_partition_keys())
    strange = [day for day in days if day not in held]
    if strange:
        raise BadInput(
            f"{strange[0]} of {folder} is no day that the log can hold: it begins on {POLICY.log_begins}, ends today.",
            "End before it with --until, or let the log begin earlier: log_begins in the file that LOAN_POLICY names.",
        )
    return days


def live_through(settings: Settings, history: History, name: str) -> None:
    """Live through the days of a history that were not lived through yet, and print a line for each.

    Raises:
        Refusal: when it cannot go on; what was lived through is kept.
    """
    book, console = the_book(), Console(highlight=False, soft_wrap=True)
    reign = Reign.over(settings)
    known = {step.date for step in reign.decisions.steps() if step.kind == WATCH}
    days = [day for day in days_of(history) if day not in known]
    if days:
        with only_run_in(settings.home), dg.DagsterInstance.get() as instance:
            due_runs = DueRuns(instance=instance, reign=reign)
            if (due := reign.what_is_due()) is not None:
                console.print(f"\n{due}, which was decided on before, is carried out first.")
                for trouble in due_runs.carry_out():
                    console.print(f"[red]{escape(trouble)}[/]")
            tell_day(settings, days[0])
            with served(settings, rehearsed_day=settings.home / CLOCK, rehearsal=name) as endpoint:
                console.print(f"\n{_beginning(settings, history, days, endpoint)}")
                one = Simulation(settings=settings, history=history, book=book, endpoint=endpoint, due_runs=due_runs)
                for day in history.over(days, book):
                    console.print(one.live(day).line())
    console.print(f"\n{_ending(settings, history, len(days), reign.history.releases.champion().version)}")


def tell_day(settings: Settings, day: str) -> None:
    """Let the endpoint know which day it is, in one step: it may be answering."""
    clock = settings.home / CLOCK
    written = clock.with_suffix(".new")
    written.write_text(f"{day}\n")
    written.replace(clock)


def _beginning(settings: Settings, history: History, days: Sequence[str], endpoint: Endpoint) -> str:
    known = len(days_of(history)) - len(days)
    before = f" ({_counted(known)} lived through before)" if known else ""
    silence = "" if history.labels.is_dir() else f"\n[red]{history.labels} is no folder: no outcome will arrive.[/]"
    asked = f"asked at http://{HOST}:{endpoint.port} (/metrics, /standing)"
    return (
        f"{_counted(len(days))} from {days[0]} on{before}, {asked}.\n"
        f"To see each day in the Dagster UI as it passes, in another terminal:\n"
        f"  {typed_with(settings, f'{program()} dev')}{silence}\n"
    )


def _ending(settings: Settings, history: History, days: int, champion: int) -> str:
    lived = f"{_counted(days)} lived through" if days else "Every day was lived through before; --anew begins again"
    next_steps = {
        "what was decided": typed_with(settings, f"{program()} decisions"),
        "the same in the Dagster UI": typed_with(settings, f"{program()} dev"),
    }
    if history.reference.exists():
        places = f"--reference {history.reference} --predictions {history.predictions} --labels {history.labels}"
        next_steps["the same days without an endpoint"] = f"{program()} backtest {places} --out out/"
    listed = "\n".join(f"  [dim]{what}[/]\n    {escape(command)}" for what, command in next_steps.items())
    return f"{lived}. Version {champion} is in force.\n{listed}"


def _counted(days: int) -> str:
    return "1 day" if days == 1 else f"{days} days"


def refused_by_cause(replies: Sequence[Reply]) -> dict[str, int]:
    """What the endpoint refused, counted by what it said; each request was about one application."""
    said = [error_of(reply).removeprefix("applications[0]: ") for reply in replies if reply.status != HTTPStatus.OK]
    return dict(Counter(said).most_common())
