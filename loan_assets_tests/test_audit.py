"""What is on record of a day: who was champion, by whose word, on which data, who answered, and how groups fared."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from loan_assets.audit import told_of
from loan_assets.credit.succession import Action, Kind
from loan_assets.refusal import BadInput, Refusal
from loan_assets.resources.decisions import MOVED, PERSON, Decisions
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home, loan_assets, second_version


def test_a_day_is_told_with_its_champion_data_approval_answers_and_groups(ran: Home) -> None:
    # Others have asked this home's endpoint under days that are long over.
    day = max(ran.settings.predictions.glob("????-??-??")).name
    told = loan_assets("audit", day, home=ran.settings.home)
    assert told.returncode == 0, told.stderr
    for words in (
        "Champion   version 1, in force since",
        "by the rule: the first version that passed the floors",
        "Data       delivery ",
        "oof_auc 0.7",
        "times approve by version 1 as champion",
        "Groups     sex female: ",
        ", too few to be judged",
    ):
        assert words in told.stdout
    answers = [line for line in told.stdout.splitlines() if line.startswith("Answers")]
    assert sum(int(line.split()[1].replace(",", "")) for line in answers) == 1_500


def test_the_champion_of_a_day_is_the_one_of_then_and_a_day_of_two_names_both(ran: Home, tmp_path: Path) -> None:
    second_version(ran, tmp_path)
    for place in ("decisions", "store"):
        shutil.copytree(ran.settings.home / place, tmp_path / place)
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    decisions = Decisions.over(settings)
    last = decisions.steps()[-1]
    action = Action(kind=Kind.PROMOTE, cause="it is the better one (approved by the chief risk officer)", version=2)
    situation = replace(last.situation, champion=2)
    decided = decisions.record(PERSON, last.date, (action,), situation, by="the chief risk officer", after=last.number)
    evidence = {"version": 2, "before": 1, "seconds": 0.1, "decided_in": decided.number}
    moved = decisions.record(MOVED, last.date, (), situation, evidence, after=decided.number)
    today = datetime.fromisoformat(moved.at).date()
    lines = list(told_of(settings, today.isoformat()))
    assert [line.split(",")[0] for line in lines if line.startswith("Champion")] == [
        "Champion   version 1",
        "Champion   version 2",
    ]
    assert any("by the chief risk officer: it is the better one" in line for line in lines)
    later = list(told_of(settings, (today + timedelta(days=1)).isoformat()))
    assert later[0].startswith("Champion   version 2")
    assert "Answers    none on record" in later
    assert "Groups     no report yet: `loan-assets watch` makes it" in later
    year, week, number = today.isocalendar()
    for otherwise in (f"{today:%Y%m%d}", f"{year}-W{week:02}-{number}"):
        assert list(told_of(settings, otherwise)) == lines
    with pytest.raises(Refusal, match="Nobody was champion"):
        list(told_of(settings, "2020-01-01"))
    with pytest.raises(BadInput, match="is no day"):
        list(told_of(settings, "yesterday"))
