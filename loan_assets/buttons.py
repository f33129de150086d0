"""Buttons: what a person may ask of the succession in the Dagster UI.

Here: two jobs, each with what it wants to be told. Not here: the same from a terminal (`cli`), or what comes of it
(`reign`).
"""

import dagster as dg

from loan_assets.books import the_book
from loan_assets.reign import Reign
from loan_assets.resources.decisions import Decisions
from loan_assets.resources.live_history import Memory
from loan_assets.resources.registry import Registry

BOOK = the_book()


class Return(dg.Config):
    """Which version is to come back, the last champion by default, and why."""

    version: int = 0
    why: str = "asked for in the Dagster UI"
    by: str = "a person"


class Approval(dg.Config):
    """Which released version is to be put in force, why, and on whose word."""

    version: int
    why: str
    by: str


class Alarm(dg.Config):
    """Why the model should be trained anew."""

    why: str = "asked for in the Dagster UI"
    by: str = "a person"


@dg.op
def bring_back(
    context: dg.OpExecutionContext, config: Return, decisions: Decisions, memory: Memory, registry: Registry
) -> None:
    """Put a former champion in force, at once."""
    reign = Reign(decisions=decisions, registry=registry, history=memory.of(BOOK))
    _, moved, waits = reign.roll_back(config.version or None, config.why, config.by)
    context.log.info(f"In force after {moved.evidence['seconds'] if moved else 0:.1f} s.")
    if waits:
        context.log.warning(waits)


@dg.op
def put_in_force(
    context: dg.OpExecutionContext, config: Approval, decisions: Decisions, memory: Memory, registry: Registry
) -> None:
    """Put a version in force that nobody ordered, unless outcomes speak against it."""
    reign = Reign(decisions=decisions, registry=registry, history=memory.of(BOOK))
    decided, _ = reign.approve(config.version, config.why, config.by)
    context.log.info("; ".join(action.cause for action in decided.actions))


@dg.op
def raise_an_alarm(
    context: dg.OpExecutionContext, config: Alarm, decisions: Decisions, memory: Memory, registry: Registry
) -> None:
    """Post an alarm to the rule; its cooldown and its budget decide."""
    step = Reign(decisions=decisions, registry=registry, history=memory.of(BOOK)).ask(config.why, config.by)
    context.log.info("; ".join(f"{action.kind}: {action.cause}" for action in step.actions))


@dg.job(description="Bring a former champion back, whether MLflow answers or not, with the cause on record.")
def roll_back() -> None:
    """One button for the engineer on call."""
    bring_back()


@dg.job(description="Put a released version in force on a person's word, with who approved it and why on record.")
def promote() -> None:
    """One button for whoever answers for the model."""
    put_in_force()


@dg.job(description="Ask for a retraining; the rule, its cooldown and its budget decide what comes of it.")
def ask_for_retraining() -> None:
    """One button for whoever knows something that the checks do not."""
    raise_an_alarm()
