"""The journal of decisions: whole or not there, in order, and never decided from what is no longer so."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from loan_assets.bucket import Bucket
from loan_assets.credit.succession import Action, Challenger, Episode, Kind, Situation
from loan_assets.refusal import Overtaken, Refusal
from loan_assets.resources.decisions import PERSON, WATCH, Decisions

CHANGED = Situation(
    champion=2,
    archived=(1,),
    newest=3,
    recent=(("2026-02-01", {2: 0.4, 1: 0.1}),),
    passed=(("2026-01-01", "2026-01-09"),),
    episode=Episode(since="2026-02-01", opened="2026-02-03", causes=("inputs",)),
    challenger=Challenger(number=3, made="2026-02-03"),
    retrained=("2026-02-03",),
)
ALARM = Action(kind=Kind.ALARM, cause="inputs have moved", version=2)


@pytest.fixture
def journal(tmp_path: Path) -> Decisions:
    return Decisions(folder=str(tmp_path / "decisions"))


@pytest.fixture(params=["a folder", "a bucket"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Decisions, Decisions]:
    """One journal as two machines see it; with a folder both are this one."""
    place = request.getfixturevalue("bucket") if request.param == "a bucket" else ""
    names = ("one", "other") if place else ("one", "one")
    one, other = (Decisions(folder=str(tmp_path / name), bucket=place) for name in names)
    return one, other


def place_of(journal: Decisions) -> Path:
    return Path(journal.folder) / "journal.log"


def test_what_is_recorded_is_read_back(two: tuple[Decisions, Decisions]) -> None:
    journal, other = two
    assert journal.last() is None
    first = journal.record(WATCH, "2026-02-03", (ALARM,), CHANGED, {"shares": {"2": 0.4}}, after=0)
    second = other.record(PERSON, "2026-02-04", (), Situation(), by="somebody", after=1)
    assert journal.steps() == other.steps() == (first, second)
    assert journal.last() == second
    assert (first.number, second.number, second.by) == (1, 2, "somebody")
    assert journal.steps()[0].situation == CHANGED


def test_a_line_that_was_cut_short_was_never_decided(journal: Decisions) -> None:
    journal.record(WATCH, "2026-02-03", (ALARM,), CHANGED, after=0)
    whole = place_of(journal).read_bytes()
    journal.record(WATCH, "2026-02-04", (), CHANGED, after=1)
    both = place_of(journal).read_bytes()
    for length in range(len(whole), len(both), 97):
        place_of(journal).write_bytes(both[:length])
        assert [step.date for step in journal.steps()] == ["2026-02-03"]
        journal.record(WATCH, "2026-02-05", (), CHANGED, after=1)
        assert [step.date for step in journal.steps()] == ["2026-02-03", "2026-02-05"]


def test_an_altered_line_stops_every_decision_and_is_named(journal: Decisions) -> None:
    journal.record(WATCH, "2026-02-03", (ALARM,), CHANGED, after=0)
    journal.record(WATCH, "2026-02-04", (), CHANGED, after=1)
    place_of(journal).write_bytes(place_of(journal).read_bytes().replace(b"inputs have", b"inputs hove"))
    with pytest.raises(Refusal, match=r"Line 1 of .*journal\.log is not what was written there"):
        journal.steps()
    with pytest.raises(Refusal, match="Line 1"):
        journal.record(WATCH, "2026-02-05", (), CHANGED, after=2)


def test_a_line_that_was_taken_out_is_noticed(journal: Decisions) -> None:
    for number in range(3):
        journal.record(WATCH, f"2026-02-0{number + 1}", (), CHANGED, after=number)
    lines = place_of(journal).read_bytes().splitlines(keepends=True)
    place_of(journal).write_bytes(lines[0] + lines[2])
    with pytest.raises(Refusal, match="Line 2"):
        journal.steps()


def test_nothing_is_recorded_that_was_decided_from_an_older_step(two: tuple[Decisions, Decisions]) -> None:
    journal, other = two
    journal.record(WATCH, "2026-02-03", (ALARM,), CHANGED, after=0)
    with pytest.raises(Overtaken, match="Step 1 was decided while this one was considered from step 0"):
        other.record(WATCH, "2026-02-03", (), CHANGED, after=0)
    assert len(other.steps()) == 1


def test_of_two_machines_that_write_the_same_step_at_once_one_is_told(bucket: str, tmp_path: Path) -> None:
    machines = [Decisions(folder=str(tmp_path / str(number)), bucket=bucket) for number in range(4)]
    told: list[str] = []

    def decide(machine: Decisions) -> None:
        for _ in range(10):
            try:
                machine.record(WATCH, "2026-02-03", (), CHANGED, after=len(machine.steps()))
                told.append("written")
            except Overtaken:
                told.append("overtaken")

    threads = [threading.Thread(target=decide, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count("overtaken") >= 1
    for machine in machines:
        assert [step.number for step in machine.steps()] == list(range(1, told.count("written") + 1))


def test_a_damaged_copy_is_made_anew_and_an_altered_or_missing_object_stops_every_decision(
    bucket: str, tmp_path: Path
) -> None:
    journal = Decisions(folder=str(tmp_path / "one"), bucket=bucket)
    for number in range(3):
        journal.record(WATCH, f"2026-02-0{number + 1}", (ALARM,), CHANGED, after=number)
    whole = journal.steps()
    content = place_of(journal).read_bytes()
    for damaged in (content[:-40], content.replace(b"inputs have", b"inputs hove"), b"nothing of the kind\n"):
        place_of(journal).write_bytes(damaged)
        assert journal.steps() == whole
    (names := [one.name for one in Bucket(bucket).names()]).sort()
    held = Bucket(bucket).read(names[1])
    assert held is not None
    Bucket(bucket).write(names[1], held.data.replace(b"inputs have", b"inputs hove"))
    with pytest.raises(Refusal, match="Line 2 of"):
        Decisions(folder=str(tmp_path / "another"), bucket=bucket).steps()
    Bucket(bucket).delete([names[1]])
    with pytest.raises(Refusal, match=f"A step before {names[2]} is missing"):
        Decisions(folder=str(tmp_path / "a third"), bucket=bucket).steps()
    assert journal.steps() == whole
