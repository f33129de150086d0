"""The record of pushed statements, in a folder and in a bucket: each event once, whoever comes, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loan_assets.books import LoanBook
from loan_assets.bucket import Bucket
from loan_assets.credit.pushed import PushedStatement
from loan_assets.place import Place, place_at
from loan_assets.refusal import Refusal
from loan_assets.resources.pushed_statements import MANY, PushedStatements, SaysOtherwise, client_of

EVENT = PushedStatement(
    event_id="core-1",
    client=7,
    month="2005-10",
    known_at=datetime(2005, 11, 2, tzinfo=UTC),
    measures={"pay_status": 1, "bill_amount": 2.5, "payment_amount": 0.0},
)


@pytest.fixture(params=["folder", "bucket"])
def record(request: pytest.FixtureRequest, tmp_path: Path) -> PushedStatements:
    place = request.getfixturevalue("bucket") if request.param == "bucket" else ""
    return PushedStatements(folder=str(tmp_path / "events"), bucket=place)


def test_an_event_is_new_once_and_known_ever_after(record: PushedStatements, book: LoanBook) -> None:
    assert record.months() == {}
    assert record.record(EVENT, book)
    before = record.months()
    assert not record.record(EVENT, book)
    assert record.months() == before
    assert record.of_month("2005-10", book) == (EVENT,)
    assert [client_of(name) for name in record.names_in("2005-10")] == [7]
    assert record.named(record.names_of([7], "2005-10"), book) == (EVENT,)
    assert record.names_of([70], "2005-10") == record.names_of([7], "2005-09") == ()


def test_the_same_id_with_another_content_is_refused_whatever_is_different(
    record: PushedStatements, book: LoanBook
) -> None:
    record.record(EVENT, book)
    others = (
        replace(EVENT, client=8),
        replace(EVENT, month="2005-09"),
        replace(EVENT, known_at=datetime(2005, 11, 3, tzinfo=UTC)),
        replace(EVENT, measures={**EVENT.measures, "pay_status": 2}),
    )
    for other in others:
        with pytest.raises(SaysOtherwise, match="another content"):
            record.record(other, book)
    assert record.of_month("2005-10", book) == (EVENT,)
    assert record.of_month("2005-09", book) == ()


def test_of_many_who_send_the_same_at_once_one_is_first(record: PushedStatements, book: LoanBook) -> None:
    said = [replace(EVENT, measures={**EVENT.measures, "bill_amount": float(number % 2)}) for number in range(16)]

    def send(event: PushedStatement) -> str:
        try:
            return "new" if record.record(event, book) else "known"
        except SaysOtherwise:
            return "refused"

    with ThreadPoolExecutor(8) as senders:
        assert Counter(senders.map(send, said)) == {"new": 1, "known": 7, "refused": 8}
    assert len(record.of_month("2005-10", book)) == 1


def test_a_month_s_mark_changes_with_each_event_and_not_with_their_order(
    record: PushedStatements, book: LoanBook, tmp_path: Path
) -> None:
    events = [replace(EVENT, event_id=f"core-{number}", client=number + 1) for number in range(4)]
    marks = []
    for event in events:
        record.record(event, book)
        marks.append(record.months()["2005-10"])
    assert len(set(marks)) == 4
    backwards = PushedStatements(folder=str(tmp_path / "backwards"))
    for event in reversed(events):
        backwards.record(event, book)
    assert backwards.months() == record.months()


def test_many_clients_events_are_found_as_one_by_one_with_one_look_at_the_month(
    record: PushedStatements, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2 * MANY):
        record.record(replace(EVENT, event_id=f"core-{number}", client=100 + number // 2 * 3), book)
    record.record(replace(EVENT, event_id="september", client=100, month="2005-09"), book)
    asked: list[str] = []
    names = type(record._place).names

    def listing(place: Place, prefix: str) -> Iterator[tuple[str, int]]:
        asked.append(prefix)
        return names(place, prefix)

    monkeypatch.setattr(type(record._place), "names", listing)
    clients = range(95, 130)
    together = record.names_of(clients, "2005-10")
    assert asked == ["statements/2005-10"]
    assert together == tuple(sorted(name for client in clients for name in record.names_of([client], "2005-10")))
    assert {client_of(name) for name in together} == {100 + 3 * number for number in range(10)}


def test_the_place_is_opened_once(record: PushedStatements, book: LoanBook, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def opening(place: str) -> Place:
        opened.append(place)
        return place_at(place)

    monkeypatch.setattr("loan_assets.resources.pushed_statements.place_at", opening)
    record.record(EVENT, book)
    assert record.months()
    assert record.of_month("2005-10", book) == (EVENT,)
    assert opened == [record.bucket or record.folder]


def test_a_line_that_was_altered_is_told_and_never_taken_for_an_event(book: LoanBook, tmp_path: Path) -> None:
    record = PushedStatements(folder=str(tmp_path))
    record.record(EVENT, book)
    (name,) = record.names_of([7], "2005-10")
    sound = (tmp_path / name).read_bytes()
    for damaged in (sound.replace(b"2.5", b"9.5"), sound[:-1], b"", b"\xff" * 40):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(Refusal, match="is not what was recorded there"):
            record.of_month("2005-10", book)


def test_a_machine_s_copy_of_a_bucket_is_read_instead_of_it_and_brought_anew_when_damaged(
    bucket: str, book: LoanBook, tmp_path: Path
) -> None:
    PushedStatements(folder=str(tmp_path / "one"), bucket=bucket).record(EVENT, book)
    other = PushedStatements(folder=str(tmp_path / "other"), bucket=bucket)
    assert other.of_month("2005-10", book) == (EVENT,)
    (name,) = other.names_of([7], "2005-10")
    copy = tmp_path / "other" / name
    copy.write_bytes(copy.read_bytes()[:-3])
    assert other.of_month("2005-10", book) == (EVENT,)
    sound = copy.read_bytes()
    Bucket(bucket).write(name, b"damaged")
    assert other.of_month("2005-10", book) == (EVENT,)  # the copy is sound
    assert copy.read_bytes() == sound
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(Refusal, match="is not what was recorded there"):
        other.of_month("2005-10", book)


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Do something in a fork that is killed just before so many a forcing to disk or link; whether it was."""
    child = os.fork()
    if not child:
        count = 0
        for name in ("fsync", "link", "unlink"):
            done = getattr(os, name)

            def counted(*given: object, done: Callable[..., object] = done) -> object:
                nonlocal count
                count += 1
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done(*given)

            setattr(os, name, counted)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_instant_a_repeat_records_the_event_once(book: LoanBook, tmp_path: Path) -> None:
    """What a kill leaves is an event that is whole or is not there; no draft of one is ever read."""
    call, states = 0, set()
    is_killed = True
    while is_killed:
        call += 1
        record = PushedStatements(folder=str(tmp_path / str(call)))
        is_killed = killed_at(call, lambda to=record: to.record(EVENT, book))  # type: ignore[misc]
        found = record.of_month("2005-10", book)
        assert found in ((), (EVENT,))
        states.add((is_killed, len(found)))
        assert record.record(EVENT, book) == (not found)
        assert record.of_month("2005-10", book) == (EVENT,)
        with pytest.raises(SaysOtherwise):
            record.record(replace(EVENT, client=8), book)
    assert call > 8
    assert states == {(True, 0), (True, 1), (False, 1)}
