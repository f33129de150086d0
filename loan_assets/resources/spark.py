"""The engine that is not bound to one machine: the book's tables computed by the tasks of a Spark session.

Here: every Spark object and call, and what starts and ends a session. Not here: what a task computes
(`credit.by_parts`, the embedded engine's own functions) or any number of a cluster, which its conf says.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from loan_assets.books import Column, Kind, LoanBook, tables, the_book
from loan_assets.credit.conformance import Breach, broken_contract, in_the_books_words, refuse_headers
from loan_assets.refusal import Refusal
from loan_assets.resources.engine import Delivered, Engine

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

TYPES = {
    Kind.INTEGER: "bigint",
    Kind.NUMBER: "double",
    Kind.RATIO: "float",
    Kind.TIME: "timestamp",
    Kind.WORD: "string",
}
# What holds unless the conf says otherwise. The log is a file, so that no screen is flooded.
DEFAULTS = {
    "spark.master": "local[*]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # A Java process out of memory otherwise goes on without the threads that it lost, and who asked it waits for ever.
    "spark.driver.defaultJavaOptions": "-XX:+ExitOnOutOfMemoryError",
    # One way for tables of every size: up to 48 MB, by default, a table is part of the plan, which is walked over again
    # and again. No value depends on it.
    "spark.sql.execution.arrow.localRelationThreshold": "0",
}
# The codes with which it then ends, by itself or by the system's hand.
SHORT_OF_MEMORY = {3: "is out of memory", -signal.SIGKILL: "was killed, as a system does that is short of memory"}
# Whose errors are no errors of Spark's: Feast's online store and registry, which it asks in the same call.
OF_OTHERS = ("psycopg2", "redis", "sqlalchemy", "sqlite3")
# On one machine the driver's process is where all tasks run and all tables are; Spark's own default is 1 GiB.
LOCAL = {
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # A task writes one file for the next, and not one for each of the two hundred parts that Spark plans with: on one
    # machine most of those are empty.
    "spark.shuffle.sort.bypassMergeThreshold": "0",
}
# What holds whatever the conf says, for rows depend on it.
FIXED = {"spark.app.name": "loan_assets", "spark.sql.session.timeZone": "UTC"}
# Rows of features in one result: some 500 MB, of which a driver by default takes twice as much.
ROWS_AT_ONCE = 4_000_000
EMBEDDED = "or unset LOAN_ENGINE: the embedded engine gives the same rows"


class SparkEngine(Engine):
    """Spark, at `master` and with the properties of the file `conf`; its log is written into `folder`.

    A session is opened by dagster-pyspark's resource when it is first needed, and ended with the run.
    """

    master: str
    conf: str
    folder: str
    _opened: Any = PrivateAttr(default=None)

    @property
    def session(self) -> SparkSession:
        """The session of this run.

        Raises:
            Refusal: when PySpark, Java or the cluster is not there.
        """
        if self._opened is None:
            configured = self._configured()
            _require()
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            if self.conf:
                # By file, for an argument is seen by everybody on the machine.
                os.environ["PYSPARK_SUBMIT_ARGS"] = f"--properties-file {shlex.quote(self.conf)} pyspark-shell"
            with self.told(f"start at {configured.get('spark.master', 'the master of its conf')}"), self._noise_kept():
                from dagster_pyspark import LazyPySparkResource

                door = LazyPySparkResource(spark_config=configured)
                door.spark_session.sparkContext.setLogLevel("WARN")
            self._opened = door
        session: SparkSession = self._opened.spark_session
        return session

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002  # Dagster's own form
        """End the session with the run that opened it."""
        self.stop()

    def stop(self) -> None:
        """End the session, if one was opened; the next that is needed is a new one."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if _java_ended_with() is None:
            opened.spark_session.stop()
        else:
            _forget_java()

    def tried(self) -> str:
        """Start a session, have its tasks find the book of this process, and end it: what and where it was.

        Raises:
            Refusal: when it does not start, or computes by another book.
        """
        from loan_assets.credit import by_parts

        started = time.monotonic()
        try:
            session = self.session
            with self.told("carry out a first task"):
                book = by_parts.InForce.of(the_book())
                session.range(session.sparkContext.defaultParallelism).mapInArrow(
                    partial(by_parts.met, book), "id bigint"
                ).count()
            return (
                f"Spark {session.version} at {session.sparkContext.master}, {time.monotonic() - started:.0f} s to start"
            )
        finally:
            self.stop()

    def read(self, file: Delivered, columns: Sequence[Column], key: str, hint: str) -> tuple[str, pd.DataFrame]:
        """As the embedded engine: the groups of rows of a Parquet file by as many tasks.

        A file of another kind is opened here, for it has no parts, and its rows are then spread like those of Parquet.
        """
        import pyarrow.parquet as pq

        from loan_assets.credit import by_parts

        kind, content = ("parquet", file.content) if _is_parquet(file.content) else self._spread(file, columns, hint)
        parquet = pq.ParquetFile(io.BytesIO(content))
        words = in_the_books_words(parquet.schema_arrow.empty_table().to_pandas(), columns)
        rows, groups = parquet.metadata.num_rows, parquet.num_row_groups
        refuse_headers([str(name) for name in words.columns], rows, columns, file.name, hint)
        session = self.session
        with self.told("plan a step"):
            each = session.range(0, groups, 1, groups)
            judged = each.mapInArrow(partial(by_parts.judged, content, columns), _ddl(by_parts.FOUND))
            conformed = each.mapInArrow(partial(by_parts.conformed, content, columns), _ddl(columns))
        found = self._collected(judged)
        # What is not even a number cannot be stored, and is told without asking for the rows.
        stored = None if (found["is_unfit"] == 1).any() else self._collected(conformed)
        broken = by_parts.together(found, columns, None if stored is None else _repeats(stored, key))
        if broken or stored is None:
            raise broken_contract(file.name, rows, broken, hint)
        return kind, stored

    def statements_of(self, months: Sequence[str], received: pd.DataFrame, book: LoanBook) -> dict[str, pd.DataFrame]:
        """As the embedded engine, each task a part of the clients."""
        from loan_assets.credit import by_parts, statements

        if not months:
            return {}  # a session is not opened for nothing
        for month in months:
            statements.month_of_statements(received.head(1), month, book)  # refuses a month that the book lacks
        rows, types = self._sent(received), _ddl(tables.statements(book))
        told = by_parts.InForce.of(book)
        with self.told("plan a step"):
            planned = {month: rows.mapInArrow(partial(by_parts.statements_of, month, told), types) for month in months}
        return {month: self._collected(plan) for month, plan in planned.items()}

    def features_of(
        self, months: Sequence[str], known: Mapping[str, pd.DataFrame], profiles: pd.DataFrame, book: LoanBook
    ) -> dict[str, pd.DataFrame]:
        """As the embedded engine: all rows of a client are brought into one task, which computes every month asked for.

        Profiles travel as rows among the statements. After a join Spark drops a repartition by the join's own key as
        redundant, and may then plan the join anew, by which a client's rows come apart.
        """
        from pyspark.sql.functions import lit

        from loan_assets.credit import by_parts, statements

        if not months:
            return {}  # a session is not opened for nothing
        awaited = {month: statements.rows_as_of(month, known, book) for month in months}
        sent: dict[str, DataFrame] = {}
        computed = {}
        for group in _groups(awaited):
            read = {month for asked in group for month in statements.months_read(asked, known, book).values()}
            for month in sorted(read - set(sent)):
                table = self._sent(known[month])
                with self.told("plan a step"):
                    sent[month] = table.withColumn(by_parts.MONTH, lit(month))
            stated = {month: known[month] for month in sorted(read)}
            collected = self._computed(group, [sent[month] for month in stated], _counted(stated, profiles, book), book)
            found = dict(iter(collected.groupby(by_parts.MONTH)))
            for month in group:
                features = found.pop(month, collected.head(0)).drop(columns=by_parts.MONTH)
                if len(features) != awaited[month]:
                    raise Refusal(
                        f"Spark returned {len(features):,} rows of features as of {month}, not {awaited[month]:,}.",
                        f"Nothing was stored; see {self.log}, then run again.",
                    )
                order = [book.key.name, tables.CREATED_TIME.name]
                computed[month] = features.sort_values(order, ignore_index=True)
        return computed

    def _computed(
        self, months: tuple[str, ...], rows: Sequence[DataFrame], profiles: pd.DataFrame, book: LoanBook
    ) -> pd.DataFrame:
        """The features as of some months, beside the month: one shuffle of statements and profiles, then the tasks."""
        from pyspark.sql import DataFrame

        from loan_assets.credit import by_parts

        clients, task = self._sent(profiles), partial(by_parts.features_of, months, by_parts.InForce.of(book))
        with self.told("plan a step"):
            every = reduce(partial(DataFrame.unionByName, allowMissingColumns=True), [*rows, clients])
            parts = every.repartition(book.key.name)
            planned = parts.mapInArrow(task, _ddl(by_parts.features_beside_months(book)))
        return self._collected(planned)

    @property
    def offline_store(self) -> str:
        """Feast's Spark offline store, which finds the session that is open."""
        return "spark"

    def shown(self, table: Path, digest: str) -> str:
        """A view of the session, named by the table's digest; a file of this machine is nothing to another."""
        import pyarrow.parquet as pq

        name, session = f"offline_{digest[:12]}", self.session
        rows = pq.read_table(table).replace_schema_metadata(None)
        with self.told("show a table to Feast"):
            if not session.catalog.tableExists(name):
                session.createDataFrame(rows).createOrReplaceTempView(name)
        return name

    @property
    def log(self) -> Path:
        """Where Spark tells of itself."""
        return Path(self.folder) / "spark.log"

    def _configured(self) -> dict[str, str]:
        """The properties of a session but those of the file, which Spark reads itself."""
        said = _keys(Path(self.conf)) if self.conf else frozenset()
        wanted = DEFAULTS | ({"spark.master": self.master} if self.master else {})
        asked = {"spark.master"} if self.master else frozenset()
        if wanted["spark.master"].startswith("local") and "spark.master" not in said - asked:
            wanted |= LOCAL
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        return {name: value for name, value in wanted.items() if name not in said - asked} | FIXED

    def _spread(self, file: Delivered, columns: Sequence[Column], hint: str) -> tuple[str, bytes]:
        """A file of another kind as Parquet with a group of rows for each core."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kind, table = file.parsed()
        named = in_the_books_words(table, columns)
        refuse_headers([str(name) for name in named.columns], len(named), columns, file.name, hint)
        wanted = named[[column.name for column in columns]]
        # A column of mixed cells has no type of its own; as text it is read to the same numbers.
        mixed = {
            str(name): cells.map(str, na_action="ignore") for name, cells in wanted.items() if cells.dtype == object
        }
        written = io.BytesIO()
        session = self.session
        with self.told("say how many cores it has"):
            cores = session.sparkContext.defaultParallelism
        spread = pa.Table.from_pandas(wanted.assign(**mixed), preserve_index=False)
        pq.write_table(spread, written, row_group_size=-(-len(wanted) // cores))
        return kind, written.getvalue()

    def _sent(self, table: pd.DataFrame) -> DataFrame:
        import pyarrow as pa

        arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
        session = self.session
        with self.told("take a table"):
            sent: DataFrame = session.createDataFrame(arrow)
        return sent

    def _collected(self, frame: DataFrame) -> pd.DataFrame:
        """What the tasks gave, in the order of the parts."""
        with self.told("carry out a step"):
            collected: pd.DataFrame = frame.toArrow().to_pandas()
        return collected

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        """Turn what Spark raises into sentences; what it says may hold values of rows, and stays in its log."""
        try:
            yield
        except Refusal:
            raise
        except Exception as failed:  # Spark, Py4J and Java each raise their own kinds; all mean the same here
            if type(failed).__module__.partition(".")[0] in OF_OTHERS:
                raise
            ours = re.search(rf"{Refusal.__module__}\.{Refusal.__name__}: (.+)", str(failed))
            if ours is not None:
                raise Refusal(f"On a machine of the cluster: {ours[1].strip()}", "Then run again.") from None
            if (short := SHORT_OF_MEMORY.get(_java_ended_with(patience=2) or 0)) is not None:
                raise Refusal(
                    f"Spark could not {doing}: its process on this machine {short}.",
                    f"Set spark.driver.memory in the file of LOAN_SPARK_CONF by what the machine has, {EMBEDDED}.",
                ) from None
            step = f"See {self.log}; mend LOAN_SPARK_MASTER or LOAN_SPARK_CONF, {EMBEDDED}."
            raise Refusal(f"Spark could not {doing} ({type(failed).__name__}).", step) from None

    @contextmanager
    def _noise_kept(self) -> Iterator[None]:
        """Have the Java process that is started meanwhile write all it says into the log, for as long as it lives."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        logging.getLogger("py4j").setLevel(logging.ERROR)
        sys.stdout.flush()
        sys.stderr.flush()
        screens = {end: os.dup(end) for end in (1, 2)}
        kept = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for end in screens:
                os.dup2(kept, end)
            yield
        finally:
            for end, screen in screens.items():
                os.dup2(screen, end)
                os.close(screen)
            os.close(kept)


def _counted(known: Mapping[str, pd.DataFrame], profiles: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """Profiles as tasks are given them: each with how many statements there are of its client."""
    import pandas as pd

    from loan_assets.credit import by_parts

    key = book.key.name
    counts = pd.concat([table[key] for table in known.values()]).value_counts()
    stated = profiles[key].map(counts).fillna(0).astype("int64")
    return profiles.assign(**{by_parts.STATEMENTS: stated})[by_parts.names_of(by_parts.profiles_sent(book))]


def _groups(rows: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Months that are fetched in one result, which has a row for each of these, in their order."""
    group: tuple[str, ...] = ()
    for month, count in rows.items():
        if group and sum(rows[one] for one in group) + count > ROWS_AT_ONCE:
            yield group
            group = ()
        group = (*group, month)
    yield group


def _java_ended_with(patience: float = 0) -> int | None:
    """The code with which the sessions' Java process exited, which is awaited for some seconds; none while it lives."""
    pyspark = sys.modules.get("pyspark")  # where it was not imported it has started nothing
    process: subprocess.Popen[bytes] | None = None
    if pyspark is not None:
        process = getattr(pyspark.SparkContext._gateway, "proc", None)
    if process is None:
        return None
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    return process.returncode


def _forget_java() -> None:
    """Have PySpark start another Java process for the next session: by itself it asks the one that is gone again."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    SparkSession._instantiatedSession = None


def _require() -> None:
    """Refuse where PySpark or Java is not there, before either says so in its own words."""
    try:
        import dagster_pyspark  # noqa: F401  # it imports PySpark
    except ImportError as absent:
        step = f"Install the extra `spark` (`uv pip install --require-hashes -r deploy/spark.lock`), {EMBEDDED}."
        package = str(absent.name).partition(".")[0]
        raise Refusal(f"LOAN_ENGINE is spark, but {package} cannot be imported.", step) from None
    home = os.environ.get("JAVA_HOME")
    if not (os.access(Path(home) / "bin" / "java", os.X_OK) if home else shutil.which("java")):
        where = f"JAVA_HOME {home} holds none" if home else "there is none on the PATH"
        step = f"Install Java 17 or later (`apt-get install openjdk-17-jre-headless`), {EMBEDDED}."
        raise Refusal(f"LOAN_ENGINE is spark, which needs Java, and {where}.", step)


def _keys(conf: Path) -> frozenset[str]:
    """The properties that a file in the form of spark-defaults.conf sets."""
    try:
        lines = conf.read_text().splitlines()
    except OSError as error:
        step = "Point LOAN_SPARK_CONF at a file in the form of spark-defaults.conf, or unset it."
        raise Refusal(f"LOAN_SPARK_CONF {conf} cannot be read: {error.strerror}.", step) from None
    return frozenset(found[1] for line in lines if (found := re.match(r"\s*([^#\s=:]+)", line)))


def _repeats(stored: pd.DataFrame, key: str) -> Breach | None:
    """How many rows share their key with another."""
    rows = int(stored[key].duplicated(keep=False).sum())
    return Breach(column=key, rule="repeats", rows=rows) if rows else None


def _is_parquet(content: bytes) -> bool:
    """Whether bytes are a Parquet file that ends as one; what is cut short is refused by whoever reads it whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not content.startswith(b"PAR1"):
        return False
    try:
        pq.ParquetFile(io.BytesIO(content))
    except pa.ArrowException:
        return False
    return True


def _ddl(columns: Sequence[Column]) -> str:
    """Columns as Spark names them."""
    return ", ".join(f"`{column.name}` {TYPES[column.kind]}" for column in columns)
