"""What is there, what is missing or damaged, and what to do about it.

Here: one finding per place the platform depends on. Not here: mending anything.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg

from loan_assets.books import the_book
from loan_assets.connections import examined
from loan_assets.findings import Finding
from loan_assets.killed_runs import Standing, begun_runs
from loan_assets.online_redis import is_redis
from loan_assets.policy_file import the_policy
from loan_assets.refusal import Refusal
from loan_assets.release import Release
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.bento_store import BentoStore, BuiltBento
from loan_assets.resources.decisions import Decisions, mlflow_knows
from loan_assets.resources.engine import Engine
from loan_assets.resources.experiments import MODEL_DIGEST
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.registry import CHALLENGER, CHAMPION, Registry
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings

POLICY = the_policy()

SPACE_NEEDED = 1_000_000_000


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Every finding, in the order in which things depend on each other."""
    examinations: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("Python", _python),
        ("Home", _home),
        ("Elsewhere", lambda settings: iter(examined(settings))),
        ("Runs", _runs),
        ("Engine", _engine),
        ("Loan book", _source),
        ("Assets", _assets),
        ("Feast", _feast),
        ("MLflow", _mlflow),
        ("Release", _release),
        ("Bento", _bento),
        ("Online", _online),
        ("Log", _log),
    )
    findings: list[Finding] = []
    for place, look in examinations:
        try:
            findings.extend(look(settings))
        except Refusal as refusal:
            findings.append(Finding(place=place, state="broken", found=refusal.cause, next_step=refusal.next_step))
        except Exception as unforeseen:  # a damaged place raises whatever its reader raises; the others are still told
            step = f"Move what is damaged out of {settings.home}, or restore it from a backup, then `loan-assets run`."
            found = f"cannot be examined ({type(unforeseen).__name__})"
            findings.append(Finding(place=place, state="broken", found=found, next_step=step))
    return tuple(findings)


def _python(_: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        yield Finding(place="Python", state="broken", found=version, next_step="Use Python 3.11: `make setup`.")
    elif sys.flags.dont_write_bytecode or os.environ.get("PYTHONDONTWRITEBYTECODE"):
        step = "Unset PYTHONDONTWRITEBYTECODE: without byte code every start takes several seconds longer."
        yield Finding(place="Python", state="missing", found=f"{version}, not writing byte code", next_step=step)
    else:
        yield Finding(place="Python", state="well", found=version)


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    if not home.exists():
        yield Finding(place="Home", state="missing", found=f"{home} is not there", next_step="Run `loan-assets run`.")
        return
    if not os.access(home, os.W_OK):
        step = "Give this user write access, or point LOAN_HOME elsewhere."
        yield Finding(place="Home", state="broken", found=f"{home} cannot be written", next_step=step)
    free = shutil.disk_usage(home).free
    enough = free >= SPACE_NEEDED
    yield Finding(
        place="Home",
        state="well" if enough else "broken",
        found=f"{home}, {free / 1e9:.1f} GB free",
        next_step="" if enough else "Free a gigabyte on that disk before the next run.",
    )
    elsewhere = os.environ.get("DAGSTER_HOME")
    if elsewhere and Path(elsewhere).resolve() != settings.dagster_home:
        step = "Unset DAGSTER_HOME, or run `loan-assets init` so that both name the same history."
        yield Finding(place="Home", state="broken", found=f"DAGSTER_HOME is {elsewhere}", next_step=step)


def _runs(settings: Settings) -> Iterator[Finding]:
    if not (settings.dagster_home / "dagster.yaml").exists():
        yield Finding(place="Runs", state="missing", found="no history yet", next_step="Run `loan-assets run`.")
        return
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        begun = begun_runs(instance)
        queued = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    for run in begun:
        if run.standing is Standing.KILLED:
            step = "Start `make dev`, or run `loan-assets run`: either marks it failed, and those behind it go on."
            yield Finding(place="Runs", state="broken", found=f"{run} was killed", next_step=step)
        elif run.standing is Standing.ELSEWHERE:
            step = "If that machine is gone, end the run in the Dagster UI: those queued behind it wait for it."
            yield Finding(place="Runs", state="missing", found=f"{run} cannot be seen from here", next_step=step)
    live = [run for run in begun if run.standing is Standing.LIVE]
    named = f": {', '.join(map(str, live))}" if live else ""
    yield Finding(
        place="Runs",
        state="well",
        found=f"{len(live)} executed now, {queued} queued{named}",
        next_step="Queued runs start one after the other while `make dev` is open." if queued else "",
    )


def _engine(settings: Settings) -> Iterator[Finding]:
    yield Finding(place="Engine", state="well", found=Engine.over(settings).tried())


def _source(settings: Settings) -> Iterator[Finding]:
    _, provenance = LoanSource(location=settings.source).read(the_book())
    found = f"{provenance.location}, {provenance.rows:,} rows, sha256 {provenance.sha256[:12]}"
    yield Finding(place="Loan book", state="well", found=found)


def _assets(settings: Settings) -> Iterator[Finding]:
    store = AssetStore.over(settings).store
    shelves = store.every_shelf()
    if not shelves:
        yield Finding(place="Assets", state="missing", found="none materialized", next_step="Run `loan-assets run`.")
        return
    sound = 0
    for shelf in shelves:
        try:
            store.current(shelf)
            sound += 1
        except Refusal as refusal:
            step = f"Materialize {shelf.split('/')[0]} again."
            yield Finding(place="Assets", state="broken", found=refusal.cause, next_step=step)
    yield Finding(place="Assets", state="well", found=f"{sound} of {len(shelves)} tables and facts verified")


def _feast(settings: Settings) -> Iterator[Finding]:
    registry = settings.feast_registry.removeprefix("sqlite:///")
    places = {"registry": registry, "online store": settings.feast_online}
    for name, place in places.items():
        if "://" in place:
            yield Finding(place="Feast", state="well", found=f"the {name} is elsewhere, see there")
        elif not Path(place).exists():
            step = "Materialize feature_definitions and online_features, or run `loan-assets run`."
            yield Finding(place="Feast", state="missing", found=f"no {name} yet", next_step=step)
        elif not _is_sound_sqlite(Path(place)):
            step = f"Remove {place}, then run `loan-assets run`: it is made anew from the verified tables."
            yield Finding(place="Feast", state="broken", found=f"{place} is not a sound database", next_step=step)
        else:
            yield Finding(place="Feast", state="well", found=f"{name}, {Path(place).stat().st_size / 1e6:.0f} MB")


def _is_sound_sqlite(path: Path) -> bool:
    """Whether SQLite can read the file from end to end, and finds a table in it."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            (said,) = database.execute("pragma quick_check(1)").fetchone()
            (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(said == "ok" and tables)


def _mlflow(settings: Settings) -> Iterator[Finding]:
    database = settings.mlflow_uri.removeprefix("sqlite:///")
    if "://" not in database and not Path(database).exists():
        yield Finding(place="MLflow", state="missing", found="no runs yet", next_step="Run `loan-assets run`.")
        return
    registry = _registry(settings)
    champion = registry.aliases().get(CHAMPION)
    if champion is None:
        yield Finding(place="MLflow", state="missing", found="no champion", next_step="Run `loan-assets run`.")
    else:
        yield Finding(place="MLflow", state="well", found=f"champion is version {champion}")
    for version in registry.half_registered():
        step = "Left by a run that was killed; nothing points at it. Delete it in `make mlflow` if it is in the way."
        yield Finding(place="MLflow", state="missing", found=f"version {version} has no evidence", next_step=step)


def _registry(settings: Settings) -> Registry:
    return Registry(tracking_uri=settings.mlflow_uri, artifacts=settings.mlflow_artifacts, only_looks=True)


def _bento(settings: Settings) -> Iterator[Finding]:
    store = AssetStore.over(settings)
    if not store.holds("loan_bento"):
        yield Finding(place="Bento", state="missing", found="none built", next_step="Run `loan-assets run`.")
        return
    bento: BuiltBento = store.read("loan_bento", BuiltBento)
    BentoStore.over(settings).verified(bento)
    yield Finding(place="Bento", state="well", found=f"{bento.tag}, verified")


def _online(settings: Settings) -> Iterator[Finding]:
    if not is_redis(settings.online) and not Path(settings.online).exists():
        step = "Materialize online_features, or run `loan-assets run`."
        yield Finding(place="Online", state="missing", found="no table for the endpoint yet", next_step=step)
        return
    table = OnlineTables(root=settings.online).table()
    found = f"{len(table.clients):,} clients as of {table.facts.features_as_of[:10]}, verified"
    yield Finding(place="Online", state="well", found=found)


def _log(settings: Settings) -> Iterator[Finding]:
    logs = PredictionLogs.over(settings)
    days = logs.days()
    if not days:
        step = "`make serve` answers applications and keeps the log."
        yield Finding(place="Log", state="missing", found="no answers on record", next_step=step)
        return
    records, damages = logs.records(days[-1])
    found = f"{len(records):,} answers on {days[-1]}, {len(days)} days on record"
    for damage in damages:
        step = "The other lines of that day are read; restore the file from a backup to have these too."
        unread = f"{damage.lines} lines of {days[-1]}/{damage.file} are cut or altered"
        yield Finding(place="Log", state="broken", found=unread, next_step=step)
    yield Finding(place="Log", state="well", found=found)


def _release(settings: Settings) -> Iterator[Finding]:
    releases = ReleaseStore.over(settings)
    if releases.in_force() is None:
        yield Finding(place="Release", state="missing", found="none in force", next_step="Run `loan-assets run`.")
        return
    release = releases.champion_release()
    registry = _registry(settings)
    aliases, version = registry.aliases(), release.facts.version
    champion = aliases.get(CHAMPION)
    if champion is None:
        yield Finding(
            place="Release", state="well", found=f"version {version} in force, {release.digest[:12]}, verified"
        )
    elif champion != version:
        found = f"version {version} is in force, but the registry's champion is version {champion}"
        yield Finding(place="Release", state="broken", found=found, next_step=_towards(settings, champion, version))
    elif registry.tags(version).get(MODEL_DIGEST) != release.facts.model_digest:
        step = "Run `loan-assets run` on the delivery that version was trained on, or restore releases/ from a backup."
        found = f"the release of version {version} holds another model than the registry's version {version}"
        yield Finding(place="Release", state="broken", found=found, next_step=step)
    else:
        yield _standing_to_the_book(release, registry, aliases.get(CHALLENGER))


def _towards(settings: Settings, champion: int, in_force: int) -> str:
    """How the registry and the release in force come to agree: both follow the journal of decisions."""
    steps = Decisions.over(settings).steps()
    if not mlflow_knows(steps):
        return "`loan-assets put-in-force`: MLflow's alias has not followed yet."
    if steps and steps[-1].situation.champion == champion:
        return "Materialize champion in the Dagster UI (`make dev`): the release follows what was decided."
    return (
        f"Materialize champion in the Dagster UI (`make dev`): the alias goes back to version {in_force}, which was "
        f"decided on; to put version {champion} in force, run `loan-assets promote --version {champion} --why ...`."
    )


def _standing_to_the_book(release: Release, registry: Registry, challenger: int | None) -> Finding:
    """The release in force, and whether it was trained on the columns and features of today."""
    found = f"version {release.facts.version} in force, {release.digest[:12]}, verified"
    today = the_book().digest
    if release.facts.book_digest == today:
        return Finding(place="Release", state="well", found=found)
    if challenger is not None and registry.tags(challenger).get("book_digest") == today:
        found += f"; the features changed since it was trained, and version {challenger} waits as the challenger"
        step = f"Compare the two in `make mlflow`; to put version {challenger} in force, run "
        step += f"`loan-assets promote --version {challenger} --why ...`."
    else:
        step = "The features changed since it was trained: run `loan-assets run`."
    return Finding(place="Release", state="missing", found=found, next_step=step)
