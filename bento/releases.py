"""Which release answers: the champion of the release store, followed without a restart, and a challenger beside it.

Here: looking at the pointer, loading what it names, swapping in one step, and falling back to the release in the box.
Not here: the pointer (`loan_assets.standing`) or scoring (`scorer`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
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

    def named(self) -> tuple[object, ...]:
        """What tells it from another: who answers, who stands beside, and on which terms."""
        challenger = self.challenger.release.digest if self.challenger else None
        return self.source, self.champion.release.digest, challenger, self.terms

    def arm_of(self, clients: Sequence[int | None], request: str) -> Scorer:
        """Who answers a request: the challenger where its one client falls into the canary's share.

        A client is always answered by the same arm, one applicant without a number by that of the request. A request
        about several is the champion's, so that nobody's arm depends on the company they are asked in.
        """
        asked = set(clients)
        is_about_one = len(asked) == 1 and (len(clients) == 1 or None not in asked)
        if self.challenger is None or self.terms is None or not is_about_one:
            return self.champion
        (client,) = asked
        name = request if client is None else str(client)
        return self.challenger if is_canary(name, self.terms) else self.champion

    def of_version(self, version: str) -> Scorer | None:
        """Who answers for a version by its number: champion, canary, or nobody."""
        answering = [self.champion] if self.shadow or self.challenger is None else [self.champion, self.challenger]
        return next((scorer for scorer in answering if str(scorer.version) == version), None)

    @property
    def shadow(self) -> Scorer | None:
        """The challenger that is scored and logged but never answers."""
        return self.challenger if self.terms is not None and self.terms.mode is Mode.SHADOW else None


class Releases:
    """Follows the pointer of the release store at `root`; the release in `box` answers while there is none."""

    def __init__(self, root: Path | None, box: Path) -> None:
        self._root, self._box = root, box
        self._seen: str | None = None
        self._troubled: tuple[str | None, float] = (None, 0.0)
        self._known: tuple[Scorer, ...] = ()
        self.swaps = 0
        self.refusals = 0
        found = self._looked_up() if root is not None else None
        self.in_force = found or InForce(champion=Scorer.open(box), source=BOX)

    def look(self) -> bool:
        """Follow the pointer if it has moved; returns whether something else answers now.

        A release that cannot be verified, or that another book was trained for, is refused: what answered goes on. What
        was refused is tried again every ten seconds.
        """
        found = self._looked_up()
        if found is None:
            return False
        is_other = found.named() != self.in_force.named()
        self.in_force = found
        if is_other:
            self.swaps += 1
            said.info("Version %s answers now, release %s.", found.champion.version, found.champion.label)
        return is_other

    def _looked_up(self) -> InForce | None:
        """What the pointer names, where it is to be followed now and can be."""
        if self._root is None:
            return None
        pointer = pointer_or_none(self._root)
        troubled, when = self._troubled
        if pointer is None or (pointer == self._seen and pointer != troubled):
            return None
        if pointer == troubled and time.monotonic() - when < SECONDS_BEFORE_TRYING_AGAIN:
            return None
        is_new = pointer != troubled
        try:
            standings = read_standings(self._root)
            champion = self._opened(self._root, standings.champion)
        except Refusal as reason:
            self._trouble(pointer, is_new, "A release was refused, what answered goes on: %s", reason)
            return None
        challenger = None
        try:
            challenger = self._opened(self._root, standings.challenger, champion) if standings.challenger else None
            self._troubled = (None, 0.0)
        except Refusal as reason:
            self._trouble(pointer, is_new, "The challenger was refused: %s", reason)
        self._seen = pointer
        self._known = (champion,) if challenger is None else (champion, challenger)
        terms = standings.challenger if challenger is not None else None
        return InForce(champion=champion, source=STORE, challenger=challenger, terms=terms)

    def _trouble(self, pointer: str, is_new: bool, words: str, reason: Refusal) -> None:
        self._troubled = (pointer, time.monotonic())
        if is_new:
            self.refusals += 1
            said.error(words, reason)

    def _opened(self, root: Path, standing: Standing, beside: Scorer | None = None) -> Scorer:
        """The scorer of a release: the one in memory when it is the same release.

        Raises:
            Refusal: when it cannot be used, or is of another book than what answers.
        """
        for known in self._known:
            if known.release.digest == standing.digest:
                return known
        try:
            opened = Scorer.open(root / standing.path, expected=standing.digest)
        except Refusal:
            raise
        except Exception as unreadable:  # whatever a reader raises at bytes that make no sense
            raise Refusal(
                f"The release {standing.digest[:12]} cannot be read ({type(unreadable).__name__}).", "Release it again."
            ) from unreadable
        others = [one for one in (beside, *self._known) if one is not None]
        if any(other.book is not opened.book for other in others):
            raise Refusal(
                f"The release {opened.label} is of book {opened.book.name}, this box serves {others[0].book.name}.",
                "Serve that book's Bento.",
            )
        return opened


def pointer_or_none(root: Path) -> str | None:
    """The pointer, or None where it cannot be read at all."""
    try:
        return pointer_of(root)
    except (Refusal, OSError):
        return None
