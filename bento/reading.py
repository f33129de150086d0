"""What was asked: bodies read into applications and client numbers, or refused with the row and the field.

Here: JSON, the book's rules for one field, and the words of a refusal, which never repeat a value. Not here: HTTP
(`application`), what an answer is (`scorer`).

A body is first read in one pass against types made from the book. Only a body that does not fit is read again, slowly,
to say why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from loan_assets.books import Column, Kind, LoanBook, Role
from loan_assets.policy import POLICY

# Beyond this a double no longer holds every whole number; no column of a book is near it.
LARGEST = 2**53
NAMED = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
Received = dict[str, float]
# Types that are made while running, of which mypy knows nothing.
MADE: Any = TypedDict


class BadRequest(ValueError):
    """What was asked cannot be scored; the message names the row and the field, never the value."""


class Reader:
    """Reads the bodies of one book."""

    def __init__(self, book: LoanBook, most_rows: int = POLICY.endpoint.most_rows) -> None:
        self._book, self._most_rows = book, most_rows
        self._known = {column.name: column for column in book.received if column.role is not Role.LABEL}
        self._needed = [column.name for column in book.with_role(Role.FEATURE)]
        self._codes = [(name, frozenset(column.levels)) for name, column in self._known.items() if column.levels]
        self._whole = [
            column.name
            for column in book.with_role(Role.FEATURE, Role.PROTECTED)
            if column.kind is Kind.INTEGER and column.levels is None
        ]
        fields = {
            column.name: _typed(column) if column.role is Role.FEATURE else NotRequired[_typed(column)]
            for column in self._known.values()
        }
        rows = list.__class_getitem__(MADE("application", fields))
        body = {"applications": rows, "request_id": NotRequired[str]}
        self._applications = msgspec.json.Decoder(MADE("applications", body))
        numbers = {f"{book.key.name}s": list.__class_getitem__(_typed(book.key)), "request_id": NotRequired[str]}
        self._clients = msgspec.json.Decoder(MADE("clients", numbers))

    @property
    def order(self) -> tuple[str, ...]:
        """The fields that an application must have, in the order in which a row given as a list is read."""
        return tuple(self._needed)

    @property
    def known(self) -> frozenset[str]:
        """Every field that an application may have."""
        return frozenset(self._known)

    def applications(self, body: bytes) -> tuple[list[Received], str | None]:
        """The applications of a body, and the caller's name for the request.

        Raises:
            BadRequest: for the first application with a field that is missing, unknown, twice or outside the book.
        """
        try:
            read = self._applications.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return self._applications_slowly(body)
        rows: list[Received] = read["applications"]
        # Unknown and repeated fields are passed over by the decoder; then the body holds more colons than were read.
        # Where there are escapes, a colon need not look like one.
        colons = sum(map(len, rows)) + _colons(read)
        if body.count(b":") != colons or b"\\" in body or not 0 < len(rows) <= self._most_rows:
            return self._applications_slowly(body)
        if not all(self._keeps_the_codes(row) for row in rows):
            return self._applications_slowly(body)
        return rows, named(read.get("request_id"))

    def clients(self, body: bytes) -> tuple[list[int], str | None]:
        """The client numbers of a body, and the caller's name for the request.

        Raises:
            BadRequest: for the first entry that is no client number.
        """
        key = f"{self._book.key.name}s"
        try:
            read = self._clients.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            read = None
        is_plain = read is not None and body.count(b":") == _colons(read) and b"\\" not in body
        if read is not None and is_plain and 0 < len(read[key]) <= self._most_rows:
            return read[key], named(read.get("request_id"))
        asked = as_object(self.decode(body), key, "request_id")
        return self.client_numbers(asked[key], key), named(asked.get("request_id"))

    def client_numbers(self, entries: object, where: str) -> list[int]:
        """A list of client numbers, each checked.

        Raises:
            BadRequest: naming the first entry that is none.
        """
        return [
            int(_number(self._book.key, number, f"{where}[{row}]"))
            for row, number in enumerate(self.entries(entries, where))
        ]

    def application(self, given: object, where: str) -> Received:
        """One application, given as an object or as a list in `order`.

        Raises:
            BadRequest: for the first field that is missing, unknown or outside the book.
        """
        if isinstance(given, list):
            if len(given) != len(self._needed):
                raise BadRequest(f"{where}: a row of {len(self._needed)} numbers is expected")
            given = dict(zip(self._needed, given, strict=True))
        if not isinstance(given, Mapping):
            raise BadRequest(f"{where} is not an object with the book's fields")
        strangers = len(set(given) - set(self._known))
        if strangers:
            # A name that is not the book's own may be anything, a person's name included: it is counted, not said.
            raise BadRequest(f"{where}: {strangers} of its fields are not in the book")
        missing = next((name for name in self._needed if name not in given), None)
        if missing:
            raise BadRequest(f"{where}: {missing} is missing")
        row = {name: _number(self._known[name], value, f"{where}: {name}") for name, value in given.items()}
        key = self._book.key.name
        return {**row, key: int(row[key])} if key in row else row

    def entries(self, asked: object, where: str) -> Sequence[Any]:
        """A list with as many entries as may be asked at once.

        Raises:
            BadRequest: when it is no list, empty or too long.
        """
        if not isinstance(asked, list) or not asked:
            raise BadRequest(f"{where} is not a list with at least one entry")
        if len(asked) > self._most_rows:
            raise BadRequest(f"{where}: at most {self._most_rows:,} entries are answered at once")
        return asked

    def decode(self, body: bytes) -> Any:
        """A body as JSON, every name in an object once.

        Raises:
            BadRequest: saying where it stops being JSON, without repeating it.
        """
        try:
            return json.loads(body.decode("utf-8"), object_pairs_hook=self._once)
        except RecursionError:
            raise BadRequest("the body is nested too deeply") from None
        except UnicodeDecodeError:
            raise BadRequest("the body is not UTF-8") from None
        except json.JSONDecodeError as broken:
            raise BadRequest(f"the body is not JSON: see character {broken.pos + 1}") from None
        except BadRequest:
            raise
        except ValueError:  # a whole number of more digits than Python reads
            raise BadRequest("the body holds a number that is too long") from None

    def _once(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise BadRequest(f"{twice if twice in self._known else 'a field'} is given twice")
        return found

    def _applications_slowly(self, body: bytes) -> tuple[list[Received], str | None]:
        asked = as_object(self.decode(body), "applications", "request_id")
        rows = [
            self.application(given, f"applications[{row}]")
            for row, given in enumerate(self.entries(asked["applications"], "applications"))
        ]
        return rows, named(asked.get("request_id"))

    def _keeps_the_codes(self, row: Received) -> bool:
        for name, codes in self._codes:
            if name in row and row[name] not in codes:
                return False
        return all(row[name].is_integer() for name in self._whole if name in row)


def as_object(asked: object, needed: str, *others: str) -> dict[str, Any]:
    """A body that must be an object with one field, and may have some others.

    Raises:
        BadRequest: when it is something else.
    """
    if not isinstance(asked, dict):
        raise BadRequest(f"the body is not an object with {needed}")
    if needed not in asked:
        raise BadRequest(f"{needed} is missing")
    strangers = len(set(asked) - {needed, *others})
    if strangers:
        raise BadRequest(f"the body: {strangers} of its fields are not known here")
    return asked


def named(name: object) -> str | None:
    """The caller's own name for a request.

    Raises:
        BadRequest: when it is not a short word of letters, digits and . _ ~ : -
    """
    if name is None:
        return None
    if not isinstance(name, str) or not NAMED.fullmatch(name):
        raise BadRequest("request_id is not a word of at most 128 letters, digits and . _ ~ : -")
    return name


def _colons(read: dict[str, Any]) -> int:
    """How many colons a body has outside its rows."""
    return len(read) + str(read.get("request_id", "")).count(":")


def limits_of(column: Column) -> tuple[float, float]:
    """The lowest and the highest number that a field may hold."""
    if column.levels:
        return min(column.levels), max(column.levels)
    return -LARGEST if column.low is None else column.low, LARGEST if column.high is None else column.high


def _typed(column: Column) -> Any:
    """What the fast pass accepts: a number within the column's bounds, as the float that features are computed from."""
    low, high = limits_of(column)
    return Annotated[int if column.role is Role.KEY else float, msgspec.Meta(ge=low, le=high)]


def _number(column: Column, value: object, where: str) -> float:
    """A field's value as the float that the features were computed from in training."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{where} is not a number")
    if not abs(value) <= LARGEST:
        raise BadRequest(f"{where} is not a finite number of a size that can be computed with")
    if column.kind is Kind.INTEGER and value != int(value):
        raise BadRequest(f"{where} is not a whole number")
    if column.levels is not None and value not in column.levels:
        raise BadRequest(f"{where} is not one of {sorted(column.levels)}")
    if column.low is not None and value < column.low:
        raise BadRequest(f"{where} is below {column.low:g}")
    if column.high is not None and value > column.high:
        raise BadRequest(f"{where} is above {column.high:g}")
    return float(value)
