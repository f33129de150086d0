"""The list in which kinds of history are entered, each under the name of its function.

Here: `Kind`, and the two decorators that say whether a policy may be tuned on it. Not here: the kinds themselves
(`calm_kinds`, `changing_kinds`, `broken_kinds`); `kinds` brings them together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from timeline import Timeline
from verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of history. `write` puts it on a timeline and says what is expected."""

    name: str
    family: str
    story: str
    kept_aside: bool
    write: Callable[[Timeline], Verdict]


KINDS: dict[str, Kind] = {}


def kind(family: str, *, kept_aside: bool) -> Callable[[Callable[[Timeline], Verdict]], Callable[[Timeline], Verdict]]:
    """Enter a function in the list of kinds, under its own name."""

    def enter(write: Callable[[Timeline], Verdict]) -> Callable[[Timeline], Verdict]:
        name, story = write.__name__, str(write.__doc__)
        KINDS[name] = Kind(name=name, family=family, story=story, kept_aside=kept_aside, write=write)
        return write

    return enter


tuned, aside = partial(kind, kept_aside=False), partial(kind, kept_aside=True)
