"""Book: the delivery as received, and the three tables it is read into.

Here: which table hangs where, and what its page shows. Not here: what makes a row wrong (`credit.conformance`).
"""

import dagster as dg
import pandas as pd

from loan_assets.books import tables, the_book
from loan_assets.books.calendar import months_of
from loan_assets.credit import statements
from loan_assets.credit.pushed import is_closed, month_with, said_by_file
from loan_assets.policy_file import the_policy
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import months_of_run, months_of_statements, picture, table_of, table_type
from loan_assets.resources.engine import Engine
from loan_assets.resources.landing import HINT, MEND, Landing
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.pushed_statements import PushedStatements
from loan_assets.settings import without_secrets

BOOK = the_book()
POLICY = the_policy()
KEY = BOOK.key.name
MONTHS = months_of_statements(BOOK)


@dg.asset(kinds={"pandas", "parquet"}, dagster_type=table_type("RawLoanBook", tables.received(BOOK), [KEY]))
def raw_loan_book(context: dg.AssetExecutionContext, source: LoanSource, engine: Engine) -> pd.DataFrame:
    """The loan book exactly as delivered, one row a client, in the bank's own words.

    Provenance (file, size, SHA-256, licence) is recorded with every delivery. A delivery that breaks the contract or
    does not reproduce the totals published with it is refused whole, and the delivery before stays in force.
    """
    frame, provenance = source.read(BOOK, engine)
    context.add_output_metadata(
        {
            "delivered_from": provenance.location,
            "format": provenance.format,
            "bytes": provenance.bytes,
            "sha256": provenance.sha256,
            "citation": BOOK.citation,
            "licence": BOOK.licence,
            "as_of": BOOK.as_of.isoformat(),
            "published_figures_reproduced": len(BOOK.published),
            "data_dictionary": dg.MetadataValue.md(_dictionary(frame)),
        }
    )
    return frame


@dg.asset(
    kinds={"pandas", "parquet"},
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    dagster_type=table_type("MonthlyStatements", tables.statements(BOOK), [KEY, tables.CREATED_TIME.name]),
)
def monthly_statements(
    context: dg.AssetExecutionContext,
    landing: Landing,
    engine: Engine,
    io_manager: dg.ResourceParam[AssetStore],
    pushed_statements: PushedStatements,
    raw_loan_book: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """What each client owed, paid and was behind with, month by month: one statement a client and month.

    The months of the delivered book are read from it; a later month is read from the file that arrived for it. Once
    that file is archived, the statements stored from it stand. A statement that was pushed is a later version beside
    what the file says, with the instant it became known; a month without a file is open, and holds only such.
    """
    of_the_book = [month for month in context.partition_keys if month in months_of(BOOK)]
    filed, months = engine.statements_of(of_the_book, raw_loan_book, BOOK), {}
    for month in context.partition_keys:
        came: dict[str, str | int] = {}
        said: pd.DataFrame | None = filed.get(month)
        if month not in of_the_book:
            said, came = _arrived(landing, engine, io_manager, month, raw_loan_book[KEY])
        events = pushed_statements.of_month(month, BOOK)
        if said is None and not events:
            raise Refusal(f"No file has arrived for {month} in {without_secrets(landing.place)}.", HINT)
        months[month] = month_with(said, events, month, BOOK)
        came["pushed"] = len(events)
        measures = months[month].drop(columns=[KEY]).select_dtypes("number").mean()
        means = {f"mean_{name}": round(float(mean), 2) for name, mean in measures.items()}
        context.add_asset_metadata({**came, **means}, partition_key=month)
    return months


def _arrived(
    landing: Landing, engine: Engine, store: AssetStore, month: str, clients: "pd.Series[int]"
) -> tuple[pd.DataFrame | None, dict[str, str | int]]:
    """A month after the book's, from its file or as it is stored, and where it came from; None for an open one."""
    shelf = f"{monthly_statements.key.to_user_string()}/{month}"
    found = landing.read(month, BOOK, engine)
    if found is not None:
        table, file = statements.dated(found[0], month, BOOK), found[1]
        name = file.location
        came: dict[str, str | int] = {"delivered_from": name, "sha256": file.sha256, "bytes": file.bytes}
    elif store.holds(shelf) and is_closed(stored := store.read(shelf, pd.DataFrame)):
        table, name = said_by_file(stored), shelf
        came = {"delivered_from": "no file in the landing any more: the statements stored before stand"}
    else:
        return None, {}
    wrong = statements.other_clients(table, clients, POLICY.clients_may_leave)
    if wrong:
        raise Refusal(f"{name} ({len(table):,} rows) holds {wrong}.", MEND)
    return table, came


@dg.asset_check(asset=monthly_statements, additional_ins={"raw_loan_book": dg.AssetIn()}, blocking=True)
def every_client_has_a_statement(
    context: dg.AssetCheckExecutionContext, monthly_statements: dict[str, pd.DataFrame], raw_loan_book: pd.DataFrame
) -> dg.AssetCheckResult:
    """Each month holds statements of the book's clients and of nobody else; of a later month some may have left."""
    judged = months_of_run(context.run, monthly_statements, MONTHS)
    may_leave = {month: 0.0 if month in months_of(BOOK) else POLICY.clients_may_leave for month in judged}
    # Of a month whose file has not come yet only what was pushed is there.
    may_leave |= {month: 1.0 for month, table in judged.items() if not is_closed(table)}
    found = {
        month: statements.other_clients(table, raw_loan_book[KEY], may_leave[month]) for month, table in judged.items()
    }
    return dg.AssetCheckResult(
        passed=not any(found.values()),
        description="; ".join(f"{month} holds {wrong}" for month, wrong in found.items() if wrong) or None,
        metadata={"statements": {month: len(table) for month, table in judged.items()}},
    )


@dg.asset(kinds={"pandas", "parquet"}, dagster_type=table_type("ClientProfiles", tables.profiles(BOOK), [KEY]))
def client_profiles(context: dg.AssetExecutionContext, raw_loan_book: pd.DataFrame) -> pd.DataFrame:
    """Who the clients are: credit limit, education, and the protected attributes kept for the fairness audit only."""
    profiles = statements.profiles_of(raw_loan_book, BOOK)
    for column in BOOK.audited:
        if column.levels is not None:
            shares = profiles[column.name].map(column.levels).value_counts(normalize=True)
            rows = [{column.name: str(level), "share": round(float(share), 4)} for level, share in shares.items()]
            context.add_output_metadata({f"by_{column.name}": table_of(rows)})
    return profiles


@dg.asset(kinds={"pandas", "parquet"}, dagster_type=table_type("DefaultOutcomes", tables.outcomes(BOOK), [KEY]))
def default_outcomes(
    context: dg.AssetExecutionContext, raw_loan_book: pd.DataFrame, client_profiles: pd.DataFrame
) -> pd.DataFrame:
    """What became of each client: whether the payment after the decision day was missed, and when that was known."""
    from loan_assets.credit.fairness import groups_of
    from loan_assets.credit.pictures import rate_by_level

    outcomes = statements.outcomes_of(raw_loan_book, BOOK)
    label = outcomes[BOOK.label.name]
    context.add_output_metadata(
        {"defaults": int(label.sum()), "base_rate": round(float(label.mean()), 4), "decided_on": BOOK.as_of.isoformat()}
    )
    for attribute, group in groups_of(client_profiles, BOOK).items():
        rates = label.groupby(group.to_numpy()).agg(["size", "mean"])
        drawn = rate_by_level(
            [str(level) for level in rates.index],
            rates["size"].tolist(),
            rates["mean"].tolist(),
            f"Clients and default rate by {attribute}",
            "default rate",
        )
        context.add_output_metadata({f"defaults_by_{attribute}": picture(drawn, f"default rate by {attribute}")})
    return outcomes


def _dictionary(frame: pd.DataFrame) -> str:
    """The shape of the table as a reader meets it: names, kinds and meanings, without any client's row."""
    lines = ["| column | role | meaning |", "|---|---|---|"]
    lines += [f"| {column.name} | {column.role} | {column.meaning} |" for column in tables.received(BOOK)]
    return "\n".join(lines) + f"\n\n{len(frame):,} rows"
