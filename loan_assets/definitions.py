"""The front door: the whole graph, its places, its jobs and what starts them on one screen.

Here: what is stamped on every asset once (owner, code version, column schema), and which resource answers to which
name. Not here: any asset's body, any vendor's import.
"""

import os
from types import ModuleType

import dagster as dg

from loan_assets import buttons, sensors
from loan_assets.assets import book, features, model, monitoring, outcomes, registry, serving, succession
from loan_assets.books import tables, the_book
from loan_assets.bucket import bucket_at
from loan_assets.cycles import look_seldom
from loan_assets.home import name_drivers
from loan_assets.machines import executor_of
from loan_assets.policy_file import the_policy
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.bento_store import BentoStore
from loan_assets.resources.catalog import column_schema
from loan_assets.resources.decisions import Decisions
from loan_assets.resources.engine import Engine
from loan_assets.resources.experiments import Experiments
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.landing import Landing
from loan_assets.resources.live_history import Memory
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.outcome_landing import OutcomeLanding
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.pushed_statements import PushedStatements
from loan_assets.resources.registry import Registry
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings

look_seldom()
BOOK = the_book()
POLICY = the_policy()
GALLERY = (book, features, model, registry, serving, monitoring, outcomes, succession)
OWNERS = {
    "book": "team:lending-data",
    "features": "team:lending-data",
    "model": "team:credit-risk",
    "registry": "team:model-risk",
    "serving": "team:decisioning",
    "monitoring": "team:model-risk",
    "outcomes": "team:lending-data",
    "succession": "team:model-risk",
}
TABLES = {
    "raw_loan_book": tables.received,
    "monthly_statements": tables.statements,
    "client_profiles": tables.profiles,
    "default_outcomes": tables.outcomes,
    "borrower_features": tables.borrower_features,
    "training_set": tables.training_set,
    "batch_scores": tables.scores,
    "prediction_log": tables.predictions,
}


def stamped(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset's spec with its owner, its code version from the book's digest, and its columns."""
    table = TABLES.get(spec.key.to_python_identifier())
    schema = {"dagster/column_schema": column_schema(table(BOOK))} if table else {}
    return spec.replace_attributes(
        owners=[OWNERS[spec.group_name or ""]], code_version=BOOK.digest, metadata={**spec.metadata, **schema}
    )


def hung_in(room: ModuleType) -> list[dg.AssetsDefinition]:
    """The assets of one file, in the group of the file's name."""
    found = dg.load_assets_from_modules([room], group_name=room.__name__.rsplit(".", 1)[-1])
    return [asset for asset in found if isinstance(asset, dg.AssetsDefinition)]


def told(variable: str, place: str) -> str:
    """A place as the name of the variable that says it, where one does.

    Dagster keeps and shows what resources are configured with, and a place may hold a password; the variable is read
    when a run begins.
    """
    return dg.EnvVar(variable) if os.environ.get(variable) == place else place


def resources(settings: Settings) -> dict[str, object]:
    """Every door, opened on the places that the settings name."""
    name_drivers(settings)
    engine = Engine.over(settings)
    tracking = told("LOAN_MLFLOW_URI", settings.mlflow_uri)
    artifacts = told("LOAN_MLFLOW_ARTIFACTS", settings.mlflow_artifacts)
    return {
        "io_manager": AssetStore.over(settings),
        "engine": engine,
        "source": LoanSource(location=told("LOAN_SOURCE", settings.source)),
        "landing": Landing(place=told("LOAN_LANDING", settings.landing)),
        "feature_store": FeatureStoreDoor(
            folder=str(settings.feast),
            registry=told("LOAN_FEAST_REGISTRY", settings.feast_registry),
            online=told("LOAN_FEAST_ONLINE", settings.feast_online),
            engine=engine,
            bucket=bucket_at(settings.feast_place),
        ),
        "online_tables": OnlineTables(root=told("LOAN_ONLINE", settings.online)),
        "pushed_statements": PushedStatements.over(settings),
        "outcome_landing": OutcomeLanding(place=told("LOAN_OUTCOMES", settings.outcomes)),
        "decisions": Decisions.over(settings),
        "memory": Memory.over(settings),
        "predictions": PredictionLogs.over(settings),
        "experiments": Experiments(tracking_uri=tracking, artifacts=artifacts),
        "registry": Registry(tracking_uri=tracking, artifacts=artifacts),
        "release_store": ReleaseStore.over(settings),
        "bento_store": BentoStore.over(settings),
    }


whole_graph = dg.define_asset_job(
    "whole_graph",
    selection=dg.AssetSelection.all() - sensors.daily,
    description="Everything, from the delivery to the Bento and every client's score.",
)

SETTINGS = Settings.from_environment()
ASSETS = sensors.with_automation(dg.map_asset_specs(stamped, [asset for room in GALLERY for asset in hung_in(room)]))
CHECKS = dg.load_asset_checks_from_modules(list(GALLERY))
STEPS = [*(asset.node_def.name for asset in ASSETS), *(check.node_def.name for check in CHECKS)]

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=CHECKS,
    jobs=[
        whole_graph,
        sensors.retrain,
        sensors.succeed,
        sensors.daily_watch,
        sensors.outcomes_of_a_day,
        sensors.month_of_statements,
        buttons.roll_back,
        buttons.promote,
        buttons.ask_for_retraining,
    ],
    sensors=[
        sensors.keep_graph_fresh,
        sensors.act_on_decisions,
        sensors.outcomes_arrive,
        sensors.statements_arrive,
        sensors.statements_are_pushed,
        sensors.clear_killed_runs,
    ],
    schedules=[sensors.nightly_watch],
    executor=executor_of(SETTINGS, STEPS),
    resources=resources(SETTINGS),
)
