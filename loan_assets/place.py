"""A place for files by name, a folder or part of a bucket: what backups are read from and written to.

Here: listing, reading, writing and removing files, each whole or not at all. Not here: what they are (`vault`,
`backup_parts`). Names have slashes; what begins with a dot, lock files, and what a disk keeps for its own repair, are
nobody's content.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loan_assets.bucket import Bucket, folder_or_bucket, is_bucket
from loan_assets.refusal import Gone, Overtaken, Refusal
from loan_assets.sealed import sync

ARRIVING, LOCK = ".arriving-", ".lock"
# At the top of a disk; only the machine's administrator may read it.
OF_THE_DISK = "lost+found"


class Place(Protocol):
    """Files by name, at `shown`."""

    @property
    def shown(self) -> str:
        """The place as it may be printed."""

    def names(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Every file below a prefix that ends where a name does, with its size in bytes."""

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The names of the folders right below a prefix, in order."""

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""

    def fetch(self, name: str, file: Path) -> bool:
        """Copy a file of any size here; whether it was there."""

    def put(self, name: str, file: Path) -> None:
        """Write a file from one of this machine, whatever was there."""

    def create(self, name: str, data: bytes) -> None:
        """Write a small file where none is."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove files; those that are gone count as removed."""


def place_at(place: str) -> Place:
    """The folder or the bucket's place of that name.

    Raises:
        BadInput: when it is neither.
    """
    place = folder_or_bucket(place, "The place")
    return BucketPlace(Bucket(place.rstrip("/"))) if is_bucket(place) else FolderPlace(Path(place).expanduser())


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """Files below a folder, which is made when it is first written."""

    root: Path

    @property
    def shown(self) -> str:
        """The path."""
        return str(self.root)

    def names(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Every file below a prefix in the order of names.

        Raises:
            Refusal: when a folder there may not be read, whose files would be missing from a backup without a word.
        """
        found = []
        for folder, inner, files in os.walk(self.root / prefix, onerror=_unlisted):
            inner[:] = [name for name in inner if not name.startswith(".") and name != OF_THE_DISK]
            parts = Path(folder).relative_to(self.root).parts
            if any(part.startswith(".") for part in parts):
                continue
            found += [(*parts, name) for name in files if not name.startswith(".") and not name.endswith(LOCK)]
        for names in sorted(found):
            path = "/".join((str(self.root), *names))
            with suppress(FileNotFoundError), _told(Path(path)):  # removed while this was listed
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode):
                    yield "/".join(names), status.st_size

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The names of the folders right below a prefix; none where that is not there."""
        try:
            with _told(self.root), os.scandir(self.root / prefix) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_dir()))
        except FileNotFoundError:
            return ()

    def read(self, name: str) -> bytes | None:
        """The file's bytes; None where there is none."""
        try:
            with _told(self.root):
                return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, name: str, file: Path) -> bool:
        """Copy a file; whether it was there."""
        try:
            with _told(self.root):
                shutil.copyfile(self.root / name, file)
        except FileNotFoundError:
            return False
        return True

    def put(self, name: str, file: Path) -> None:
        """Write a file, forced to disk and then renamed."""
        target = self.root / name
        with _told(self.root):
            draft = self._draft(target)
            shutil.copyfile(file, draft)
            sync(draft)
            draft.replace(target)
            sync(target.parent)

    def create(self, name: str, data: bytes) -> None:
        """Write a file where none is, forced to disk and then linked to its name.

        Raises:
            Overtaken: when there is one already.
        """
        target = self.root / name
        with _told(self.root):
            draft = self._draft(target)
            draft.write_bytes(data)
            sync(draft)
            try:
                os.link(draft, target)
            except FileExistsError:
                raise Overtaken(f"{target} was written by another process meanwhile.", "Run again.") from None
            finally:
                draft.unlink()
                # Also where there was one, for who made it may have been killed before this; up to the root's own name.
                for folder in target.parents[: len(target.relative_to(self.root).parts) + 1]:
                    sync(folder)

    def delete(self, names: Sequence[str]) -> None:
        """Remove files."""
        with _told(self.root):
            for name in names:
                (self.root / name).unlink(missing_ok=True)

    def _draft(self, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f"{ARRIVING}{uuid.uuid4().hex}")


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """Objects below a place in a bucket."""

    bucket: Bucket

    @property
    def shown(self) -> str:
        """The URL, which carries no secret."""
        return self.bucket.url

    def names(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Every object below a prefix in the order of names."""
        for listed in self.bucket.names(prefix):
            if not any(part.startswith(".") for part in listed.name.split("/")):
                yield listed.name, listed.size

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The names of the folders right below a prefix, in order."""
        return self.bucket.folders(prefix)

    def read(self, name: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        held = self.bucket.read(name)
        return held.data if held else None

    def fetch(self, name: str, file: Path) -> bool:
        """Download an object; whether it was there."""
        try:
            self.bucket.download(name, file)
        except Gone:
            return False
        return True

    def put(self, name: str, file: Path) -> None:
        """Upload an object, which is whole or not there."""
        self.bucket.upload(name, file)

    def create(self, name: str, data: bytes) -> None:
        """Write an object where none is."""
        self.bucket.create(name, data)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects."""
        self.bucket.delete(names)


def _unlisted(error: OSError) -> None:
    """Say which folder cannot be listed; one that is not there, or not any more, holds nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        with _told(Path(error.filename)):
            raise error


@contextmanager
def _told(root: Path) -> Iterator[None]:
    """Turn the file system's own errors into sentences with a path and a way out; that a file is missing is none."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(f"No space left on the disk of {root}.", "Free some space there and run again.") from None
        raise Refusal(
            f"{root} cannot be used: {error.strerror}.", "Name a folder that this user may read and write; run again."
        ) from None
