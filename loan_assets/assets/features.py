"""Features: what the model sees of a client, as of each month, offline and online.

Here: the three steps from statements to an answerable feature store. Not here: formulas (`books`) or Feast's objects
(`resources.feature_store`).
"""

from dataclasses import dataclass
from datetime import datetime
from time import sleep

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loan_assets.books import tables, the_book
from loan_assets.books.calendar import month_after, months_of
from loan_assets.online_table import OnlineTable
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import months_of_run, months_of_statements, picture, table_type
from loan_assets.resources.engine import Engine
from loan_assets.resources.feature_store import SERVICE, VIEW, FeatureStoreDoor
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.pushed_statements import PushedStatements
from loan_assets.stream import Stream

BOOK = the_book()
KEY, CREATED = BOOK.key.name, tables.CREATED_TIME.name
MONTHS = months_of_statements(BOOK)
COMPUTED_BY = "book_digest"
TIMES_LOOKED = 3
WINDOW = dg.TimeWindowPartitionMapping(start_offset=1 - BOOK.window, allow_nonexistent_upstream_partitions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDefinitions:
    """What Feast was told: the view and service, their features, and the offline table they read."""

    view: str
    service: str
    features: tuple[str, ...]
    book_digest: str
    offline_digest: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFeatures:
    """What the online stores hold: how many clients, and the newest statement among them."""

    clients: int
    features_as_of: datetime
    offline_digest: str
    table_digest: str


@dg.asset(
    kinds={"pandas", "parquet"},
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    ins={"monthly_statements": dg.AssetIn(partition_mapping=WINDOW)},
    dagster_type=table_type("BorrowerFeatures", tables.borrower_features(BOOK), [KEY, CREATED]),
)
def borrower_features(
    context: dg.AssetExecutionContext,
    engine: Engine,
    monthly_statements: dict[str, pd.DataFrame],
    client_profiles: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """What the bank knows of each client's habits at the end of each month: use of credit, payments, delays, trends.

    Every number is a named function in the book, computed over the six months that end with the partition; a request
    at the endpoint is computed by the same functions. Protected attributes are not read.
    """
    from loan_assets.credit.pictures import small_multiples

    months = engine.features_of(context.partition_keys, monthly_statements, client_profiles, BOOK)
    for table in months.values():
        table.attrs[COMPUTED_BY] = BOOK.digest
    newest = months[max(months)]
    spread = {name: newest[name].to_numpy("float64") for name in BOOK.feature_names}
    context.add_asset_metadata(
        {"features": len(spread), "spread": picture(small_multiples(spread), f"features as of {max(months)}")},
        partition_key=max(months),
    )
    return months


@dg.asset_check(asset=borrower_features, additional_ins={"monthly_statements": dg.AssetIn()}, blocking=True)
def full_windows_have_no_gaps(
    context: dg.AssetCheckExecutionContext,
    borrower_features: dict[str, pd.DataFrame],
    monthly_statements: dict[str, pd.DataFrame],
) -> dg.AssetCheckResult:
    """Where six months of a client's statements are there, every feature of that client is a finite number."""
    gaps = {}
    for month, table in months_of_run(context.run, borrower_features, MONTHS).items():
        window = [month_after(month, -lag) for lag in range(BOOK.window)]
        if window[-1] >= months_of(BOOK)[0]:
            there = [set(monthly_statements[one][KEY]) for one in window if one in monthly_statements]
            last = table.drop_duplicates(KEY, keep="last")  # before it a late statement may have been missing
            stayed = last[KEY].isin(set(last[KEY]).intersection(*there))
            gaps[month] = int((~np.isfinite(last.loc[stayed, list(BOOK.feature_names)].to_numpy())).sum())
    return dg.AssetCheckResult(
        passed=not any(gaps.values()),
        description="; ".join(f"{month}: {count:,} values are not finite" for month, count in gaps.items() if count)
        or None,
        metadata={"full_windows": len(gaps), "gaps": gaps},
    )


@dg.asset(kinds={"feast", "parquet"})
def feature_definitions(
    context: dg.AssetExecutionContext, feature_store: FeatureStoreDoor, borrower_features: dict[str, pd.DataFrame]
) -> FeatureDefinitions:
    """The feature view and service in Feast's registry, read off the book, over the features of every month.

    Months whose features another book computed are refused: one table never mixes two sets of formulas.
    """
    others = sorted(month for month, table in borrower_features.items() if table.attrs.get(COMPUTED_BY) != BOOK.digest)
    if others:
        raise Refusal(
            f"The features of {', '.join(others)} were not computed by the book in force, {BOOK.digest}.",
            "Materialize borrower_features for these months, or run `loan-assets run`, which covers every month.",
        )
    rows = pd.concat([borrower_features[month] for month in sorted(borrower_features)], ignore_index=True)
    table = feature_store.publish(rows, BOOK)
    lines = ["| feature | meaning | reads |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.meaning} | {', '.join(one.inputs)} |" for one in BOOK.features]
    context.add_output_metadata({"features": dg.MetadataValue.md("\n".join(lines)), "rows": table.rows})
    return FeatureDefinitions(
        view=VIEW,
        service=SERVICE,
        features=BOOK.feature_names,
        book_digest=BOOK.digest,
        offline_digest=table.digest,
        rows=table.rows,
    )


# Neither Feast's online store nor Redis refuses a second writer: the pool has one place, also where runs have many.
@dg.asset(kinds={"feast", "numpy"}, pool="online_store")
def online_features(
    context: dg.AssetExecutionContext,
    io_manager: dg.ResourceParam[AssetStore],
    feature_store: FeatureStoreDoor,
    online_tables: OnlineTables,
    pushed_statements: PushedStatements,
    feature_definitions: FeatureDefinitions,
) -> OnlineFeatures:
    """The newest features of every client, by client number: in Feast's online store, and as a table in memory's form.

    The endpoint reads the table, in microseconds and without Feast; a check holds it equal to Feast's own answers. What
    was pushed and is not in the offline table yet stays served.
    """
    newest = feature_store.materialize(BOOK)
    as_of = newest[tables.EVENT_TIME.name].max().to_pydatetime()
    unlike = _rows_unlike_offline(feature_store, newest, newest[list(BOOK.feature_names)], as_of)
    if unlike:
        raise Refusal(
            f"The newest rows of {unlike:,} clients differ from the offline join at {as_of:%Y-%m-%d}; the endpoint's "
            "table was not replaced.",
            "Look for two rows that became known at one instant; materialize borrower_features and what follows.",
        )
    stream = Stream(events=pushed_statements, store=io_manager, features=feature_store, online=online_tables, book=BOOK)
    digest = stream.put_in_force(newest)
    context.add_output_metadata({"features_as_of": as_of.isoformat(), "clients": len(newest), "table_digest": digest})
    return OnlineFeatures(
        clients=len(newest),
        features_as_of=as_of,
        offline_digest=feature_definitions.offline_digest,
        table_digest=digest,
    )


@dg.asset_check(asset=online_features, additional_ins={"client_profiles": dg.AssetIn()}, blocking=True)
def online_equals_offline(
    io_manager: dg.ResourceParam[AssetStore],
    feature_store: FeatureStoreDoor,
    online_tables: OnlineTables,
    pushed_statements: PushedStatements,
    online_features: OnlineFeatures,
    client_profiles: pd.DataFrame,
) -> dg.AssetCheckResult:
    """Feast's online store and the endpoint's table answer the same bits for every client, those of the offline join.

    A client who has left keeps its last row online; the join knows nothing of it once its features' life is over. What
    was pushed and is not offline yet is held to the same functions over the statements themselves.
    """
    stream = Stream(events=pushed_statements, store=io_manager, features=feature_store, online=online_tables, book=BOOK)
    for _ in range(TIMES_LOOKED):
        table = online_tables.table()
        counted = _differences(stream, table, online_features.features_as_of)
        counted["clients too many or too few"] = len(set(client_profiles[KEY]) ^ set(table.clients.tolist()))
        if not any(counted.values()):
            break
        sleep(1.0)  # an event that was recorded this moment is being served
    wrong = [f"{count:,} {what}" for what, count in counted.items() if count]
    if table.digest != online_features.table_digest:
        wrong.append(f"the table in force is {table.digest[:12]}, not {online_features.table_digest[:12]}")
    return dg.AssetCheckResult(
        passed=not wrong, description="; ".join(wrong) or None, metadata={"clients": len(table.clients), **counted}
    )


def _differences(stream: Stream, table: OnlineTable, as_of: datetime) -> dict[str, int]:
    """How many clients' rows are not the same in two stores, by which."""
    clients, names = table.clients.tolist(), list(BOOK.feature_names)
    answered = pd.DataFrame(table.features, columns=names, index=clients)
    newest = stream.features.newest(BOOK)
    ahead = stream.ahead_of(newest).set_index(KEY)[names]
    offline = newest[newest[KEY].isin(clients) & ~newest[KEY].isin(ahead.index)]
    feast = stream.features.read_online(clients, BOOK)[names].to_numpy()
    return {
        "clients that the offline join answers otherwise": _rows_unlike_offline(
            stream.features, offline, answered.loc[offline[KEY]], as_of
        ),
        "clients that Feast's online store answers otherwise": _rows_that_differ(feast, table.features),
        "clients whose pushed statements are not served": _rows_that_differ(
            ahead.to_numpy("float32"), answered.reindex(ahead.index).to_numpy("float32")
        ),
    }


def _rows_unlike_offline(
    feature_store: FeatureStoreDoor, newest: pd.DataFrame, features: pd.DataFrame, as_of: datetime
) -> int:
    """How many clients' features differ from the point-in-time join; it forgets who left a feature's life ago.

    Args:
        newest: the clients' newest rows offline. Each is asked for as of the newest month, or of the instant at which
            it became known where that came later.
        features: what is compared, in the same order.
    """
    last = pd.Series(pd.Timestamp(as_of).as_unit("us"), index=newest.index)
    asked = last.where(last >= newest[CREATED], newest[CREATED])
    decisions = pd.DataFrame({KEY: newest[KEY], tables.EVENT_TIME.name: asked}).reset_index(drop=True)
    oldest = decisions[tables.EVENT_TIME.name] - BOOK.feature_life
    is_fresh = ~(feature_store.as_of(decisions, BOOK) < oldest).to_numpy()
    offline = feature_store.as_known_at(decisions[is_fresh], BOOK)[list(BOOK.feature_names)]
    return _rows_that_differ(offline.to_numpy(), features[is_fresh].to_numpy("float32"))


def _rows_that_differ(one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """How many rows differ in any bit; a missing value equals a missing value."""
    same = (one.view("uint32") == other.view("uint32")) | (np.isnan(one) & np.isnan(other))
    return int((~same).any(axis=1).sum())
