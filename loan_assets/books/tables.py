"""The tables a loan book turns into, as lists of columns read off the book.

Here: one function per table of the graph; names, kinds, bounds and order are said here or on the book's page, and
nowhere else. Not here: any vendor's schema; each is projected beside the vendor that wants it.
"""

from dataclasses import replace

from loan_assets.books import Column, Kind, LoanBook, Role
from loan_assets.books.calendar import months_of

EVENT_TIME = Column(
    name="event_timestamp",
    role=Role.EVENT_TIME,
    kind=Kind.TIME,
    meaning="The instant the row speaks of, UTC",
)
CREATED_TIME = Column(
    name="created_timestamp",
    role=Role.EVENT_TIME,
    kind=Kind.TIME,
    meaning="The instant the row became known, UTC; a row known later never informs an earlier decision",
)


def received(book: LoanBook) -> tuple[Column, ...]:
    """One row a client, as delivered, in the book's words; a monthly column's meaning names its month."""
    months = months_of(book)[::-1]
    return tuple(
        replace(column, meaning=f"{column.meaning}, {months[column.lag]}") if column.measure else column
        for column in book.received
    )


def statements(book: LoanBook) -> tuple[Column, ...]:
    """One row a client and month: every monthly measure of that month."""
    measures = {
        column.measure: replace(column, name=column.measure, measure=None, source=None)
        for column in book.monthly
        if column.measure is not None and column.lag == 0
    }
    return (book.key, EVENT_TIME, CREATED_TIME, *measures.values())


def profiles(book: LoanBook) -> tuple[Column, ...]:
    """One row a client: everything received that is neither a monthly measure nor the outcome."""
    return tuple(column for column in book.received if column.measure is None and column.role is not Role.LABEL)


def outcomes(book: LoanBook) -> tuple[Column, ...]:
    """One row a client: the decision day, the day the outcome settled, and the outcome."""
    settled = replace(CREATED_TIME, name="settled_timestamp", meaning="The instant the outcome was known, UTC")
    return (book.key, EVENT_TIME, settled, book.label)


def feature_values(book: LoanBook) -> tuple[Column, ...]:
    """The model's inputs as columns; missing where a month of the window is not there."""
    return tuple(
        Column(
            name=feature.name,
            role=Role.FEATURE,
            kind=Kind.RATIO,
            meaning=feature.meaning,
            unit=feature.unit,
            nullable=True,
        )
        for feature in book.features
    )


def borrower_features(book: LoanBook) -> tuple[Column, ...]:
    """One row a client and month: every feature over the window that ends with that month."""
    return (book.key, EVENT_TIME, CREATED_TIME, *feature_values(book))


def training_set(book: LoanBook) -> tuple[Column, ...]:
    """One row a decision: features known then, the outcome, and the part the row plays.

    After the book's clients come the logged applications whose outcome has settled, with the features as logged; who
    applied without being a client has no number.
    """
    part = Column(
        name="part",
        role=Role.FACT,
        kind=Kind.WORD,
        meaning="`train`, `holdout` for the frozen fifth that no fit ever sees, `logged` for an answer of the endpoint",
    )
    request = Column(name="request_id", role=Role.FACT, kind=Kind.WORD, meaning="Of a logged application; else empty")
    client = replace(book.key, role=Role.FACT, kind=Kind.NUMBER, nullable=True)
    return (client, EVENT_TIME, part, request, book.label, *feature_values(book))


def predictions(book: LoanBook) -> tuple[Column, ...]:
    """One row an answer of the endpoint: what it was and why, the columns received with it, the features scored.

    Received columns are missing where the answer was by client number, protected ones also where they were not sent;
    the shadow's are missing where no challenger stood in shadow.
    """
    _, as_of, probability, decision, version, release = scores(book)
    asked = (
        Column(name="prediction_id", role=Role.KEY, kind=Kind.WORD, meaning="The answer's own name"),
        Column(name="request_id", role=Role.FACT, kind=Kind.WORD, meaning="The request it was part of"),
        replace(EVENT_TIME, name="answered_at", meaning="The instant of the answer, UTC"),
        Column(name="route", role=Role.FACT, kind=Kind.WORD, meaning="The route that was asked"),
        Column(name="asked_by", role=Role.FACT, kind=Kind.WORD, meaning="`application` or `client`"),
        replace(book.key, role=Role.FACT, kind=Kind.NUMBER, nullable=True),
    )
    answered = (
        probability,
        decision,
        Column(name="reasons", role=Role.FACT, kind=Kind.WORD, meaning="Codes of the principal reasons of a refusal"),
        version,
        release,
        Column(name="arm", role=Role.FACT, kind=Kind.WORD, meaning="`champion` or `canary`"),
        replace(as_of, nullable=True),
        Column(name="is_stale", role=Role.FACT, kind=Kind.INTEGER, meaning="1 where features were past their life"),
        replace(probability, name="shadow_probability", meaning="What the shadow would have said", nullable=True),
        replace(version, name="shadow_version", kind=Kind.NUMBER, meaning="The shadow's version", nullable=True),
    )
    received = tuple(
        replace(column, kind=Kind.NUMBER, nullable=True) for column in book.with_role(Role.FEATURE, Role.PROTECTED)
    )
    return (*asked, *answered, *received, *feature_values(book))


def scores(book: LoanBook) -> tuple[Column, ...]:
    """One row a client: the champion's probability of default and what follows from it."""
    facts = (
        Column(
            name="default_probability",
            role=Role.FACT,
            kind=Kind.NUMBER,
            meaning="Probability that the next payment is missed",
            low=0,
            high=1,
        ),
        Column(name="decision", role=Role.FACT, kind=Kind.WORD, meaning="`approve` or `refuse` at the threshold"),
        Column(name="model_version", role=Role.FACT, kind=Kind.INTEGER, meaning="Registry version that scored"),
        Column(name="release_digest", role=Role.FACT, kind=Kind.WORD, meaning="Digest of the release that scored"),
    )
    as_of = replace(EVENT_TIME, name="features_as_of", meaning="The instant of the newest statement used, UTC")
    return (book.key, as_of, *facts)
