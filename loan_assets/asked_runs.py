"""Runs that carry out a step: the key under which each is asked for, and when again after it failed.

A step is what the journal says last, or a month of which statements were pushed.

Here: telling from the runs that there were. Not here: what is due (`reign`) or who asks (`sensors`, `due_runs`).

A store that is away for a quarter of an hour, or a machine that is, must not cost a day: what failed is tried again
after a minute, after four and after sixteen. What a person has ended is left alone, as is what fails each time; both
are due again after the next step.
"""

from __future__ import annotations

import dagster as dg

TRIES = 4
FIRST_WAIT, LONGER = 60.0, 4.0


def key_of(due: str, step: int, attempt: int = 0) -> str:
    """The key of a run: by what is due, the number of the step that says so, and how often that failed before."""
    return f"{due}-{step}" if attempt == 0 else f"{due}-{step}-{attempt}"


def key_for_now(instance: dg.DagsterInstance, due: str, step: int, now: float) -> str | None:
    """The key under which a step's run is to be asked for; None where it goes on, is over, or has to wait.

    Args:
        now: seconds since 1970.
    """
    tries = _tries(instance, due, step)
    if not tries:
        return key_of(due, step)
    last, count = tries[-1], len(tries)
    status = last.dagster_run.status
    if status is dg.DagsterRunStatus.NOT_STARTED:
        return key_of(due, step, count - 1)  # it was made and never queued; asked for by the same key, it is
    if status is not dg.DagsterRunStatus.FAILURE or count == TRIES:
        return None
    failed_at = last.end_time or last.update_timestamp.timestamp()
    has_waited = now - failed_at >= FIRST_WAIT * LONGER ** (count - 1)
    return key_of(due, step, count) if has_waited else None


def is_over(instance: dg.DagsterInstance, due: str, step: int) -> bool:
    """Whether a step's run is asked for no more: one succeeded or was ended by a person, or it failed each time."""
    tries = _tries(instance, due, step)
    if not tries:
        return False
    status = tries[-1].dagster_run.status
    has_ended = status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED)
    return has_ended or (status is dg.DagsterRunStatus.FAILURE and len(tries) == TRIES)


def _tries(instance: dg.DagsterInstance, due: str, step: int) -> list[dg.RunRecord]:
    """The runs that were asked for, up to the first that did not fail."""
    tries: list[dg.RunRecord] = []
    for attempt in range(TRIES):
        key = key_of(due, step, attempt)
        asked = instance.get_run_records(dg.RunsFilter(tags={"dagster/run_key": key}), limit=1)
        tries += asked
        if not asked or asked[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
    return tries
