"""The online table in Redis, on a real server: the same rows, followed as they are replaced, told when it is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bento.places import Places
from loan_assets import online_redis
from loan_assets.books import LoanBook
from loan_assets.online_table import OnlineTable, read_online
from loan_assets.refusal import Refusal
from loan_assets_tests.bento.conftest import Box
from loan_assets_tests.conftest import Home
from loan_assets_tests.services import RedisServer

pytestmark = pytest.mark.skipif(
    not RedisServer.is_there(), reason="redis-server is not installed: apt-get install redis-server"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def table(ran: Home) -> OnlineTable:
    return read_online(Path(ran.settings.online))


def published(server: RedisServer, table: OnlineTable, **changed: Any) -> str:
    given: dict[str, Any] = {"clients": table.clients, "as_of": table.as_of, "features": table.features, **changed}
    return online_redis.publish(server.place(), table.facts, **given)


def test_what_was_written_is_read_to_the_bit(server: RedisServer, table: OnlineTable) -> None:
    digest = published(server, table)
    back = online_redis.read_table(server.place())
    assert (back.digest, back.facts) == (digest, table.facts)
    assert np.array_equal(back.clients, table.clients)
    assert np.array_equal(back.as_of, table.as_of)
    assert np.array_equal(back.features.view("uint32"), table.features.view("uint32"))
    assert published(server, table) == digest


def test_clients_are_answered_from_redis_as_in_the_batch(
    server: RedisServer, table: OnlineTable, places: Places, ran: Home, book: LoanBook
) -> None:
    published(server, table)
    scores: pd.DataFrame = ran.read("batch_scores").sample(1_000, random_state=2)
    box = Box(replace(places, online=server.place()))
    answer = box.post("/predict", {"client_ids": scores[book.key.name].tolist()})
    assert answer.status == 200, answer.body
    assert [one["default_probability"] for one in answer.body["predictions"]] == scores["default_probability"].tolist()
    unknown = box.post("/predict", {"client_ids": [1, 9_077_777]})
    assert (unknown.status, unknown.body) == (404, {"error": "client_ids[1]: not a client of the bank"})
    box.close()


def test_a_table_that_is_replaced_is_followed_and_the_old_one_forgotten(
    server: RedisServer, table: OnlineTable, places: Places
) -> None:
    first = published(server, table)
    box = Box(replace(places, online=server.place()))
    before = box.post("/predict", {"client_ids": [1, 2]}).body["predictions"]
    swapped = table.features.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    published(server, table, features=swapped)
    assert box.post("/predict", {"client_ids": [1, 2]}).body["predictions"] == before  # until it has been looked at
    box.application._online.look()
    after = box.post("/predict", {"client_ids": [2, 1]}).body["predictions"]
    assert [one["default_probability"] for one in after] == [one["default_probability"] for one in before]
    client = online_redis.connected(server.place())
    assert 0 < client.ttl(f"loan:online:{first}:1") <= online_redis.SECONDS_KEPT
    box.close()


def test_a_server_that_is_gone_is_told_at_once_and_nothing_but_clients_by_number_suffers(
    server: RedisServer, table: OnlineTable, places: Places, good: dict[str, float]
) -> None:
    published(server, table)
    box = Box(replace(places, online=server.place()))
    server.stop()
    began = time.monotonic()
    refused = box.post("/predict", {"client_ids": [1]})
    took = time.monotonic() - began
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.body["error"].startswith(f"Redis at 127.0.0.1:{server.port}/0 does not answer as it should")
    assert "s3cret" not in refused.body["error"]
    assert took <= 0.2
    assert box.post("/score", {"applications": [good]}).status == 200
    server.start()
    published(server, table)
    assert box.post("/predict", {"client_ids": [1]}).status == 200
    box.close()


def test_rows_of_another_length_are_refused(server: RedisServer, table: OnlineTable, places: Places) -> None:
    digest = published(server, table)
    box = Box(replace(places, online=server.place()))
    online_redis.connected(server.place()).set(f"loan:online:{digest}:7", b"short")
    refused = box.post("/predict", {"client_ids": [7]})
    assert (refused.status, "rows of another length" in refused.body["error"]) == (503, True)
    box.close()


def test_without_a_table_or_a_server_publishing_and_reading_say_so(server: RedisServer, table: OnlineTable) -> None:
    with pytest.raises(Refusal, match="No online table is in force in Redis"):
        online_redis.read_table(server.place())
    server.stop()
    with pytest.raises(Refusal, match="does not answer as it should") as refused:
        published(server, table)
    assert "s3cret" not in str(refused.value)
    server.start()
