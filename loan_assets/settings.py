"""Where things are: every environment variable of the platform, read once and typed.

Here: places and switches, each with an embedded default under one folder. Not here: chosen numbers (`policy`) or the
name of the book (`books.the_book`, which the serving box reads too).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loan_assets.bucket import folder_or_bucket, is_bucket
from loan_assets.refusal import BadInput, Refusal

# Lies in a home where days are only simulated, and says by which history.
SIMULATION = "simulation.json"
RATES = ("LOAN_COST_PER_CPU_HOUR", "LOAN_COST_PER_GIGABYTE_HOUR")
# What a simulation's home takes from outside: no place but where the book is delivered.
OF_A_SIMULATION = ("LOAN_HOME", "LOAN_SOURCE", *RATES)
IN_PROCESS, ON_KUBERNETES = "in_process", "k8s"
EMBEDDED, SPARK = "embedded", "spark"
REDIS = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every place the platform reads or writes. Build it with `Settings.from_environment`."""

    home: Path
    source: str
    landing: str
    outcomes: str
    mlflow_uri: str
    mlflow_artifacts: str
    feast_registry: str
    feast_online: str
    bentoml_home: Path
    online: str
    tokens: str = ""
    store_place: str = ""
    feast_place: str = ""
    dagster_storage: str = ""
    releases_place: str = ""
    predictions_place: str = ""
    decisions_place: str = ""
    events_place: str = ""
    cost_per_cpu_hour: float | None = None
    cost_per_gigabyte_hour: float | None = None
    bentos_place: str = ""
    backups_place: str = ""
    executor: str = IN_PROCESS
    machines: str = ""
    engine: str = EMBEDDED
    spark_master: str = ""
    spark_conf: str = ""

    @property
    def store(self) -> Path:
        """Where assets rest, one versioned folder each; with a bucket, this machine's copy of it."""
        return self._folder(self.store_place, "store")

    @property
    def releases(self) -> Path:
        """Where model releases rest, and the pointer to the champion; with a bucket, this machine's copy of it."""
        return self._folder(self.releases_place, "releases")

    @property
    def feast(self) -> Path:
        """Feast's offline tables, and its registry and online store unless they are set elsewhere."""
        return self._folder(self.feast_place, "feast")

    @property
    def predictions(self) -> Path:
        """The log of every answer, a folder a day; with a bucket, this machine's copy of it."""
        return self._folder(self.predictions_place, "predictions")

    @property
    def decisions(self) -> Path:
        """The journal of every decision about the champion; with a bucket, this machine's copy of it."""
        return self._folder(self.decisions_place, "decisions")

    @property
    def events(self) -> Path:
        """Statements that were pushed as they happened; with a bucket, this machine's copy of them."""
        return self._folder(self.events_place, "events")

    def _folder(self, place: str, name: str) -> Path:
        if not place:
            return self.home / name
        if not is_bucket(place):
            return Path(place).expanduser().resolve()
        # A copy of one bucket must never be taken for that of another.
        return self.home / "copies" / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"

    @property
    def dagster_home(self) -> Path:
        """Dagster's run and event history."""
        return self.home / "dagster"

    def databases(self) -> dict[str, str]:
        """The variables that may name a database, and the URLs as they are used."""
        return {
            "LOAN_DAGSTER_STORAGE": self.dagster_storage,
            "LOAN_MLFLOW_URI": self.mlflow_uri,
            "LOAN_FEAST_REGISTRY": self.feast_registry,
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read LOAN_HOME (default `.loan_assets` in the working directory) and what may be moved out of it.

        LOAN_SOURCE: `packaged` (default), `uci`, a CSV, Excel, zip or Parquet path, or any fsspec URL.
        LOAN_LANDING: the folder or fsspec prefix in which new months arrive, `landing` under LOAN_HOME by default.
        LOAN_OUTCOMES: the folder or fsspec prefix in which outcomes arrive, a Parquet file for each day of arrival;
        `labels` under LOAN_HOME by default.
        LOAN_ONLINE: where the endpoint finds clients' newest features, a folder or a `redis://` URL.
        LOAN_STORE, LOAN_RELEASES, LOAN_PREDICTIONS, LOAN_DECISIONS: where assets, releases, the endpoint's log and the
        journal rest, each a folder or a bucket's place (`s3://bank/loan-assets/store`); folders under LOAN_HOME by
        default.
        LOAN_EVENTS: likewise for the statements that are pushed, each recorded once.
        LOAN_FEAST_OFFLINE: likewise for the table that Feast joins.
        LOAN_BENTOS: the bucket's place in which every Bento is kept for other machines; none by default.
        LOAN_BACKUPS: where backups are made and looked for, a folder or a bucket's place; none by default.
        LOAN_EXECUTOR: `in_process` (default), a run's steps one after the other in its process, or `k8s`, a pod each.
        LOAN_MACHINES: a YAML file that says how large those pods are; `machines` reads it.
        LOAN_DAGSTER_STORAGE: a Postgres URL for Dagster's runs, events and schedules; SQLite files by default.
        LOAN_TOKENS: the file of tokens that callers of the endpoint must show; none by default.
        LOAN_COST_PER_CPU_HOUR, LOAN_COST_PER_GIGABYTE_HOUR: what an hour of a CPU, and of a gigabyte of memory, costs
        where runs are executed, in any currency; without either there are no figures of cost.
        LOAN_ENGINE: what computes the book's tables, `embedded` (default) or `spark`; with it LOAN_SPARK_MASTER
        (`local[*]` by default) and LOAN_SPARK_CONF, a file in the form of spark-defaults.conf.
        LOAN_POLICY names a YAML file that sets fields of `policy.py` otherwise; it is read by `policy_file`.
        LOAN_MLFLOW_URI, LOAN_MLFLOW_ARTIFACTS, LOAN_FEAST_REGISTRY, LOAN_FEAST_ONLINE: defaults are SQLite files and
        a folder under LOAN_HOME; Postgres, an MLflow server, `s3://` and `redis://` URLs do as well.

        A variable that is set to nothing counts as not set. In a simulation's home nothing may be moved out of it,
        whatever is set: it must not reach real registries, landing places or callers.

        Raises:
            BadInput: when a place begins with a protocol that is not known, LOAN_ENGINE names no engine, or a rate is
                no number or below nothing.
            Refusal: when LOAN_EXECUTOR is none of those.
        """
        given = os.environ if environment is None else environment
        variables = {name: value for name, value in given.items() if value.strip()}
        home = Path(variables.get("LOAN_HOME", ".loan_assets")).expanduser().resolve()
        if (home / SIMULATION).exists():
            variables = {name: value for name, value in variables.items() if name in OF_A_SIMULATION}
        executor = variables.get("LOAN_EXECUTOR", IN_PROCESS)
        if executor not in (IN_PROCESS, ON_KUBERNETES):
            raise Refusal(f"LOAN_EXECUTOR is {executor!r}.", f"Set it to {IN_PROCESS} or {ON_KUBERNETES}.")
        return cls(
            home=home,
            source=variables.get("LOAN_SOURCE", "packaged"),
            landing=variables.get("LOAN_LANDING", str(home / "landing")),
            outcomes=variables.get("LOAN_OUTCOMES", str(home / "labels")),
            mlflow_uri=_driven(variables.get("LOAN_MLFLOW_URI", f"sqlite:///{home}/mlflow/mlflow.db")),
            mlflow_artifacts=variables.get("LOAN_MLFLOW_ARTIFACTS", str(home / "mlflow" / "artifacts")),
            feast_registry=_driven(variables.get("LOAN_FEAST_REGISTRY", f"sqlite:///{home}/feast/registry.db")),
            feast_online=variables.get("LOAN_FEAST_ONLINE", str(home / "feast" / "online.db")),
            bentoml_home=home / "bentoml",
            online=_place(variables, "LOAN_ONLINE", REDIS) or str(home / "online"),
            tokens=variables.get("LOAN_TOKENS", ""),
            feast_place=_place(variables, "LOAN_FEAST_OFFLINE"),
            dagster_storage=_driven(variables.get("LOAN_DAGSTER_STORAGE", "")),
            store_place=_place(variables, "LOAN_STORE"),
            releases_place=_place(variables, "LOAN_RELEASES"),
            predictions_place=_place(variables, "LOAN_PREDICTIONS"),
            decisions_place=_place(variables, "LOAN_DECISIONS"),
            events_place=_place(variables, "LOAN_EVENTS"),
            cost_per_cpu_hour=_rate(variables, "LOAN_COST_PER_CPU_HOUR"),
            cost_per_gigabyte_hour=_rate(variables, "LOAN_COST_PER_GIGABYTE_HOUR"),
            bentos_place=_place(variables, "LOAN_BENTOS"),
            backups_place=_place(variables, "LOAN_BACKUPS"),
            executor=executor,
            machines=variables.get("LOAN_MACHINES", ""),
            engine=_engine(variables.get("LOAN_ENGINE", EMBEDDED)),
            spark_master=variables.get("LOAN_SPARK_MASTER", ""),
            spark_conf=variables.get("LOAN_SPARK_CONF", ""),
        )


def _place(variables: Mapping[str, str], name: str, others: tuple[str, ...] = ()) -> str:
    """A folder, a bucket's place or what else may be there; nothing where it is not set."""
    return folder_or_bucket(variables.get(name, ""), name, others)


def _rate(variables: Mapping[str, str], name: str) -> float | None:
    """A price an hour; None where none is set."""
    told = variables.get(name)
    if told is None:
        return None
    try:
        rate = float(told)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise BadInput(f"{name} is no price an hour.", "Set it to a number like 0.05, or leave it away.")
    return rate


def _engine(name: str) -> str:
    if name not in (EMBEDDED, SPARK):
        raise BadInput(f"LOAN_ENGINE is {name!r}, which is no engine.", f"Set it to `{EMBEDDED}` or `{SPARK}`.")
    return name


def _driven(url: str) -> str:
    """A Postgres URL with the driver that is installed, which SQLAlchemy would not choose by itself."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2://{rest}" if separator and scheme in ("postgres", "postgresql") else url


def without_secrets(location: str) -> str:
    """A path or URL that may be printed: no user, password, query or fragment, chained URLs included."""
    return "::".join(_bare(link) for link in location.split("::"))


def _bare(link: str) -> str:
    protocol, separator, rest = link.partition("://")
    if not separator:
        return link
    # Everything up to the last @ may be a password, slashes included.
    return f"{protocol}://{rest.rpartition('@')[2].partition('?')[0].partition('#')[0]}"
