"""The box's application: who answers, what is answered, what is on record, and who may ask."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bento.access import new_token
from bento.application import Application
from bento.places import Places
from loan_assets.books import LoanBook, Role
from loan_assets.policy import POLICY
from loan_assets.prediction_record import CANARY, CHAMPION
from loan_assets.refusal import Refusal
from loan_assets.rehearsal import as_applications
from loan_assets.release import read_release
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.standing import Mode
from loan_assets_tests.bento.conftest import Box
from loan_assets_tests.conftest import Home, second_version


@pytest.fixture
def store(ran: Home, tmp_path: Path) -> ReleaseStore:
    return second_version(ran, tmp_path)


@pytest.fixture
def followed(places: Places, store: ReleaseStore) -> Callable[[], Box]:
    """A box that follows a store of its own."""
    return lambda: Box(replace(places, releases=Path(store.root)))


def test_an_answer_says_what_why_by_whom_and_from_when(box: Box, good: dict[str, Any]) -> None:
    answer = box.post("/score", {"applications": [good]})
    assert answer.status == 200
    (prediction,) = answer.body["predictions"]
    assert prediction["decision"] == "refuse"
    assert 1 <= len(prediction["reasons"]) <= 4
    assert all(set(reason) == {"code", "text"} for reason in prediction["reasons"])
    assert (prediction["features_as_of"], prediction["stale"], prediction["client_id"]) == (None, False, None)
    assert (answer.body["model_version"], answer.body["release_source"]) == (1, "store")
    (record,) = box.records()
    assert record.request_id == answer.body["request_id"]
    assert record.default_probability == prediction["default_probability"]
    assert list(record.reasons) == [reason["code"] for reason in prediction["reasons"]]
    assert (record.received, len(record.features), record.route) == (good, len(record.features), "/score")


def test_an_approval_needs_no_reasons(box: Box, healthy: dict[str, Any]) -> None:
    (prediction,) = box.post("/score", {"applications": [healthy]}).body["predictions"]
    assert (prediction["decision"], prediction["reasons"]) == ("approve", [])


def test_every_client_gets_the_score_and_the_decision_of_the_batch(
    box: Box, ran: Home, received: pd.DataFrame, book: LoanBook
) -> None:
    """By number and by application, all 30,000, to the last bit."""
    scores: pd.DataFrame = ran.read("batch_scores")
    columns = [column.name for column in book.with_role(Role.FEATURE)]
    for start in range(0, len(scores), 1_000):
        batch = scores.iloc[start : start + 1_000]
        expected = list(zip(batch["default_probability"], batch["decision"], strict=True))
        clients = batch[book.key.name].tolist()
        by_number = box.post("/predict", {"client_ids": clients}).body["predictions"]
        applications = as_applications(received.set_index(book.key.name).loc[clients, columns])
        by_application = box.post("/score", {"applications": applications}).body["predictions"]
        for predictions in (by_number, by_application):
            assert [(one["default_probability"], one["decision"]) for one in predictions] == expected
        assert {one["features_as_of"] for one in by_number} == {"2005-09-30T00:00:00+00:00"}


def test_one_row_and_many_rows_have_the_same_features_to_the_bit(
    box: Box, received: pd.DataFrame, book: LoanBook
) -> None:
    applications = as_applications(received[[c.name for c in book.with_role(Role.FEATURE)]].head(40))
    together = box.post("/score", {"applications": applications}).body["predictions"]
    alone = [box.post("/score", {"applications": [one]}).body["predictions"][0] for one in applications]
    assert alone == together


def test_protected_fields_are_kept_for_the_audit_and_change_nothing(box: Box, good: dict[str, Any]) -> None:
    plain = box.post("/score", {"applications": [good]}).body["predictions"]
    told = [{**good, "sex": sex, "age": age, "marital_status": 1} for sex, age in ((1, 22), (2, 70))]
    assert box.post("/score", {"applications": told}).body["predictions"] == plain * 2
    assert [record.received.get("sex") for record in box.records()] == [None, 1, 2]


def test_a_named_request_is_answered_and_recorded_once(box: Box, good: dict[str, Any]) -> None:
    body = {"applications": [good], "request_id": "loan-17"}
    first, again = box.post("/score", body), box.post("/score", body)
    assert first.content == again.content
    assert first.body["request_id"] == "loan-17"
    by_header = [box.post("/score", {"applications": [good]}, x_request_id="loan-18").content for _ in range(2)]
    assert by_header[0] == by_header[1] != first.content
    assert Counter(record.request_id for record in box.records()) == {"loan-17": 1, "loan-18": 1}


def test_a_name_that_was_given_to_another_request_is_a_conflict(box: Box, good: dict[str, Any]) -> None:
    assert box.post("/score", {"applications": [good]}, x_request_id="a").status == 200
    taken = box.post("/score", {"applications": [good, good]}, x_request_id="a")
    assert (taken.status, taken.body) == (409, {"error": "this request_id was given to another request before"})
    assert len(box.records()) == 1


def test_a_repeat_after_a_restart_and_at_another_worker_is_answered_from_the_record(
    places: Places, good: dict[str, Any]
) -> None:
    one, other = Box(places), Box(places)
    first = one.post("/score", {"applications": [good]}, x_request_id="b").content
    assert other.post("/score", {"applications": [good]}, x_request_id="b").content == first
    one.close()
    restarted = Box(places)
    assert restarted.post("/score", {"applications": [good]}, x_request_id="b").content == first
    assert len(restarted.records()) == 1
    other.close()
    restarted.close()


def test_the_champion_is_swapped_without_a_restart(
    followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    box = followed()
    assert box.post("/score", {"applications": [good]}).body["model_version"] == 1
    digest = store.challenge(2, Mode.SHADOW).digest
    store.crown(2, digest)
    assert box.application.releases.look()
    after = box.post("/score", {"applications": [good]}).body
    assert (after["model_version"], after["release_digest"]) == (2, digest[:12])
    box.close()


def resealed(store: ReleaseStore, version: int, name: str, content: bytes) -> str:
    """A release that is sealed well and makes no sense; returns its digest."""
    from loan_assets.resources.versioned_store import VersionedStore

    source = Path(store.root) / "v2"
    folder = source / (source / "CURRENT").read_text()[:16]

    def fill(place: Path) -> None:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        (place / name).write_bytes(content)

    return VersionedStore(root=Path(store.root), keep=2).write(f"v{version}", fill).digest


def point_at(store: ReleaseStore, champion: tuple[int, str], challenger: tuple[int, str] | None = None) -> None:
    """Move the pointer without the platform's own checks."""
    from loan_assets.resources.versioned_store import VersionedStore
    from loan_assets.standing import SHELF, Challenger, Standing, Standings

    def named(kind: Any, given: tuple[int, str], **more: Any) -> Any:
        return kind(version=given[0], digest=given[1], path=f"v{given[0]}/{given[1][:16]}", **more)

    beside = named(Challenger, challenger, mode=Mode.CANARY, share=1.0) if challenger else None
    standings = Standings(champion=named(Standing, champion), challenger=beside)
    VersionedStore(root=Path(store.root), keep=2).write(SHELF, standings.write)


SENSELESS = (
    ("release.json", b"[]"),
    ("release.json", b"{}"),
    ("trees/value.npy", b""),
    ("trees/feature.npy", b"\x93NUMPY"),
)


@pytest.mark.parametrize(("name", "content"), SENSELESS)
def test_a_sealed_release_that_makes_no_sense_stops_neither_a_running_nor_a_new_box(
    name: str, content: bytes, followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    running = followed()
    point_at(store, (3, resealed(store, 3, name, content)))
    assert not running.application.releases.look()
    running.application.upkeep.look()
    assert running.post("/score", {"applications": [good]}).body["model_version"] == 1
    assert running.ask("GET", "/standing").body["refused_releases"] == 1
    fresh = followed()
    assert fresh.post("/score", {"applications": [good]}).body["release_source"] == "bento"
    running.close()
    fresh.close()


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"champion": {}, "challenger": null}'])
def test_a_sealed_pointer_that_makes_no_sense_stops_neither_a_running_nor_a_new_box(
    content: bytes, followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    from loan_assets.resources.versioned_store import VersionedStore
    from loan_assets.standing import POINTER, SHELF

    def fill(place: Path) -> None:
        (place / POINTER).write_bytes(content)

    running = followed()
    VersionedStore(root=Path(store.root), keep=2).write(SHELF, fill)
    running.application.upkeep.look()
    fresh = followed()
    assert running.post("/score", {"applications": [good]}).body["release_source"] == "store"
    assert fresh.post("/score", {"applications": [good]}).body["release_source"] == "bento"
    running.close()
    fresh.close()


@pytest.mark.parametrize(("name", "content"), SENSELESS)
def test_a_bad_challenger_does_not_keep_the_champion_from_its_place(
    name: str, content: bytes, followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    box = followed()
    second = (2, (Path(store.root) / "v2" / "CURRENT").read_text().strip())
    point_at(store, second, challenger=(3, resealed(store, 3, name, content)))
    assert box.application.releases.look()
    answer = box.post("/score", {"applications": [good]}).body
    assert (answer["model_version"], answer["release_source"]) == (2, "store")
    assert box.ask("GET", "/standing").body["challenger"] is None
    box.close()


@pytest.mark.parametrize("damaged", ["trees/value.npy", "release.json", "manifest.json"])
def test_a_bad_release_is_refused_and_the_one_before_goes_on(
    damaged: str, followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    box = followed()
    digest = store.challenge(2, Mode.SHADOW).digest
    store.crown(2, digest)
    file = Path(store.root) / store.champion().path / damaged
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert not box.application.releases.look()
    assert box.post("/score", {"applications": [good]}).body["model_version"] == 1
    assert box.ask("GET", "/standing").body["refused_releases"] == 1
    box.close()


def test_a_release_of_another_book_is_refused(
    followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    box = followed()
    source = Path(store.root) / "v2"
    digest = store.challenge(2, Mode.SHADOW).digest
    folder = source / digest[:16]

    def fill(place: Path) -> None:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        facts = json.loads((place / "release.json").read_text())
        (place / "release.json").write_text(json.dumps({**facts, "version": 3, "book_digest": "0" * 12}))

    other, _ = store.publish(3, fill)
    store.crown(3, other)
    assert not box.application.releases.look()
    assert box.post("/score", {"applications": [good]}).body["model_version"] == 1
    box.close()


@pytest.mark.parametrize("gone", ["never there", "unreadable"])
def test_the_box_s_own_release_answers_where_the_store_is_of_no_use_and_says_so(
    gone: str, places: Places, tmp_path: Path, good: dict[str, Any]
) -> None:
    root = tmp_path / "nowhere"
    if gone == "unreadable":
        (root / "standing").mkdir(parents=True)
        (root / "standing" / "CURRENT").write_text("0" * 64)
    box = Box(replace(places, releases=root))
    answer = box.post("/score", {"applications": [good]}).body
    assert (answer["release_source"], answer["model_version"]) == ("bento", 1)
    box.close()


def test_the_store_s_champion_takes_over_from_the_box_s_own_release_once_it_is_there(
    places: Places, store: ReleaseStore, tmp_path: Path, good: dict[str, Any]
) -> None:
    root = tmp_path / "later"
    box = Box(replace(places, releases=root))
    assert box.post("/score", {"applications": [good]}).body["release_source"] == "bento"
    shutil.copytree(store.root, root)
    assert box.application.releases.look()
    assert box.post("/score", {"applications": [good]}).body["release_source"] == "store"
    box.close()


def test_a_shadow_is_scored_and_logged_and_never_answers(
    followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any]
) -> None:
    store.challenge(2, Mode.SHADOW)
    box = followed()
    answer = box.post("/score", {"applications": [good]}).body
    assert answer["model_version"] == 1
    (record,) = box.records()
    assert record.shadow is not None
    release = read_release(Path(store.root) / store.standings().challenger.path)  # type: ignore[union-attr]
    assert (record.shadow.model_version, record.shadow.release_digest) == (2, release.digest[:12])
    assert record.shadow.default_probability == record.default_probability
    box.close()


def test_a_canary_answers_its_share_and_each_client_always_alike(
    followed: Callable[[], Box], store: ReleaseStore
) -> None:
    store.challenge(2, Mode.CANARY, 0.2)
    box = followed()
    clients = range(1, 2_001)
    arms = [box.post("/predict", {"client_ids": [client]}).body["model_version"] for client in clients]
    again = [box.post("/predict", {"client_ids": [client]}).body["model_version"] for client in range(1, 201)]
    assert again == arms[:200]
    # Four standard deviations of a binomial count at a fifth of 2,000.
    assert abs(arms.count(2) - 400) <= 4 * (2_000 * 0.2 * 0.8) ** 0.5
    assert Counter(record.arm for record in box.records()[:2_000])[CANARY] == arms.count(2)
    store.challenge(2, Mode.CANARY, 0.0)
    assert box.application.releases.look()
    assert {box.post("/predict", {"client_ids": [client]}).body["model_version"] for client in clients} == {1}
    box.close()


def test_a_version_that_is_asked_for_by_its_number_answers_whoever_the_client_is(
    followed: Callable[[], Box], store: ReleaseStore, good: dict[str, Any], book: LoanBook
) -> None:
    store.challenge(2, Mode.CANARY, 1.0)
    box = followed()
    row = [good[column.name] for column in book.with_role(Role.FEATURE)]
    body = {"inputs": [{"name": "applications", "datatype": "FP64", "shape": [1, len(row)], "data": row}]}
    for version in ("1", "2"):
        answer = box.post(f"/v2/models/loan-default/versions/{version}/infer", body)
        assert answer.body["model_version"] == version
        assert box.ask("GET", f"/v2/models/loan-default/versions/{version}/ready").status == 200
    assert box.post("/v2/models/loan-default/versions/3/infer", body).status == 404
    several = box.post("/score", {"applications": [good, good]}).body
    assert several["model_version"] == 1  # applicants without a number are not one client
    box.close()


def test_a_request_about_several_clients_is_answered_by_the_champion_alone(
    followed: Callable[[], Box], store: ReleaseStore
) -> None:
    store.challenge(2, Mode.CANARY, 1.0)
    box = followed()
    assert box.post("/predict", {"client_ids": [1]}).body["model_version"] == 2
    assert box.post("/predict", {"client_ids": [1, 2]}).body["model_version"] == 1
    assert [record.arm for record in box.records()] == [CANARY, CHAMPION, CHAMPION]
    box.close()


def test_a_repeat_is_answered_from_the_record_whatever_has_changed_since_and_however_it_is_spelled(
    places: Places, ran: Home, tmp_path: Path, good: dict[str, Any]
) -> None:
    shutil.copytree(ran.settings.online, tmp_path / "online")
    box = Box(replace(places, online=str(tmp_path / "online")))
    first = box.post("/predict", {"client_ids": [1], "request_id": "p"})
    box.application._online._taken = None
    assert box.post("/predict", {"client_ids": [2]}).status == 503
    assert box.post("/predict", {"client_ids": [1], "request_id": "p"}).content == first.content
    spelled = json.dumps({"request_id": "s", "applications": [dict(reversed(good.items()))]}, indent=3).encode()
    plain = box.post("/score", {"applications": [good], "request_id": "s"})
    assert box.ask("POST", "/score", spelled).content == plain.content
    assert len(box.records()) == 2
    box.close()


def test_a_damaged_record_of_named_requests_is_set_aside(places: Places, good: dict[str, Any]) -> None:
    places.predictions.mkdir(parents=True)
    (places.predictions / "repeats.db").write_bytes(b"not a database" * 100)
    box = Box(places)
    assert box.post("/score", {"applications": [good], "request_id": "a"}).status == 200
    assert list(places.predictions.glob("repeats.damaged-*"))
    box.close()


def test_a_removed_day_or_record_is_begun_again_before_the_next_answer(places: Places, good: dict[str, Any]) -> None:
    box = Box(places)
    assert box.post("/score", {"applications": [good], "request_id": "a"}).status == 200
    shutil.rmtree(places.predictions)
    places.predictions.mkdir()
    assert box.post("/score", {"applications": [good], "request_id": "b"}).status == 200
    assert box.post("/score", {"applications": [good]}).status == 200
    assert len(box.records()) == 2
    box.close()


def test_a_table_that_is_altered_in_place_changes_no_answer(places: Places, ran: Home, tmp_path: Path) -> None:
    shutil.copytree(ran.settings.online, tmp_path / "online")
    box = Box(replace(places, online=str(tmp_path / "online")))
    before = box.post("/predict", {"client_ids": [1, 2]}).body["predictions"]
    for file in (tmp_path / "online").rglob("*.npy"):
        file.write_bytes(b"\x00" * 100)
    assert box.post("/predict", {"client_ids": [1, 2]}).body["predictions"] == before
    box.close()


def test_an_unknown_client_is_named_by_its_place_and_nothing_is_scored(box: Box) -> None:
    answer = box.post("/predict", {"client_ids": [1, 9_077_777, 2, 9_077_778]})
    assert (answer.status, answer.body) == (
        404,
        {"error": "client_ids[1], client_ids[3]: not a client of the bank"},
    )
    assert box.records() == []


def test_features_past_their_life_are_answered_and_said_to_be(places: Places, ran: Home, tmp_path: Path) -> None:
    from loan_assets.online_table import SHELF, read_online, write_online
    from loan_assets.resources.versioned_store import VersionedStore

    table = read_online(Path(ran.settings.online))
    as_of = table.as_of.copy()
    as_of[table.rows_of([7])] -= 60 * 86_400 * 1_000_000  # 60 days before the others; a life is 45
    store = VersionedStore(root=tmp_path / "online", keep=2)
    store.write(SHELF, lambda folder: write_online(folder, table.facts, table.clients, as_of, table.features))
    box = Box(replace(places, online=str(tmp_path / "online")))
    answer = box.post("/predict", {"client_ids": [6, 7]}).body["predictions"]
    assert [one["stale"] for one in answer] == [False, True]
    assert [record.is_stale for record in box.records()] == [False, True]
    scorer = box.application.releases.in_force.champion
    with pytest.raises(Exception, match="features of 1 of the clients are older than 45 days"):
        asyncio.run(box.application._online.asked([6, 7], scorer, answers_stale=False))
    box.close()


def test_an_online_table_of_another_format_is_not_read(places: Places, ran: Home, tmp_path: Path) -> None:
    from loan_assets.online_table import SHELF, read_online, write_online
    from loan_assets.resources.versioned_store import VersionedStore

    table = read_online(Path(ran.settings.online))
    facts = replace(table.facts, format="loan-assets/online/1")
    store = VersionedStore(root=tmp_path / "online", keep=2)
    store.write(SHELF, lambda folder: write_online(folder, facts, table.clients, table.as_of, table.features))
    box = Box(replace(places, online=str(tmp_path / "online")))
    refused = box.post("/predict", {"client_ids": [1]})
    assert (refused.status, "of format 'loan-assets/online/1'" in refused.body["error"]) == (503, True)
    box.close()


def test_a_box_without_an_online_table_says_so_and_scores_applications(
    places: Places, tmp_path: Path, good: dict[str, Any]
) -> None:
    box = Box(replace(places, online=str(tmp_path / "none")))
    refused = box.post("/predict", {"client_ids": [1]})
    assert (refused.status, "Nothing is in force" in refused.body["error"]) == (503, True)
    assert box.post("/score", {"applications": [good]}).status == 200
    box.close()


@pytest.fixture
def guarded(places: Places, tmp_path: Path) -> tuple[Box, str, str]:
    """A box with tokens, one that may predict and one that may look around."""
    (predict, first), (admin, second) = (
        new_token("bank", frozenset({"predict"})),
        new_token("ops", frozenset({"admin"})),
    )
    file = tmp_path / "tokens"
    file.write_text(f"# callers\n{first.line()}\n{second.line()}\n")
    return Box(replace(places, tokens=file)), predict, admin


def test_with_tokens_every_route_but_the_probes_asks_for_one(guarded: tuple[Box, str, str]) -> None:
    box, predict, admin = guarded
    unguarded = {"/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/"}
    for path, methods in box.application._routes.items():
        for method, route in methods.items():
            statuses = {
                shown: box.ask(method, path, headers={"authorization": f"Bearer {shown}"} if shown else {}).status
                for shown in ("", "x" * 43, predict, admin)
            }
            if path in unguarded:
                assert set(statuses.values()) == {200}, path
                continue
            assert statuses[""] == statuses["x" * 43] == 401, path
            assert statuses[admin if route.scope == "predict" else predict] == 403, path
            assert statuses[predict if route.scope == "predict" else admin] in (200, 400), path
    box.close()


@pytest.mark.parametrize("left", ["", "# nobody\n", None])
def test_the_last_token_can_be_taken_away_too(guarded: tuple[Box, str, str], left: str | None) -> None:
    box, predict, admin = guarded
    file = box.places.tokens
    assert file is not None
    if left is None:
        file.unlink()
    else:
        file.write_text(left)
    with pytest.raises(Refusal, match="nobody is let in"):
        box.application.access.look()
    for shown in (predict, admin, "", "x" * 43):
        assert box.ask("GET", "/v1/models", headers={"authorization": f"Bearer {shown}"}).status == 401
    box.close()


def test_a_file_of_tokens_with_a_broken_line_is_not_taken_over(guarded: tuple[Box, str, str]) -> None:
    box, predict, _ = guarded
    file = box.places.tokens
    assert file is not None
    file.write_text("bank predict nonsense\n")
    with pytest.raises(Refusal, match="Line 1 of the tokens"):
        box.application.access.look()
    assert box.ask("GET", "/v1/models", headers={"authorization": f"Bearer {predict}"}).status == 200
    box.close()


def test_a_box_whose_tokens_make_no_sense_starts_and_lets_nobody_in(places: Places, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    box = Box(replace(places, tokens=tmp_path / "tokens"))
    assert (box.ask("GET", "/v1/models").status, box.ask("GET", "/livez").status) == (401, 200)
    box.close()


def test_a_record_says_whose_token_was_shown_and_names_belong_to_their_caller(
    places: Places, tmp_path: Path, good: dict[str, Any]
) -> None:
    (first, one), (second, other) = (new_token(name, frozenset({"predict"})) for name in ("bank", "broker"))
    (tmp_path / "tokens").write_text(f"{one.line()}\n{other.line()}\n")
    box = Box(replace(places, tokens=tmp_path / "tokens"))
    for shown, asked in ((first, [good]), (second, [good, good])):
        body = {"applications": asked, "request_id": "1"}
        assert box.post("/score", body, authorization=f"Bearer {shown}").status == 200
    assert Counter(record.caller for record in box.records()) == {"bank": 1, "broker": 2}
    box.close()


def test_a_token_that_was_taken_from_the_file_lets_nobody_in_any_more(guarded: tuple[Box, str, str]) -> None:
    box, predict, _ = guarded
    headers = {"authorization": f"Bearer {predict}"}
    assert box.ask("GET", "/v1/models", headers=headers).status == 200
    file = box.places.tokens
    assert file is not None
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("bank")))
    box.application.access.look()
    assert box.ask("GET", "/v1/models", headers=headers).status == 401
    box.close()


def test_more_than_can_be_waited_for_is_refused_at_once(places: Places, good: dict[str, Any]) -> None:
    box = Box(places, replace(POLICY.endpoint, most_open=0))
    refused = box.post("/score", {"applications": [good]})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert box.records() == []
    box.close()


def test_a_body_is_counted_as_it_comes_and_not_read_on(strict_box: Box) -> None:
    pieces = [b"x" * 4_000] * 100
    answer = strict_box.send("POST", "/score", pieces, {"content-type": "application/json"})
    assert answer.status == 413
    assert len(strict_box.unread) == 97
    told = strict_box.send("POST", "/score", pieces, {"content-type": "application/json", "content-length": "400000"})
    assert (told.status, told.headers["connection"], len(strict_box.unread)) == (413, "close", 100)


def test_more_rows_than_the_limit_are_refused(strict_box: Box, good: dict[str, Any]) -> None:
    answer = strict_box.post("/predict", {"client_ids": list(range(1, 7))})
    assert (answer.status, answer.body) == (400, {"error": "client_ids: at most 5 entries are answered at once"})


@pytest.mark.parametrize("kind", ["application/x-python-pickle", "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused_unread(box: Box, kind: str) -> None:
    answer = box.ask("POST", "/score", b"\x80\x04", {"content-type": kind})
    assert (answer.status, box.unread) == (415, [b"\x80\x04"])


@pytest.mark.parametrize("path", ["/docs", "/docs.json", "/schema.json", "/static_content/index.html", "/predict/x"])
def test_bentoml_s_own_pages_are_not_there(box: Box, path: str) -> None:
    assert box.ask("GET", path).status == 404


def test_a_wrong_method_is_told_the_right_one(box: Box) -> None:
    answer = box.ask("GET", "/score")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert box.ask("DELETE", "/livez").headers["allow"] == "GET, HEAD"
    assert box.ask("HEAD", "/livez").status == 200


def test_our_own_mistake_is_a_500_that_repeats_nothing(
    box: Box, good: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"the row was {good}")

    monkeypatch.setattr(box.application._log, "append", broken)
    with caplog.at_level(logging.ERROR):
        answer = box.post("/score", {"applications": [good]})
    assert (answer.status, answer.body) == (500, {"error": "the endpoint failed; its log says where"})
    assert "/score failed with RuntimeError at" in caplog.text
    assert "credit_limit" not in caplog.text


def test_an_answer_that_cannot_be_recorded_is_not_given(places: Places, good: dict[str, Any]) -> None:
    places.predictions.mkdir()
    (places.predictions / "2026-02-02").write_text("a file where the day's folder should be")
    box = Box(places)
    refused = box.post("/score", {"applications": [good]})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "prediction log cannot be written" in refused.body["error"]
    assert "default_probability" not in refused.content.decode()
    (places.predictions / "2026-02-02").unlink()
    assert box.post("/score", {"applications": [good]}).status == 200
    box.close()


def test_a_full_log_is_named_and_the_box_is_not_ready(places: Places, good: dict[str, Any]) -> None:
    box = Box(places, replace(POLICY.endpoint, log_bytes=2_000))
    assert box.post("/score", {"applications": [good]}).status == 200
    refused = box.post("/score", {"applications": [good]})
    assert (refused.status, "archive its older days" in refused.body["error"]) == (503, True)
    assert box.ask("GET", "/readyz").status == 503
    box.close()


def test_metrics_count_by_closed_lists_of_labels(box: Box, good: dict[str, Any]) -> None:
    box.post("/score", {"applications": [good]})
    box.ask("GET", "/who-knows-what")
    page = box.ask("GET", "/metrics").content.decode()
    assert 'loan_request_seconds_count{route="/score",status="200"}' in page
    assert 'loan_request_seconds_count{route="other",status="404"}' in page
    assert 'loan_default_probability_count{arm="champion",decision="refuse"}' in page
    assert "who-knows-what" not in page


def test_without_the_patient_protocol_the_application_bounds_bodies_itself(places: Places) -> None:
    async def asked() -> int:
        limits = replace(POLICY.endpoint, patience=0.3)
        application = Application(places, limits, bounds_bodies=True)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.1)  # a byte now and then does not buy more time
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await application({"type": "http", "method": "POST", "path": "/score", "headers": []}, receive, send)
        await application.close()
        return int(sent[0]["status"])

    assert asyncio.run(asyncio.wait_for(asked(), 5)) == 408
