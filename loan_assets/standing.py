"""Which releases stand: the champion that answers, and beside it a challenger in shadow or canary, in one pointer.

Here: the pointer's form, its reading and writing, shared by the platform that moves it and the box that follows it. Not
here: who may move it (`resources.release_store`) or what a release is (`release`).

The pointer is one sealed file on the shelf `standing` of the release store, replaced in one step: champion and
challenger are never seen half moved.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from loan_assets.credit.arms import falls_into
from loan_assets.refusal import Refusal
from loan_assets.sealed import in_force, pointed_at

SHELF, POINTER = "standing", "standing.json"


class Mode(StrEnum):
    """What a challenger does: it is scored and logged but never answers, or it answers a share of the clients."""

    SHADOW = "shadow"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A release and where it is, below the store."""

    version: int
    digest: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger(Standing):
    """A release that stands beside the champion; `share` of the clients, 0 to 1, in a canary."""

    mode: Mode
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """The pointer's content."""

    champion: Standing
    challenger: Challenger | None = None

    def write(self, folder: Path) -> None:
        """Write the pointer's file; the caller seals."""
        (folder / POINTER).write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")


def pointer_of(root: Path) -> str | None:
    """What changes when the pointer moves; None when no release was ever put in force."""
    return pointed_at(root / SHELF)


def read_standings(root: Path) -> Standings:
    """The releases in force below a release store, the pointer verified.

    Raises:
        Refusal: when no release was ever put in force, or the pointer is damaged.
    """
    if pointer_of(root) is None:
        raise nothing_stands()
    _, folder = in_force(root / SHELF)
    return standings_in(folder)


def nothing_stands() -> Refusal:
    """What is said before the first release."""
    return Refusal("No release is in force yet.", "Run `loan-assets run` to train and release the first one.")


def standings_in(folder: Path) -> Standings:
    """The releases that one sealed pointer names, in force or not.

    Raises:
        Refusal: when it is sealed well and makes no sense.
    """
    try:
        facts = json.loads((folder / POINTER).read_text())
        challenger = facts["challenger"]
        if challenger is not None:
            challenger = Challenger(**{**challenger, "mode": Mode(challenger["mode"])})
        return Standings(champion=Standing(**facts["champion"]), challenger=challenger)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as senseless:
        raise Refusal(
            f"The pointer in {folder} cannot be read ({type(senseless).__name__}).", "Materialize model_release again."
        ) from senseless


def is_canary(client: str, challenger: Challenger) -> bool:
    """Whether a client is answered by this challenger: always the same for the same client and release."""
    return challenger.mode is Mode.CANARY and falls_into(challenger.share, client, challenger.digest)
