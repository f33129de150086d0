"""The vocabulary in which a loan book is written: `Column`, `Feature`, `LoanBook`, and the book in force.

Here: frozen facts and the arithmetic over them. Not here: chosen numbers (`policy`), vendors (`resources`), data.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import cache, cached_property
from operator import itemgetter
from typing import Any

from loan_assets.refusal import Refusal


class Role(StrEnum):
    """What a column is for. Protected columns are kept for the fairness audit and never reach a model.

    A fact is what the platform itself says about a row, such as a decision.
    """

    KEY = "key"
    EVENT_TIME = "event_time"
    FEATURE = "feature"
    PROTECTED = "protected"
    LABEL = "label"
    FACT = "fact"


class Kind(StrEnum):
    """How a column is stored: 64-bit integers, doubles, float32 features, UTC microseconds, or text."""

    INTEGER = "integer"
    NUMBER = "number"
    RATIO = "ratio"
    TIME = "time"
    WORD = "word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a loan book, as the bank speaks of it.

    `low` and `high` bound the values inclusively; `levels` lists the only codes allowed and what each means.
    `source` is the column's name in the file the book arrives in. `measure` and `lag` say that the column is one
    month of a monthly statement: lag 0 is the statement month itself, lag 1 the month before. `audited` marks an
    input by which outcomes are compared between groups although it is not protected.
    """

    name: str
    role: Role
    kind: Kind
    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    levels: Mapping[int, str] | None = None
    source: str | None = None
    measure: str | None = None
    lag: int = 0
    audited: bool = False
    nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One number the model sees: a named function of the received columns.

    The function's name is the feature's name, its docstring the meaning, its parameters the columns it reads.
    `direction` is +1 where more can only mean riskier, -1 where more can only mean safer, 0 where the data may decide;
    the model is constrained accordingly. `reason` is what a refused client is told when this feature weighed most.
    """

    function: Callable[..., Any]
    reason: str
    unit: str = ""
    direction: int = 0

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.__name__

    @property
    def meaning(self) -> str:
        """The function's docstring, for the catalogue."""
        return inspect.getdoc(self.function) or ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The received columns this feature reads, in the order the function takes them."""
        return tuple(inspect.signature(self.function).parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTotal:
    """A figure of the table as it was published, against which a delivery is checked.

    `statistic` is count, sum or mean; `among` narrows it to the rows in which a column has one code.
    """

    statistic: str
    column: str
    value: float
    tolerance: float = 0.0
    among: tuple[str, int] | None = None

    def __str__(self) -> str:
        among = f" among {self.among[0]} {self.among[1]}" if self.among else ""
        return f"{self.statistic} of {self.column}{among}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeBand:
    """Lower bounds that turn a protected number into groups: (18, 25, 35) gives 18-24, 25-34 and 35+."""

    column: str
    starts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LoanBook:
    """One page from which every schema, view, check and request form is read.

    `first_month` and `last_month` are the statement months that the delivery covers, `as_of` is the business clock:
    the day on which the newest statement is known and a decision is made. `outcome_after` later the outcome has
    settled. `feature_life` is how long a feature value may be used before it is stale, on that clock.
    """

    name: str
    title: str
    citation: str
    licence: str
    currency: str
    received: tuple[Column, ...]
    features: tuple[Feature, ...]
    published: tuple[PublishedTotal, ...]
    age_bands: tuple[AgeBand, ...]
    first_month: date
    last_month: date
    as_of: date
    outcome_after: timedelta
    feature_life: timedelta
    packaged_file: str
    packaged_sha256: str
    official_archive: str

    def with_role(self, *roles: Role) -> tuple[Column, ...]:
        """The received columns that play one of these roles, in the book's order."""
        return tuple(column for column in self.received if column.role in roles)

    @cached_property
    def key(self) -> Column:
        """The column that names a client."""
        (key,) = self.with_role(Role.KEY)
        return key

    @cached_property
    def label(self) -> Column:
        """The column that says how the loan ended."""
        (label,) = self.with_role(Role.LABEL)
        return label

    @cached_property
    def monthly(self) -> tuple[Column, ...]:
        """The received columns that are one month of a statement, all measures, all lags."""
        return tuple(column for column in self.received if column.measure is not None)

    @cached_property
    def window(self) -> int:
        """How many months of statements one row carries."""
        return 1 + max((column.lag for column in self.monthly), default=0)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The model's inputs, in the order the model takes them."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def formulas(self) -> tuple[tuple[str, Callable[..., Any], Callable[[Mapping[str, Any]], tuple[Any, ...]]], ...]:
        """Each feature's name, its function, and what reads that function's arguments from received columns."""
        return tuple((feature.name, feature.function, _reader(feature.inputs)) for feature in self.features)

    @cached_property
    def audited(self) -> tuple[Column, ...]:
        """The columns by which outcomes are compared between groups: the protected ones and the audited inputs."""
        return tuple(column for column in self.received if column.role is Role.PROTECTED or column.audited)

    @cached_property
    def digest(self) -> str:
        """12 hex characters that change when a column, a feature or a formula does (words do not count)."""
        facts = hashlib.sha256()
        for column in self.received:
            levels = sorted(column.levels.items()) if column.levels is not None else None
            where = (column.source, column.measure, column.lag)
            facts.update(repr((column.name, column.role, column.kind, column.low, column.high, levels, where)).encode())
        for feature in self.features:
            facts.update(repr((feature.name, feature.inputs, feature.direction)).encode())
        calendar = (self.first_month, self.last_month, self.as_of, self.outcome_after, self.feature_life)
        facts.update(repr(calendar).encode())
        for module in sorted({feature.function.__module__ for feature in self.features} | {_FORMULAS}):
            facts.update(_code_of(module).encode())
        return facts.hexdigest()[:12]


_FORMULAS = "loan_assets.books.formulas"


@cache
def _code_of(module: str) -> str:
    """What a module's formulas compute, as a syntax tree: the same for the same behaviour, whatever its words.

    Every statement counts, constants and conditions included, but imports, docstrings and the features' own table,
    whose facts are counted one by one and whose sentences are words.
    """
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return "\n".join(ast.dump(statement) for statement in tree.body if not _is_told_elsewhere(statement))


def _is_told_elsewhere(statement: ast.stmt) -> bool:
    """Whether a statement imports something, or is a table of nothing but features."""
    if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Tuple | ast.List):
        entries = {ast.unparse(entry.func) if isinstance(entry, ast.Call) else "" for entry in statement.value.elts}
        return entries == {Feature.__name__}
    return isinstance(statement, ast.Import | ast.ImportFrom)


def compute_features(book: LoanBook, received: Mapping[str, Any]) -> dict[str, Any]:
    """Every feature of the book from received columns: floats give floats, equal-length arrays give arrays.

    Values are double precision; whoever stores or scores them rounds to float32, in which the model was fitted.
    Raises KeyError naming the first received column that is missing.
    """
    return {name: function(*reads(received)) for name, function, reads in book.formulas}


def _reader(inputs: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """What takes a function's arguments out of received columns, as a tuple also where there is only one."""
    if len(inputs) > 1:
        return itemgetter(*inputs)
    (only,) = inputs
    return lambda received: (received[only],)


@cache
def the_book() -> LoanBook:
    """The book this installation is about: the module of `loan_assets.books` that LOAN_BOOK names."""
    return book_named(os.environ.get("LOAN_BOOK", "uci_credit_card"))


def book_named(name: str) -> LoanBook:
    """A book by the name of its module; a release names the book it was trained on.

    Raises:
        Refusal: when there is no such module.
    """
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as missing:
        raise Refusal(
            f"There is no book {name!r}: loan_assets/books/ has no such module.",
            "Set LOAN_BOOK to the name of a module there, or unset it for uci_credit_card.",
        ) from missing
    book = getattr(module, "BOOK", None)
    if not isinstance(book, LoanBook):
        raise Refusal(f"loan_assets/books/{name}.py holds no book.", "Set LOAN_BOOK to a module with a BOOK in it.")
    return book
