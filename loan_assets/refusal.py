"""How this package says no: one sentence for the cause, one for the next step.

Here: the one exception that people are meant to read, and how a command in its next step is typed where they are. Not
here: what is refused and why; each room decides that.
"""

import os
import re
import shutil
import sys
from pathlib import Path

PROGRAM = "loan-assets"


class Refusal(Exception):
    """A stop that a person can act on, raised instead of a bare vendor error.

    Args:
        cause: what is wrong and where (file, column, rule, count). Never a value taken from a client's row.
        next_step: what to do about it, as a command or an instruction.
    """

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(cause, next_step)
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.cause} {self.next_step}"


class Overtaken(Refusal):
    """Another writer was faster; whoever asked may look again and decide anew."""


class Away(Refusal):
    """A place on another machine does not answer now; the same may be asked again later."""


class Gone(Refusal):
    """What was listed a moment ago is not there any more."""


class BadInput(Refusal):
    """What was given to a command cannot be used: nothing was done yet, and its exit code says so."""


def as_typed(said: str) -> str:
    """A next step with its `loan-assets …` commands as they can be typed in the shell that started this process."""
    return re.sub(f"(?<=`){PROGRAM}(?= )", lambda _: program(), said)


def program() -> str:
    """`loan-assets` where the shell finds this very one, else the path to it."""
    ours = Path(sys.executable).with_name(PROGRAM)
    places = os.environ.get("PATH", "").split(os.pathsep)
    # make puts our folder in front for what it starts, which the shell it was typed in knows nothing of.
    if "MAKELEVEL" in os.environ and places[0] == str(ours.parent):
        places = places[1:]
    found = shutil.which(PROGRAM, path=os.pathsep.join(places))
    if not ours.exists() or (found is not None and Path(found).resolve() == ours.resolve()):
        return PROGRAM
    return str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)
