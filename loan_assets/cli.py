"""`loan-assets …`: a thin door for people and scripts.

Here: the commands and their exit codes (0 done, 1 a stop that was explained, 2 input that cannot be used). Not here:
what they do, which each command imports when it is called, so that `loan-assets --help` costs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from loan_assets.cycles import look_seldom
from loan_assets.refusal import BadInput, Refusal, as_typed
from loan_assets.settings import Settings

if TYPE_CHECKING:
    from loan_assets.reign import Reign
    from loan_assets.resources.decisions import Step

look_seldom()
P = ParamSpec("P")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Take a loan book to a checked, registered and packaged default model.",
)


def settings_here() -> Settings:
    """The settings of this process, and of the `.env` in this folder for what the process does not set."""
    from dotenv import load_dotenv

    load_dotenv(".env")
    return Settings.from_environment()


# Where a former champion is found, and its return recorded: whatever else is away, it can come back.
BROUGHT_BACK_BY = ("LOAN_RELEASES", "LOAN_DECISIONS")


def ready(needed: Collection[str] = ()) -> Settings:
    """The settings of this process, its home made, and every place on another machine found fit to be used.

    Args:
        needed: the variables of those that are looked at, of all by default.
    """
    from loan_assets.connections import require
    from loan_assets.home import prepare

    settings = prepare(settings_here())
    require(settings, needed)
    return settings


def explained(command: Callable[P, None], code: int = 1) -> Callable[P, None]:
    """Print a refusal as the paragraph it is, without a traceback, and exit with the code."""

    @wraps(command)
    def guarded(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            command(*arguments, **options)
        except Refusal as refusal:
            typer.secho(f"\n{refusal.cause}", fg="red", err=True)
            typer.echo(as_typed(refusal.next_step), err=True)
            raise typer.Exit(2 if isinstance(refusal, BadInput) else code) from None

    return guarded


bad_input = partial(explained, code=2)


@app.command()
@explained
def init(
    here: bool = typer.Option(False, "--here", help="Keep a LOAN_HOME of the environment for every command here."),
) -> None:
    """Prepare LOAN_HOME, and a .env file so that a plain `dagster dev` here sees the same history."""
    from loan_assets.home import prepare, write_dotenv

    settings = prepare(settings_here())
    write_dotenv(settings.home if here else None)
    typer.echo(f"All state lives under {settings.home}")


@app.command()
@explained
def dev() -> None:
    """Open Dagster's own pages on the graph, with everything that starts by itself."""
    from loan_assets.home import write_dotenv

    ready()
    write_dotenv()
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev"])


@app.command("exec", context_settings={"ignore_unknown_options": True})
@explained
def execute(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    check: bool = typer.Option(True, help="Find every place on another machine fit to be used, first."),
) -> None:
    """Become another command, Dagster's say, with this platform's home and databases named as it needs them."""
    from loan_assets.home import prepare

    if check:
        ready()
    else:
        prepare(settings_here())
    try:
        os.execvp(command[0], command)
    except OSError as failed:
        raise Refusal(f"{command[0]} cannot be started: {failed.strerror}.", "Name a command of this image.") from None


@app.command()
@explained
def run() -> None:
    """Materialize the whole graph, show progress, and print what came of it. Safe to repeat."""
    settings = ready()
    from loan_assets.running import run_whole_graph
    from loan_assets.summary import print_summary

    took = run_whole_graph(settings)
    print_summary(settings, took)


@app.command()
@explained
def demo() -> None:
    """Run the whole graph, serve the champion, send it 1,500 applications, watch the day, and print what came of it."""
    settings = ready()
    from loan_assets.rehearsal import rehearse
    from loan_assets.running import run_whole_graph
    from loan_assets.summary import print_summary

    days = _days_to_rehearse(settings, 1)  # refused before a minute's work, not after it
    took = run_whole_graph(settings)
    typer.echo("\nServing the champion for a day's applications")
    rehearse(settings, "quiet", days)
    print_summary(settings, took)


def _days_to_rehearse(settings: Settings, count: int) -> list[str]:
    from loan_assets.rehearsal import LOOKS_BACK, days_to_rehearse, days_up_to_today

    latest = days_up_to_today(count + LOOKS_BACK)
    days = days_to_rehearse(settings, latest, count)
    if days[-1] != latest[-1]:
        typer.echo(f"  Rehearsing up to {days[-1]}: later days have real answers, which count instead.")
    return days


@app.command()
@explained
def serve(
    host: str = typer.Option("127.0.0.1", help="Address; beyond this machine only with LOAN_TOKENS."),
    port: int = typer.Option(8080, help="Port."),
    workers: int = typer.Option(2, help="Worker processes."),
) -> None:
    """Serve the champion's Bento: POST /score and /predict; /openapi.json lists every route."""
    settings = ready()
    from loan_assets.endpoint import serve_command

    command, environment = serve_command(settings, port, workers, host)
    os.chdir(settings.home)
    os.execve(command[0], command, environment)


@app.command()
@explained
def challenge(
    version: int = typer.Argument(help="The registry version whose release stands beside the champion."),
    mode: str = typer.Option("shadow", help="shadow: scored and logged; canary: answers a share of the clients."),
    share: float = typer.Option(0.0, help="In a canary, the share of clients, 0 to 1."),
) -> None:
    """Let a version stand beside the champion, or change its share; running endpoints follow within a second or two."""
    from loan_assets.resources.release_store import ReleaseStore
    from loan_assets.standing import Mode

    if mode not in list(Mode):
        raise Refusal(f"There is no mode {mode!r}.", f"Choose one of: {', '.join(Mode)}.")
    stands = ReleaseStore.over(settings_here()).challenge(version, Mode(mode), share)
    typer.echo(f"Version {stands.version} stands in {stands.mode}, share {stands.share:g}")


@app.command()
@explained
def dismiss() -> None:
    """Let no version stand beside the champion."""
    from loan_assets.resources.release_store import ReleaseStore

    ReleaseStore.over(settings_here()).dismiss()
    typer.echo("Only the champion stands")


@app.command()
@explained
def rollback(
    version: int = typer.Option(0, help="Which former champion; the last one by default."),
    why: str = typer.Option(..., help="The cause, for the record."),
    by: str = typer.Option("a person at a terminal", help="Who asks."),
) -> None:
    """Bring a former champion back at once: running endpoints follow within a second or two, the cause is recorded."""
    decided, moved, waits = _reign(BROUGHT_BACK_BY).roll_back(version or None, why, by)
    _tell_of(decided, moved)
    if waits:
        typer.echo(waits, err=True)


def _tell_of(decided: Step, moved: Step | None) -> None:
    seconds = moved.evidence["seconds"] if moved else 0.0
    typer.echo(
        f"Version {decided.situation.champion} is in force after {seconds:.1f} s; recorded as step {decided.number}"
    )


@app.command()
@explained
def promote(
    version: int = typer.Option(..., help="Which released version."),
    why: str = typer.Option(..., help="The cause, for the record."),
    by: str = typer.Option("a person at a terminal", help="Who approves."),
) -> None:
    """Put a version in force that nobody ordered, on your word: outcomes that speak against it are heard first."""
    _tell_of(*_reign().approve(version, why, by))


@app.command()
@explained
def alarm(
    why: str = typer.Option(..., help="What speaks for a retraining."),
    by: str = typer.Option("a person at a terminal", help="Who asks."),
) -> None:
    """Ask for a retraining: the rule, its cooldown and its budget decide what comes of it."""
    step = _reign().ask(why, by)
    typer.echo(f"Step {step.number} of {step.date}")
    for action in step.actions:
        typer.echo(f"{action.kind} {action.version}: {action.cause}")
    if not any(action.kind == "retrain" for action in step.actions):
        typer.echo("Recorded. A retraining waits for enough outcomes, its cooldown or its budget.")


@app.command()
@explained
def webhook(
    host: str = typer.Option("127.0.0.1", help="Address; beyond this machine only with LOAN_TOKENS."),
    port: int = typer.Option(3100, help="Port."),
) -> None:
    """Serve other systems: GET /metrics, POST /alarm ({"why": …, "by": …}, or Alertmanager's), POST /statements."""
    import threading

    import dagster as dg

    from loan_assets.run_figures import Rates
    from loan_assets.stream import Stream
    from loan_assets.webhook import webhook_server

    reign, settings = _reign(), settings_here()
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        stream = Stream.over(settings)
        told = (Rates.of(settings), stream, settings.backups_place)
        server = webhook_server(reign, host, port, settings.tokens, instance, *told)
        threading.Thread(target=stream.warm, daemon=True).start()
        typer.echo(f"Alarms are taken at http://{host}:{port}/alarm, statements at /statements, figures at /metrics")
        server.run()


@app.command()
@explained
def push(
    file: Annotated[str, typer.Argument(help="Events, one JSON object a line, or Parquet; - for standard input.")],
) -> None:
    """Take clients' statements as they happen: each on record once by its event_id, and served at once.

    Those that cannot be taken are listed by their position, and the exit code is 2; the others are taken.
    """
    from datetime import UTC, datetime

    settings = ready()
    from loan_assets.stream import Stream, events_in

    told = events_in(file)
    answer = Stream.over(settings).take(told, datetime.now(UTC))
    typer.echo(f"{len(answer.taken):,} taken, {len(answer.known):,} known, {len(answer.refused):,} refused")
    for position, why in answer.refused.items():
        typer.echo(f"event {position}: {why}", err=True)
    if answer.unserved:
        raise Refusal(f"They are on record, but not served yet: {answer.unserved}", "Then push the same again.")
    if answer.refused:
        raise typer.Exit(2)


@app.command()
@explained
def decisions() -> None:
    """Print everything that was decided about the champion, oldest first."""
    from loan_assets.resources.decisions import Decisions

    for step in Decisions.over(settings_here()).steps():
        said = [f"{action.kind:<8} version {action.version}: {action.cause}" for action in step.actions]
        if step.kind == "moved":
            said = [f"in force version {step.evidence['version']} after {step.evidence['seconds']} s"]
        if step.kind == "named":
            said = [f"MLflow was told of version {step.evidence['version']}"]
        if step.kind == "staged":
            share = f" for {step.evidence['share']:.0%} of the clients" if step.evidence["share"] else ""
            stands = f"version {step.evidence['challenger']} stands in {step.evidence['stage']}{share}"
            said = [stands if step.evidence["challenger"] else "nobody stands beside the champion any more"]
        for line in said:
            typer.echo(f"{step.number:>4} {step.date or step.at[:10]} {line}")


def _reign(needed: Collection[str] = ()) -> Reign:
    """The reign over the home of this process; only the places of these variables have to be fit, of all by default."""
    from loan_assets.reign import Reign

    return Reign.over(ready(needed))


@app.command("put-in-force")
@explained
def put_in_force() -> None:
    """Have pointer and alias follow the journal, as a run would; nothing is decided by it."""
    reign = _reign()
    reign.put_in_force()
    typer.echo(f"Version {reign.history.releases.champion().version} is in force")


@app.command()
@explained
def token(
    caller: str = typer.Argument(help="Whose token it is."),
    scope: Annotated[list[str], typer.Option(help="predict, push, admin; may be given twice.")] = ["predict"],  # noqa: B006
) -> None:
    """Make a token for a caller of the endpoint: shown once, recognised by its digest in the file LOAN_TOKENS."""
    from bento.access import new_token

    secret, made = new_token(caller, frozenset(scope))
    typer.echo(secret)
    typer.echo(f"Append this line to the file that LOAN_TOKENS names:\n{made.line()}", err=True)


@app.command()
@explained
def simulate(
    scenario: Annotated[str, typer.Argument(help="sudden-shift (by default), quiet, or changed-world.")] = "",
    history: Annotated[Path | None, typer.Option(help="A folder of predictions/ and labels/, as for backtest.")] = None,
    days: Annotated[int, typer.Option(min=1, max=60, help="Of sudden-shift and quiet: how many days.")] = 3,
    until: Annotated[str, typer.Option(help="Of a history: the last day, 2026-11-24 style.")] = "",
    anew: Annotated[bool, typer.Option("--anew", help="Of a history: begin again, with a new home.")] = False,
) -> None:
    """Live through days at the endpoint: a few shifted ones here, or a history, in a home of its own.

    changed-world is a history of three weeks in which the world changes and is later what it was: alarm, retraining,
    promotion, return.
    """
    from loan_assets.example_history import CHANGED_WORLD

    if history is not None and scenario:
        raise BadInput("A scenario and a history were given.", "Give one of them.")
    if history is None and scenario != CHANGED_WORLD:
        if until or anew:
            raise BadInput("--until and --anew are for a history.", f"Give --history FOLDER, or {CHANGED_WORLD}.")
        _rehearse(scenario or "sudden-shift", days)
        return
    settings = settings_here()
    if history is None:
        from loan_assets.simulation import simulate_changed_world

        simulate_changed_world(settings, until, anew=anew)
    else:
        from loan_assets.simulation import simulate_history

        simulate_history(settings, history, until, anew=anew)


def _rehearse(scenario: str, days: int) -> None:
    settings = ready()
    from loan_assets.rehearsal import rehearse
    from loan_assets.summary import print_vigilance

    reports = rehearse(settings, scenario, _days_to_rehearse(settings, days))
    print_vigilance(reports)


@app.command()
@explained
def watch(
    days: Annotated[list[str] | None, typer.Argument(help="Days, 2026-11-24 style; today when none is given.")] = None,
) -> None:
    """Materialize the log and the drift report of some days, as the nightly schedule does for yesterday."""
    settings = ready()
    from loan_assets.rehearsal import days_up_to_today, watch_days

    watch_days(settings, days or days_up_to_today(1))


@app.command()
@bad_input
def backtest(
    reference: Annotated[Path, typer.Option(help="Known loans with their outcomes, Parquet.")],
    predictions: Annotated[Path, typer.Option(help="Folder of requests, one Parquet file a day.")],
    labels: Annotated[Path, typer.Option(help="Folder of outcomes, one Parquet file for each day they arrived on.")],
    out: Annotated[Path, typer.Option(help="Folder for decisions, scores, models and the report.")],
    policy: Annotated[Path | None, typer.Option(help="YAML with fields of policy.py to set otherwise.")] = None,
    until: Annotated[str, typer.Option(help="Last day to live through, 2026-11-24 style.")] = "",
    seed: Annotated[int, typer.Option(help="For every random draw.", min=0)] = 0,
) -> None:
    """Live through a history of your own: what this policy would have noticed, trained, promoted and taken back."""
    from loan_assets.backtesting import backtest as replay
    from loan_assets.histories import History

    replay(History(reference=reference, predictions=predictions, labels=labels, until=until), out, policy, seed)


@app.command()
@bad_input
def score(
    model: Annotated[Path, typer.Option(help="A model of a backtest, such as out/models/1, or a release.")],
    rows: Annotated[Path, typer.Option("--input", help="Applications, Parquet.")],
    out: Annotated[Path, typer.Option(help="Where to write the scores, Parquet.")],
) -> None:
    """Score a file of applications with one saved model."""
    from loan_assets.backtesting import score_file

    typer.echo(f"{score_file(model, rows, out):,} rows scored")


@app.command()
@explained
def summary() -> None:
    """Print the figures of the newest version, its Bento and its decisions."""
    from loan_assets.summary import print_summary

    print_summary(settings_here())


@app.command()
@explained
def doctor(
    connections: bool = typer.Option(False, "--connections", help="Only whether places on other machines can be used."),
) -> None:
    """Say what is there, what is missing or damaged, and what to do about it. Exit 1 when something is damaged."""
    from loan_assets.findings import print_findings

    if connections:
        from loan_assets.connections import examined

        findings = examined(settings_here())
    else:
        from loan_assets.doctor import examine
        from loan_assets.home import name_drivers

        settings = settings_here()
        name_drivers(settings)
        findings = examine(settings)
    if not print_findings(findings):
        raise typer.Exit(1)


@app.command()
@explained
def backup(
    to: Annotated[str, typer.Option(help="A folder, or s3://bank/backups/loans; else what LOAN_BACKUPS names.")] = "",
    keep: Annotated[int, typer.Option(min=0, help="How many backups stay there; 0 for all.")] = 0,
) -> None:
    """Back up everything that cannot be derived again, while the platform runs; secrets are not in it."""
    from loan_assets.backup import back_up, print_made

    settings = settings_here()
    print_made(back_up(settings, to or backups_of(settings, "--to"), keep))


def backups_of(settings: Settings, option: str) -> str:
    """The place of backups that the settings name."""
    if not settings.backups_place:
        step = f"Name a folder or a bucket's place by {option} or LOAN_BACKUPS."
        raise BadInput("No place of backups is named.", step)
    return settings.backups_place


@app.command()
@explained
def restore(
    place: Annotated[str, typer.Option("--from", help="The place of the backups; else what LOAN_BACKUPS names.")] = "",
    which: Annotated[str, typer.Option(help="A backup's name; the newest by default.")] = "",
    lists: Annotated[bool, typer.Option("--list", help="Only say which backups are there.")] = False,
    checks: Annotated[bool, typer.Option("--check", help="Only read it from end to end.")] = False,
) -> None:
    """Make a platform of a backup, in an empty home and empty places; safe to repeat when it was killed."""
    from loan_assets.restore import backups_at, checked, print_restored
    from loan_assets.restore import restore as put_back

    place = place or backups_of(settings_here(), "--from")
    if lists:
        typer.echo("\n".join(backups_at(place)))
    elif checks:
        name, whole = checked(place, which)
        typer.echo(f"{name} of {whole.made[:19]} UTC is whole: {len(whole.contents()):,} contents read")
    else:
        print_restored(put_back(settings_here(), place, which))


@app.command()
@explained
def migrate(
    stopped: Annotated[
        bool, typer.Option(help="Nothing is executed any more, whatever Dagster's history says.")
    ] = False,
) -> None:
    """Bring the tables of Dagster and MLflow to the installed versions; stop the platform and back it up first."""
    from loan_assets.home import prepare
    from loan_assets.migration import migrate as bring

    for migrated in bring(prepare(settings_here()), is_stopped=stopped):
        typer.echo(str(migrated))


@app.command()
@explained
def audit(day: Annotated[str, typer.Argument(help="A day, 2026-11-24 style.")]) -> None:
    """Say who was champion on a day, who approved it, what it learned from, who answered, and how groups fared."""
    from loan_assets.audit import told_of

    for line in told_of(settings_here(), day):
        typer.echo(line)


@app.command()
@explained
def mlflow(
    host: str = typer.Option("127.0.0.1", help="Address; beyond this machine only behind a gateway that knows people."),
    port: int = typer.Option(5000, help="Port."),
) -> None:
    """Open MLflow's own pages on the runs and versions made here; they let everybody in who reaches them."""
    settings = settings_here()
    from loan_assets.resources.experiments import connected

    connected(settings.mlflow_uri, settings.mlflow_artifacts)
    # Through the environment, for an argument is seen by everybody on the machine.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = settings.mlflow_uri
    # Eight processes and a gigabyte that would wait for jobs of language models.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    python = [sys.executable, "-m", "mlflow", "ui"]
    # A worker holds half a gigabyte, and one is enough for people.
    os.execv(sys.executable, [*python, "--host", host, "--port", str(port), "--workers", "1"])


if __name__ == "__main__":
    app()
