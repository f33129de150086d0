"""Where model releases rest: one shelf per registry version, and the pointer that serving follows.

Here: publishing, reading and pointing. Not here: what a release contains (`release`) or what the pointer says
(`standing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
from filelock import FileLock

from loan_assets.bucket import bucket_at
from loan_assets.refusal import Refusal
from loan_assets.release import Release, read_release
from loan_assets.resources.versioned_store import VersionedStore
from loan_assets.settings import Settings
from loan_assets.standing import SHELF, Challenger, Mode, Standing, Standings, nothing_stands, standings_in


class ReleaseStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Releases below `root`, two sealed copies of each version at most; `root` is a copy where there is a bucket."""

    root: str
    bucket: str = ""

    @classmethod
    def over(cls, settings: Settings) -> ReleaseStore:
        """The store that the settings name."""
        return cls(root=str(settings.releases), bucket=bucket_at(settings.releases_place))

    def publish(self, version: int, fill: Callable[[Path], None]) -> tuple[str, Path]:
        """Write a release whole or not at all; returns its digest and its folder. What stands is never cleared away."""
        before = self._before()
        standing = [one.digest for one in (before.champion, before.challenger) if one] if before else []
        written = self._store.write(f"v{version}", fill, spared=standing)
        return written.digest, written.folder

    def crown(self, version: int, digest: str) -> Standing:
        """Point serving at a release, after verifying it once more. The pointer is replaced in one step.

        A challenger goes on standing beside it, unless it is the one that was crowned.
        """
        champion = self._standing(version, digest)
        with self._moving() as seen:
            before = self._before()
            challenger = before.challenger if before else None
            is_crowned = challenger is not None and challenger.digest == digest
            self._point(Standings(champion=champion, challenger=None if is_crowned else challenger), seen)
        return champion

    def challenge(self, version: int, mode: Mode, share: float = 0.0) -> Challenger:
        """Let a version's release stand beside the champion, in shadow or for a share of the clients.

        Raises:
            Refusal: when the share is none, the version has no release, or it is the champion itself.
        """
        if not 0 <= share <= 1:
            raise Refusal(f"A share of {share:g} cannot be given.", "Give a share from 0 to 1.")
        digest, _ = self.shelf_of(version)
        stands = self._standing(version, digest)
        with self._moving() as seen:
            before = self.standings()
            if before.champion.digest == digest:
                raise Refusal(f"Version {version} is the champion.", "Choose another version.")
            challenger = Challenger(version=version, digest=digest, path=stands.path, mode=mode, share=share)
            self._point(replace(before, challenger=challenger), seen)
        return challenger

    def dismiss(self) -> None:
        """Let no challenger stand beside the champion."""
        with self._moving() as seen:
            self._point(replace(self.standings(), challenger=None), seen)

    def standings(self) -> Standings:
        """What the pointer says.

        Raises:
            Refusal: when no release was ever put in force.
        """
        pointer = self._store.current(SHELF)
        if pointer is None:
            raise nothing_stands()
        return standings_in(pointer.folder)

    def champion(self) -> Standing:
        """The release in force."""
        return self.standings().champion

    def in_force(self) -> Standing | None:
        """The release in force; None before the first."""
        before = self._before()
        return before.champion if before else None

    def champion_release(self) -> Release:
        """The champion, verified and loaded."""
        champion = self.champion()
        return read_release(self.folder_of(champion.version, champion.digest), expected=champion.digest)

    def released(self) -> tuple[int, ...]:
        """The versions that have a release."""
        return tuple(sorted(int(shelf[1:]) for shelf in self._store.shelves() if shelf[1:].isdigit()))

    def shelf_of(self, version: int) -> tuple[str, Path]:
        """The digest and the verified folder of a version's release in force.

        Raises:
            Refusal: when it has none, or it is damaged.
        """
        digest = self._store.pointed(f"v{version}")
        if digest is None:
            raise Refusal(f"Version {version} has no release.", "Materialize model_release of that version first.")
        return digest, self.folder_of(version, digest)

    def folder_of(self, version: int, digest: str) -> Path:
        """The verified folder of one release."""
        return Path(self.root) / self._standing(version, digest).path

    def _standing(self, version: int, digest: str) -> Standing:
        folder = self._store.fetch(f"v{version}", digest)
        read_release(folder, expected=digest)
        return Standing(version=version, digest=digest, path=str(folder.relative_to(self.root)))

    def _before(self) -> Standings | None:
        return self.standings() if self._store.pointed(SHELF) is not None else None

    def _point(self, standings: Standings, seen: str | None) -> None:
        self._store.write(SHELF, standings.write, after=seen)

    @contextmanager
    def _moving(self) -> Iterator[str | None]:
        """One mover at a time: the pointer is read, changed and replaced if it is still the one that was read.

        On one machine movers wait for each other; of two that share a bucket the slower one is told that it is.
        """
        Path(self.root).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(self.root) / ".standing.lock"):
            yield self._store.pointed(SHELF)

    @property
    def _store(self) -> VersionedStore:
        return VersionedStore(root=Path(self.root), keep=2, bucket=self.bucket)
