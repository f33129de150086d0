"""Processes that are killed at a chosen instant: one is kept warm, and each deed runs in a fork of it.

Here: which instants there are, the deeds, and what a fresh process sees and mends afterwards. Not here: what has to
hold then (`test_reign`).

An instant lies just before anything that leaves a trace: a file opened for writing, renamed or removed, a folder made,
a file forced to disk, an SQL statement that writes, a transaction committed. What lies between two of them, in a write
or in SQLite's commit, is met by kills at random; `test_decisions` cuts a line of the journal anywhere.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from loan_assets.credit.succession import CANARY, SHADOW, Action, Challenger, Episode, Kind, Situation
from loan_assets.reign import Reign
from loan_assets.resources.decisions import GATE, WATCH, Step
from loan_assets.resources.registry import GATE as JUDGED
from loan_assets.settings import Settings

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MARKS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate", "os.link", "os.symlink")
FIRST_DAY, DAY, NEXT_DAY = "2026-02-02", "2026-02-03", "2026-02-04"


def reign_of(home: Path) -> Reign:
    """The reign over a home, as the commands and the jobs open it."""
    return Reign.over(Settings.from_environment({"LOAN_HOME": str(home)}))


def last_of(reign: Reign) -> Step:
    last = reign.decisions.last()
    assert last is not None
    return last


def on_trial(situation: Situation, number: int, stage: str = "") -> Situation:
    """The situation in which a version is on trial against the champion."""
    return replace(
        situation,
        newest=max(number, situation.newest),
        challenger=Challenger(number=number, made=FIRST_DAY, stage=stage, staged=DAY if stage else ""),
        episode=Episode(since=FIRST_DAY, opened=FIRST_DAY, causes=("asked",), retrainings=1, fitted_on=FIRST_DAY),
    )


def promoted(situation: Situation, number: int) -> Situation:
    """The situation once the challenger took over."""
    archived = (*situation.archived, situation.champion)
    return replace(situation, champion=number, archived=archived, in_force_since=DAY, challenger=None)


def decided(reign: Reign, kind: str, situation: Situation, *actions: Action) -> None:
    """One step is written down, and carried out."""
    last, judged = last_of(reign), {"challenger": 2} if kind == GATE else {}
    reign.decisions.record(kind, max(DAY, last.date), actions, situation, judged, after=last.number)
    reign.put_in_force()


def promote(reign: Reign) -> None:
    action = Action(kind=Kind.PROMOTE, cause="better on later outcomes", version=2)
    decided(reign, GATE, promoted(last_of(reign).situation, 2), action)


def promote_from_canary(reign: Reign) -> None:
    promote(reign)


def approve_another(reign: Reign) -> None:
    reign.approve(3, "it is the better one", "the chief risk officer")


def roll_back(reign: Reign) -> None:
    reign.roll_back(None, "complaints", "the engineer on call")


def stand_in_shadow(reign: Reign) -> None:
    decided(reign, GATE, on_trial(last_of(reign).situation, 2, SHADOW))


def answer_as_canary(reign: Reign) -> None:
    decided(reign, GATE, on_trial(last_of(reign).situation, 2, CANARY))


def dismiss(reign: Reign) -> None:
    action = Action(kind=Kind.REJECT, cause="what it was trained for is no longer the question", version=2)
    decided(reign, WATCH, replace(last_of(reign).situation, challenger=None), action)


def seen(reign: Reign) -> dict[str, Any]:
    """What the stores hold; every part of it is read as whoever follows it does."""
    releases, steps = reign.history.releases, reign.decisions.steps()
    standings = releases.standings()
    beside = standings.challenger
    return {
        "champion": releases.champion_release().facts.version,
        "was_judged": JUDGED in reign.registry.tags(standings.champion.version),
        "challenger": [beside.version, beside.mode, beside.share] if beside else None,
        "aliases": reign.registry.aliases(),
        "steps": len(steps),
        "decided": steps[-1].situation.champion,
        "on_stage": steps[-1].situation.challenger is not None and steps[-1].situation.challenger.stage,
        "due": reign.what_is_due(),
    }


def mend(reign: Reign) -> dict[str, Any]:
    """What a fresh process sees, what it does about it, and what it sees then."""
    before = seen(reign)
    reign.put_in_force()
    after = seen(reign)
    steps = len(reign.decisions.steps())
    reign.put_in_force()
    return {"before": before, "after": after, "stays": len(reign.decisions.steps()) == steps}


DEEDS = (promote, promote_from_canary, approve_another, roll_back, stand_in_shadow, answer_as_canary, dismiss)
WORKS: dict[str, Callable[[Reign], Any]] = {work.__name__: work for work in (*DEEDS, seen, mend)}


@dataclass
class Instants:
    """Counts the instants of this process, and kills it at one of them; 0 for none."""

    at: int
    count: int = 0
    has_written: bool = False

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: Python tells of everything that it is about to do to a file."""
        if event == "open":
            is_held = str(arguments[0]).endswith("lock") and os.path.exists(arguments[0])
            if arguments[2] & WRITES and not is_held:
                self()
        elif event in MARKS and not (event == "os.mkdir" and os.path.exists(arguments[0])):
            self()

    def install(self) -> None:
        """Listen from now on, in this process."""
        import sqlalchemy
        from sqlalchemy.engine import Engine

        forced = os.fsync

        def force(descriptor: Any) -> None:
            self()
            forced(descriptor)

        def state(*said: Any) -> None:
            if said[2].lstrip().partition(" ")[0].upper() not in ("SELECT", "PRAGMA"):
                self.has_written = True
                self()

        def commit(_: Any) -> None:
            if self.has_written:
                self.has_written = False
                self()

        os.fsync = force  # type: ignore[assignment]
        sqlalchemy.event.listen(Engine, "before_cursor_execute", state)
        sqlalchemy.event.listen(Engine, "commit", commit)
        sys.addaudithook(self.heard)


def forked(work: Callable[[], Any], instants: Instants, seconds: float) -> dict[str, Any]:
    """Run in a fork, killed at one of its instants, or after some seconds; tells how it ended and what it gave."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            if instants.at >= 0:
                instants.install()
            gave = {"gave": work(), "instants": instants.count}
        except BaseException:
            gave = {"failed": traceback.format_exc()}
        os.write(write, json.dumps(gave).encode())
        os._exit(0)
    os.close(write)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as told:
        said = told.read()
    _, status = os.waitpid(child, 0)
    return {"is_killed": os.WIFSIGNALED(status), **(json.loads(said) if said else {})}


class Warm:
    """The process in which everything is loaded, and nothing is open: whatever it is asked to do is done in a fork."""

    def __init__(self, home: Path, process: subprocess.Popen[str]) -> None:
        self.home = home
        self._process = process

    def ask(self, work: str, *, at: int = -1, seconds: float = 0.0) -> dict[str, Any]:
        """Have a deed done, or `look` or `mend`; killed at an instant or after some seconds where that is asked for."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"work": work, "at": at, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "failed" not in told, told["failed"]
        return told


@contextmanager
def warm(home: Path, drill: str = "kill_drill") -> Iterator[Warm]:
    """Start the process of a drill over a home that is there; it ends with its input."""
    command = [sys.executable, "-m", f"loan_assets_tests.{drill}", str(home)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    ) as process:
        yield Warm(home, process)
        assert process.stdin is not None
        process.stdin.close()


def main(home: Path) -> None:
    """Load what the deeds need, then fork for every line."""
    look = partial(_done_over, home, seen)
    told_to({name: partial(_done_over, home, work) for name, work in WORKS.items()}, look)


def told_to(works: Mapping[str, Callable[[], Any]], look: Callable[[], Any]) -> None:
    """Look once, then do in a fork whatever a line of the input names."""
    for engine in looked_through(look):
        # Not a connection may be open when this process is forked: SQLite's locks do not survive that.
        engine.dispose()
    for line in sys.stdin:
        asked = json.loads(line)
        told = forked(works[asked["work"]], Instants(at=asked["at"]), asked["seconds"])
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def _done_over(home: Path, work: Callable[[Reign], Any]) -> Any:
    return work(reign_of(home))


def looked_through(look: Callable[[], Any]) -> set[Any]:
    """Look once, so that every module is loaded and MLflow has seen its tables; returns what was opened."""
    import sqlalchemy
    from sqlalchemy.engine import Engine

    engines: set[Any] = set()
    sqlalchemy.event.listen(Engine, "engine_connect", lambda connection: engines.add(connection.engine))
    look()
    return engines


if __name__ == "__main__":
    main(Path(sys.argv[1]))
