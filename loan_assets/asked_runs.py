"""Runs that carry out a step of the journal: the key under which each is asked for, and when again after it failed.

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
    wait, failed_at = 0.0, now
    for attempt in range(TRIES):
        key = key_of(due, step, attempt)
        asked = instance.get_run_records(dg.RunsFilter(tags={"dagster/run_key": key}), limit=1)
        if not asked:
            return key if now - failed_at >= wait else None
        status = asked[0].dagster_run.status
        if status is dg.DagsterRunStatus.NOT_STARTED:
            return key  # it was made and never queued; asked for by the same key, it is
        if status is not dg.DagsterRunStatus.FAILURE:
            return None
        failed_at = asked[0].end_time or asked[0].update_timestamp.timestamp()
        wait = FIRST_WAIT * LONGER**attempt
    return None
