"""A statement pushed: served at once, offline once, the same in the end whatever the order, repeats and kills."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets.assets import features
from loan_assets.books import LoanBook
from loan_assets.books.calendar import months_of, statement_day
from loan_assets.credit.pushed import PushedStatement, measures_of
from loan_assets.credit.statements import month_of_statements as month_of_statements_in
from loan_assets.credit.statements import profiles_of
from loan_assets.definitions import defs as front_door
from loan_assets.definitions import resources
from loan_assets.endpoint import served
from loan_assets.place import FolderPlace
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import TABLE, write_table
from loan_assets.resources.catalog import FIRST, LAST
from loan_assets.resources.online_store import OnlineTables
from loan_assets.running import months_there
from loan_assets.sensors import month_of_statements
from loan_assets.settings import Settings
from loan_assets.stream import Stream
from loan_assets_tests.conftest import Home, loan_assets
from loan_assets_tests.kill_drill import warm
from loan_assets_tests.resources.test_landing import graph_of
from loan_assets_tests.services import free_port, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAST, NEXT = "2005-08", "2005-10"
KEPT = ("store", "feast", "online")
CLIENTS = 3_000
FOLLOWED = ("monthly_statements", "borrower_features", "feature_definitions", "online_features")
CLIENT, OTHER = 7, 8


def event(name: str, **said: Any) -> dict[str, Any]:
    """What a core system sends."""
    usual = {"pay_status": 2, "bill_amount": 350_000.0, "payment_amount": 0}
    return {"event_id": name, "client_id": CLIENT, "month": NEXT, "known_at": "2005-10-31T09:30:00Z", **usual, **said}


EVENTS = (
    event("october"),
    event("october restated", bill_amount=120_000.0, known_at="2005-11-03T08:00:00Z"),
    event("august, late", month=PAST, bill_amount=5_000.0, payment_amount=77.0, known_at="2005-11-01T00:00:00Z"),
    event("another's", client_id=OTHER, pay_status=-1),
)


@pytest.fixture(scope="module")
def begun(received: pd.DataFrame, book: LoanBook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with what the stream needs, made by the graph from the first clients of the real table.

    Their rows are put where the graph finds what was delivered, for it takes no book that is not whole.
    """
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path_factory.mktemp("begun"))})
    clients = received.head(CLIENTS)
    put(Stream.over(settings), {"raw_loan_book": clients, "client_profiles": profiles_of(clients, book)})
    materialize(settings)
    return settings.home


def put(stream: Stream, shelves: dict[str, pd.DataFrame]) -> None:
    """Have tables stored as if the graph had made them."""
    for shelf, table in shelves.items():
        stream.store.store.write(shelf, lambda folder, table=table: write_table(table, folder / TABLE))  # type: ignore[misc]


def home_of(other: Path, place: Path) -> Settings:
    """A copy of what the stream needs of a home."""
    for name in KEPT:
        shutil.copytree(other / name, place / name)
    return Settings.from_environment({"LOAN_HOME": str(place)})


@pytest.fixture
def settings(begun: Path, tmp_path: Path) -> Settings:
    return home_of(begun, tmp_path / "home")


@pytest.fixture
def stream(settings: Settings) -> Stream:
    return Stream.over(settings)


def materialize(settings: Settings, *first: str) -> None:
    """Take what was pushed into the months, the offline table and both online stores, every check passed.

    Args:
        first: assets that are made before.
    """
    defs = dg.Definitions(
        assets=[one for one in front_door.assets or [] if isinstance(one, dg.AssetsDefinition)],
        asset_checks=front_door.asset_checks,
        jobs=[dg.define_asset_job("taken_in", [*first, *FOLLOWED])],
        resources=resources(settings),
    )
    months = months_there(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        done = defs.resolve_job_def("taken_in").execute_in_process(
            instance=instance, tags={FIRST: months[0], LAST: months[-1]}
        )
    checks = {one.check_name: one for one in done.get_asset_check_evaluations()}
    assert {"every_client_has_a_statement", "full_windows_have_no_gaps", "online_equals_offline"} <= set(checks)
    assert all(one.passed for one in checks.values()), [one.description for one in checks.values()]


def answered(stream: Stream, *clients: int) -> dict[int, tuple[Any, ...]]:
    """What the endpoint's table and Feast's online store say of clients; they must agree to the bit."""
    table, names = stream.online.table(), list(stream.book.feature_names)
    feast = stream.features.read_online(list(clients), stream.book)[names].to_numpy()
    mine = table.of(list(clients))
    np.testing.assert_array_equal(feast, mine)
    as_of = table.as_of[table.rows_of(list(clients))]
    return {client: (int(as_of[row]), *mine[row].tolist()) for row, client in enumerate(clients)}


def offline(stream: Stream, client: int) -> pd.DataFrame:
    """A client's rows of the offline table that speak of the last three months, oldest first."""
    months: list[pd.DataFrame] = [
        stream.store.read(f"borrower_features/{month}", pd.DataFrame)
        for month in (*months_of(stream.book), NEXT)
        if month in stream.store.partitions("borrower_features")
    ]
    rows = pd.concat(months, ignore_index=True)
    return rows[rows["client_id"] == client].reset_index(drop=True)


def test_a_pushed_statement_is_served_at_once_by_the_very_functions_and_repeats_change_nothing(
    stream: Stream, book: LoanBook
) -> None:
    before = answered(stream, CLIENT, OTHER)
    answer = stream.take([EVENTS[0]], NOW)
    assert (answer.taken, answer.refused, answer.unserved) == ((0,), {}, "")
    after = answered(stream, CLIENT, OTHER)
    assert after[OTHER] == before[OTHER]
    as_of, *values = after[CLIENT]
    assert as_of == int(statement_day(NEXT).timestamp() * 1_000_000)
    named = dict(zip(book.feature_names, values, strict=True))
    assert (named["latest_bill"], named["latest_pay_status"]) == (350_000.0, 2.0)
    earlier = dict(zip(book.feature_names, before[CLIENT][1:], strict=True))
    limit = named["headroom"] + named["latest_bill"]
    assert named["utilisation_change"] == np.float32((350_000.0 - earlier["latest_bill"]) / limit)
    for _ in range(3):
        again = stream.take([EVENTS[0]], NOW)
        assert (again.taken, again.known) == ((), (0,))
    assert answered(stream, CLIENT, OTHER) == after
    assert len(stream.events.of_month(NEXT, book)) == 1


def test_of_a_batch_the_good_ones_are_served_and_an_id_that_says_otherwise_is_a_conflict(stream: Stream) -> None:
    stream.take([EVENTS[0]], NOW)
    before = answered(stream, CLIENT)
    told = [event("october", bill_amount=1.0), EVENTS[3], event("x", month="2005-11"), event("y", pay_status=55)]
    answer = stream.take(told, NOW)
    assert (answer.taken, answer.known, set(answer.conflicts)) == ((1,), (), {0})
    assert sorted(answer.refused) == [0, 2, 3]
    assert answered(stream, CLIENT) == before
    assert answered(stream, OTHER)[OTHER][0] == int(statement_day(NEXT).timestamp() * 1_000_000)


def test_in_whatever_order_events_come_the_end_is_the_same_online_and_offline(begun: Path, tmp_path: Path) -> None:
    """Every order, one event at a time, each sent twice; some are taken offline in their midst."""
    ends, tables = set(), []
    for number, order in enumerate(permutations(EVENTS)):
        stream = Stream.over(home_of(begun, tmp_path / str(number)))
        for one in order:
            stream.take([one, one], NOW)
        ends.add(json.dumps(answered(stream, CLIENT, OTHER)))
        rows = [stream.newest_of([CLIENT, OTHER])]
        rows += [stream._months_with([CLIENT], stream._names([CLIENT]))[month] for month in (PAST, NEXT)]
        tables.append(pd.concat(rows, ignore_index=True))
        shutil.rmtree(tmp_path / str(number))
    assert len(ends) == 1
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])


def test_what_was_pushed_comes_into_the_offline_table_once_and_online_stays_what_it_was(
    settings: Settings, stream: Stream, book: LoanBook
) -> None:
    """A late month changes history offline, online only the windows as of the newest month; nothing is known early."""
    was = offline(stream, CLIENT)
    stream.take(EVENTS[:1], NOW)
    materialize(settings)
    stream.take(EVENTS[1:], NOW)
    online = answered(stream, CLIENT, OTHER)
    materialize(settings)
    assert answered(stream, CLIENT, OTHER) == online
    rows = offline(stream, CLIENT)
    told = [(str(row.event_timestamp)[:7], str(row.created_timestamp)[:10]) for row in rows.itertuples()]
    assert told == [
        *((month, str(statement_day(month))[:10]) for month in months_of(book)[:5]),
        (PAST, "2005-11-01"),
        ("2005-09", "2005-09-30"),
        ("2005-09", "2005-11-01"),
        (NEXT, "2005-10-31"),
        (NEXT, "2005-11-01"),
        (NEXT, "2005-11-03"),
    ]
    assert stream.ahead_of(stream.features.newest(book)).empty
    first = rows[rows["created_timestamp"] == rows["event_timestamp"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, was)
    assert rows.iloc[-1][list(book.feature_names)].tolist() == list(online[CLIENT][1:])
    names = list(book.feature_names)
    days = ["2005-10-30", "2005-10-31 12:00", "2005-11-02", "2005-11-04"]
    asked = pd.DataFrame(
        {"client_id": CLIENT, "event_timestamp": pd.to_datetime(days, utc=True, format="ISO8601").as_unit("us")}
    )
    joined = stream.features.as_known_at(asked, book)
    assert len(joined) == len(days)
    for row, known in zip(joined[names].to_numpy(), (6, 8, 9, 10), strict=True):
        np.testing.assert_array_equal(row, rows[names].to_numpy("float32")[known])
    decided = asked.head(1).assign(event_timestamp=pd.Timestamp("2005-09-30", tz="UTC").as_unit("us"))
    training = stream.features.as_known_at(decided, book)
    np.testing.assert_array_equal(training[names].to_numpy()[0], was[names].to_numpy("float32")[-1])


def test_what_is_not_offline_yet_stays_served_when_the_online_table_is_made_anew(
    settings: Settings, stream: Stream, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older window never overwrites newer values: pushed while a run has already read the months."""
    stream.take(EVENTS, NOW)
    online = answered(stream, CLIENT, OTHER)
    defs = dg.Definitions(
        assets=[one for one in front_door.assets or [] if isinstance(one, dg.AssetsDefinition)],
        asset_checks=front_door.asset_checks,
        jobs=[dg.define_asset_job("only_online", ["online_features"])],
        resources=resources(settings),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        done = defs.resolve_job_def("only_online").execute_in_process(instance=instance)
    assert all(one.passed for one in done.get_asset_check_evaluations())
    assert len(stream.ahead_of(stream.features.newest(book))) == 2
    assert answered(stream, CLIENT, OTHER) == online


def few(received: pd.DataFrame, book: LoanBook, place: Path) -> Stream:
    """A stream over the book's months of forty clients, of which nothing is served."""
    settings = Settings.from_environment({"LOAN_HOME": str(place)})
    stream, clients = Stream.over(settings), received.head(40)
    tables = {f"monthly_statements/{month}": month_of_statements_in(clients, month, book) for month in months_of(book)}
    put(stream, {"client_profiles": profiles_of(clients, book), **tables})
    return stream


def recorded(told: dict[str, Any], book: LoanBook) -> PushedStatement:
    """An event as it comes into the record."""
    return PushedStatement(
        event_id=told["event_id"],
        client=told["client_id"],
        month=told["month"],
        known_at=datetime.fromisoformat(told["known_at"]),
        measures={column.name: told[column.name] for column in measures_of(book)},
    )


def test_a_late_month_is_ahead_though_it_became_known_before_the_newest(
    received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    """It changes features and neither instant; whose events are all offline is not ahead."""
    stream = few(received, book, tmp_path)
    october, restated, late, anothers = (recorded(one, book) for one in EVENTS)
    for one in (october, restated, anothers):
        stream.events.record(one, book)
    offline = stream.newest_of(range(1, 41))
    assert stream.ahead_of(offline).empty
    stream.events.record(late, book)
    ahead = stream.ahead_of(offline)
    assert ahead["client_id"].tolist() == [CLIENT]
    instants = ["event_timestamp", "created_timestamp"]
    before = offline[offline["client_id"] == CLIENT].reset_index(drop=True)
    pd.testing.assert_frame_equal(ahead[instants], before[instants])
    pd.testing.assert_frame_equal(ahead, stream.newest_of([CLIENT]))
    assert not ahead.equals(before)


def test_a_table_put_in_force_has_late_months_and_what_is_pushed_meanwhile(
    received: pd.DataFrame, book: LoanBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = few(received, book, tmp_path)
    october, restated, late, anothers = (recorded(one, book) for one in EVENTS)
    for one in (october, restated):
        stream.events.record(one, book)
    stream.features.publish(stream.newest_of(range(1, 41)), book)
    stream.events.record(late, book)
    publish = OnlineTables.publish

    def publishing(online: OnlineTables, newest: pd.DataFrame, book: LoanBook) -> str:
        stream.events.record(anothers, book)
        return publish(online, newest, book)

    monkeypatch.setattr(OnlineTables, "publish", publishing)
    stream.put_in_force(stream.features.materialize(book))
    rows = stream.newest_of([CLIENT, OTHER])
    instants = rows["event_timestamp"].to_numpy("datetime64[us]").astype("int64").tolist()
    values = rows[list(book.feature_names)].to_numpy("float32").tolist()
    assert answered(stream, CLIENT, OTHER) == {
        client: (instant, *says) for client, instant, says in zip((CLIENT, OTHER), instants, values, strict=True)
    }


def test_what_is_ahead_costs_one_look_at_each_month_however_many_clients_were_pushed(
    received: pd.DataFrame, book: LoanBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = few(received, book, tmp_path)
    offline = stream.newest_of(range(1, 41))
    for client in range(1, 31):
        for number, month in enumerate((PAST, NEXT)):
            known = f"2005-11-0{1 + number}T00:00:00Z"
            one = event(f"{client} {month}", client_id=client, month=month, known_at=known)
            stream.events.record(recorded(one, book), book)
    asked: list[str] = []

    def listing(place: FolderPlace, prefix: str) -> Iterator[tuple[str, int]]:
        asked.append(prefix)
        return names(place, prefix)

    names = FolderPlace.names
    monkeypatch.setattr(FolderPlace, "names", listing)
    ahead = stream.ahead_of(offline)
    assert asked == [f"statements/{month}" for month in (PAST, NEXT)]
    pd.testing.assert_frame_equal(ahead, stream.newest_of(range(1, 31)))


def test_online_values_that_no_statement_gives_are_found(
    stream: Stream, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is not blind where something was pushed."""
    monkeypatch.setattr(features, "TIMES_LOOKED", 1)
    stream.take(EVENTS[:1], NOW)
    rows = stream.newest_of([CLIENT])
    stream.online.write_over(rows.assign(utilisation=9.0), book)
    result = features.online_equals_offline(
        io_manager=stream.store,
        feature_store=stream.features,
        online_tables=stream.online,
        pushed_statements=stream.events,
        online_features=stream.store.read("online_features", features.OnlineFeatures),
        client_profiles=stream.store.read("client_profiles", pd.DataFrame),
    )
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert "1 clients whose pushed statements are not served" in str(result.description)
    assert "1 clients that Feast's online store answers otherwise" in str(result.description)


def test_a_month_s_file_and_what_was_pushed_of_it_stand_beside_each_other(
    settings: Settings, stream: Stream, received: pd.DataFrame, book: LoanBook
) -> None:
    """What became known after the statement day restates the file, whichever came first."""
    stream.take(EVENTS[:1], NOW)
    materialize(settings)
    october = pd.DataFrame(
        {"client_id": received["client_id"].head(CLIENTS), "pay_status": 0, "bill_amount": 10.0, "payment_amount": 5.0}
    )
    landing = Path(settings.landing)
    landing.mkdir(parents=True, exist_ok=True)
    october.to_csv(landing / f"statements-{NEXT}.csv", index=False)
    materialize(settings)
    stored: pd.DataFrame = stream.store.read(f"monthly_statements/{NEXT}", pd.DataFrame)
    assert len(stored) == CLIENTS + 1
    assert stored.query(f"client_id == {CLIENT}")["bill_amount"].tolist() == [10.0, 350_000.0]
    named = dict(zip(book.feature_names, answered(stream, CLIENT)[CLIENT][1:], strict=True))
    assert named["latest_bill"] == 350_000.0
    others = dict(zip(book.feature_names, answered(stream, OTHER)[OTHER][1:], strict=True))
    assert others["latest_bill"] == 10.0
    shutil.rmtree(landing)  # archived: the month stands as it is stored
    materialize(settings)
    pd.testing.assert_frame_equal(stream.store.read(f"monthly_statements/{NEXT}", pd.DataFrame), stored)
    assert stream.take([event("november", month="2005-11", known_at="2005-12-01T00:00:00Z")], NOW).taken == (0,)


def test_without_stores_to_serve_from_an_event_is_on_record_and_the_same_again_serves_it(
    settings: Settings, stream: Stream, book: LoanBook
) -> None:
    aside = settings.home / "aside"
    Path(settings.online).rename(aside)
    answer = stream.take([EVENTS[0]], NOW)
    assert answer.taken == (0,)
    assert "The online table is not there yet" in answer.unserved
    aside.rename(settings.online)
    assert answered(stream, CLIENT)[CLIENT][0] < int(statement_day(NEXT).timestamp() * 1_000_000)
    again = stream.take([EVENTS[0]], NOW)
    assert (again.known, again.unserved) == ((0,), "")
    assert answered(stream, CLIENT)[CLIENT][0] == int(statement_day(NEXT).timestamp() * 1_000_000)


def test_before_the_book_was_read_nothing_is_taken(tmp_path: Path) -> None:
    stream = Stream.over(Settings.from_environment({"LOAN_HOME": str(tmp_path)}))
    with pytest.raises(Refusal, match="client_profiles has never been materialized"):
        stream.take([EVENTS[0]], NOW)
    assert stream.events.listed() == ()


def test_the_command_takes_lines_and_parquet_and_lists_what_it_refuses(settings: Settings) -> None:
    lines = settings.home / "events.jsonl"
    told = [json.dumps(EVENTS[0]), "{no json", json.dumps({**EVENTS[3], "payment_amount": -77_777})]
    lines.write_text("\n".join(told))
    first = loan_assets("push", str(lines), home=settings.home)
    assert (first.returncode, first.stdout) == (2, "1 taken, 0 known, 2 refused\n"), first.stderr
    assert first.stderr.splitlines() == [
        "event 1: is not an object",
        "event 2: breaks the contract: payment_amount: is below 0",
    ]
    table = pd.DataFrame(EVENTS[:2]).assign(known_at=lambda rows: pd.to_datetime(rows["known_at"], utc=True))
    table.to_parquet(settings.home / "events.parquet")
    second = loan_assets("push", str(settings.home / "events.parquet"), home=settings.home)
    assert (second.returncode, second.stdout, second.stderr) == (0, "1 taken, 1 known, 0 refused\n", "")
    missing = loan_assets("push", "nowhere.jsonl", home=settings.home)
    assert (missing.returncode, "nowhere.jsonl cannot be read" in missing.stderr) == (2, True)


def test_killed_between_any_two_writes_a_push_is_whole_when_it_is_repeated(begun: Path, tmp_path: Path) -> None:
    home, start = tmp_path / "home", tmp_path / "start"
    home_of(begun, home)
    shutil.copytree(home, start)
    with warm(home, "push_drill") as process:
        process.ask("seen")  # it has begun by then, and is done with this home

        def reset() -> None:
            shutil.rmtree(home)
            shutil.copytree(start, home)

        reset()
        old = process.ask("seen")["gave"]
        instants = process.ask("push", at=0)["instants"]
        new = process.ask("seen")["gave"]
        assert (old["events"], new["events"], new["table"]) == (0, 1, new["feast"])
        assert instants >= 20
        states = set()
        for at in range(1, instants + 1):
            reset()
            assert process.ask("push", at=at)["is_killed"]
            left = process.ask("seen")["gave"]
            for part in ("table", "feast"):
                assert left[part] in (old[part], new[part])
                assert left["events"] or left[part] == old[part]  # nothing is served that is not on record
            states.add((left["events"], left["table"] == new["table"], left["feast"] == new["feast"]))
            again = process.ask("push")["gave"]
            assert (again["taken"] + again["known"], again["served"]) == (1, True)
            assert process.ask("seen")["gave"] == new
    assert {(0, False, False), (1, False, False), (1, True, False)} <= states
    sys.stdout.write(f"killed at {instants} instants: {sorted(states)}\n")


def post(port: int, told: object) -> tuple[int, Any]:
    """A statement sent to the webhook by another process."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/statements", json.dumps(told), {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


@contextmanager
def webhook(settings: Settings) -> Iterator[int]:
    """The command's server in a process of its own; its port."""
    port = free_port()
    command = [sys.executable, "-m", "loan_assets.cli", "webhook", "--port", str(port)]
    environment = {**os.environ, "LOAN_HOME": str(settings.home)}
    with subprocess.Popen(command, env=environment, cwd=settings.home, stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: is_open(port), 60)
            yield port
        finally:
            server.terminate()


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["one machine", "many machines"])
def platform(request: pytest.FixtureRequest, ran: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home in which the graph was run; of many machines with record, assets and features in a bucket and in Redis."""
    home = tmp_path / "home"
    shutil.copytree(ran.settings.home, home)
    monkeypatch.setenv("LOAN_HOME", str(home))
    if request.param == "one machine":
        return Settings.from_environment({"LOAN_HOME": str(home)})
    server, place = request.getfixturevalue("redis"), request.getfixturevalue("bucket")
    server.empty()
    shutil.rmtree(home / "store")
    elsewhere = {
        "LOAN_STORE": f"{place}/store",
        "LOAN_EVENTS": f"{place}/events",
        "LOAN_FEAST_OFFLINE": f"{place}/feast",
        "LOAN_FEAST_ONLINE": server.place(1),
        "LOAN_ONLINE": server.place(0),
    }
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment({"LOAN_HOME": str(home), **elsewhere})
    materialize(settings, "raw_loan_book", "client_profiles")
    return settings


@pytest.mark.production
def test_the_endpoint_answers_from_a_statement_within_two_seconds_and_training_rows_have_it_once(
    platform: Settings, book: LoanBook
) -> None:
    """A server that takes it, an endpoint that answers: processes of their own, as a bank would run them."""
    stream = Stream.over(platform)
    clients = range(100, 110)
    took, acknowledged = [], []
    with served(platform) as endpoint, webhook(platform) as port:

        def answer(client: int) -> dict[str, Any]:
            one: dict[str, Any] = endpoint.post("/predict", {"client_ids": [client]}).body["predictions"][0]
            return one

        post(port, event("warming", client_id=99))
        for client in clients:
            before, began = answer(client), time.monotonic()
            assert post(port, event(f"of {client}", client_id=client))[0] == 200
            acknowledged.append(time.monotonic() - began)
            done = time.monotonic()
            while (after := answer(client))["features_as_of"] != "2005-10-31T00:00:00+00:00":
                assert time.monotonic() < done + 10
                time.sleep(0.01)
            took.append(time.monotonic() - done)
            assert after["default_probability"] != before["default_probability"]
        assert max(took) <= 2.0
        sys.stdout.write(f"acknowledged after {max(acknowledged):.2f} s, answered after {max(took):.2f} s more\n")
        late = event("late", client_id=100, month=PAST, known_at="2005-11-01T00:00:00Z")
        assert post(port, [late, event("of 101", client_id=101)])[1]["known"] == 1
        online = answered(stream, *clients)
        time.sleep(1.0)  # by then workers have looked
        said = [answer(client) for client in clients]
        materialize(platform)
        assert answered(stream, *clients) == online
        until(lambda: endpoint.post("/predict", {"client_ids": list(clients)}).status == 200, 5)
        assert [answer(client)["default_probability"] for client in clients] == [
            one["default_probability"] for one in said
        ]
    decisions = pd.DataFrame(
        {"client_id": list(clients), "event_timestamp": pd.Timestamp("2005-11-15", tz="UTC").as_unit("us")}
    )
    joined = stream.features.as_known_at(decisions, book)
    assert joined["client_id"].tolist() == list(clients)
    for client, row in zip(clients, joined[list(book.feature_names)].to_numpy(), strict=True):
        np.testing.assert_array_equal(row, np.array(online[client][1:], dtype="float32"))
    stored: pd.DataFrame = stream.store.read(f"monthly_statements/{NEXT}", pd.DataFrame)
    assert sorted(stored["client_id"]) == [99, *clients]


@pytest.mark.production
def test_what_was_pushed_is_in_a_backup_and_served_after_a_restore(ran: Home, tmp_path: Path, book: LoanBook) -> None:
    home = tmp_path / "home"
    shutil.copytree(ran.settings.home, home)
    stream = Stream.over(Settings.from_environment({"LOAN_HOME": str(home)}))
    stream.take(EVENTS, NOW)
    online = answered(stream, CLIENT, OTHER)
    kept = loan_assets("backup", "--to", str(tmp_path / "kept"), home=home)
    assert kept.returncode == 0, kept.stderr
    new = tmp_path / "new"
    new.mkdir()
    back = loan_assets("restore", "--from", str(tmp_path / "kept"), home=new)
    assert back.returncode == 0, back.stderr
    restored = Stream.over(Settings.from_environment({"LOAN_HOME": str(new)}))
    assert restored.events.of_month(NEXT, book) == stream.events.of_month(NEXT, book)
    assert answered(restored, CLIENT, OTHER) == online
    assert restored.take([event("october", bill_amount=1.0)], NOW).conflicts == {0}
    assert restored.take(EVENTS, NOW).known == (0, 1, 2, 3)


def test_what_follows_from_a_pushed_month_is_requested_by_itself(ran: Home, tmp_path: Path) -> None:
    """A late month asks for the features of every month whose window it is in, a new one for its own."""
    home = tmp_path / "home"
    shutil.copytree(ran.settings.home, home)
    settings = Settings.from_environment({"LOAN_HOME": str(home)})
    Stream.over(settings).take(EVENTS, NOW)
    with graph_of(settings) as (defs, instance):
        arriving = dg.Definitions(
            assets=defs.assets,
            asset_checks=front_door.asset_checks,
            jobs=[month_of_statements],
            resources=resources(settings),
        )
        looked = dg.evaluate_automation_conditions(defs, instance)
        for month in (PAST, NEXT):
            done = arriving.resolve_job_def("month_of_statements").execute_in_process(
                instance=instance, partition_key=month
            )
            assert done.success
        looked = dg.evaluate_automation_conditions(defs, instance, cursor=looked.cursor)
        requested = looked.get_requested_partitions(dg.AssetKey("borrower_features"))
    assert requested == {PAST, "2005-09", NEXT}
