"""The one door for decisions: every alarm, retraining, verdict, promotion and return is written down here, or was none.

Here: an append-only journal of steps, each with what was decided, by whom, on what evidence, and the situation after
it. Not here: the rule that decides (`credit.succession`), or what is done about a decision (`reign`).

A line is eight hexadecimal digits of CRC-32, a space and one JSON object, as in the prediction log. A step is one line,
written and forced to disk before anything acts on it; a line that a kill cut short was never acted on, and is removed
by the next writer. Where machines share a bucket a step is an object that can be created once: whoever comes second
with the same number knows that it was overtaken.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock

from loan_assets.bucket import Bucket, bucket_at
from loan_assets.credit.succession import Action, Kind, Situation
from loan_assets.refusal import Overtaken, Refusal
from loan_assets.settings import Settings

# What a step was: the first version put in force, a day looked at, a challenger judged, a person's word, a move made,
# MLflow told of one that was made without it, or a challenger put beside the champion.
FIRST, WATCH, GATE, PERSON, MOVED, NAMED, STAGED = "first", "watch", "gate", "person", "moved", "named", "staged"
RULE = "the rule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the journal.

    `number` counts from 1, `at` is the instant it was written, `date` the business day it is about. `situation` is what
    the rule remembers after it. `evidence` are the figures that it rests on.
    """

    number: int
    at: str
    date: str
    kind: str
    by: str
    actions: tuple[Action, ...]
    situation: Situation
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The step as it is written."""
        facts = {**asdict(self), "situation": self.situation.as_facts()}
        content = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
        return b"%08x %b\n" % (zlib.crc32(content), content)

    @classmethod
    def of_line(cls, line: bytes) -> Step | None:
        """Read what `line` gave; None for one that was cut short or altered."""
        checksum, _, content = line.rstrip(b"\n").partition(b" ")
        try:
            if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(content):
                return None
            facts = json.loads(content)
        except ValueError:
            return None
        actions = tuple(Action(**{**action, "kind": Kind(action["kind"])}) for action in facts["actions"])
        return cls(**{**facts, "actions": actions, "situation": Situation.from_facts(facts["situation"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Steps that were read of a journal, oldest first, and how many bytes hold them."""

    steps: tuple[Step, ...] = ()
    bytes: int = 0


class Decisions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The journal at `folder`/journal.log, with a bucket this machine's copy of the steps there, an object each."""

    folder: str
    bucket: str = ""

    @classmethod
    def over(cls, settings: Settings) -> Decisions:
        """The journal that the settings name."""
        return cls(folder=str(settings.decisions), bucket=bucket_at(settings.decisions_place))

    def record(
        self,
        kind: str,
        date: str,
        actions: Sequence[Action],
        situation: Situation,
        evidence: Mapping[str, Any] | None = None,
        *,
        by: str = RULE,
        after: int,
    ) -> Step:
        """Write one step down, whole or not at all, and force it to disk.

        Args:
            after: the number of the step from which this one was decided; 0 for the first.

        Raises:
            Overtaken: when another step was written in between, for this one was decided without knowing of it.
        """
        with self._alone():
            steps, whole = self._known()
            last = steps[-1].number if steps else 0
            if last != after:
                raise Overtaken(
                    f"Step {last} was decided while this one was considered from step {after}.",
                    "Run again; it will be considered from where things stand now.",
                )
            step = Step(
                number=last + 1,
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                date=date,
                kind=kind,
                by=by,
                actions=tuple(actions),
                situation=situation,
                evidence=dict(evidence or {}),
            )
            if self.bucket:
                # Of two machines that write the same step one is refused here, and decides anew.
                Bucket(self.bucket).create(_named(step.number), step.line())
            self._append(whole, step.line())
        return step

    def steps(self) -> tuple[Step, ...]:
        """Everything that was ever decided, oldest first.

        Raises:
            Refusal: when a line is not what was written.
        """
        if not self.bucket:
            return self._read()[0]
        with self._alone():
            return self._known()[0]

    def known_since(self, known: Known) -> Known:
        """What is known of the journal, and what was written since; only that is read.

        A journal that has become shorter was restored, and is read anew.

        Raises:
            Refusal: as `steps`.
        """
        if self.bucket:
            with self._alone():
                self._follow(known.steps)
        size = self._journal.stat().st_size if self._journal.exists() else 0
        if size < known.bytes:
            known = Known()
        more, whole = self._read(known)
        return Known(steps=(*known.steps, *more), bytes=whole) if more else known

    def last(self) -> Step | None:
        """The newest step; None before the first."""
        steps = self.steps()
        return steps[-1] if steps else None

    def _known(self) -> tuple[tuple[Step, ...], int]:
        """As `_read`, with the steps that other machines have written since; for who holds the lock."""
        if not self.bucket:
            return self._read()
        try:
            steps, whole = self._read()
        except Refusal:  # a copy can be had again
            self._journal.unlink()
            steps, whole = (), 0
        bucket = Bucket(self.bucket)
        for listed in bucket.names(after=_named(len(steps))):
            held = bucket.read(listed.name)
            if held is None or listed.name != _named(len(steps) + 1):
                raise Refusal(
                    f"A step before {listed.name} is missing in {self.bucket}.",
                    "Restore the journal from a backup; the champion goes on serving, nothing new is decided.",
                )
            self._append(whole, held.data)
            steps, whole = self._read()
        return steps, whole

    def _follow(self, steps: Sequence[Step]) -> None:
        """Have this machine's copy hold what others wrote after so many steps; for who holds the lock."""
        if next(Bucket(self.bucket).names(after=_named(len(steps))), None) is not None or not self._journal.exists():
            self._known()

    def _append(self, whole: int, line: bytes) -> None:
        """Write a line after the first so many bytes, and force it to disk."""
        place = self._journal
        with place.open("r+b" if place.exists() else "wb") as journal:
            journal.truncate(whole)
            journal.seek(whole)
            journal.write(line)
            journal.flush()
            os.fsync(journal.fileno())

    def _alone(self) -> FileLock:
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._journal.with_suffix(".lock"))

    def _read(self, known: Known | None = None) -> tuple[tuple[Step, ...], int]:
        """Every step after those that are known, and how many bytes hold all: a last line without an end is no step."""
        first, whole = (len(known.steps) + 1, known.bytes) if known else (1, 0)
        if not self._journal.exists():
            return (), 0
        steps = []
        with self._journal.open("rb") as journal:
            journal.seek(whole)
            written = journal.read()
        for number, line in enumerate(written.splitlines(keepends=True), start=first):
            step = Step.of_line(line)
            if step is None and not line.endswith(b"\n"):
                break
            if step is None or step.number != number:
                raise Refusal(
                    f"Line {number} of {self._journal} is not what was written there.",
                    "Restore the journal from a backup; the champion goes on serving, nothing new is decided.",
                )
            steps.append(step)
            whole += len(line)
        return tuple(steps), whole

    @property
    def _journal(self) -> Path:
        return Path(self.folder) / "journal.log"


def mlflow_knows(steps: Sequence[Step]) -> bool:
    """Whether MLflow was told of the last move, as far as the journal says: who comes back does not wait for it."""
    last = next((step for step in reversed(steps) if step.kind in (MOVED, NAMED)), None)
    return last is None or last.kind == NAMED or bool(last.evidence.get("mlflow_knows", True))


def _named(number: int) -> str:
    """The name of a step's object; names are in the order of steps."""
    return f"{number:010d}"
