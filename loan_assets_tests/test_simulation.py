"""A short history lived through at the real endpoint: noticed, learned, promoted, taken back, as the backtest says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from loan_assets.books import LoanBook
from loan_assets.credit.succession import Action, Kind
from loan_assets.credit.training import HOLDOUT, TRAIN
from loan_assets.endpoint import Reply
from loan_assets.example_history import Course, changed_world, history_at, known_loans
from loan_assets.policy import POLICY
from loan_assets.prediction_record import PredictionRecord, read_day
from loan_assets.rehearsal import clients
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.decisions import Decisions
from loan_assets.settings import SIMULATION, Settings
from loan_assets.simulation import DayLived, refused_by_cause
from loan_assets_tests.conftest import Home, loan_assets, without_its_day
from loan_assets_tests.small_history import backtest

FIRST, COURSE = date(2026, 2, 1), Course(days=5, rows=200, changes=0, returns=3, later=1)
# Few days are to be enough to notice, and few outcomes to learn from and to judge.
POLICY_TEXT = """
succession: {enough_outcomes: 300, least_outcomes: 200, retrainings: 1}
vigilance: {consecutive: 2}
"""


@dataclass(frozen=True)
class Simulated:
    """A history of one week, what the commands printed of it, and the home in which it was lived through."""

    folder: Path
    policy: Path
    settings: Settings
    printed: tuple[str, str, str]

    def decided(self) -> dict[str, list[str]]:
        steps = Decisions(folder=str(self.settings.decisions)).steps()
        said: dict[str, list[str]] = {}
        for step in steps:
            for action in step.actions if step.date else ():
                said.setdefault(step.date, []).append(f"{action.kind} {action.version}: {action.cause}")
        return said

    def answers(self, day: str) -> list[PredictionRecord]:
        records, damages = read_day(self.settings.predictions / day)
        assert damages == ()
        return records


def spoil(folder: Path, book: LoanBook) -> None:
    """Give the last day's first request a code that nobody defined, and the day after it a file that is none."""
    history, last = history_at(folder), (FIRST + timedelta(days=COURSE.days - 1)).isoformat()
    file = history.predictions / f"{last}.parquet"
    rows = pd.read_parquet(file)
    rows.loc[0, "education"] = 77
    rows.to_parquet(file, index=False)
    (history.predictions / f"{FIRST + timedelta(days=COURSE.days)}.parquet").write_bytes(b"PAR1 and no more")


@pytest.fixture(scope="module")
def simulated(ran: Home, book: LoanBook, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """A week lived through by the command, its last day by a second one; the graph's run is taken from another home."""
    place = tmp_path_factory.mktemp("simulated")
    everyday, folder, policy = place / "home", place / "week", place / "policy.yaml"
    store = AssetStore(root=str(ran.settings.store), keep=POLICY.versions_kept)
    changed_world(clients(store, HOLDOUT), book, FIRST, COURSE).write(folder)
    spoil(folder, book)
    known_loans(clients(store, TRAIN), book).to_parquet(history_at(folder).reference, index=False)
    policy.write_text(POLICY_TEXT)
    settings = without_its_day(ran, everyday / "simulations" / "week")
    (settings.home / SIMULATION).write_text(json.dumps({"history": str(folder)}))

    def simulate(*options: str) -> str:
        # A landing place of the everyday home, which a simulation must leave alone.
        set_otherwise = {"LOAN_POLICY": str(policy), "LOAN_OUTCOMES": str(place / "real")}
        done = loan_assets("simulate", "--history", str(folder), *options, home=everyday, **set_otherwise)
        return checked(done)

    last = (FIRST + timedelta(days=COURSE.days - 1)).isoformat()
    printed = (simulate("--until", last), simulate(), simulate())
    assert not (place / "real").exists()
    assert {path.name for path in everyday.iterdir()} == {"simulations"}
    return Simulated(folder=folder, policy=policy, settings=settings, printed=printed)


def checked(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_week_goes_round_the_loop_and_each_day_is_told_in_a_line(simulated: Simulated) -> None:
    told = r"^  (2026-02-\d\d) +(\d+) rows by version (\d), (\S+) over their limit, [\d.]+ s(.*)$"
    lines = re.findall(told, simulated.printed[0], re.MULTILINE)
    assert [line[0] for line in lines] == [f"2026-02-0{day}" for day in range(1, 6)]
    assert [line[2] for line in lines] == ["1", "1", "1", "2", "2"]
    assert [float(line[3]) > 0.2 for line in lines] == [True] * 5
    assert "; alarm " in lines[1][4]
    assert re.search("; retrain .* outcomes since .*; promote auc ", lines[2][4])
    assert re.search("; rollback the inputs since .* are what version 1 learned from", lines[4][4])
    assert "Version 1 is in force." in simulated.printed[0]


def test_the_same_is_decided_as_by_the_backtest_on_the_same_days_for_the_same_cause(
    simulated: Simulated, tmp_path: Path
) -> None:
    assert backtest(simulated.folder, tmp_path, "--policy", str(simulated.policy)).exit_code == 0
    days = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert simulated.decided() == {day["date"]: day["causes"] for day in days if day["causes"]}
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index("request_id")
    answers = [record for day in days for record in simulated.answers(day["date"])]
    assert len(answers) == COURSE.days * COURSE.rows - 1
    for record in answers:
        expected = scores.loc[record.request_id]
        assert str(record.model_version) == expected["model_version"]
        assert record.default_probability == pytest.approx(expected["score"], abs=1e-12)


def test_a_request_that_the_endpoint_refuses_is_counted_with_the_endpoint_s_words(simulated: Simulated) -> None:
    assert "  199 rows by version 2" in simulated.printed[0]
    assert re.search(r"; 1 refused education is (not one of|above)", simulated.printed[0])


def test_a_day_whose_file_cannot_be_read_is_named_and_the_next_command_goes_on_from_there(simulated: Simulated) -> None:
    (line,) = re.findall(r"^  2026-02-\d\d .*$", simulated.printed[1], re.MULTILINE)
    assert line.startswith("  2026-02-06     0 rows nobody asked, no check")
    assert "2026-02-06.parquet cannot be read as Parquet" in line
    assert "1 day from 2026-02-06 on (5 days lived through before), asked at http://127." in simulated.printed[1]
    assert simulated.answers("2026-02-06") == []


def test_what_was_lived_through_is_not_lived_through_again(simulated: Simulated) -> None:
    assert "Every day was lived through before; --anew begins again" in simulated.printed[2]
    assert "rows" not in simulated.printed[2]


def test_outcomes_lie_where_they_arrive_byte_for_byte(simulated: Simulated) -> None:
    told = sorted((simulated.folder / "labels").iterdir())
    assert len(told) == COURSE.days
    for file in told:
        assert (Path(simulated.settings.outcomes) / file.name).read_bytes() == file.read_bytes()


def test_one_endpoint_lives_through_all_the_days_under_the_history_s_name(simulated: Simulated) -> None:
    writers = {path.name.split("-")[0] for path in simulated.settings.predictions.glob("*/*.log")}
    assert len(writers) == 1
    assert {record.rehearsal for record in simulated.answers("2026-02-03")} == {"week"}
    said = (simulated.settings.home / "endpoint.log").read_text()
    assert "Traceback" not in said


def test_everything_after_the_figures_of_a_day_has_its_cause() -> None:
    action = Action(kind=Kind.ALARM, cause="[codes] moved", version=1)
    facts: Mapping[str, object] = {"date": "2026-02-01", "rows": 1_200, "share": 0.25, "answered_by": (1, 2)}
    day = DayLived(
        **facts,  # type: ignore[arg-type]
        refused={"age is missing": 3},
        actions=(action,),
        troubles=("outcomes set aside: label: is flipped",),
        seconds=4.21,
    )
    from rich.text import Text

    assert Text.from_markup(day.line()).plain == (
        "  2026-02-01 1,200 rows by version 1, 2, 0.25 over their limit, 4.2 s; alarm [codes] moved; "
        "outcomes set aside: label: is flipped; 3 refused age is missing"
    )


def test_refusals_are_counted_by_what_the_endpoint_said() -> None:
    missing = Reply(status=400, body={"error": "applications[0]: age is missing"})
    replies = [missing, Reply(status=200, body={}), Reply(status=409, body={"error": "taken"}), missing]
    assert refused_by_cause(replies) == {"age is missing": 2, "taken": 1}
