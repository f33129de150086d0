"""The door to MLflow's runs: one run per trained model, opened through dagster-mlflow and always closed.

Here: the run's parameters, metrics, pictures and model files. Not here: versions and aliases (`registry`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname

import dagster as dg
from filelock import FileLock
from pydantic import PrivateAttr

from loan_assets.refusal import Away, Refusal
from loan_assets.settings import without_secrets

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

EXPERIMENT = "loan-default"
MODEL_DIGEST = "model_digest"
# With MLflow's defaults a dead server costs minutes of silence; these bound the wait to seconds, and its chatter.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}
# Where MLflow's own tables hold absolute places.
PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
MODELS = "select artifact_location from logged_models where status = 2 and lifecycle_stage = 'active'"  # 2: ready
MOVE = """update {table} set {column} = :now || substr({column}, length(:before) + 1)
    where {column} = :before or substr({column}, 1, length(:before) + 1) = :before || '/'"""
# The only types besides scikit-learn's own that a saved model may contain.
TRUSTED_TYPES = [
    "loan_assets.credit.calibrated.CalibratedBoosting",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Everything about one training that belongs in its MLflow run."""

    pipeline: Pipeline
    example: Any
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Experiments(dg.ConfigurableResource):  # type: ignore[type-arg]
    """MLflow tracking at `tracking_uri`; artifacts of a new experiment rest under `artifacts`."""

    tracking_uri: str
    artifacts: str
    _context: Any = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Keep the run's context; MLflow itself is touched only when something is logged."""
        self._context = context

    def log(self, trial: Trial) -> str:
        """Log one training in a run of its own and return the run's id.

        Raises:
            Refusal: within seconds, when the tracking server does not answer.
        """
        with self._run() as mlflow:
            mlflow.log_params(dict(trial.parameters))
            mlflow.log_metrics(dict(trial.metrics))
            mlflow.set_tags(dict(trial.tags))
            for name, content in {**trial.pictures, **trial.files}.items():
                _log_bytes(mlflow, name, content)
            self._log_model(mlflow, trial)
            return str(mlflow.active_run().info.run_id)

    def add(self, model_digest: str, metrics: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        """Add figures and pictures to the newest run of a model."""
        run_id = run_of(connected(self.tracking_uri, self.artifacts), model_digest)
        with self._run(run_id) as mlflow:
            mlflow.log_metrics(dict(metrics))
            for name, content in pictures.items():
                _log_bytes(mlflow, name, content)

    def boosting_of(self, model_digest: str) -> Pipeline:
        """The fitted trees that a run logged, without a calibration where it had one.

        Raises:
            Refusal: when no finished run has logged that model.
        """
        mlflow = connected(self.tracking_uri, self.artifacts)
        run = mlflow.MlflowClient().get_run(run_of(mlflow, model_digest))
        model_id = run.outputs.model_outputs[0].model_id
        pipeline = mlflow.sklearn.load_model(f"models:/{model_id}")
        boosting: Pipeline = getattr(pipeline[-1], "boosting", pipeline)
        return boosting

    @contextmanager
    def _run(self, run_id: str | None = None) -> Iterator[Any]:
        """dagster-mlflow's resource over a new run or a given one, ended with the right status."""
        mlflow = connected(self.tracking_uri, self.artifacts)
        from dagster_mlflow.resources import MlFlow

        context = self._context
        if run_id is None:
            run_id = _new_run(mlflow, context)
        shim = SimpleNamespace(
            log=context.log,
            run_id=context.run.run_id,
            dagster_run=context.run,
            resource_config={
                "experiment_name": EXPERIMENT,
                "mlflow_tracking_uri": self.tracking_uri,
                "mlflow_run_id": run_id,
                "extra_tags": {"dagster/job": context.run.job_name},
            },
        )
        tracking = MlFlow(shim)
        try:
            yield tracking
        except BaseException:
            mlflow.end_run(status="FAILED")
            raise
        mlflow.end_run()

    def _log_model(self, mlflow: Any, trial: Trial) -> None:
        from mlflow.models import infer_signature

        probabilities = trial.pipeline.predict_proba(trial.example)
        mlflow.sklearn.log_model(
            trial.pipeline,
            name="model",
            signature=infer_signature(trial.example, probabilities),
            serialization_format="skops",
            skops_trusted_types=TRUSTED_TYPES,
            pyfunc_predict_fn="predict_proba",
            pip_requirements=["scikit-learn", "skops"],
        )


def connected(tracking_uri: str, artifacts: str) -> Any:
    """MLflow, reached, with the experiment in place and the artifacts of a moved home followed.

    Raises:
        Refusal: when the tracking server or database cannot be reached.
    """
    mlflow = reached(tracking_uri)
    location = artifacts if "://" in artifacts else Path(artifacts).absolute().as_uri()
    with answering(tracking_uri), alone(tracking_uri, "schema"):
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            client.create_experiment(EXPERIMENT, artifact_location=location)
        elif experiment.artifact_location != location:
            _follow(tracking_uri, experiment.artifact_location, location)
    return mlflow


def reached(tracking_uri: str) -> Any:
    """MLflow, imported, its schema migrated once, pointed at the tracking URI; what it holds is left as it is.

    Raises:
        Refusal: when the tracking server or database cannot be reached.
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    # Where no git is installed it would say so at length, three times a run.
    logging.getLogger("mlflow.utils.git_utils").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    with answering(tracking_uri), alone(tracking_uri, "schema"):
        mlflow.MlflowClient().get_experiment_by_name(EXPERIMENT)
    return mlflow


@contextmanager
def answering(tracking_uri: str) -> Iterator[None]:
    """Say of a server or database that does not answer which one it is, and what to do.

    Raises:
        Away: instead of what MLflow raises.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as unreachable:
        raise Away(
            f"MLflow at {without_secrets(tracking_uri)} does not answer ({type(unreachable).__name__}).",
            "Start it or mend LOAN_MLFLOW_URI, then run again; the champion goes on serving.",
        ) from None


def run_of(mlflow: Any, model_digest: str) -> str:
    """The newest finished run that logged this model; a model is found by what it is, not by when it was made.

    Raises:
        Refusal: when there is none.
    """
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs(
        [experiment.experiment_id],
        filter_string=f"tags.{MODEL_DIGEST} = '{model_digest}' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not found:
        raise Refusal(f"MLflow has no finished run of model {model_digest[:12]}.", "Materialize default_model again.")
    return str(found[0].info.run_id)


def _new_run(mlflow: Any, context: Any) -> str:
    """A run per training: without an id dagster-mlflow would join every asset of a Dagster run in one."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return str(client.create_run(experiment.experiment_id, run_name=context.run.job_name).info.run_id)


def _follow(tracking_uri: str, before: str, now: str) -> None:
    """Follow a home that was moved or copied: MLflow writes absolute artifact places into its own tables.

    Only for a SQLite backend, only from a folder that is gone or is another home's, and only to one that holds the
    models: otherwise MLflow would forget where they are.
    """
    is_local = tracking_uri.startswith("sqlite:///") and before.startswith("file://") and now.startswith("file://")
    if not is_local or not _is_abandoned(_folder(before), Path(tracking_uri.removeprefix("sqlite:///"))):
        return
    import sqlalchemy

    with sqlalchemy.create_engine(tracking_uri).begin() as tables:
        models = tables.execute(sqlalchemy.text(MODELS)).scalars()
        if not all(_folder(model.replace(before, now, 1)).is_dir() for model in models):
            return
    follow(tracking_uri, before, now)


def follow(tracking_uri: str, before: str, now: str) -> None:
    """Have MLflow's own tables name artifacts where they are now.

    Args:
        before: the location of all of them as the tables say it, a URI.
        now: the same of where they are.
    """
    import sqlalchemy

    with sqlalchemy.create_engine(tracking_uri).begin() as tables:
        for table, columns in PLACES.items():
            for column in columns:
                tables.execute(sqlalchemy.text(MOVE.format(table=table, column=column)), {"before": before, "now": now})


def _folder(uri: str) -> Path:
    return Path(url2pathname(uri.removeprefix("file://")))


def _is_abandoned(folder: Path, database: Path) -> bool:
    """Whether artifacts are gone from a folder, or are those of another home's database, of which ours is a copy."""
    neighbour = folder.parent / database.name
    return not folder.exists() or (neighbour.exists() and not neighbour.samefile(database))


@contextmanager
def alone(tracking_uri: str, what: str) -> Iterator[None]:
    """One process at a time on a SQLite backend: it migrates on first use, and its registry has no transactions."""
    if not tracking_uri.startswith("sqlite:///"):
        yield
        return
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_suffix(f".{what}.lock")):
        yield


def _log_bytes(mlflow: Any, name: str, content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        mlflow.log_artifact(str(path))
