"""What a person reads when a run stops: the asset, the cause and the next step, in a paragraph."""

from __future__ import annotations

import dagster as dg

from loan_assets.refusal import Refusal
from loan_assets.running import Interrupted, why_it_failed


@dg.asset
def ledger() -> int:
    return 3


@dg.asset_check(asset=ledger, blocking=True)
def ledger_balances(ledger: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description=f"{ledger} lines without a counterpart")


@dg.asset_check(asset=ledger)
def ledger_is_long(ledger: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description=f"{ledger} lines only")


@dg.asset
def vault() -> int:
    raise Refusal("The vault has no door.", "Build one.")


@dg.asset
def counted_by_hand() -> int:
    raise dg.DagsterExecutionInterruptedError


def stopped(assets: list[dg.AssetsDefinition], checks: list[dg.AssetChecksDefinition]) -> Refusal:
    done = dg.materialize([*assets, *checks], raise_on_error=False)
    assert not done.success
    return why_it_failed(done.all_events)


def test_a_check_that_stops_a_run_says_what_it_found_and_not_dagster_s_own_error() -> None:
    why = stopped([ledger], [ledger_is_long, ledger_balances])
    assert why.cause == "ledger does not pass ledger_balances: 3 lines without a counterpart."
    assert "Nothing that builds on ledger was made." in why.next_step
    assert "Dagster UI" in why.next_step
    assert "dagster._core" not in str(why)


def test_a_refusal_that_stops_a_run_is_told_in_its_own_words() -> None:
    why = stopped([vault], [])
    assert why.cause == "vault stopped the run. The vault has no door. Build one."


def test_a_run_that_somebody_ended_is_told_from_one_that_failed() -> None:
    why = stopped([counted_by_hand], [])
    assert isinstance(why, Interrupted)
    assert why.cause == "counted_by_hand was interrupted."
    assert not isinstance(stopped([vault], []), Interrupted)
