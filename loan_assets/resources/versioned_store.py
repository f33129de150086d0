"""Named shelves of sealed folders: written whole or not at all, verified before use, the last few versions kept.

Here: the file system as a store, with the promises that everything else leans on, and a bucket behind it where one is
set. Not here: what the folders contain (`asset_store`, `release_store`) or how a bucket is copied (`mirror`).

A shelf is a folder of version folders, each named by the first 16 characters of its digest, and a file CURRENT that
holds the digest in force. A version is drafted under another name, sealed and forced to disk, renamed, and only then
named in CURRENT, itself replaced by a rename: a kill at any instant leaves the version before in force. With a bucket
the same holds for everybody who shares it: its pointer is moved once the version is there, and decides.
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

from loan_assets.bucket import Bucket
from loan_assets.mirror import Mirror, discard
from loan_assets.refusal import Overtaken, Refusal
from loan_assets.sealed import CURRENT, in_force, point, pointed_at, seal, sync, verify

DRAFT = ".draft-"
ANY = "any"
LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One sealed folder on a shelf."""

    shelf: str
    digest: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionedStore:
    """A root folder of shelves; `keep` is how many versions of each stay.

    `bucket` is the place in an object store whose shelves these are a copy of, where there is one.
    """

    root: Path
    keep: int
    bucket: str = ""

    def write(
        self,
        shelf: str,
        fill: Callable[[Path], None],
        spared: Collection[str] = (),
        *,
        after: str | None = ANY,
        first: Callable[[str], object] | None = None,
    ) -> Version:
        """Let `fill` write files into an empty folder, then put that folder in force on the shelf.

        Args:
            shelf: the name, slashes allowed (`borrower_features/2005-09`).
            fill: writes the files; what it raises leaves the shelf as it was.
            spared: digests that stay on the shelf however old they are, because something points at them.
            after: the digest in force on which this version rests, None for nothing; anything by default.
            first: what has to be done with the digest once the version is there and before it is in force; what it
                raises leaves the version before in force.

        Raises:
            Overtaken: when another version than `after` is in force, or another process put one there meanwhile.
            Refusal: when the disk is full, the place cannot be written, or another writer holds the shelf.
        """
        place = self.root / shelf
        with _told(place), self._held(place):
            for leftover in place.glob(f"{DRAFT}*"):
                shutil.rmtree(leftover)
            seen = self._mirror.seen(shelf) if self._mirror else None
            before = pointed_at(place) if self._mirror is None else seen.data.decode().strip() if seen else None
            if after not in (ANY, before):
                raise Overtaken(
                    f"Another version was put in force at {self.bucket or self.root}/{shelf} meanwhile.",
                    "Run again; it will start from what is there now.",
                )
            draft = place / f"{DRAFT}{uuid.uuid4().hex}"
            draft.mkdir()
            try:
                fill(draft)
                digest = seal(draft)
                folder = self._settle(draft, place / digest[:16], digest)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            if first is not None:
                first(digest)
            if self._mirror is not None:
                self._mirror.publish(shelf, digest)
                self._mirror.put_in_force(shelf, digest, seen)
            point(place, digest)
            self._retire(shelf, (digest, *spared))
        return Version(shelf=shelf, digest=digest, folder=folder)

    def current(self, shelf: str) -> Version | None:
        """The version in force, verified file by file; None when nothing was ever written.

        Raises:
            Refusal: naming the file, when the version in force was altered, cut short or removed.
        """
        place = self.root / shelf
        if self._mirror is not None:
            found = self._mirror.refresh(shelf)
            if found is None:
                return None
            self._clear_copies(shelf, {found[0][:16]})
            return Version(shelf=shelf, digest=found[0], folder=found[1])
        if pointed_at(place) is None:
            return None
        digest, folder = in_force(place)
        return Version(shelf=shelf, digest=digest, folder=folder)

    def pointed(self, shelf: str) -> str | None:
        """The digest in force, which nobody has verified yet; None when nothing was ever written."""
        if self._mirror is None:
            return pointed_at(self.root / shelf)
        seen = self._mirror.seen(shelf)
        return seen.data.decode().strip() if seen else None

    def fetch(self, shelf: str, digest: str) -> Path:
        """The verified folder of one version, which need not be in force; a copy that was damaged is brought anew.

        Raises:
            Refusal: when it is not there, or was altered, cut short or removed.
        """
        if self._mirror is not None:
            return self._mirror.fetch(shelf, digest)
        folder = self.root / shelf / digest[:16]
        verify(folder, expected=digest)
        return folder

    def shelves(self, below: str = "") -> tuple[str, ...]:
        """The names of the shelves directly below a place, the root by default, on which something is in force."""
        if self._mirror is None:
            return tuple(sorted(pointer.parent.name for pointer in (self.root / below).glob(f"*/{CURRENT}")))
        return self._mirror.shelves(below)

    def versions(self, shelf: str) -> tuple[Path, ...]:
        """The version folders on disk, newest last."""
        place = self.root / shelf
        found = [path for path in place.glob("[0-9a-f]" * 16) if path.is_dir()] if place.is_dir() else []
        return tuple(sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name)))

    def every_shelf(self) -> tuple[str, ...]:
        """Every shelf below the root on which something is in force, in the order of their names."""
        if self._mirror is None:
            return tuple(sorted(str(path.parent.relative_to(self.root)) for path in self.root.rglob(CURRENT)))
        return self._mirror.every_shelf()

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

    def _retire(self, shelf: str, spared: Collection[str]) -> None:
        """Remove the oldest versions beyond `keep`, never a spared one."""
        staying = {digest[:16] for digest in spared}
        self._clear_copies(shelf, staying)
        if self._mirror is not None:
            self._mirror.retire(shelf, staying, self.keep)

    def _clear_copies(self, shelf: str, staying: set[str]) -> None:
        """Remove the oldest version folders of this disk beyond `keep`, those named `staying` left out."""
        others = [path for path in self.versions(shelf) if path.name not in staying]
        for folder in others[: max(0, len(others) - (self.keep - 1))]:
            if self._mirror is None:
                shutil.rmtree(folder)
            else:
                discard(folder)

    @property
    def _mirror(self) -> Mirror | None:
        return Mirror(bucket=Bucket(self.bucket), folder=self.root) if self.bucket else None

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
