"""One command makes a backup, while the platform runs, of everything that cannot be derived again.

Here: taking every part into a backup place, sealing the backup last, and how many stay. Not here: which parts there are
(`backup_parts`), the format (`vault`), or putting one back (`restore`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from loan_assets.backup_parts import FILE, Part, Taken, parts_of, read_part
from loan_assets.books import the_book
from loan_assets.home import refuse_half_restored
from loan_assets.place import place_at
from loan_assets.refusal import Away, BadInput, Refusal
from loan_assets.settings import Settings
from loan_assets.vault import Backup, PartHeld, Vault

PACKAGE, POLICY = "loan-assets", "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup that was made: its name, its files and bytes, and how many of these were new at its place.

    `warnings` says what is wrong with other backups there, which this one does not lean on.
    """

    name: str
    files: int
    bytes: int
    copied: int
    copied_bytes: int
    left_out: tuple[str, ...]
    retired: int
    warnings: tuple[str, ...]


def back_up(settings: Settings, to: str, keep: int = 0) -> Made:
    """Make a backup at a place, a folder or part of a bucket; what the place holds already is not copied again.

    Args:
        keep: how many backups stay at the place, the oldest go; 0 for all of them.

    Raises:
        Refusal: when there is nothing to back up, a part cannot be read, or the place cannot be written. The backups
            before stay as they are; what was begun is no backup.
    """
    refuse_half_restored(settings)
    _refuse_own_places(settings, to)
    vault = Vault(place_at(to))
    with tempfile.TemporaryDirectory(prefix="loan-backup-") as folder:
        taken = Taken(put=vault.put, held=vault.named, work=Path(folder))
        last, warnings = _last(vault)
        parts = {part.name: read_part(part, taken, last.get(part.name)) for part in _parts(settings)}
    if not parts["decisions"].files:
        raise Refusal("There is nothing to back up: no champion was ever put in force.", "Run `loan-assets run` first.")
    book = the_book()
    backup = Backup(
        made=datetime.now(UTC).isoformat(),
        package=installed(PACKAGE),
        book=book.name,
        book_digest=book.digest,
        parts=parts,
    )
    name = vault.write(backup)
    retired = 0
    try:
        retired = vault.retire(keep) if keep else 0
    except Refusal as refusal:  # the backup is sealed and good, whatever is wrong with those before it
        warnings.append(f"Older backups were not removed: {refusal.cause}")
    sizes = [one.size for part in parts.values() for one in part.files.values()]
    return Made(
        name=name,
        files=len(sizes),
        bytes=sum(sizes),
        copied=taken.copied,
        copied_bytes=taken.copied_bytes,
        left_out=tuple(taken.left_out),
        retired=retired,
        warnings=tuple(warnings),
    )


def _last(vault: Vault) -> tuple[Mapping[str, PartHeld], list[str]]:
    """The parts of the newest backup, by which some need not be read again; none of one that is damaged, and why."""
    names = vault.names()
    try:
        return vault.read(names[-1]).parts if names else {}, []
    except Away:
        raise
    except Refusal as refusal:
        return {}, [f"Every part was read anew: {refusal.cause}"]


def print_made(made: Made) -> None:
    """Say what a backup holds."""
    console = Console(highlight=False, soft_wrap=True)
    for said in made.left_out:
        console.print(f"[dim]Left out: {escape(said)}; it is not in force.[/]")
    console.print(f"Backup {made.name}: {made.files:,} files, {made.bytes / 1e6:.1f} MB")
    console.print(f"New at this place: {made.copied:,} contents, {made.copied_bytes / 1e6:.1f} MB")
    for warning in made.warnings:
        console.print(f"[yellow]{escape(warning)}[/]")
    if made.retired:
        console.print(f"{made.retired} older backups were removed")
    console.print("Not in it: tokens, passwords and keys. Keep those in their own store.")


def _parts(settings: Settings) -> tuple[Part, ...]:
    """Every part, and the policy's file where one is set."""
    named = os.environ.get("LOAN_POLICY", "").strip()
    policy = (Part(name=POLICY, kind=FILE, place=named),) if named else ()
    return (*parts_of(settings), *policy)


def _refuse_own_places(settings: Settings, to: str) -> None:
    """A backup inside of what it backs up would hold itself, and be lost with it."""
    if not settings.home.exists():
        raise Refusal(f"There is no home at {settings.home}.", "Point LOAN_HOME to the one that is to be backed up.")
    places = [str(settings.home), *(part.place for part in parts_of(settings))]
    if "://" not in to:
        to = str(Path(to).expanduser().resolve())
    inside = next((place for place in places if f"{to}/".startswith(f"{place.rstrip('/')}/")), None)
    if inside is not None:
        raise BadInput(f"{to} lies inside of what is backed up.", "Name a place elsewhere, best on other disks.")
