"""What belongs into a backup: every part of the platform that cannot be derived again, and in which order it is read.

Here: which parts there are, where they lie by the settings, and reading one while others write. Not here: the format
(`vault`), making a backup (`backup`) or putting one back (`restore`).

Who refers is read before what is referred to: Dagster's history, the journal, assets, pushed statements, releases,
MLflow's tables, its artifacts, features, the log. What is referred to is never changed and is written first, so that
whatever a part names is found in a part that was read later. A shelf's pointer is read before its versions for the same
reason.

Not in a backup: secrets (tokens, passwords, keys), what is made again from it (online features, the Bento, copies of
buckets), simulations, and what others deliver to places outside of LOAN_HOME.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loan_assets.bucket import is_bucket
from loan_assets.databases import copy_sqlite, dump, is_empty
from loan_assets.place import Place, place_at
from loan_assets.refusal import Refusal
from loan_assets.sealed import CURRENT, MANIFEST
from loan_assets.settings import Settings
from loan_assets.vault import Content, PartHeld, content_of

FOLDER, BUCKET, FILE, SQLITE, POSTGRES = "folder", "bucket", "file", "SQLite", "Postgres"
DATABASE, TRIES = "database", 10
POLICY_FILE = "policy.yaml"


def _everything(_: str) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part; `place` is its folder, file, bucket's place or database URL.

    `holds` says which names below it belong to it. `on_shelves`: sealed versions and pointers. `in_lines`: files that
    grow by lines, of which the last may not be whole yet. `shown` is the place as others refer to it.
    """

    name: str
    kind: str
    place: str
    holds: Callable[[str], bool] = _everything
    on_shelves: bool = False
    in_lines: bool = False
    shown: str = ""

    def files(self) -> Place:
        """The place of a part that is files."""
        return place_at(self.place)

    def is_empty(self) -> bool:
        """Whether nothing of it is there yet."""
        if self.kind == POSTGRES:
            return is_empty(self.place)
        if self.kind == FILE or (self.kind == SQLITE and not Path(self.place).is_dir()):
            return not Path(self.place).exists()
        return not any(self.holds(name) for name, _ in self.files().names())


@dataclass
class Taken:
    """Takes files into a backup place, those left out that it holds already; `work` is a folder for copies.

    `left_out` says which versions, not in force, were not whole.
    """

    put: Callable[[Content, Path], None]
    held: frozenset[str]
    work: Path
    copied: int = 0
    copied_bytes: int = 0
    contents: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)

    def take(self, file: Path) -> Content:
        """Take a file that nobody changes."""
        content = content_of(file)
        if content.digest not in self.held and content.digest not in self.contents:
            self.put(content, file)
            self.copied, self.copied_bytes = self.copied + 1, self.copied_bytes + content.size
        self.contents.add(content.digest)
        return content

    def take_bytes(self, said: bytes) -> Content:
        """Take what was read already."""
        self.draft.write_bytes(said)
        return self.take(self.draft)

    @property
    def draft(self) -> Path:
        """Where a copy of what others change is made."""
        return self.work / "copy"


def parts_of(settings: Settings) -> tuple[Part, ...]:
    """Every part, in the order in which it is read; it is written back in the reverse order."""
    home, log = settings.dagster_home, settings.predictions
    spool = settings.home / "spool" / "predictions"
    parts = [
        _database("dagster", settings.dagster_storage) or Part(name="dagster", kind=SQLITE, place=str(home)),
        Part(name="dagster_files", kind=FOLDER, place=str(home), holds=_is_dagster_s_file),
        _files("decisions", settings.decisions_place, settings.decisions, in_lines=True, holds=_is_journal),
        _files("store", settings.store_place, settings.store, on_shelves=True),
        # An event is written down under its id first; whoever is listed among the statements has one.
        _files("events", settings.events_place, settings.events, holds=_is_statement),
        _files("event_ids", settings.events_place, settings.events, holds=_is_id),
        _files("releases", settings.releases_place, settings.releases, on_shelves=True),
        _database("mlflow", settings.mlflow_uri),
        _artifacts(settings.mlflow_artifacts),
        _database("feast_registry", settings.feast_registry),
        _files("feast", settings.feast_place, settings.feast, on_shelves=True, holds=_is_offline),
    ]
    is_shipped = is_bucket(settings.predictions_place)
    if is_shipped:
        # What waits is read before what was shipped: on its way between two readings it is met twice, never not at all.
        parts += [Part(name="waiting_log", kind=FOLDER, place=str(spool), in_lines=True, holds=_is_log)]
    parts += [
        _files("log", settings.predictions_place, log, in_lines=True, holds=_is_log_or_part),
        Part(name="repeats", kind=SQLITE, place=str((spool if is_shipped else log) / "repeats.db")),
    ]
    for name, place in (("landing", settings.landing), ("outcomes", settings.outcomes)):
        if "://" not in place and Path(place).resolve().is_relative_to(settings.home):
            parts.append(Part(name=name, kind=FOLDER, place=place))
    return tuple(part for part in parts if part is not None)


def _database(name: str, url: str) -> Part | None:
    if not url:
        return None
    if url.startswith("sqlite:///"):
        return Part(name=name, kind=SQLITE, place=url.removeprefix("sqlite:///"))
    if url.startswith("postgresql"):
        return Part(name=name, kind=POSTGRES, place=url)
    raise Refusal(
        f"The {name} database is behind a server, which this machine cannot copy.",
        "Name its own database in the variable for this command (LOAN_MLFLOW_URI=postgresql://…).",
    )


def _files(
    name: str,
    place: str,
    folder: Path,
    *,
    holds: Callable[[str], bool] = _everything,
    on_shelves: bool = False,
    in_lines: bool = False,
) -> Part:
    kind, where = (BUCKET, place) if is_bucket(place) else (FOLDER, str(folder))
    return Part(name=name, kind=kind, place=where, holds=holds, on_shelves=on_shelves, in_lines=in_lines)


def _artifacts(place: str) -> Part:
    """MLflow's artifacts, which its tables name by absolute places."""
    if is_bucket(place):
        return Part(name="artifacts", kind=BUCKET, place=place, shown=place)
    folder = Path(place.removeprefix("file://")).absolute()
    return Part(name="artifacts", kind=FOLDER, place=str(folder), shown=folder.as_uri())


def _is_dagster_s_file(name: str) -> bool:
    return name == "dagster.yaml" or name.startswith("storage/")


def _is_journal(name: str) -> bool:
    return name == "journal.log" or name.isdigit()


def _is_statement(name: str) -> bool:
    return name.startswith("statements/") and "/." not in name


def _is_id(name: str) -> bool:
    return name.startswith("ids/") and "/." not in name


def _is_offline(name: str) -> bool:
    return name.startswith("offline/")


def _is_log(name: str) -> bool:
    return name.endswith(".log")


def _is_log_or_part(name: str) -> bool:
    """A file of a day, or in a bucket a part of one."""
    return _is_log(name) or name.rpartition("/")[2].isdigit()


def read_part(part: Part, taken: Taken, before: PartHeld | None) -> PartHeld:
    """Take everything of a part.

    Args:
        before: the part in the last backup; what can be written only once is known from it without being read again.

    Raises:
        Refusal: when a place cannot be read, or what is in force there is not what was sealed.
    """
    if part.kind == POSTGRES:
        dump(part.place, taken.draft)
        files = {DATABASE: taken.take(taken.draft)}
    elif part.kind == SQLITE:
        files = {name: _taken_database(path, taken) for name, path in _databases(Path(part.place))}
    elif part.on_shelves:
        files = _shelves(part, taken, before)
    elif part.kind == FILE:
        files = {POLICY_FILE: taken.take(Path(part.place))}
    else:
        files = dict(_read(part, _named(part), taken, before))
    return PartHeld(kind=part.kind, place=part.shown, files=files)


def _databases(place: Path) -> Iterator[tuple[str, Path]]:
    """A SQLite file, or those of Dagster: who refers to runs before the list of runs, and that before their events."""
    if not place.is_dir():
        if place.exists():
            yield DATABASE, place
        return
    first = ("schedules/schedules.db", "history/runs.db", "history/runs/index.db")
    others = sorted(path.relative_to(place).as_posix() for path in place.glob("history/runs/*.db"))
    for name in dict.fromkeys((*first, *others)):
        if (place / name).exists():
            yield name, place / name


def _taken_database(path: Path, taken: Taken) -> Content:
    copy_sqlite(path, taken.draft)
    return taken.take(taken.draft)


def _read(part: Part, names: list[str], taken: Taken, before: PartHeld | None) -> Iterator[tuple[str, Content]]:
    """Each file that is still there."""
    place = part.files()
    for name in names:
        known = before.files.get(name) if before and part.kind == BUCKET and _is_written_once(part, name) else None
        if known is not None and known.digest in taken.held:
            yield name, known
            continue
        if not place.fetch(name, taken.draft):
            continue
        if part.in_lines and part.kind == FOLDER:
            _cut_to_whole_lines(taken.draft)
        yield name, taken.take(taken.draft)


def _is_written_once(part: Part, name: str) -> bool:
    """Whether an object of that name always holds the same: a version is named by its content.

    A step of the journal and a part of the log are numbered: after a restore others have the same numbers.
    """
    return part.on_shelves and not name.endswith(f"/{CURRENT}")


def _cut_to_whole_lines(file: Path) -> None:
    with file.open("r+b") as log:
        content = log.read()
        log.truncate(content.rfind(b"\n") + 1)


def _shelves(part: Part, taken: Taken, before: PartHeld | None) -> dict[str, Content]:
    """Every pointer and every whole version, shelf by shelf in the order of names, the version in force last.

    Which releases stand is said on a shelf whose name comes before theirs.
    """
    shelves: dict[str, list[str]] = {}
    for name in _named(part):
        shelves.setdefault(_shelf(name), []).append(name)
    files: dict[str, Content] = {}
    for shelf, names in shelves.items():
        if f"{shelf}/{CURRENT}" in names:
            files |= _shelf_in_force(part, shelf, taken, before)
    return files


def _shelf_in_force(part: Part, shelf: str, taken: Taken, before: PartHeld | None) -> dict[str, Content]:
    """A shelf's whole versions and its pointer, which is read first.

    A version in force that was retired while it was read was replaced by another: then all is read again.
    """
    place, pointer, said = part.files(), f"{shelf}/{CURRENT}", ""
    for _ in range(TRIES):
        pointed = place.read(pointer) or b""
        in_force = f"{shelf}/{pointed.decode('ascii', 'replace').strip()[:16]}"
        files = dict(_read(part, [name for name, _ in place.names(in_force)], taken, before))
        said = _damage(in_force, files, place)
        if not said:
            names = [name for name, _ in place.names(shelf) if name.split("/")[-1] != CURRENT]
            others = [name for name in names if _shelf(name) == shelf and _folder(name) != in_force]
            older = dict(_read(part, others, taken, before))
            state = {folder: _damage(folder, older, place) for folder in sorted(set(map(_folder, older)))}
            taken.left_out += [f"{place.shown}/{folder} {damage}" for folder, damage in state.items() if damage]
            whole = {name: one for name, one in older.items() if not state[_folder(name)]}
            return {**whole, **files, pointer: taken.take_bytes(pointed)}
    raise Refusal(
        f"{place.shown}/{in_force} {said}: it is in force and cannot be backed up.",
        "`loan-assets doctor` says how it is made again; the backups before stay as they are.",
    )


def _named(part: Part) -> list[str]:
    return [name for name, _ in part.files().names() if part.holds(name)]


def _shelf(name: str) -> str:
    """The shelf on which a pointer or a version's file lies."""
    return name.removesuffix(f"/{CURRENT}") if name.endswith(f"/{CURRENT}") else _folder(name).rpartition("/")[0]


def _folder(name: str) -> str:
    """The version's folder that a file lies in; files of a version may lie deeper."""
    parts = name.split("/")
    place = next((at for at, one in enumerate(parts) if len(one) == 16 and set(one) <= set("0123456789abcdef")), 0)
    return "/".join(parts[: place + 1])


def _damage(folder: str, files: dict[str, Content], place: Place) -> str:
    """What a version lacks of what its manifest says; nothing where it is whole."""
    said = place.read(f"{folder}/{MANIFEST}")
    if said is None:
        return "has no manifest"
    for name, digest in json.loads(said)["files"].items():
        found = files.get(f"{folder}/{name}")
        if found is None or found.digest != digest:
            return f"lacks {name}, or holds another one than was sealed"
    return ""
