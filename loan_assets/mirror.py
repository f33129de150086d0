"""Shelves in a bucket, and their copy on this machine: the bucket says what is in force, the copy is what is read.

Here: bringing a shelf's version in force here, and putting one there. Not here: what objects can do (`bucket`), how a
folder is sealed (`sealed`), or when versions are written (`resources.versioned_store`).

    <shelf>/<first 16 of the digest>/<file>   a sealed version; its manifest is written last
    <shelf>/CURRENT                           the digest in force, replaced only by who has seen the one before

A version is named by its content, so that a copy of it is never out of date, and is checked file by file when it
arrives. The copy has the form of a shelf on disk: whoever reads folders reads these.
"""

from __future__ import annotations

import shutil
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loan_assets.bucket import Bucket, Held, Listed
from loan_assets.refusal import Refusal
from loan_assets.sealed import CURRENT, MANIFEST, files_of, point, pointed_at, sync, verify

ARRIVING = ".arriving-"
WRITTEN_WITHIN, ARRIVES_WITHIN = timedelta(days=1), 3_600.0
YOUNG = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """The shelves below a bucket's place, copied below `folder` as they are asked for."""

    bucket: Bucket
    folder: Path

    def seen(self, shelf: str) -> Held | None:
        """The pointer of a shelf as it is now; None when nothing was ever put in force there."""
        return self.bucket.read(f"{shelf}/{CURRENT}")

    def shelves(self, below: str = "") -> tuple[str, ...]:
        """The names of the shelves directly below a place on which something is in force, in order."""
        start = f"{below}/" if below else ""
        inside = (listed.name.removeprefix(start) for listed in self.bucket.names(below))
        return tuple(
            sorted(name.split("/")[0] for name in inside if name.endswith(f"/{CURRENT}") and name.count("/") == 1)
        )

    def every_shelf(self) -> tuple[str, ...]:
        """Every shelf on which something is in force, in the order of their names."""
        end = f"/{CURRENT}"
        return tuple(sorted(one.name.removesuffix(end) for one in self.bucket.names() if one.name.endswith(end)))

    def refresh(self, shelf: str) -> tuple[str, Path] | None:
        """Bring the version in force here; returns its digest and its verified copy, None when there is none.

        Raises:
            Refusal: when the store is away, or the version is not what was sealed; the copy before stays in force here.
        """
        held = self.seen(shelf)
        if held is None:
            return None
        digest = held.data.decode("ascii", "replace").strip()
        folder = self.fetch(shelf, digest)
        if pointed_at(self.folder / shelf) != digest:
            point(self.folder / shelf, digest)
        return digest, folder

    def fetch(self, shelf: str, digest: str) -> Path:
        """The verified copy of a version, brought here where it is not, or is not what was sealed.

        Raises:
            Refusal: when the store is away, or what it holds is not what was sealed.
        """
        place, version = self.folder / shelf, digest[:16]
        if (place / version).is_dir():
            try:
                verify(place / version, expected=digest)
            except Refusal:
                discard(place / version)
            else:
                return place / version
        for leftover in place.glob(f"{ARRIVING}*"):
            if time.time() - leftover.stat().st_mtime > ARRIVES_WITHIN:
                shutil.rmtree(leftover, ignore_errors=True)
        draft = place / f"{ARRIVING}{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            for listed in self.bucket.names(f"{shelf}/{version}"):
                file = draft / listed.name.removeprefix(f"{shelf}/{version}/")
                file.parent.mkdir(parents=True, exist_ok=True)
                self.bucket.download(listed.name, file)
                sync(file)
            verify(draft, expected=digest)
            try:
                draft.rename(place / version)
            except OSError:  # another process was faster
                verify(place / version, expected=digest)
            sync(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place / version

    def publish(self, shelf: str, digest: str) -> None:
        """Put a sealed version of this machine into the bucket, files that are there already left out.

        The manifest is written last and always, so that a version that is put there again counts as new.
        """
        folder, start = self.folder / shelf / digest[:16], f"{shelf}/{digest[:16]}/"
        there = {listed.name.removeprefix(start): listed.size for listed in self.bucket.names(start.rstrip("/"))}
        for name in files_of(folder):
            if there.get(name) != (folder / name).stat().st_size or MANIFEST not in there:
                self.bucket.upload(f"{start}{name}", folder / name)
        self.bucket.upload(f"{start}{MANIFEST}", folder / MANIFEST)

    def put_in_force(self, shelf: str, digest: str, seen: Held | None) -> None:
        """Point a shelf at a version, if it still points where it was seen to.

        Raises:
            Overtaken: when it does not.
        """
        self.bucket.replace(f"{shelf}/{CURRENT}", f"{digest}\n".encode(), seen)

    def retire(self, shelf: str, staying: set[str], keep: int) -> None:
        """Delete the oldest versions beyond `keep`, those whose first 16 characters are `staying` left out.

        What is in force by now stays, whoever put it there, and so does what is young: another machine may be about to
        put it in force. What a killed writer left without a manifest goes after a day.
        """
        now, held = datetime.now(UTC), self.seen(shelf)
        staying = staying | ({held.data.decode("ascii", "replace")[:16]} if held else set())
        objects: dict[str, list[Listed]] = {}
        for listed in self.bucket.names(shelf):
            version, _, file = listed.name.removeprefix(f"{shelf}/").partition("/")
            if file and version not in staying:
                objects.setdefault(version, []).append(listed)
        whole = {
            version: listed.modified
            for version, found in objects.items()
            for listed in found
            if listed.name == f"{shelf}/{version}/{MANIFEST}"
        }
        oldest = sorted(whole, key=lambda version: (whole[version], version))[: max(0, len(whole) - (keep - 1))]
        oldest = [version for version in oldest if whole[version] <= now - YOUNG]
        torn = [
            version
            for version, found in objects.items()
            if version not in whole and max(one.modified for one in found) < now - WRITTEN_WITHIN
        ]
        for version in (*oldest, *torn):
            # The manifest goes first: what is half gone is not taken for whole.
            self.bucket.delete([f"{shelf}/{version}/{MANIFEST}"])
            self.bucket.delete([one.name for one in objects[version] if not one.name.endswith(f"/{MANIFEST}")])


def discard(folder: Path) -> None:
    """Remove a copy: first its name, in one step, so that nobody takes half of it for whole."""
    gone = folder.with_name(f"{ARRIVING}{uuid.uuid4().hex}")
    try:
        folder.rename(gone)
    except OSError:  # another process was faster
        return
    shutil.rmtree(gone, ignore_errors=True)
