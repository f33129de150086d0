"""Named shelves of sealed folders: written whole or not at all, verified before use, the last few versions kept.

Here: the file system as a store, with the promises that everything else leans on. Not here: what the folders contain
(`asset_store`, `release_store`).

A shelf is a folder of version folders, each named by the first 16 characters of its digest, and a file CURRENT that
holds the digest in force. A version is drafted under another name, sealed and forced to disk, renamed, and only then
named in CURRENT, itself replaced by a rename: a kill at any instant leaves the version before in force.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from loan_assets.refusal import Refusal
from loan_assets.sealed import CURRENT, in_force, pointed_at, seal, sync, verify

DRAFT = ".draft-"
LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One sealed folder on a shelf."""

    shelf: str
    digest: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionedStore:
    """A root folder of shelves; `keep` is how many versions of each stay on disk."""

    root: Path
    keep: int

    def write(self, shelf: str, fill: Callable[[Path], None], spared: Collection[str] = ()) -> Version:
        """Let `fill` write files into an empty folder, then put that folder in force on the shelf.

        Args:
            shelf: the name, slashes allowed (`borrower_features/2005-09`).
            fill: writes the files; what it raises leaves the shelf as it was.
            spared: digests that stay on the shelf however old they are, because something points at them.

        Raises:
            Refusal: when the disk is full, the place cannot be written, or another writer holds the shelf.
        """
        place = self.root / shelf
        with _told(place), self._held(place):
            for leftover in place.glob(f"{DRAFT}*"):
                shutil.rmtree(leftover)
            draft = place / f"{DRAFT}{uuid.uuid4().hex}"
            draft.mkdir()
            try:
                fill(draft)
                digest = seal(draft)
                folder = self._settle(draft, place / digest[:16], digest)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            _point(place, digest)
            self._retire(place, spared)
        return Version(shelf=shelf, digest=digest, folder=folder)

    def current(self, shelf: str) -> Version | None:
        """The version in force, verified file by file; None when nothing was ever written.

        Raises:
            Refusal: naming the file, when the version in force was altered, cut short or removed.
        """
        place = self.root / shelf
        if pointed_at(place) is None:
            return None
        digest, folder = in_force(place)
        return Version(shelf=shelf, digest=digest, folder=folder)

    def versions(self, shelf: str) -> tuple[Path, ...]:
        """The version folders on disk, newest last."""
        place = self.root / shelf
        found = [path for path in place.glob("[0-9a-f]" * 16) if path.is_dir()] if place.is_dir() else []
        return tuple(sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name)))

    def _settle(self, draft: Path, folder: Path, digest: str) -> Path:
        """Rename the draft to its final name; an intact version of that name serves as it is, a damaged one yields."""
        if folder.exists():
            try:
                verify(folder, expected=digest)
            except Refusal:
                shutil.rmtree(folder)
            else:
                os.utime(folder)
                return folder
        draft.rename(folder)
        sync(folder.parent)
        return folder

    def _retire(self, place: Path, spared: Collection[str]) -> None:
        """Remove the oldest versions beyond `keep`, never the one in force or a spared one."""
        staying = {digest[:16] for digest in ((place / CURRENT).read_text().strip(), *spared)}
        others = [path for path in self.versions(str(place.relative_to(self.root))) if path.name not in staying]
        for folder in others[: max(0, len(others) - (self.keep - 1))]:
            shutil.rmtree(folder)

    @contextmanager
    def _held(self, place: Path) -> Iterator[None]:
        place.mkdir(parents=True, exist_ok=True)
        holder = place / ".holder"
        lock = FileLock(place / ".lock", timeout=LOCK_SECONDS)
        try:
            with lock:
                holder.write_text(f"process {os.getpid()}")
                yield
        except Timeout as waited:
            who = holder.read_text() if holder.exists() else "another process"
            raise Refusal(
                f"{place} has been held by {who} for more than {LOCK_SECONDS:.0f} seconds.",
                "Let that run finish or stop it, then run again; nothing was written.",
            ) from waited


def _point(place: Path, digest: str) -> None:
    """Put a digest in force by replacing CURRENT in one step."""
    pointer = place / f".{CURRENT}"
    pointer.write_text(digest + "\n")
    sync(pointer)
    pointer.replace(place / CURRENT)
    sync(place)


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """Turn the file system's own errors into sentences with a path and a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(
                f"No space left on the disk of {place} while writing it.",
                "Free some space and run again; the version before is still in force and nothing half-written remains.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Refusal(
                f"{place} cannot be written: {error.strerror}.",
                "Give this user write access or point LOAN_HOME to a folder it owns, then run again.",
            ) from error
        raise
