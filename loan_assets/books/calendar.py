"""The book's own calendar: its statement months, and the instants at which their facts became known.

Here: dates read off the book. Not here: the wall clock, which no fact about a book depends on.
"""

from datetime import UTC, datetime, time, timedelta

from loan_assets.books import LoanBook

MONTH = "%Y-%m"


def months_of(book: LoanBook) -> tuple[str, ...]:
    """The statement months the book covers, `2005-04` style, oldest first."""
    count = (book.last_month.year - book.first_month.year) * 12 + book.last_month.month - book.first_month.month + 1
    return tuple(month_after(book.first_month.strftime(MONTH), months) for months in range(count))


def month_after(month: str, months: int) -> str:
    """The month that many months after another; before it, where the number is negative."""
    year, number = (int(part) for part in month.split("-"))
    years, rest = divmod(year * 12 + number - 1 + months, 12)
    return f"{years:04}-{rest + 1:02}"


def statement_day(month: str) -> datetime:
    """The instant a month's statements speak of and become known: midnight UTC of the month's last day."""
    first = datetime.strptime(month, MONTH).replace(tzinfo=UTC)
    return (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)


def decision_day(book: LoanBook) -> datetime:
    """The instant of the decision on the book's own clock, UTC."""
    return datetime.combine(book.as_of, time.min, UTC)


def months_between(earlier: str, later: str) -> int:
    """How many months after `earlier` the month `later` is."""
    first, last = (datetime.strptime(month, MONTH) for month in (earlier, later))
    return (last.year - first.year) * 12 + last.month - first.month
