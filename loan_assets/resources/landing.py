"""Where new months of statements arrive: files named by their month in a folder, or under any fsspec prefix.

Here: listing and reading what has arrived. Not here: what a statement must hold (`credit.conformance`) or what starts
when one arrives (`sensors`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets.books import LoanBook
from loan_assets.bucket import files_at
from loan_assets.credit.conformance import columns_of_a_month
from loan_assets.refusal import Refusal
from loan_assets.resources.engine import Delivered, Engine
from loan_assets.resources.loan_source import Provenance, fetch, parse, told
from loan_assets.settings import without_secrets

if TYPE_CHECKING:
    import pandas as pd

NAMED = re.compile(r"statements-(\d{4}-\d{2})\.(?:csv|parquet)")
# What the drivers call the fact that tells a file from its next version.
CHANGES = ("e_tag", "ETag", "etag", "mtime", "LastModified", "created")
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

    def arrivals(self) -> dict[str, tuple[Arrival, ...]]:
        """What has arrived, by month; nothing where the place does not exist yet. Two files for a month are ambiguous.

        Raises:
            Refusal: when the place cannot be listed.
        """
        shown = without_secrets(self.place)
        with told(shown, "Mend LOAN_LANDING; nothing that has arrived is lost."):
            files, path = files_at(self.place)
            found = files.ls(path, detail=True) if files.exists(path) else []
        arrived: dict[str, tuple[Arrival, ...]] = {}
        for file in sorted(found, key=lambda one: str(one["name"])):
            named = NAMED.fullmatch(PurePosixPath(str(file["name"])).name)
            if named is None or file.get("type") != "file":
                continue
            changed = next((file[key] for key in CHANGES if key in file), "")
            mark = hashlib.sha256(f"{file.get('size')} {changed}".encode()).hexdigest()[:12]
            month = named.group(1)
            arrival = Arrival(month=month, path=str(files.unstrip_protocol(file["name"])), mark=mark)
            arrived[month] = (*arrived.get(month, ()), arrival)
        return arrived

    def read(self, month: str, book: LoanBook, engine: Engine | None = None) -> tuple[pd.DataFrame, Provenance] | None:
        """The key and measures of a month that has arrived, in the book's words, and where they came from.

        Args:
            engine: what reads its rows; the embedded one where none is named.

        Returns:
            None when no file for the month is there.

        Raises:
            Refusal: when there are two, or the one that arrived breaks the contract.
        """
        arrived = self.arrivals().get(month, ())
        if len(arrived) > 1:
            raise Refusal(
                f"{without_secrets(self.place)} holds {len(arrived)} files for {month}.", "Remove what is not meant."
            )
        if not arrived:
            return None
        name, content = fetch(arrived[0].path, MEND)
        parsed = partial(parse, name, content, frozenset({book.key.name}), MEND)
        file = Delivered(name=name, content=content, parsed=parsed)
        kind, frame = (engine or Engine()).read(file, columns_of_a_month(book), book.key.name, MEND)
        digest = hashlib.sha256(content).hexdigest()
        return frame, Provenance(location=name, format=kind, bytes=len(content), sha256=digest, rows=len(frame))
