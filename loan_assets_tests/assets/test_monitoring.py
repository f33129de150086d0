"""What a drift report's page links to, and the days that it refuses to guess at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from loan_assets.assets.monitoring import drift_report
from loan_assets.credit.drift import PAGE
from loan_assets.refusal import Refusal
from loan_assets.resources.decisions import Decisions
from loan_assets.resources.release_store import ReleaseStore
from loan_assets_tests.conftest import Home

REPORT = dg.AssetKey("drift_report")


def test_the_report_and_its_check_link_to_the_page_of_the_day(ran: Home) -> None:
    with dg.DagsterInstance.from_config(str(ran.settings.dagster_home)) as instance:
        (record,) = instance.fetch_materializations(REPORT, limit=1).records
        events = instance.all_logs(record.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    made = record.asset_materialization
    assert made is not None
    place = linked(made.metadata, PAGE)
    assert place.parts[-4:-2] == ("drift_report", made.partition)
    assert place.read_bytes().lstrip().startswith(b"<")
    evaluations = [event.dagster_event.asset_check_evaluation_data for event in events if event.dagster_event]
    (judged,) = [one for one in evaluations if one.check_name == "applicants_resemble_the_training"]
    assert linked(judged.metadata, f"{PAGE} of {made.partition}") == place


def linked(metadata: Mapping[str, dg.MetadataValue], name: str) -> Path:
    link = metadata[name]
    assert isinstance(link, dg.PathMetadataValue)
    return Path(str(link.path))


def test_a_day_without_a_stored_log_is_refused_by_name(ran: Home) -> None:
    context = dg.build_asset_context(partition_key="2026-02-03")
    store = ReleaseStore(root=str(ran.settings.releases))
    journal = Decisions(folder=str(ran.settings.decisions))
    with pytest.raises(Refusal, match=r"The log of 2026-02-03 is not stored\. Materialize prediction_log"):
        drift_report(context, release_store=store, decisions=journal, prediction_log={}, batch_quality={})
