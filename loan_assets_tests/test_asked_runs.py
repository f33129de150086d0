"""The run that carries out a step: asked for once, again at growing distances where it failed, never without end."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from loan_assets.asked_runs import FIRST_WAIT, TRIES, key_for_now

STEP = 7


@dg.op(config_schema={"fails": bool})
def carry_out(context: dg.OpExecutionContext) -> None:
    """Fail where it is told to."""
    if context.op_config["fails"]:
        raise dg.Failure("the store is away")


@dg.job
def succeed() -> None:
    """One run of what is due."""
    carry_out()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def told(*, fails: bool) -> dict[str, Any]:
    return {"ops": {"carry_out": {"config": {"fails": fails}}}}


def run(instance: dg.DagsterInstance, key: str, *, fails: bool) -> float:
    """A run that was asked for under a key; when it ended."""
    ran = succeed.execute_in_process(
        run_config=told(fails=fails),
        instance=instance,
        tags={"dagster/run_key": key},
        raise_on_error=False,
    )
    assert ran.success != fails
    ended = instance.get_run_records(dg.RunsFilter(run_ids=[ran.run_id]))[0].end_time
    assert ended is not None
    return ended


def test_what_was_carried_out_is_not_asked_for_again_and_the_next_step_is(instance: dg.DagsterInstance) -> None:
    key = key_for_now(instance, "succeed", STEP, 0.0)
    assert key == "succeed-7"
    ended = run(instance, key, fails=False)
    assert key_for_now(instance, "succeed", STEP, ended + 86_400) is None
    assert key_for_now(instance, "succeed", STEP + 1, ended) == "succeed-8"


def test_what_failed_is_asked_for_again_at_growing_distances_and_not_without_end(instance: dg.DagsterInstance) -> None:
    now, distances = 0.0, []
    for attempt in range(TRIES):
        ended, distance = now, 0.0
        while (key := key_for_now(instance, "succeed", STEP, ended + distance)) is None:
            distance += FIRST_WAIT / 4
        distances.append(distance)
        assert key == ("succeed-7" if attempt == 0 else f"succeed-7-{attempt}")
        now = run(instance, key, fails=True)
    assert distances == pytest.approx([0, 60, 240, 960])
    assert key_for_now(instance, "succeed", STEP, now + 86_400) is None


def test_once_a_second_try_succeeds_nothing_more_is_asked_for(instance: dg.DagsterInstance) -> None:
    run(instance, "succeed-7", fails=True)
    ended = run(instance, "succeed-7-1", fails=False)
    assert key_for_now(instance, "succeed", STEP, ended + 86_400) is None


def test_a_run_that_was_made_and_never_queued_is_asked_for_by_the_same_key(instance: dg.DagsterInstance) -> None:
    instance.create_run_for_job(succeed, run_config=told(fails=True), tags={"dagster/run_key": "succeed-7"})
    assert key_for_now(instance, "succeed", STEP, 4e9) == "succeed-7"


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELED]
)
def test_what_goes_on_or_was_ended_by_a_person_is_not_asked_for_again(
    status: dg.DagsterRunStatus, instance: dg.DagsterInstance
) -> None:
    instance.create_run_for_job(
        succeed, run_config=told(fails=True), tags={"dagster/run_key": "succeed-7"}, status=status
    )
    assert key_for_now(instance, "succeed", STEP, 4e9) is None
