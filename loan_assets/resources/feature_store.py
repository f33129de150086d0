"""The door to Feast: definitions read off the book, point-in-time joins, and the online store.

Here: every Feast object and call. Not here: what a feature means (`books`) or when to materialize (`assets`).

Feast takes seconds to import, so nothing here imports it before a method needs it. The offline store is duckdb, or
Spark with that engine, because the default one drops entity rows outside the TTL; the registry is SQL because the file
registry loses concurrent writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import dagster as dg
from filelock import FileLock

from loan_assets.books import LoanBook
from loan_assets.books.tables import CREATED_TIME, EVENT_TIME
from loan_assets.bucket import bucket_at
from loan_assets.online_redis import is_redis
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import TABLE, read_table, write_table
from loan_assets.resources.engine import Engine
from loan_assets.resources.versioned_store import Version, VersionedStore
from loan_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore

PROJECT, VIEW, SERVICE, ENTITY = "loan_assets", "borrower_features", "default_model", "client"
PUSHED = "pushed"
ROW = "row_id"
ONLINE_BATCH = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTable:
    """The table that Feast's view reads."""

    digest: str
    rows: int


class FeatureStoreDoor(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Feast with a SQL registry, the engine's offline store and an online store, wherever the settings put them.

    `online` is a SQLite file or a Redis URL. The table that the view reads is a sealed copy of one in `bucket`, if set.
    """

    folder: str
    registry: str
    online: str
    engine: Engine
    bucket: str = ""

    @classmethod
    def over(cls, settings: Settings) -> FeatureStoreDoor:
        """The store that the settings name, for what runs outside of Dagster."""
        return cls(
            folder=str(settings.feast),
            registry=settings.feast_registry,
            online=settings.feast_online,
            engine=Engine.over(settings),
            bucket=bucket_at(settings.feast_place),
        )

    def publish(self, rows: pd.DataFrame, book: LoanBook) -> OfflineTable:
        """Put rows where the view reads them, and make the registry agree with the book.

        Args:
            rows: key, event and created timestamps, and every feature; the versions before stay on their shelf.
        """
        version = self._shelves.write("offline", lambda folder: write_table(rows, folder / TABLE))
        with self._opened() as store:
            self._agree(store, book)
        return OfflineTable(digest=version.digest, rows=len(rows))

    def as_known_at(self, decisions: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
        """For each decision, the newest features known by then: a point-in-time join, rows in the order given.

        Args:
            decisions: the book's key and `event_timestamp` (UTC), one row a decision; other columns are carried along.

        Returns:
            `decisions` with one float32 column per feature; missing where nothing within its life was known by then.
        """
        import numpy as np
        import pandas as pd

        numbered = decisions.assign(**{ROW: np.arange(len(decisions), dtype="int64")})
        with self._opened() as store:
            self._agree(store, book)
            with self.engine.told("join what was known"):
                job = store.get_historical_features(
                    entity_df=numbered,
                    features=store.get_feature_service(SERVICE),
                    filter_by_created_timestamp=True,
                )
                joined = job.to_df().sort_values(ROW, ignore_index=True)
        if len(joined) != len(decisions):
            raise Refusal(
                f"Feast returned {len(joined):,} rows for {len(decisions):,} decisions.",
                "Materialize feature_definitions again and rerun; nothing was trained.",
            )
        features = list(book.feature_names)
        # Spark's instants are UTC without saying so.
        times = {EVENT_TIME.name: pd.to_datetime(joined[EVENT_TIME.name], utc=True).astype("datetime64[us, UTC]")}
        ordered = joined[[*decisions.columns, *features]].assign(**times)
        exact: pd.DataFrame = ordered.astype(dict.fromkeys(features, "float32"))
        return exact

    def as_of(self, decisions: pd.DataFrame, book: LoanBook) -> pd.Series[pd.Timestamp]:
        """The instant of the newest statement known at each decision, UTC, rows in the order given; NaT where none."""
        import duckdb

        key, event, created = book.key.name, EVENT_TIME.name, CREATED_TIME.name
        rows = read_table(self._offline_file())[[key, event, created]]
        query = f"""
            select max(known.{event}) as newest
            from (select *, row_number() over () as {ROW} from decisions) as asked
            left join known on known.{key} = asked.{key} and known.{event} <= asked.{event}
                and known.{created} <= asked.{event}
            group by asked.{ROW} order by asked.{ROW}"""
        with duckdb.connect() as database:
            database.execute("set timezone = 'UTC'")
            database.register("decisions", decisions[[key, event]])
            database.register("known", rows)
            newest: pd.Series[pd.Timestamp] = database.execute(query).df()["newest"]
        return newest.astype("datetime64[us, UTC]")

    def materialize(self, book: LoanBook) -> pd.DataFrame:
        """Load the online store with the newest row of every client, in one full window that ends at the newest event.

        One window and one writer, because a later load of an older window would overwrite newer values.

        Returns:
            The rows that the online store should now answer, one a client: key, timestamps and features.
        """
        rows = read_table(self._offline_file())
        newest: datetime = rows[EVENT_TIME.name].max().to_pydatetime()
        start = datetime.combine(book.first_month, time.min, UTC)
        # Feast prints its own progress to standard output, where ours is told.
        with self._opened() as store, redirect_stdout(StringIO()):
            self._agree(store, book)
            with self.engine.told("find each client's newest row"):
                store.materialize(start, newest + timedelta(seconds=1), disable_event_timestamp=False)
        return _newest(rows, book)

    def newest(self, book: LoanBook) -> pd.DataFrame:
        """The newest row of every client in the offline table, as `materialize` gives them; Feast is not asked."""
        return _newest(read_table(self._offline_file()), book)

    def push(self, rows: pd.DataFrame, book: LoanBook) -> None:
        """Put some clients' newest rows into the online store at once, through the view's push source.

        Whatever was there is replaced: the caller sees to it that the rows are the newest.

        Args:
            rows: key, event and created timestamps, and every feature, one row a client.
        """
        with self._opened() as store:
            from feast.data_source import PushMode

            store.push(self._push_source(store, book), rows, to=PushMode.ONLINE)

    def read_online(self, clients: Sequence[int], book: LoanBook) -> pd.DataFrame:
        """What the online store answers for these clients: the key and one float32 column per feature, same order."""
        import pandas as pd

        with self._opened() as store:
            service = store.get_feature_service(SERVICE)
            batches = [
                store.get_online_features(
                    features=service,
                    entity_rows=[{book.key.name: int(client)} for client in clients[start : start + ONLINE_BATCH]],
                ).to_df()
                for start in range(0, len(clients), ONLINE_BATCH)
            ]
        features = list(book.feature_names)
        answered = pd.concat(batches, ignore_index=True)[[book.key.name, *features]]
        exact: pd.DataFrame = answered.astype(dict.fromkeys(features, "float32"))
        return exact

    @property
    def _shelves(self) -> VersionedStore:
        # Two, so that the table before is still there while the registry is being told of the new one.
        return VersionedStore(root=Path(self.folder), keep=2, bucket=self.bucket)

    def _offline_file(self) -> Path:
        return self._offline().folder / TABLE

    def _offline(self) -> Version:
        """The verified table that the view reads; Feast itself would not notice a damaged one."""
        version = self._shelves.current("offline")
        if version is None:
            raise Refusal("Feast has no offline table yet.", "Materialize feature_definitions first.")
        return version

    def _agree(self, store: FeatureStore, book: LoanBook) -> None:
        """Make the registry say what the book says and point at the verified table in force.

        A kill between writing the table and telling the registry, a moved home or a lost registry is mended here.
        """
        from feast.errors import FeastObjectNotFoundException

        version = self._offline()
        table = self.engine.shown(version.folder / TABLE, version.digest)
        reads = f"{self.engine.offline_store} {table}"
        tags = {"book": book.name, "book_digest": book.digest, "reads": reads, "follows": PUSHED}
        try:
            agrees = store.get_feature_view(VIEW).tags == tags
        except FeastObjectNotFoundException:
            agrees = False
        if not agrees:
            _apply(store, book, _source(self.engine.offline_store, table), tags)

    def _push_source(self, store: FeatureStore, book: LoanBook) -> str:
        """The name under which the view of this book follows what is pushed.

        What is there is taken as it is: a push is no occasion to start an engine, which only joins need.
        """
        from feast.errors import FeastObjectNotFoundException

        try:
            tags = store.get_feature_view(VIEW).tags
        except FeastObjectNotFoundException:
            tags = {}
        if (tags.get("book_digest"), tags.get("follows")) != (book.digest, PUSHED):
            self._agree(store, book)
        return str(store.get_feature_view(VIEW).stream_source.name)

    @contextmanager
    def _opened(self) -> Iterator[FeatureStore]:
        """A Feast store over the configured places; one process at a time, for SQLite would refuse the second."""
        files = [Path(place.removeprefix("sqlite:///")) for place in (self.registry, self.online)]
        local = [path for path, place in zip(files, (self.registry, self.online), strict=True) if _is_file(place)]
        for place in (Path(self.folder), *(path.parent for path in local)):
            place.mkdir(parents=True, exist_ok=True)
        if files[0] in local and files[0].exists() and files[0].stat().st_size == 0:
            raise Refusal(
                f"Feast's registry {files[0]} is empty, which Feast would take for a registry without views.",
                "Remove that file and run again: it is written anew from the book.",
            )
        with FileLock(Path(self.folder) / ".lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast's own deprecations; ours are raised before and after this block
            with _uninstrumented():
                from feast import FeatureStore, RepoConfig

            store = FeatureStore(
                config=RepoConfig(
                    project=PROJECT,
                    provider="local",
                    registry={"registry_type": "sql", "path": self.registry, "cache_ttl_seconds": 0},
                    offline_store={"type": self.engine.offline_store},
                    online_store=_online(self.online),
                    entity_key_serialization_version=3,
                )
            )
            if self.engine.offline_store == "spark":
                import feast.infra.offline_stores.contrib.spark_offline_store.spark  # noqa: F401  # it warns of itself
            warnings.simplefilter("ignore")  # modules of Feast's that were imported on the way set it back
            yield store


@contextmanager
def _uninstrumented() -> Iterator[None]:
    """Let modules be imported without typeguard rewriting each of their methods to check types at every call.

    That is two thirds of the seconds that Feast takes to import. Typeguard leaves it out under `python -O` for the same
    reason, which is no way here: it would take our own assertions along.
    """
    typeguard: Any = import_module("typeguard")
    instrument, typeguard.typechecked = typeguard.typechecked, lambda target: target
    try:
        yield
    finally:
        typeguard.typechecked = instrument


def _online(place: str) -> dict[str, object]:
    """Feast's configuration of an online store."""
    if not is_redis(place):
        return {"type": "sqlite", "path": place}
    # Feast wants Redis as host:port and options, commas between them.
    url = urlsplit(place)
    said = {"username": url.username, "password": url.password, "db": url.path.strip("/")}
    options = [f"{name}={unquote(value)}" for name, value in said.items() if value]
    options += ["ssl=true"] if url.scheme == "rediss" else []
    # A statement that is restated speaks of the same instant, which Feast would take for nothing new.
    as_told = {"skip_dedup": True}
    return {"type": "redis", "connection_string": ",".join([f"{url.hostname}:{url.port or 6379}", *options]), **as_told}


def _newest(rows: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """Each client's newest row, of several about the same instant the one that became known last, by client."""
    known = rows.sort_values([EVENT_TIME.name, CREATED_TIME.name], kind="stable")
    return known.drop_duplicates(book.key.name, keep="last").sort_values(book.key.name, ignore_index=True)


def _is_file(place: str) -> bool:
    return place.startswith("sqlite:///") or "://" not in place


def _source(offline_store: str, table: str) -> Any:
    """The table that the view reads, as one offline store or the other finds it."""
    times = {"timestamp_field": EVENT_TIME.name, "created_timestamp_column": CREATED_TIME.name}
    if offline_store == "spark":
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        # A name of its own: Feast cannot read one kind of source where the registry holds another by the same name.
        return SparkSource(name=f"{VIEW}_on_spark", table=table, **times)
    from feast import FileSource

    return FileSource(name=f"{VIEW}_source", path=table, **times)


def _apply(store: FeatureStore, book: LoanBook, source: Any, tags: dict[str, str]) -> None:
    """The book as a Feast entity, source, view and service."""
    from feast import Entity, FeatureService, FeatureView, Field, PushSource, ValueType
    from feast.types import Float32, Int64

    client = Entity(name=ENTITY, join_keys=[book.key.name], value_type=ValueType.INT64, description=book.key.meaning)
    fields: list[Any] = [Field(name=book.key.name, dtype=Int64)]
    fields += [Field(name=feature.name, dtype=Float32, description=feature.meaning) for feature in book.features]
    view = FeatureView(
        name=VIEW,
        entities=[client],
        ttl=book.feature_life,
        schema=fields,
        source=PushSource(name=f"{source.name}_{PUSHED}", batch_source=source),
        online=True,
        tags=tags,
    )
    service = FeatureService(name=SERVICE, features=[view], tags={"book_digest": book.digest})
    store.apply([client, source, view, service])
