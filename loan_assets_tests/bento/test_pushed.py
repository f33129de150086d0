"""What the endpoint answers of clients whose statements were pushed, in this process and over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bento.places import Places
from loan_assets.stream import Stream
from loan_assets_tests.bento.conftest import Box
from loan_assets_tests.conftest import Home
from loan_assets_tests.test_stream import CLIENT, EVENTS, NOW, OTHER, home_of


def test_the_endpoint_follows_what_was_pushed_over_the_sealed_table(places: Places, ran: Home, tmp_path: Path) -> None:
    settings = home_of(ran.settings.home, tmp_path / "home")
    stream = Stream.over(settings)
    box = Box(replace(places, online=settings.online))

    def ask() -> dict[str, Any]:
        one: dict[str, Any] = box.post("/predict", {"client_ids": [OTHER, CLIENT]}).body["predictions"][1]
        return one

    before = ask()
    stream.take(EVENTS[:1], NOW)
    assert ask()["default_probability"] == before["default_probability"]  # until it has been looked at
    box.application._online.look()
    after = ask()
    assert after["features_as_of"] == "2005-10-31T00:00:00+00:00"
    assert after["default_probability"] > before["default_probability"]
    (log,) = (Path(settings.online) / "pushed").glob("*.log")
    with log.open("ab") as cut:
        cut.write(b"0badc0de 7 00")  # a kill in mid-write
    box.application._online.look()
    assert ask()["features_as_of"] == after["features_as_of"]
    stream.take(EVENTS[1:2], NOW)
    box.application._online.look()
    restated = ask()
    assert restated["default_probability"] != after["default_probability"]
    fresh = Box(replace(places, online=settings.online))
    assert (
        fresh.post("/predict", {"client_ids": [CLIENT]}).body["predictions"][0]["default_probability"]
        == (restated["default_probability"])
    )
    fresh.close()
    with log.open("ab") as damaged:
        damaged.write(b"0badc0de 7 00\n")
    box.application._online.look()
    assert ask()["default_probability"] == restated["default_probability"]
    box.close()
