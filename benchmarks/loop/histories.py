"""Histories of sixty days, made from the real table, each with the verdict that a good policy reaches.

Run: `python benchmarks/loop/histories.py OUT [--kinds a,b] [--seed 0] [--rows-a-day 250]` writes one folder a history;
`--describe` says in numbers what each change costs and what a new model would win back; `--list` names the kinds.

A folder holds what `loan-assets backtest` reads (`reference.parquet`, `predictions/`, `labels/`) and, never shown to
the policy, `truth.parquet` (the true outcome of every request, whatever the feeds said) and `history.json` (changes
and verdict). Here: making, writing and reading them. Not here: the kinds (`kinds`), the policies (`rivals`).
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kinds import KINDS, Kind
from timeline import Files, Timeline, day_name, day_number
from verdicts import Change, Span, Verdict

from loan_assets.books import the_book

TUNING_SEEDS, SEEDS_KEPT_ASIDE = (0, 1, 2), (100, 101, 102)
ROWS_A_DAY = 250
VOLUMES = (100, 250, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A history on disk, with what the policy never sees."""

    name: str
    kind: str
    family: str
    seed: int
    rows_a_day: int
    days: int
    soonest: int
    delay: int
    key: str
    changes: tuple[Change, ...]
    verdict: Verdict
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> History:
        """What `write` wrote."""
        facts = json.loads((folder / "history.json").read_text())
        verdict: dict[str, Any] = {
            name: _spans(value) if isinstance(value, list) else value for name, value in facts["verdict"].items()
        }
        changes = tuple(Change(**change) for change in facts["changes"])
        return cls(**facts | {"changes": changes, "verdict": Verdict(**verdict), "folder": folder})

    def reference(self) -> pd.DataFrame:
        """The labelled past."""
        return pd.read_parquet(self.folder / "reference.parquet")

    def truth(self) -> pd.DataFrame:
        """The true outcome of every request."""
        return pd.read_parquet(self.folder / "truth.parquet")

    def arrived(self, what: str) -> dict[int, pd.DataFrame]:
        """The files of `predictions` or `labels` by day number."""
        files = sorted((self.folder / what).glob("*.parquet"))
        return {day_number(file.stem): pd.read_parquet(file) for file in files}


def _spans(value: list[Any]) -> tuple[Any, ...]:
    return tuple(Span(**entry) if isinstance(entry, dict) else entry for entry in value)


def compose(kind: Kind, seed: int, rows_a_day: int = ROWS_A_DAY) -> tuple[Timeline, Verdict]:
    """One history in memory; the same kind, seed and volume give the same rows."""
    generator = np.random.default_rng([zlib.crc32(kind.name.encode()), seed, rows_a_day])
    key = the_book().key.name if seed % 2 == 0 else "customer_id"
    timeline = Timeline.drawn(rows_a_day, generator, key)
    return timeline, kind.write(timeline)


def write(kind: Kind, seed: int, place: Path, rows_a_day: int = ROWS_A_DAY) -> History:
    """One history as a folder of files under `place`."""
    timeline, verdict = compose(kind, seed, rows_a_day)
    name = f"{kind.name}-{rows_a_day}-{seed}"
    history = History(
        name=name,
        kind=kind.name,
        family=kind.family,
        seed=seed,
        rows_a_day=rows_a_day,
        days=timeline.days,
        soonest=timeline.soonest,
        delay=timeline.delay,
        key=timeline.key,
        changes=tuple(sorted(timeline.changes, key=lambda change: change.first)),
        verdict=verdict,
        folder=place / name,
    )
    _save(timeline.files(), history.folder)
    facts = {name: value for name, value in asdict(history).items() if name != "folder"}
    (history.folder / "history.json").write_text(json.dumps(facts, indent=1) + "\n")
    return history


def _save(files: Files, folder: Path) -> None:
    for what, tables in (("predictions", files.predictions), ("labels", files.labels)):
        (folder / what).mkdir(parents=True, exist_ok=True)
        for stale in (folder / what).glob("*.parquet"):
            stale.unlink()
        for day, table in tables.items():
            table.to_parquet(folder / what / f"{day_name(day)}.parquet", index=False)
    files.reference.to_parquet(folder / "reference.parquet", index=False)
    files.truth.to_parquet(folder / "truth.parquet", index=False)


def chosen(names: str, *, kept_aside: bool | None = None) -> list[Kind]:
    """Kinds by name, or all of those for tuning or kept aside; all of them where nothing is said."""
    if unknown := sorted({name for name in names.split(",") if name} - set(KINDS)):
        sys.exit(f"There is no kind {', '.join(unknown)}; --list names them.")
    wanted = [KINDS[name] for name in names.split(",") if name] or list(KINDS.values())
    return [kind for kind in wanted if kept_aside is None or kind.kept_aside is kept_aside]


def main() -> None:
    """Write histories, or describe them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, nargs="?", metavar="OUT")
    options.add_argument("--kinds", default="", help="Names with commas between them; all when left out.")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rows-a-day", type=int, default=ROWS_A_DAY)
    options.add_argument("--describe", action="store_true", help="What changes cost, in AUC.")
    options.add_argument("--list", action="store_true", help="The kinds and their stories.")
    given = options.parse_args()
    kinds = chosen(given.kinds)
    if given.list:
        for kind in kinds:
            print(f"{kind.name:40} {kind.family:15} {'aside' if kind.kept_aside else 'tuning':7} {kind.story}")
    elif given.describe:
        from described import describe

        describe(kinds, given.seed)
    elif given.out is None:
        options.error("OUT is missing: where shall the histories be written?")
    else:
        for kind in kinds:
            print(write(kind, given.seed, given.out, given.rows_a_day).folder, flush=True)


if __name__ == "__main__":
    main()
