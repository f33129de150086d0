"""The boards: whole, told in words, in units, without overlaps, and tied to figures and runbooks that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from loan_assets.books import LoanBook
from loan_assets_tests.conftest import Home
from loan_assets_tests.test_monitoring_rules import MONITORING, NAMES, RECORDS, RUNBOOKS, read_of

BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((MONITORING / "dashboards").glob("*.json"))}
KINDS = {"row", "timeseries", "stat", "bargauge", "table", "heatmap"}
UNITS = {"none", "s", "bytes", "percentunit", "reqps", "ops", "rowsps", "dateTimeAsIso"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What Prometheus says of itself and of whom it reads.
ITS_OWN = {"up", "ALERTS", "scrape_duration_seconds"}
WIDTH = 24


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str, str]]:
    """Every query, with its board and its panel."""
    return [
        (name, panel["title"], target["expr"])
        for name, board in BOARDS.items()
        for panel in panels_of(board)
        for target in panel["targets"]
    ]


def test_there_is_a_board_for_each_who_looks() -> None:
    assert set(BOARDS) == {"serving", "models", "fairness", "platform"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        assert board["schemaVersion"] == 39
        assert board["description"]
        assert "loan-assets" in board["tags"]
        assert "id" not in board  # Grafana gives it
        (first, *_) = board["templating"]["list"]
        assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")


@pytest.mark.parametrize("name", BOARDS)
def test_nothing_is_set_that_grafana_does_not_know(name: str) -> None:
    """Read into the models of Grafana's published schema (10.1) and written again, a board is what it was."""
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARDS[name])))
    assert list(lost(BOARDS[name], again, name)) == []


def lost(said: Any, again: Any, where: str) -> Iterator[str]:
    """Where the second says less than the first, or something else; more are defaults."""
    if isinstance(said, dict) and isinstance(again, dict):
        for key, value in said.items():
            yield from lost(value, again.get(key), f"{where}.{key}")
    elif isinstance(said, list) and isinstance(again, list) and len(said) == len(again):
        for place, (one, other) in enumerate(zip(said, again, strict=True)):
            yield from lost(one, other, f"{where}[{place}]")
    elif said != again:
        yield f"{where}: {said!r} became {again!r}"


def test_a_misspelt_option_would_be_told() -> None:
    wrong = json.loads(json.dumps(BOARDS["serving"]))
    panels_of(wrong)[0]["options"]["textSize"] = 3
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(wrong)))
    assert list(lost(wrong, again, "")) == [".panels[1].options.textSize: 3 became None"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows_in_a_unit_of_the_chosen_source(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert {panel["type"] for panel in panels} <= KINDS
    for panel in panels_of(BOARDS[name]):
        title = panel["title"]
        assert len(panel["description"]) > 20, title
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, title
        assert panel["datasource"] == DATASOURCE, title
        assert panel["targets"], title
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])]), title
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE, title
            assert target["legendFormat"] or panel["type"] == "table", title


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_lies_on_another_or_beyond_the_edge(name: str) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in BOARDS[name]["panels"]]
    for title, place in places:
        assert place["x"] >= 0, title
        assert place["x"] + place["w"] <= WIDTH, title
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)


@pytest.mark.parametrize("name", BOARDS)
def test_links_lead_to_runbooks_that_there_are(name: str) -> None:
    linked = [link for panel in BOARDS[name]["panels"] for link in panel.get("links", [])]
    assert linked
    for link in linked:
        assert link["url"] == f"${{runbooks}}/{link['title']}.md"
        assert (RUNBOOKS / f"{link['title']}.md").exists()


def test_every_query_reads_figures_and_labels_that_there_are(ran: Home, book: LoanBook, tmp_path: Path) -> None:
    there = read_of(ran, book, tmp_path) | {rule["record"] for rule in RECORDS} | ITS_OWN
    for name, title, expr in queries():
        named = [*NAMES.findall(expr), *(own for own in ITS_OWN if own in expr)]
        assert named, (name, title)
        for figure in named:
            bare = re.sub(r"_(bucket|count|sum|total)$", "", figure)
            # Without rates there is no cost; the live test sets them.
            assert figure in there or bare in there or "cost" in figure, (name, title, figure)
