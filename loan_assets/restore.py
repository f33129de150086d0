"""One command makes a platform of a backup: from an empty machine to one that serves.

Here: checking a backup before anything is written, putting its parts back, and making again what was derived. Not here:
what a backup holds (`vault`, `backup_parts`).

Parts are written in the reverse order of their reading: what is referred to comes first, the journal and Dagster's
history last. Until all is there a mark in LOAN_HOME keeps every other command away; a restore that was killed is run
again, and goes over the same places.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.markup import escape

from loan_assets.backup_parts import BUCKET, FILE, FOLDER, POLICY_FILE, POSTGRES, SQLITE, Part, parts_of
from loan_assets.books import the_book
from loan_assets.databases import load
from loan_assets.home import RESTORING, prepare
from loan_assets.killed_runs import end_begun_runs
from loan_assets.migration import migrate, migrate_mlflow
from loan_assets.place import FolderPlace, place_at
from loan_assets.refusal import BadInput, Refusal
from loan_assets.reign import Reign
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.bento_store import BentoStore, BuiltBento
from loan_assets.resources.experiments import follow
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.sealed import CURRENT
from loan_assets.settings import Settings, without_secrets
from loan_assets.stream import Stream
from loan_assets.vault import Backup, PartHeld, Vault

# What `loan-assets init` leaves in a home that was never used.
OF_AN_EMPTY_HOME = ("dagster/dagster.yaml",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put back: the backup, its instant, its files and bytes, the champion, and runs that had been cut off."""

    name: str
    made: str
    files: int
    bytes: int
    champion: int
    ended_runs: int
    policy: Path | None


def backups_at(place: str) -> tuple[str, ...]:
    """The names of the backups at a place, oldest first.

    Raises:
        Refusal: when there is none, or the place cannot be read.
    """
    names = Vault(place_at(place)).names()
    if not names:
        raise Refusal(f"There is no backup at {place}.", "Name the place that `loan-assets backup --to` was given.")
    return names


def checked(place: str, which: str = "") -> tuple[str, Backup]:
    """A backup, the newest by default, every content of which was read and is what was put there.

    Raises:
        Refusal: when there is none, it is damaged, or a newer version made it.
    """
    name = which or backups_at(place)[-1]
    vault = Vault(place_at(place))
    backup = vault.read(name)
    with tempfile.TemporaryDirectory(prefix="loan-restore-") as folder:
        for part in backup.parts.values():
            for content in {one.digest: one for one in part.files.values()}.values():
                vault.fetch(content, Path(folder) / "content")
    return name, backup


def restore(settings: Settings, place: str, which: str = "") -> Restored:
    """Put a backup back into empty places, and make again what is derived from it.

    Raises:
        Refusal: when the backup is not sound or of another kind of platform, or a place is not empty: nothing was
            written then. Where it is raised later, or this is killed, the same command is run again.
    """
    name, backup = checked(place, which)
    parts = _places_for(backup, settings)
    with _marked(settings, name, [part for part, _ in parts]):
        with tempfile.TemporaryDirectory(prefix="loan-restore-") as folder:
            for part, held in reversed(parts):
                _put_back(part, held, Vault(place_at(place)), Path(folder) / "content")
        _follow_artifacts(settings, parts)
        champion = _derive(settings)
    prepare(settings)
    tuple(migrate(settings, is_stopped=True))  # what went on when the backup was made is ended below
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        ended = end_begun_runs(instance)
    sizes = [one.size for part in backup.parts.values() for one in part.files.values()]
    has_policy = any(part.kind == FILE for part, _ in parts)
    return Restored(
        name=name,
        made=backup.made,
        files=len(sizes),
        bytes=sum(sizes),
        champion=champion,
        ended_runs=len(ended),
        policy=settings.home / POLICY_FILE if has_policy else None,
    )


def print_restored(restored: Restored) -> None:
    """Say what was put back, and what is left to do."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Restored {restored.name}, of {restored.made[:19]} UTC")
    console.print(f"{restored.files:,} files, {restored.bytes / 1e6:.1f} MB; version {restored.champion} is champion")
    if restored.ended_runs:
        console.print(f"{restored.ended_runs} runs that were going on then are marked failed")
    if restored.policy:
        console.print(f"Set LOAN_POLICY={escape(str(restored.policy))}: the platform decided by it")
    console.print("Put the secrets back, then `loan-assets doctor` and `loan-assets serve`")


def _places_for(backup: Backup, settings: Settings) -> list[tuple[Part, PartHeld]]:
    """Where each part of a backup belongs by the settings.

    Raises:
        Refusal: when the settings keep it in a place of another kind, or the code knows another book.
    """
    book = the_book()
    if (backup.book, backup.book_digest) != (book.name, book.digest):
        raise Refusal(
            f"The backup is of book {backup.book} {backup.book_digest}, this installation knows {book.name} "
            f"{book.digest}.",
            f"Restore with the code of that book (LOAN_BOOK, loan-assets {backup.package}), then change it.",
        )
    here = {part.name: part for part in parts_of(settings)}
    here["policy"] = Part(name="policy", kind=FILE, place=str(settings.home / POLICY_FILE))
    unlike = {name: held.kind for name, held in backup.parts.items() if held.files and _kind(here, name) != held.kind}
    if unlike:
        said = ", ".join(f"{name} was in {kind}, here it is {_kind(here, name)}" for name, kind in unlike.items())
        raise Refusal(
            f"The backup is of a platform with other kinds of places: {said}.",
            "Set the variables as they were (deploy/embedded.env or deploy/production.env), each to an empty place.",
        )
    return [(here[name], held) for name, held in backup.parts.items() if held.files]


def _kind(here: dict[str, Part], name: str) -> str:
    return here[name].kind if name in here else "outside of LOAN_HOME"


@contextmanager
def _marked(settings: Settings, name: str, parts: list[Part]) -> Iterator[None]:
    """Keep every other command away until the block has ended well.

    Raises:
        Refusal: when a place is not empty, and not what a restore of this backup has begun.
    """
    mark, said = settings.home / RESTORING, json.dumps({"backup": name, "places": _shown(parts)}) + "\n"
    if mark.exists():
        if mark.read_text() != said:
            raise Refusal(
                f"{settings.home} is half restored from another backup, or into other places.",
                "Restore that one again, or empty every place first.",
            )
        _remove_begun(settings.home)
    else:
        _refuse_what_is_used(settings, parts)
        settings.home.mkdir(parents=True, exist_ok=True)
        FolderPlace(settings.home).create(mark.name, said.encode())
    yield
    mark.unlink()


def _remove_begun(home: Path) -> None:
    """Remove what a killed restore has written, and nothing else.

    A home counts as empty whatever begins with a dot there, or belongs to its disk: that is somebody's and stays.
    """
    place = FolderPlace(home)
    names = [name for name, _ in place.names()]
    place.delete(names)
    folders = {home / folder for name in names for folder in Path(name).parents if folder.parts}
    for folder in sorted(folders, reverse=True):  # inner ones first
        if not any(folder.iterdir()):
            folder.rmdir()


def _shown(parts: list[Part]) -> list[str]:
    return [without_secrets(part.place) for part in parts]


def _refuse_what_is_used(settings: Settings, parts: list[Part]) -> None:
    """Restoring over what is there would mix two histories."""
    empty = "Restore into an empty LOAN_HOME, empty databases and an empty place in a bucket; keep what is there until"
    used = [name for name, _ in FolderPlace(settings.home).names() if name not in OF_AN_EMPTY_HOME]
    if used:
        raise BadInput(f"LOAN_HOME {settings.home} is not empty: it holds {used[0]}.", f"{empty} the new one serves.")
    for part in parts:
        is_elsewhere = part.kind in (BUCKET, POSTGRES) or not Path(part.place).is_relative_to(settings.home)
        if is_elsewhere and not part.is_empty():
            shown = without_secrets(part.place)
            raise BadInput(f"{shown}, the place of {part.name}, is not empty.", f"{empty} the new one serves.")


def _put_back(part: Part, held: PartHeld, vault: Vault, file: Path) -> None:
    """Write every file of a part; pointers come last, as they were taken."""
    for name, content in sorted(held.files.items(), key=lambda one: one[0].endswith(f"/{CURRENT}")):
        vault.fetch(content, file)
        if part.kind == POSTGRES:
            load(part.place, file)
        elif part.kind in (FOLDER, BUCKET):
            part.files().put(name, file)
        else:
            target = Path(part.place) / name if part.kind == SQLITE and part.name == "dagster" else Path(part.place)
            FolderPlace(target.parent).put(target.name, file)


def _follow_artifacts(settings: Settings, parts: list[tuple[Part, PartHeld]]) -> None:
    for part, held in parts:
        if part.name == "artifacts" and held.place != part.shown:
            follow(settings.mlflow_uri, held.place, part.shown)


def _derive(settings: Settings) -> int:
    """Make the online features and the champion's Bento again; returns the version that is champion by the journal."""
    migrate_mlflow(settings)
    Reign.over(settings).put_in_force()
    book, releases = the_book(), ReleaseStore.over(settings)
    stream = Stream.over(settings)
    stream.put_in_force(stream.features.materialize(book))
    champion = releases.champion()
    bentos = BentoStore.over(settings)
    for version, digest in {(champion.version, champion.digest), *_packed(settings, releases)}:
        bentos.build(releases.folder_of(version, digest), digest, version, book)
    return champion.version


def _packed(settings: Settings, releases: ReleaseStore) -> Iterator[tuple[int, str]]:
    """The release in the Bento that was built last, which need not be the champion's; none where it was retired."""
    store = AssetStore.over(settings)
    if store.holds("loan_bento"):
        bento: BuiltBento = store.read("loan_bento", BuiltBento)
        version = int(bento.tag.partition(":v")[2].partition("-")[0])
        if version in releases.released() and releases.shelf_of(version)[0] == bento.release_digest:
            yield version, bento.release_digest
