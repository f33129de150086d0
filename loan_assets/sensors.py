"""The arrow that points back, and the ones that keep the graph fresh.

Here: when Dagster starts a run by itself. Not here: the rule that decides (`credit.succession`), how a decision is
taken (`reign`), the jobs that a person starts (`buttons`), or what a run does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from loan_assets.asked_runs import is_over, key_for_now
from loan_assets.books import the_book
from loan_assets.books.calendar import months_of
from loan_assets.killed_runs import end_killed_runs
from loan_assets.policy_file import the_policy
from loan_assets.prediction_record import day_of
from loan_assets.refusal import Refusal
from loan_assets.reign import RETRAIN, SUCCEED, Reign
from loan_assets.resources.catalog import DAYS, months_of_statements
from loan_assets.resources.decisions import Decisions
from loan_assets.resources.landing import Landing
from loan_assets.resources.live_history import Memory
from loan_assets.resources.outcome_landing import OutcomeLanding
from loan_assets.resources.pushed_statements import PushedStatements
from loan_assets.resources.registry import Registry

BOOK = the_book()
POLICY = the_policy()
CAUSE = "loan_assets/cause"

of_a_day = dg.AssetSelection.groups("outcomes") | dg.AssetSelection.assets(
    "live_performance", "live_fairness", "retrain_decision"
)
daily = dg.AssetSelection.groups("monitoring") | of_a_day
model = dg.AssetSelection.assets("default_model")
in_force = dg.AssetSelection.assets("gate_verdict", "champion")
retrain = dg.define_asset_job(
    RETRAIN,
    selection=(dg.AssetSelection.assets("training_set") | model.downstream()) - daily,
    description="A challenger made to the order in force, judged, and put in force where it is better.",
)
succeed = dg.define_asset_job(
    SUCCEED, selection=in_force, description="The challenger judged on what is known now; the champion put in force."
)
outcomes_of_a_day = dg.define_asset_job(
    "outcomes_of_a_day", selection=of_a_day, description="Outcomes that have arrived, and what follows from them."
)
month_of_statements = dg.define_asset_job(
    "month_of_statements",
    selection=dg.AssetSelection.assets("monthly_statements"),
    description="One month of statements, from the book or from the file that arrived for it.",
)
daily_watch = dg.define_asset_job(
    "daily_watch", selection=daily, description="One day's log, outcomes and drift report, and what follows from them."
)


keep_graph_fresh = dg.AutomationConditionSensorDefinition(
    "keep_graph_fresh",
    target=dg.AssetSelection.all() - daily,
    minimum_interval_seconds=POLICY.vigilance.seconds_between_looks,
    default_status=dg.DefaultSensorStatus.RUNNING,
)


def fresh(followed: dg.AssetSelection | None = None) -> dg.AutomationCondition[dg.AssetKey]:
    """Follow whatever changed upstream (or of `followed`), every month of it, once its blocking checks have passed.

    Without the latest-window limit of `eager`: a new delivery restates every month, not the last one only.
    """
    eager = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    following = eager & ~failed_on_what_is_there()
    within = following.allow(followed) if followed else following
    return within & dg.AutomationCondition.all_deps_blocking_checks_passed()


def failed_on_what_is_there() -> dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]:
    """It was last run without success, and nothing that it follows has changed since: it would only fail again.

    A model below the floors is refused once, not every twenty seconds.
    """
    failed = dg.AutomationCondition.execution_failed()
    # What changed in the very tick of the failure was seen by the run that failed.
    tried = failed.newly_true() | dg.AutomationCondition.newly_requested()
    return failed & ~dg.AutomationCondition.any_deps_updated().since(tried)


def fresh_from_the_book() -> dg.AutomationCondition[dg.AssetKey]:
    """Follow the delivery and its features, but not each new day: a retraining gathers what has settled."""
    eager = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    following = eager & ~failed_on_what_is_there()
    within = following.ignore(daily)
    return within & dg.AutomationCondition.all_deps_blocking_checks_passed()


def fresh_after_the_model() -> dg.AutomationCondition[dg.AssetKey]:
    """Follow a new model, and new online features, but not a new training set.

    A scorecard drawn up on data that the model was not trained on would judge nothing; new data wait for a retraining.
    """
    return fresh(model.downstream() | dg.AssetSelection.assets("online_features"))


def fresh_while_there(followed: dg.AssetSelection | None = None) -> dg.AutomationCondition[dg.AssetKey]:
    """As `fresh`, for months that are there: one that has not arrived yet is requested by its arrival alone."""
    return fresh(followed) & ~dg.AutomationCondition.missing()


def fresh_with_what_is_there() -> dg.AutomationCondition[dg.AssetKey]:
    """As `fresh`, for a table over all months: it does not wait for those that have not arrived yet."""
    eager = dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())
    following = eager & ~failed_on_what_is_there()
    return following & dg.AutomationCondition.all_deps_blocking_checks_passed()


def with_automation(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Every asset with the condition under which it is requested by itself.

    The delivery, the model, the daily ones and the succession have none: the first is fetched by people, the model is
    retrained by the first job, by `act_on_decisions` and by people, a day is watched once, in the night after it.
    """
    on_request = (dg.AssetSelection.assets("raw_loan_book") | model | daily | in_force).resolve(assets)
    after_the_model = model.downstream().resolve(assets)
    own = {
        "monthly_statements": fresh_while_there,
        "feature_definitions": fresh_with_what_is_there,
        "training_set": fresh_from_the_book,
    }

    def condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.key in on_request:
            return spec
        usual = fresh_after_the_model if spec.key in after_the_model else fresh
        return spec.replace_attributes(automation_condition=own.get(spec.key.to_python_identifier(), usual)())

    return list(dg.map_asset_specs(condition, assets))


@dg.sensor(
    jobs=[retrain, succeed],
    minimum_interval_seconds=POLICY.vigilance.seconds_between_looks,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def act_on_decisions(
    context: dg.SensorEvaluationContext, decisions: Decisions, memory: Memory, registry: Registry
) -> dg.SensorResult | dg.SkipReason:
    """Carry out what was decided last: make and judge a challenger, judge one again, or put the champion in force.

    The journal says what is due. A run is asked for once a step, and a few times more at growing distances where it
    failed.
    """
    last = decisions.last()
    due = Reign(decisions=decisions, registry=registry, history=memory.of(BOOK)).what_is_due()
    if last is None or due is None:
        return dg.SkipReason("Nothing was decided that is not carried out.")
    key = key_for_now(context.instance, due, last.number, time.time())
    if key is None:
        return dg.SkipReason(f"{due} for step {last.number} goes on, waits for another try, or was given up.")
    cause = "; ".join(action.cause for action in last.actions) or f"step {last.number}"
    request = dg.RunRequest(run_key=key, job_name=due, tags={CAUSE: cause})
    context.log.info(f"{due}: {cause}.")
    return dg.SensorResult(run_requests=[request])


@dg.sensor(
    job=outcomes_of_a_day,
    minimum_interval_seconds=POLICY.vigilance.seconds_between_looks,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def outcomes_arrive(context: dg.SensorEvaluationContext, outcome_landing: OutcomeLanding) -> dg.SensorResult:
    """Take in a day's outcomes when their file arrives, and again when it changes; days that are to come are left."""
    landed = Landed.from_json(context.cursor)
    try:
        found = outcome_landing.arrivals()
    except Refusal as refusal:
        return dg.SensorResult(skip_reason=str(refusal), cursor=context.cursor)
    held = set(DAYS.get_partition_keys())
    for day in set(found) - held - set(landed.marks):
        context.log.warning(f"A file for {day} has arrived, which is no day that the log can hold; it is left alone.")
    new = sorted(day for day in held & set(found) if landed.marks.get(day) != found[day])
    requests = [
        dg.RunRequest(
            run_key=f"outcomes-{day}-{number}-{found[day]}",
            partition_key=day,
            tags={CAUSE: f"outcomes arrived on {day}"},
        )
        for number, day in enumerate(new, start=landed.arrivals + 1)
    ]
    after = Landed(arrivals=landed.arrivals + len(new), marks={**landed.marks, **found})
    said = f"{len(found)} days of outcomes have arrived, none of them new."
    return dg.SensorResult(run_requests=requests, skip_reason=None if requests else said, cursor=after.to_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What is remembered of a landing place: how many arrivals were answered, and the mark of each file."""

    arrivals: int = 0
    marks: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As a cursor."""
        return json.dumps({"arrivals": self.arrivals, "marks": dict(self.marks)}, sort_keys=True)

    @classmethod
    def from_json(cls, cursor: str | None) -> Landed:
        """Read what `to_json` wrote; nothing before the first look."""
        facts = json.loads(cursor or "{}")
        # A cursor from before arrivals were counted is the marks alone.
        return cls(**facts) if "marks" in facts else cls(marks=facts)


@dg.sensor(
    job=month_of_statements,
    minimum_interval_seconds=POLICY.vigilance.seconds_between_looks,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def statements_arrive(context: dg.SensorEvaluationContext, landing: Landing) -> dg.SensorResult:
    """Materialize a month of statements when its file arrives in the landing folder, and again when it changes.

    What follows from it (features, online store, scores) is requested by `keep_graph_fresh`. A file that breaks the
    contract fails its run and is asked for again only when it has changed. A month with two files waits, alone.
    """
    landed = Landed.from_json(context.cursor)
    try:
        found = landing.arrivals()
    except Refusal as refusal:
        return dg.SensorResult(skip_reason=str(refusal), cursor=context.cursor)
    awaited = set(months_of_statements(BOOK).get_partition_keys()) - set(months_of(BOOK))
    for month in set(found) - awaited - set(landed.marks):
        context.log.warning(f"A file for {month} has arrived, which is no month that is awaited; it is left alone.")
    unclear = sorted(month for month, files in found.items() if len(files) > 1)
    marks = {month: files[0].mark for month, files in found.items() if month not in unclear}
    new = sorted(month for month in awaited & set(marks) if landed.marks.get(month) != marks[month])
    waiting = {month: landed.marks[month] for month in unclear if month in landed.marks}
    requests = [
        # Numbered, for a file that was there before may come back, and Dagster drops a key that it has seen.
        dg.RunRequest(
            run_key=f"{month}-{number}-{marks[month]}", partition_key=month, tags={CAUSE: f"{month} has arrived"}
        )
        for number, month in enumerate(new, start=landed.arrivals + 1)
    ]
    held = f" Two files or more for {', '.join(unclear)}: remove what is not meant." if unclear else ""
    if requests and held:
        context.log.warning(held.strip())
    said = f"{len(marks)} months have arrived, none of them new.{held}"
    after = Landed(arrivals=landed.arrivals + len(new), marks={**marks, **waiting})
    return dg.SensorResult(run_requests=requests, skip_reason=None if requests else said, cursor=after.to_json())


@dg.sensor(
    job=month_of_statements,
    minimum_interval_seconds=POLICY.seconds_between_takings,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def statements_are_pushed(context: dg.SensorEvaluationContext, pushed_statements: PushedStatements) -> dg.SensorResult:
    """Materialize the months of which statements were pushed since: they are served already, and come offline now.

    A run that failed is asked for again at growing distances, until more is pushed of its month: then that is asked
    for. Nothing is while a run of the month goes on, which may have read what was pushed before there was more, and
    must not be the last to write. What follows (features, offline table, online store) is requested by
    `keep_graph_fresh`.
    """
    landed = Landed.from_json(context.cursor)
    try:
        found = pushed_statements.months()
    except Refusal as refusal:
        return dg.SensorResult(skip_reason=str(refusal), cursor=context.cursor)
    instance, arrivals, marks, requests = context.instance, landed.arrivals, {}, []
    for month, mark in sorted(found.items()):
        marks[month] = landed.marks.get(month, "")
        # A mark alone is one that is done with; until then the number of its arrival stands behind it.
        told, _, number = marks[month].partition("-")
        if (told == mark and not number) or _goes_on(instance, month):
            continue
        arrivals += told != mark
        due, step = f"pushed-{month}-{mark}", int(number) if told == mark else arrivals
        marks[month] = mark if is_over(instance, due, step) else f"{mark}-{step}"
        if key := key_for_now(instance, due, step, time.time()):
            cause = f"statements of {month} were pushed"
            requests.append(dg.RunRequest(run_key=key, partition_key=month, tags={CAUSE: cause}))
    after = Landed(arrivals=arrivals, marks=marks)
    said = f"Statements of {len(found)} months were pushed, none of which has to be asked for now."
    return dg.SensorResult(run_requests=requests, skip_reason=None if requests else said, cursor=after.to_json())


def _goes_on(instance: dg.DagsterInstance, month: str) -> bool:
    """Whether a month of statements is being made, or is about to be."""
    # One that was made and never queued is asked for again by its own key, and is not waited for.
    statuses = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    of_the_month = {"dagster/partition": month}
    going = dg.RunsFilter(job_name=month_of_statements.name, tags=of_the_month, statuses=statuses)
    return bool(instance.get_run_records(going, limit=1))


@dg.sensor(
    minimum_interval_seconds=POLICY.vigilance.seconds_between_looks, default_status=dg.DefaultSensorStatus.RUNNING
)
def clear_killed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark a run whose process was killed as failed, so that those that wait behind it start."""
    ended = end_killed_runs(context.instance)
    for run in ended:
        context.log.warning(f"{run} was killed; it is marked failed.")
    return dg.SkipReason(f"{len(ended)} runs were killed since the last look.")


@dg.schedule(job=daily_watch, cron_schedule="15 0 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def nightly_watch(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """A quarter past midnight UTC: the log and the drift report of the day that ended."""
    at = context.scheduled_execution_time or datetime.now(UTC)
    day = day_of(at.astimezone(UTC) - timedelta(days=1))
    return dg.RunRequest(partition_key=day, tags={CAUSE: f"the night after {day}"})
