"""Where the loan book is delivered: the packaged table, a file, any fsspec URL, or the official archive.

Here: fetching bytes and telling what kind of file they are. Not here: what the columns mean or which rows are wrong
(`credit.conformance`).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets.books import LoanBook
from loan_assets.bucket import files_at
from loan_assets.credit.conformance import DELIVER, refuse_another_table
from loan_assets.refusal import Refusal
from loan_assets.resources.engine import Delivered, Engine
from loan_assets.settings import without_secrets

if TYPE_CHECKING:
    import pandas as pd

POINT = "Point LOAN_SOURCE at a CSV, Excel, zip or Parquet file, an fsspec URL, `uci` or `packaged`, and run again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which bytes the book was read from. `location` carries no credentials and no query."""

    location: str
    format: str
    bytes: int
    sha256: str
    rows: int


class LoanSource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The place a loan book comes from; `location` is the value of LOAN_SOURCE."""

    location: str = "packaged"

    def read(self, book: LoanBook, engine: Engine | None = None) -> tuple[pd.DataFrame, Provenance]:
        """The delivery as the book's received table, in source row order, and where it came from.

        Args:
            engine: what reads its rows; the embedded one where none is named.

        Raises:
            Refusal: when there is no such file, it cannot be read, or it breaks the book's contract.
        """
        name, content = self._fetch(book)
        digest = hashlib.sha256(content).hexdigest()
        if self.location == "packaged" and digest != book.packaged_sha256:
            raise Refusal(
                f"The packaged table {name} does not have the digest its book records.", "Reinstall loan_assets."
            )
        file = Delivered(name=name, content=content, parsed=partial(parse, name, content, _headers(book)))
        kind, frame = (engine or Engine()).read(file, book.received, book.key.name, DELIVER)
        refuse_another_table(frame, book, name)
        return frame, Provenance(location=name, format=kind, bytes=len(content), sha256=digest, rows=len(frame))

    def _fetch(self, book: LoanBook) -> tuple[str, bytes]:
        """The location as it may be shown, and the bytes found there."""
        if self.location == "packaged":
            return book.packaged_file, (files("loan_assets.books") / "data" / book.packaged_file).read_bytes()
        return fetch(book.official_archive if self.location == "uci" else self.location)


@contextmanager
def told(shown: str, hint: str) -> Iterator[None]:
    """Turn what a storage driver raises into sentences; what it says may hold the credentials it was given."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal(f"There is no file at {shown}, or its host cannot be reached.", hint) from None
    except IsADirectoryError:
        raise Refusal(f"{shown} is a directory, not a file.", hint) from None
    except ImportError:
        protocol = shown.split("://", maxsplit=1)[0]
        raise Refusal(
            f"Reading {protocol}:// needs a driver that is not installed.",
            f"Install the fsspec driver of {protocol}, then run again.",
        ) from None
    except Exception as refused:  # each driver raises its own kinds; all mean that nothing could be fetched
        raise Refusal(f"{shown} cannot be read ({type(refused).__name__}).", hint) from None


def fetch(location: str, hint: str = POINT) -> tuple[str, bytes]:
    """A location as it may be shown, and the bytes found there.

    Raises:
        Refusal: when there is nothing, or it cannot be read; `hint` is the next step.
    """
    shown = without_secrets(location)
    with told(shown, hint):
        files, path = files_at(location)
        content: bytes = files.cat_file(path)
    if not content:
        raise Refusal(f"{shown} is empty: it has no bytes.", hint)
    return shown, content


def _headers(book: LoanBook) -> frozenset[str]:
    """The names, in either dialect, by which the key column announces the header row."""
    return frozenset({book.key.name.lower(), str(book.key.source).lower()})


def parse(name: str, content: bytes, headers: frozenset[str], hint: str = POINT) -> tuple[str, pd.DataFrame]:
    """The kind of file and its table, told by the first bytes rather than by the name.

    Raises:
        Refusal: when it is no such file; `hint` is the next step.
    """
    import pandas as pd

    try:
        if content.startswith(b"PAR1"):
            return "parquet", pd.read_parquet(io.BytesIO(content))
        if content.startswith(b"PK\x03\x04"):
            return _parse_zip(name, content, headers, hint)
        if content.startswith(b"\xd0\xcf\x11\xe0"):
            return "excel", _below_header(pd.read_excel(io.BytesIO(content), header=None), headers)
        text = content.decode("utf-8-sig")
        if "\x00" in text:
            raise ValueError("binary")
        return "csv", pd.read_csv(io.StringIO(text))
    except Refusal:
        raise
    except Exception as unreadable:  # pandas, pyarrow, xlrd and zipfile each have their own; all mean the same here
        raise Refusal(
            f"{name} ({len(content):,} bytes) is not a readable CSV, Excel, zip or Parquet file; it may be cut short.",
            hint,
        ) from unreadable


def _parse_zip(name: str, content: bytes, headers: frozenset[str], hint: str) -> tuple[str, pd.DataFrame]:
    """The one table inside a zip archive, which a new Excel file is as well."""
    import pandas as pd

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if "xl/workbook.xml" in names:
            return "excel", _below_header(pd.read_excel(io.BytesIO(content), header=None), headers)
        tables = [member for member in names if member.lower().endswith((".xls", ".xlsx", ".csv", ".parquet"))]
        if len(tables) != 1:
            raise Refusal(f"{name} holds {len(tables)} tables where one is expected.", hint)
        kind, table = parse(f"{name}/{tables[0]}", archive.read(tables[0]), headers, hint)
    return f"zip/{kind}", table


def _below_header(sheet: pd.DataFrame, headers: frozenset[str]) -> pd.DataFrame:
    """The sheet under the first row that names the key column; the official sheet has a row of codes above it."""
    for row in range(min(5, len(sheet))):
        if headers & {str(cell).strip().lower() for cell in sheet.iloc[row]}:
            below = sheet.iloc[row + 1 :].reset_index(drop=True)
            return below.set_axis([str(cell) for cell in sheet.iloc[row]], axis=1)
    return sheet.iloc[1:].set_axis([str(cell) for cell in sheet.iloc[0]], axis=1)
