"""A backtest leaves what it promises, decides the same again, never looks ahead, and outlives every bad file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from loan_assets.books import LoanBook
from loan_assets.cli import app
from loan_assets.credit.backtest import DayDecided, Replay
from loan_assets.histories import line_of
from loan_assets_tests.conftest import Lived, loan_assets
from loan_assets_tests.small_history import DAYS, LATER, ROWS, Tables, backtest, day_name, small_history

Change = Callable[[pd.DataFrame], pd.DataFrame]
FIELDS = ["date", "served_by", "champion", "batch", "drift", "labels", "performance", "gate", "actions", "causes"]


def lines(out: Path) -> list[str]:
    return (out / "decisions.jsonl").read_text().splitlines()


def decided(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(out)]


def test_every_output_is_there(lived: Lived) -> None:
    served = {day[name] for day in decided(lived.out) for name in ("served_by", "champion")}
    assert {path.name for path in (lived.out / "models").iterdir()} == served
    names = {path.name for path in lived.out.iterdir()}
    assert names == {"decisions.jsonl", "scores.parquet", "models", "summary.json", "report.html"}


def test_there_is_one_line_a_day_in_order_with_the_promised_fields(lived: Lived) -> None:
    days = decided(lived.out)
    assert [day["date"] for day in days] == [day_name(number) for number in range(DAYS)]
    for day in days:
        assert list(day) == FIELDS
        assert list(day["batch"]) == ["rows", "status", "reasons"]
        assert list(day["drift"]) == ["share", "threshold", "columns", "consecutive"]
        assert {"status", "rows"} <= set(day["labels"])
        assert not day["gate"] or {"metric", "champion", "challenger", "n", "verdict"} <= set(day["gate"])
        assert set(day["actions"]) <= {"alarm", "retrain", "promote", "reject", "rollback"}


def test_a_change_that_harms_is_noticed_learned_and_answered(lived: Lived) -> None:
    actions = [action for day in decided(lived.out) for action in day["actions"]]
    assert actions.index("alarm") < actions.index("retrain") < actions.index("promote")


def test_the_summary_counts_and_says_what_it_was_worth(lived: Lived) -> None:
    summary = json.loads((lived.out / "summary.json").read_text())
    actions = [action for day in decided(lived.out) for action in day["actions"]]
    assert summary["actions"] == {kind: actions.count(kind) for kind in summary["actions"]}
    assert summary["requests"] == DAYS * ROWS
    realised = summary["realised"]
    assert list(realised) == ["rows", "policy", "never", "plain_rule"]
    assert realised["rows"] <= (DAYS - LATER) * ROWS
    assert 0.5 < realised["never"] < realised["policy"] < 1


def test_models_of_an_earlier_run_do_not_stay(lived: Lived, tmp_path: Path) -> None:
    shutil.copytree(lived.out / "models" / "2", tmp_path / "models" / "2")
    (tmp_path / "models" / "notes").mkdir()
    assert backtest(lived.folder, tmp_path, "--until", day_name(1)).exit_code == 0
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"1", "notes"}


def test_the_same_history_in_memory_gives_the_same_bytes(
    lived: Lived, replayed: tuple[Replay, list[DayDecided]]
) -> None:
    replay, days = replayed
    assert [line_of(day, replay.policy.vigilance.retrain_above) for day in days] == lines(lived.out)


def test_another_process_without_the_later_files_decides_the_same(lived: Lived, tmp_path: Path) -> None:
    count = 1 + next(number for number, day in enumerate(decided(lived.out)) if "promote" in day["actions"])
    folder, out = lived.tables.first_days(count).write(tmp_path / "in"), tmp_path / "out"
    done = loan_assets(
        "backtest",
        *("--reference", str(folder / "reference.parquet"), "--predictions", str(folder / "predictions")),
        *("--labels", str(folder / "labels"), "--policy", str(lived.policy), "--out", str(out)),
        home=tmp_path,
        PYTHONHASHSEED="7",
    )
    assert done.returncode == 0, done.stderr
    assert lines(out) == lines(lived.out)[:count]


def test_an_end_gives_the_same_first_lines(lived: Lived, tmp_path: Path) -> None:
    done = backtest(lived.folder, tmp_path, "--policy", str(lived.policy), "--until", day_name(5))
    assert done.exit_code == 0, done.output
    assert lines(tmp_path) == lines(lived.out)[:6]


def test_every_request_has_one_score_by_the_version_that_served(lived: Lived) -> None:
    scores = pd.read_parquet(lived.out / "scores.parquet")
    asked = pd.concat([table["request_id"] for table in lived.tables.predictions.values()])
    assert sorted(scores["request_id"]) == sorted(asked)
    served = {day["date"]: day["served_by"] for day in decided(lived.out)}
    day = scores["request_id"].str[1:3].astype(int).map(day_name)
    assert (scores["model_version"] == day.map(served)).all()


def test_a_saved_version_gives_the_very_scores_that_it_served(lived: Lived, tmp_path: Path) -> None:
    scores = pd.read_parquet(lived.out / "scores.parquet").set_index("request_id")
    for version in sorted(set(scores["model_version"])):
        day = scores.index[scores["model_version"] == version][-1][1:3]
        rows = lived.folder / "predictions" / f"{day_name(int(day))}.parquet"
        out = tmp_path / f"{version}.parquet"
        model = str(lived.out / "models" / version)
        done = CliRunner().invoke(app, ["score", "--model", model, "--input", str(rows), "--out", str(out)])
        assert done.exit_code == 0, done.output
        again = pd.read_parquet(out).set_index("request_id")
        np.testing.assert_array_equal(again["score"], scores.loc[again.index, "score"])


def test_rows_that_cannot_be_scored_are_refused_by_column(lived: Lived, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    next(iter(lived.tables.predictions.values())).drop(columns="PAY_0").to_parquet(rows)
    model = str(lived.out / "models" / "1")
    out = ["--input", str(rows), "--out", str(tmp_path / "out.parquet")]
    done = CliRunner().invoke(app, ["score", "--model", model, *out])
    assert (done.exit_code, "PAY_0" in done.output) == (2, True)
    twice = next(iter(lived.tables.predictions.values()))
    twice.assign(age=twice["AGE"]).to_parquet(rows)
    done = CliRunner().invoke(app, ["score", "--model", model, *out])
    assert (done.exit_code, "age more than once" in done.output) == (2, True)
    done = CliRunner().invoke(app, ["score", "--model", str(tmp_path), *out])
    assert (done.exit_code, "holds no model" in done.output) == (2, True)


def part(name: str, value: Any, share: float) -> Change:
    """The first part of a column set to a value."""

    def change(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{name: rows[name].where(np.arange(len(rows)) >= share * len(rows), value)})

    return change


def times(factor: int, *names: str) -> Change:
    return lambda rows: rows.assign(**{name: rows[name] * factor for name in names})


BILLS = [f"BILL_AMT{month}" for month in range(1, 7)]
REQUEST_FAULTS: dict[int, tuple[Change, str]] = {
    5: (lambda rows: pd.concat([rows, rows[:60]], ignore_index=True), "request_id: repeats"),
    6: (lambda rows: rows.assign(BILL_AMT1=None), "bill_amount_1: is empty"),
    7: (lambda rows: rows.assign(PAY_AMT1=2_000), "payment_amount_1"),
    8: (part("EDUCATION", 9, 0.3), "education: has a code"),
    9: (times(1_000, "LIMIT_BAL", *BILLS), "credit_limit"),
    10: (lambda rows: rows.iloc[:0], "no rows"),
    13: (lambda rows: rows.drop(columns="LIMIT_BAL"), "credit_limit: is missing"),
    14: (lambda rows: rows.assign(LIMIT_BAL="plenty of it"), "credit_limit: is not a number"),
}
UNREADABLE, NO_TRAFFIC = 11, 12
SILENT = {10, UNREADABLE, NO_TRAFFIC}
LABEL_FAULTS: dict[int, tuple[Change, str]] = {
    6: (lambda rows: rows.assign(request_id="x" + rows["request_id"]), "request_id: is of no known request"),
    7: (lambda rows: pd.concat([rows, rows.assign(label=1 - rows["label"])]), "label"),
    9: (lambda rows: rows.assign(label=1), "label"),
    10: (lambda rows: rows.assign(label="paid"), "label: is neither 0 nor 1"),
    11: (lambda rows: rows.drop(columns="label_timestamp"), "label_timestamp: is missing"),
}
UNREADABLE_LABELS = 8


@pytest.fixture(scope="module")
def survived(received: pd.DataFrame, book: LoanBook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history in which nothing changes and every kind of bad file arrives, replayed by the command."""
    place = tmp_path_factory.mktemp("faults")
    whole = small_history(received, book, changes=False).first_days(18)
    faulty = Tables(reference=whole.reference, predictions=dict(whole.predictions), labels=dict(whole.labels))
    for number, (fault, _) in REQUEST_FAULTS.items():
        faulty.predictions[day_name(number)] = fault(faulty.predictions[day_name(number)])
    for number, (fault, _) in LABEL_FAULTS.items():
        faulty.labels[day_name(number)] = fault(faulty.labels[day_name(number)])
    del faulty.predictions[day_name(NO_TRAFFIC)]
    folder = faulty.write(place / "in")
    (folder / "predictions" / f"{day_name(UNREADABLE)}.parquet").write_bytes(b"PAR1 and no more")
    (folder / "labels" / f"{day_name(UNREADABLE_LABELS)}.parquet").write_bytes(b"PAR1 and no more")
    done = backtest(folder, place / "out")
    assert done.exit_code == 0, done.output
    assert "plenty" not in done.output
    return place / "out"


def test_bad_requests_are_set_aside_by_column_and_rule(survived: Path) -> None:
    days = decided(survived)
    for number, (_, said) in REQUEST_FAULTS.items():
        batch = days[number]["batch"]
        assert batch["status"] == "quarantined", (number, batch)
        assert any(said in reason for reason in batch["reasons"]), (number, batch)
    assert f"{day_name(UNREADABLE)}.parquet cannot be read" in days[UNREADABLE]["batch"]["reasons"][0]
    assert days[NO_TRAFFIC]["batch"]["status"] == "insufficient"


def test_bad_outcomes_are_set_aside_by_column_and_rule(survived: Path) -> None:
    days = decided(survived)
    for number, (_, said) in LABEL_FAULTS.items():
        labels = days[number]["labels"]
        assert labels["status"] == "quarantined", (number, labels)
        assert any(said in reason for reason in labels["reasons"]), (number, labels)
    assert f"{day_name(UNREADABLE_LABELS)}.parquet cannot be read" in days[UNREADABLE_LABELS]["labels"]["reasons"][0]


def test_healthy_days_between_bad_ones_stay_healthy(survived: Path) -> None:
    days = decided(survived)
    bad = {*REQUEST_FAULTS, UNREADABLE, NO_TRAFFIC}
    assert {number for number, day in enumerate(days) if day["batch"]["status"] != "ok"} == bad
    told = {number for number, day in enumerate(days) if day["labels"]["status"] == "quarantined"}
    # Whose requests nobody has seen, theirs are the outcomes of strangers.
    strangers = {number + LATER for number in SILENT}
    assert told == {*LABEL_FAULTS, UNREADABLE_LABELS, *strangers}


def test_the_loop_goes_on_and_the_champion_is_unchanged(survived: Path) -> None:
    days = decided(survived)
    assert [day["date"] for day in days] == [day_name(number) for number in range(18)]
    assert {day["champion"] for day in days} == {"1"}
    assert "promote" not in [action for day in days for action in day["actions"]]


def test_requests_of_bad_days_are_scored_once_all_the_same(survived: Path) -> None:
    scores = pd.read_parquet(survived / "scores.parquet")
    assert scores["request_id"].is_unique
    assert len(scores) == ROWS * (18 - len(SILENT))
    assert np.isfinite(scores["score"]).all()


def test_what_was_set_aside_is_on_the_page_and_no_value_of_it(survived: Path) -> None:
    page = (survived / "report.html").read_text()
    assert "bill_amount_1: is empty" in page
    assert "plenty" not in page


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (lambda folder: (folder / "reference.parquet").unlink(), (), "reference.parquet"),
        (lambda folder: (folder / "reference.parquet").write_bytes(b"PAR1"), (), "reference.parquet"),
        (lambda folder: (folder / "predictions" / "x.parquet").touch(), (), "x.parquet"),
        (lambda folder: (folder / "policy.yaml").write_text("vigilanc: 1"), ("--policy", "policy.yaml"), "'vigilanc'"),
        (lambda folder: None, ("--policy", "none.yaml"), "none.yaml"),
        (lambda folder: None, ("--until", "tomorrow"), "--until"),
        (lambda folder: None, ("--until", "2025-12-31"), "--until"),
    ],
)
def test_input_that_cannot_be_used_is_exit_2_with_its_name_and_nothing_written(
    lived: Lived, tmp_path: Path, spoil: Callable[[Path], object], options: tuple[str, ...], said: str
) -> None:
    folder = lived.tables.first_days(2).write(tmp_path / "in")
    spoil(folder)
    given = [str(folder / option) if option.endswith(".yaml") else option for option in options]
    done = backtest(folder, tmp_path / "out", *given)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_the_command_itself_explains_bad_input_without_a_traceback(lived: Lived, tmp_path: Path) -> None:
    folder = lived.tables.first_days(1).write(tmp_path / "in")
    table = pd.read_parquet(folder / "reference.parquet")
    table.drop(columns="SEX").to_parquet(folder / "reference.parquet")
    done = loan_assets(
        "backtest",
        *("--reference", str(folder / "reference.parquet"), "--predictions", str(folder / "predictions")),
        *("--labels", str(folder / "labels"), "--out", str(tmp_path / "out")),
        home=tmp_path,
    )
    assert done.returncode == 2
    assert "reference.parquet" in done.stderr
    assert "SEX" in done.stderr
    assert "Traceback" not in done.stderr
