"""Where new months of statements arrive: files named by their month in a folder, or under any fsspec prefix.

Here: listing and reading what has arrived. Not here: what a statement must hold (`credit.conformance`) or what starts
when one arrives (`sensors`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets.books import LoanBook
from loan_assets.credit.conformance import conform_month
from loan_assets.refusal import Refusal
from loan_assets.resources.loan_source import Provenance, fetch, parse, told
from loan_assets.settings import without_secrets

if TYPE_CHECKING:
    import pandas as pd

NAMED = re.compile(r"statements-(\d{4}-\d{2})\.(?:csv|parquet)$")
# What the drivers call the fact that tells a file from its next version.
CHANGES = ("ETag", "etag", "mtime", "LastModified", "created")
HINT = "Put a file like statements-2005-10.csv (or .parquet) into LOAN_LANDING, then materialize that month."
MEND = (
    "Nothing was taken over. Put a whole, unaltered file like statements-2005-10.csv (or .parquet) into LOAN_LANDING; "
    "its arrival starts the month again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A file for a month; `mark` changes when the file does."""

    month: str
    path: str
    mark: str


class Landing(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder or prefix `place`."""

    place: str

    def arrivals(self) -> tuple[Arrival, ...]:
        """What has arrived, by month; nothing where the place does not exist yet.

        Raises:
            Refusal: when the place cannot be listed, or holds two files for one month.
        """
        import fsspec

        shown = without_secrets(self.place)
        with told(shown, "Mend LOAN_LANDING; nothing that has arrived is lost."):
            files, path = fsspec.core.url_to_fs(self.place)
            found = files.ls(path, detail=True) if files.exists(path) else []
        arrived: dict[str, Arrival] = {}
        for file in sorted(found, key=lambda one: str(one["name"])):
            named = NAMED.search(str(file["name"]))
            if named is None or file.get("type") != "file":
                continue
            month = named.group(1)
            if month in arrived:
                raise Refusal(f"{shown} holds two files for {month}.", "Remove the one that is not meant.")
            changed = next((file[key] for key in CHANGES if key in file), "")
            mark = hashlib.sha256(f"{file.get('size')} {changed}".encode()).hexdigest()[:12]
            arrived[month] = Arrival(month=month, path=str(files.unstrip_protocol(file["name"])), mark=mark)
        return tuple(arrived.values())

    def read(self, month: str, book: LoanBook) -> tuple[pd.DataFrame, Provenance]:
        """The key and measures of a month that has arrived, in the book's words, and where they came from.

        Raises:
            Refusal: when no file has arrived for the month, or it breaks the contract.
        """
        arrival = next((one for one in self.arrivals() if one.month == month), None)
        if arrival is None:
            raise Refusal(f"No file has arrived for {month} in {without_secrets(self.place)}.", HINT)
        name, content = fetch(arrival.path, HINT)
        kind, table = parse(name, content, frozenset({book.key.name}))
        frame = conform_month(table, book, name)
        digest = hashlib.sha256(content).hexdigest()
        return frame, Provenance(location=name, format=kind, bytes=len(content), sha256=digest, rows=len(frame))
