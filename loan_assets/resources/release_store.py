"""Where model releases rest: one shelf per registry version, and the pointer to the champion that serving follows.

Here: publishing, reading and pointing. Not here: what a release contains (`release`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg

from loan_assets.refusal import Refusal
from loan_assets.release import Release, read_release
from loan_assets.resources.versioned_store import VersionedStore

POINTER = "champion.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """What the pointer says: the version in force, its digest, and where the release is, below the store."""

    version: int
    digest: str
    path: str


class ReleaseStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Releases below `root`, two sealed copies of each version at most."""

    root: str

    def publish(self, version: int, fill: Callable[[Path], None]) -> tuple[str, Path]:
        """Write a release whole or not at all; returns its digest and its folder."""
        written = self._store.write(f"v{version}", fill)
        return written.digest, written.folder

    def crown(self, version: int, digest: str) -> Champion:
        """Point serving at a release, after verifying it once more. The pointer is replaced in one step."""
        folder = Path(f"v{version}") / digest[:16]
        read_release(Path(self.root) / folder, expected=digest)
        champion = Champion(version=version, digest=digest, path=str(folder))

        def fill(draft: Path) -> None:
            (draft / POINTER).write_text(json.dumps(asdict(champion), indent=1, sort_keys=True) + "\n")

        self._store.write("champion", fill)
        return champion

    def champion(self) -> Champion:
        """What the pointer says.

        Raises:
            Refusal: when no release was ever put in force.
        """
        pointer = self._store.current("champion")
        if pointer is None:
            raise Refusal("No release is in force yet.", "Run `loan-assets run` to train and release the first one.")
        return Champion(**json.loads((pointer.folder / POINTER).read_text()))

    def champion_release(self) -> Release:
        """The champion, verified and loaded."""
        champion = self.champion()
        return read_release(Path(self.root) / champion.path, expected=champion.digest)

    def folder_of(self, version: int, digest: str) -> Path:
        """The verified folder of one release."""
        folder = Path(self.root) / f"v{version}" / digest[:16]
        read_release(folder, expected=digest)
        return folder

    @property
    def _store(self) -> VersionedStore:
        return VersionedStore(root=Path(self.root), keep=2)
