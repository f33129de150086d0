"""Which release answers: the champion of the release store, followed without a restart, and a challenger beside it.

Here: looking at the pointer, loading what it names, swapping in one step, and falling back to the release in the box.
Not here: the pointer (`loan_assets.standing`) or scoring (`scorer`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from bento.scorer import Scorer
from loan_assets.refusal import Refusal
from loan_assets.standing import Challenger, Mode, Standing, is_canary, pointer_of, read_standings

STORE, BOX = "store", "bento"
SECONDS_BEFORE_TRYING_AGAIN = 10.0
said = logging.getLogger("loan_default")


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What answers now: taken once at the start of a request, so that no reply mixes two of them.

    `source` is `store`, or `bento` where the release store could not be read and the box's own release answers.
    """

    champion: Scorer
    source: str
    challenger: Scorer | None = None
    terms: Challenger | None = None

    def arm_of(self, clients: set[int | None], request: str) -> Scorer:
        """Who answers a request: the challenger where its one client falls into the canary's share.

        A client is always answered by the same arm, an applicant without a number by that of the request. A request
        about several clients is the champion's, so that nobody's arm depends on the company they are asked in.
        """
        if self.challenger is None or self.terms is None or len(clients) != 1:
            return self.champion
        (client,) = clients
        name = request if client is None else str(client)
        return self.challenger if is_canary(name, self.terms) else self.champion

    @property
    def shadow(self) -> Scorer | None:
        """The challenger that is scored and logged but never answers."""
        return self.challenger if self.terms is not None and self.terms.mode is Mode.SHADOW else None


class Releases:
    """Follows the pointer of the release store at `root`; the release in `box` answers while there is none."""

    def __init__(self, root: Path | None, box: Path) -> None:
        self._root, self._box = root, box
        self._seen: str | None = None
        self._refused: tuple[str | None, float] = (None, 0.0)
        self._known: tuple[Scorer, ...] = ()
        self.swaps = 0
        self.refusals = 0
        self.in_force = self._first()

    def look(self) -> bool:
        """Follow the pointer if it has moved; returns whether something else answers now.

        A release that cannot be verified, or that another book was trained for, is refused: what answered goes on.
        """
        if self._root is None:
            return False
        try:
            pointer = pointer_of(self._root)
            refused, when = self._refused
            if pointer is None or pointer == self._seen:
                return False
            if pointer == refused and time.monotonic() - when < SECONDS_BEFORE_TRYING_AGAIN:
                return False
            self.in_force = self._loaded(self._root)
        except (Refusal, OSError, ValueError, KeyError, TypeError) as reason:
            if self._refused[0] != pointer_or_none(self._root):
                self.refusals += 1
                said.error("A release was refused, the one before goes on answering: %s", reason)
            self._refused = (pointer_or_none(self._root), time.monotonic())
            return False
        self._seen, self._refused = pointer, (None, 0.0)
        self.swaps += 1
        said.info("Version %s answers now, release %s.", self.in_force.champion.version, self.in_force.champion.label)
        return True

    def _first(self) -> InForce:
        if self._root is not None:
            try:
                pointer = pointer_of(self._root)
                if pointer is not None:
                    found = self._loaded(self._root)
                    self._seen = pointer
                    return found
            except (Refusal, OSError, ValueError, KeyError, TypeError) as reason:
                self.refusals += 1
                self._refused = (pointer_or_none(self._root), time.monotonic())
                said.error("The release store is of no use, the box's own release answers: %s", reason)
        return InForce(champion=Scorer.open(self._box), source=BOX)

    def _loaded(self, root: Path) -> InForce:
        standings = read_standings(root)
        champion = self._opened(root, standings.champion)
        try:
            challenger = self._opened(root, standings.challenger) if standings.challenger else None
        except Refusal as reason:
            self.refusals += 1
            said.error("The challenger was refused: %s", reason)
            challenger = None
        self._known = (champion,) if challenger is None else (champion, challenger)
        terms = standings.challenger if challenger is not None else None
        return InForce(champion=champion, source=STORE, challenger=challenger, terms=terms)

    def _opened(self, root: Path, standing: Standing) -> Scorer:
        """The scorer of a release: the one in memory when it is the same release."""
        for known in self._known:
            if known.release.digest == standing.digest:
                return known
        return Scorer.open(root / standing.path, expected=standing.digest)


def pointer_or_none(root: Path) -> str | None:
    """The pointer, or None where it cannot be read at all."""
    try:
        return pointer_of(root)
    except (Refusal, OSError):
        return None
