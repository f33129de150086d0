"""What a backup place holds: contents by their digest, and backups, each of which says what was where.

Here: the format, and keeping it whole. Not here: what belongs into a backup (`backup_parts`), or when one is made.

    objects/<first two>/<SHA-256>        one content, held once however many backups name it
    backups/<instant>-<digest>.json      a backup, written last; its name holds the first 16 characters of its digest

A kill before the last file leaves contents that nobody names, which count as nothing. Whatever is read is checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from loan_assets.place import Place
from loan_assets.refusal import Refusal

FORMAT = 1
OBJECTS, BACKUPS = "objects", "backups"
ANOTHER = "`loan-assets restore --list` names the backups that are there; choose another one with --which."


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file's content: its SHA-256 (64 hex characters) and its size in bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHeld:
    """One part of the platform: its kind, where it was, and its files in the order in which they are written back."""

    kind: str
    place: str
    files: Mapping[str, Content]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a backup holds. `made` is ISO 8601, UTC."""

    made: str
    package: str
    book: str
    book_digest: str
    parts: Mapping[str, PartHeld]
    format: int = FORMAT

    def contents(self) -> dict[str, int]:
        """Every digest that it names, and its size in bytes."""
        return {one.digest: one.size for part in self.parts.values() for one in part.files.values()}

    def to_json(self) -> bytes:
        """The backup as it is written."""
        return json.dumps(asdict(self), sort_keys=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, said: bytes) -> Backup:
        """Read what `to_json` gave."""
        facts = json.loads(said)
        parts = {
            name: PartHeld(**{**part, "files": {file: Content(**one) for file, one in part["files"].items()}})
            for name, part in facts["parts"].items()
        }
        return cls(**{**facts, "parts": parts})


@dataclass
class Vault:
    """The backups at a place."""

    place: Place
    sizes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def named(self) -> frozenset[str]:
        """The contents that backups name and that are there: these need not be copied again.

        What no backup names is what a killed one left; it is written anew, so that nobody clears it away meanwhile.
        """
        there = self._there()
        named = {digest for name in self.names() for digest in self._known(name)}
        return frozenset(digest for digest in named if digest in there)

    def _known(self, name: str) -> dict[str, int]:
        try:
            return self.read(name).contents()
        except Refusal:  # a damaged backup names nothing that another one may lean on
            return {}

    def _there(self) -> dict[str, int]:
        return {name.rpartition("/")[2]: size for name, size in self.place.names(OBJECTS)}

    def put(self, content: Content, file: Path) -> None:
        """Hold a file's content."""
        self.place.put(_object(content.digest), file)

    def fetch(self, content: Content, file: Path) -> None:
        """Write a content into a file of this machine, checked.

        Raises:
            Refusal: when it is missing or is not what was put there.
        """
        is_there = self.place.fetch(_object(content.digest), file)
        if not is_there or content_of(file) != content:
            file.unlink(missing_ok=True)
            what = "is damaged" if is_there else "is missing"
            raise Refusal(f"{self.place.shown}/{_object(content.digest)} {what}: its backups cannot be used.", ANOTHER)

    def names(self) -> tuple[str, ...]:
        """The backups that are there, oldest first."""
        found = [name.rpartition("/")[2] for name, _ in self.place.names(BACKUPS)]
        return tuple(sorted(name.removesuffix(".json") for name in found if name.endswith(".json")))

    @staticmethod
    def made_at(name: str) -> datetime:
        """When the backup of that name was made, UTC."""
        return datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)

    def read(self, name: str) -> Backup:
        """A backup.

        Raises:
            Refusal: when there is none of that name, it is damaged, or a newer version of this package made it.
        """
        said = self.place.read(f"{BACKUPS}/{name}.json")
        if said is None:
            raise Refusal(f"There is no backup {name} at {self.place.shown}.", ANOTHER)
        if hashlib.sha256(said).hexdigest()[:16] != name.rpartition("-")[2]:
            raise Refusal(f"The backup {name} at {self.place.shown} is damaged.", ANOTHER)
        if json.loads(said).get("format") != FORMAT:
            raise Refusal(
                f"The backup {name} has format {json.loads(said).get('format')}; this version reads {FORMAT}.",
                "Install the version of loan_assets that made it, and restore with that.",
            )
        return Backup.from_json(said)

    def write(self, backup: Backup) -> str:
        """Seal a backup: its name, once everything that it names is there.

        Raises:
            Refusal: when a content is missing; nothing is sealed then.
        """
        there = self._there()
        lacking = [digest for digest, size in backup.contents().items() if there.get(digest) != size]
        if lacking:
            raise Refusal(
                f"{len(lacking)} contents are not at {self.place.shown}, or are damaged there.",
                "Let one backup at a time use a place; remove damaged files from it, then run again.",
            )
        said = backup.to_json()
        instant = "".join(character for character in backup.made[:23] if character.isalnum())
        name = f"{instant}-{hashlib.sha256(said).hexdigest()[:16]}"
        self.place.create(f"{BACKUPS}/{name}.json", said)
        return name

    def retire(self, keep: int) -> int:
        """Remove all but the newest backups and the contents that only they named; how many backups went.

        A backup is removed before its contents: what is half gone is not taken for whole.

        Raises:
            Refusal: when one of those that stay cannot be read, so that nobody knows what it names; all of them stay.
        """
        names = self.names()
        old, staying = names[:-keep], names[-keep:]
        wanted = {digest for name in staying for digest in self.read(name).contents()}
        gone = {digest for name in old for digest in self._known(name)} - wanted
        self.place.delete([f"{BACKUPS}/{name}.json" for name in old])
        self.place.delete([_object(digest) for digest in sorted(gone)])
        return len(old)


def content_of(file: Path) -> Content:
    """A file's digest and size."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        return Content(digest=digest, size=source.tell())


def _object(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}"
