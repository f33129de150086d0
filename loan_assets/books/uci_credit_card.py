"""The UCI book: 30,000 credit-card clients of a Taiwanese bank, April to September 2005.

Here: what each column of that table means, where the table comes from and which totals were published with it. The
source's own words (`PAY_0`, `default payment next month`) appear in this file and nowhere else.

Source: I-C. Yeh and C. Lien, "The comparisons of data mining techniques for the predictive accuracy of probability of
default of credit card clients", Expert Systems with Applications 36(2), 2009, doi:10.1016/j.eswa.2007.12.020;
UCI Machine Learning Repository, doi:10.24432/C55S3H, CC BY 4.0.
"""

from datetime import date, timedelta
from typing import Any

from loan_assets.books import AgeBand, Column, Kind, LoanBook, PublishedTotal, Role
from loan_assets.books.uci_credit_card_features import FEATURES

PAY_STATUS = {-2: "no balance to pay", -1: "paid in full", 0: "paid the minimum, rest revolving"} | {
    months: f"{months} {'month' if months == 1 else 'months'} behind{' or more' if months == 9 else ''}"
    for months in range(1, 10)
}


def _monthly(measure: str, kind: Kind, meaning: str, sources: tuple[str, ...], **facts: Any) -> tuple[Column, ...]:
    """One column per statement month, newest first: `<measure>_1` is September 2005, `<measure>_6` April."""
    return tuple(
        Column(
            name=f"{measure}_{lag + 1}",
            role=Role.FEATURE,
            kind=kind,
            meaning=meaning,
            source=source,
            measure=measure,
            lag=lag,
            **facts,
        )
        for lag, source in enumerate(sources)
    )


RECEIVED = (
    Column(name="client_id", role=Role.KEY, kind=Kind.INTEGER, meaning="The client's number", low=1, source="ID"),
    Column(
        name="credit_limit",
        role=Role.FEATURE,
        kind=Kind.NUMBER,
        meaning="Credit granted to the client and their family",
        unit="NT$",
        low=1,
        high=10_000_000,
        source="LIMIT_BAL",
    ),
    Column(
        name="sex",
        role=Role.PROTECTED,
        kind=Kind.INTEGER,
        meaning="Sex as recorded by the bank",
        levels={1: "male", 2: "female"},
        source="SEX",
    ),
    Column(
        name="education",
        role=Role.FEATURE,
        kind=Kind.INTEGER,
        meaning="Highest education; the codes 0, 5 and 6 occur and were never documented",
        levels={
            0: "undocumented 0",
            1: "graduate school",
            2: "university",
            3: "high school",
            4: "other",
            5: "undocumented 5",
            6: "undocumented 6",
        },
        source="EDUCATION",
        audited=True,
    ),
    Column(
        name="marital_status",
        role=Role.PROTECTED,
        kind=Kind.INTEGER,
        meaning="Marital status as recorded by the bank; the code 0 occurs and was never documented",
        levels={0: "undocumented 0", 1: "married", 2: "single", 3: "other"},
        source="MARRIAGE",
    ),
    Column(
        name="age",
        role=Role.PROTECTED,
        kind=Kind.INTEGER,
        meaning="Age in 2005",
        unit="years",
        low=18,
        high=110,
        source="AGE",
    ),
    *_monthly(
        "pay_status",
        Kind.INTEGER,
        "How the bill before was paid, as known at the end of the month",
        ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),
        levels=PAY_STATUS,
    ),
    *_monthly(
        "bill_amount",
        Kind.NUMBER,
        "Balance on the month's statement",
        tuple(f"BILL_AMT{number}" for number in range(1, 7)),
        unit="NT$",
        low=-10_000_000,
        high=10_000_000,
    ),
    *_monthly(
        "payment_amount",
        Kind.NUMBER,
        "Amount paid in the month",
        tuple(f"PAY_AMT{number}" for number in range(1, 7)),
        unit="NT$",
        low=0,
        high=10_000_000,
    ),
    Column(
        name="defaulted",
        role=Role.LABEL,
        kind=Kind.INTEGER,
        meaning="Whether the payment due in October 2005 was missed",
        levels={0: "paid", 1: "defaulted"},
        source="default payment next month",
    ),
)

# The rows, the defaults and the mean limit are printed with the data. The counts of each code and the means of each
# month catch a source whose codes were swapped, whose months were shifted, whose unit was changed or whose outcomes
# belong to other clients, all of which leave every single value allowed.
CODES = {
    "sex": {1: 11_888, 2: 18_112},
    "education": {0: 14, 1: 10_585, 2: 14_030, 3: 4_917, 4: 123, 5: 280, 6: 51},
    "marital_status": {0: 54, 1: 13_659, 2: 15_964, 3: 323},
}
MEANS = {
    "age": (35.49,),
    "pay_status": (-0.02, -0.13, -0.17, -0.22, -0.27, -0.29),
    "bill_amount": (51_223.33, 49_179.08, 47_013.15, 43_262.95, 40_311.40, 38_871.76),
    "payment_amount": (5_663.58, 5_921.16, 5_225.68, 4_826.08, 4_799.39, 5_215.50),
}
PUBLISHED = (
    PublishedTotal(statistic="count", column="client_id", value=30_000),
    PublishedTotal(statistic="sum", column="defaulted", value=6_636),
    PublishedTotal(statistic="mean", column="credit_limit", value=167_484.32, tolerance=0.005),
    PublishedTotal(statistic="mean", column="credit_limit", among=("defaulted", 1), value=130_109.66, tolerance=0.005),
    *(
        PublishedTotal(statistic="count", column="client_id", among=(name, code), value=clients)
        for name, codes in CODES.items()
        for code, clients in codes.items()
    ),
    *(
        PublishedTotal(
            statistic="mean", column=f"{name}_{lag}" if len(means) > 1 else name, value=mean, tolerance=0.0051
        )
        for name, means in MEANS.items()
        for lag, mean in enumerate(means, start=1)
    ),
)


BOOK = LoanBook(
    name="uci_credit_card",
    title="Default of credit card clients, Taiwan 2005",
    citation="Yeh, I-C. and Lien, C. (2009), Expert Systems with Applications 36(2), 2473-2480; "
    "UCI Machine Learning Repository, doi:10.24432/C55S3H",
    licence="CC BY 4.0",
    currency="NT$",
    received=RECEIVED,
    features=FEATURES,
    published=PUBLISHED,
    age_bands=(AgeBand(column="age", starts=(18, 25, 35, 45, 60)),),
    first_month=date(2005, 4, 1),
    last_month=date(2005, 9, 1),
    as_of=date(2005, 9, 30),
    outcome_after=timedelta(days=31),
    feature_life=timedelta(days=45),
    packaged_file="uci_credit_card.parquet",
    packaged_sha256="b3add7551139871289e219de3930802cc7617b5941b7f256049fad7a3d112aaf",
    official_archive="https://archive.ics.uci.edu/static/public/350/default+of+credit+card+clients.zip",
)
