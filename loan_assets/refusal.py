"""How this package says no: one sentence for the cause, one for the next step.

Here: the one exception that people are meant to read. Not here: what is refused and why; each room decides that.
"""


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
