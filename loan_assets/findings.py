"""What an examination finds: one line a place, and what to do about it.

Here: the form of a finding and how it is printed. Not here: who looks (`doctor`, `connections`).
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from loan_assets.refusal import as_typed

WELL, MISSING, BROKEN = "well", "missing", "broken"
MARKS = {WELL: "[green]✓[/]", MISSING: "[yellow]–[/]", BROKEN: "[red]✗[/]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place and its state: well, missing (not made yet, or to be looked at) or broken; and what to do."""

    place: str
    state: str
    found: str
    next_step: str = ""


def print_findings(findings: tuple[Finding, ...]) -> bool:
    """Print one line per finding, next steps below; returns whether nothing is broken."""
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(f"{MARKS[finding.state]} [bold]{finding.place:<10}[/] {escape(finding.found)}")
        if finding.next_step:
            console.print(f"             [dim]→ {escape(as_typed(finding.next_step))}[/]")
    return all(finding.state != BROKEN for finding in findings)
