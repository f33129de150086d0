"""What each step of a run costs: CPU seconds, wall seconds and the peak of memory, in the process that takes it.

Here: the measurement, and how it rests in the run's own history, where the Dagster UI shows it. Not here: what an hour
costs (`settings`), or who adds it up (`run_figures`).

A step's figures hold everything between its start and its end: reading its inputs, its body, writing its outputs, and
child processes that it waited for. A step that failed is measured as well.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.events.log import EventLogEntry

CPU, WALL, MEMORY = "cpu_seconds", "wall_seconds", "peak_memory_bytes"
ENDED = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)
PROCESS = Path("/proc/self")
FORGET_PEAK = "5"
KILOBYTE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a step took: CPU and wall seconds, and the most memory that its process held at once, in bytes."""

    step: str
    cpu: float
    wall: float
    memory: int

    def facts(self) -> dict[str, float | int]:
        """As metadata."""
        return {CPU: round(self.cpu, 3), WALL: round(self.wall, 3), MEMORY: self.memory}

    @classmethod
    def of_event(cls, event: dg.DagsterEvent) -> Spent | None:
        """Read what a meter reported; None for whatever else the engine has to say."""
        data = event.event_specific_data
        facts = data.metadata if isinstance(data, EngineEventData) else {}
        if event.step_key is None or not {CPU, WALL, MEMORY} <= set(facts):
            return None
        cpu, wall, memory = (float(str(facts[name].value)) for name in (CPU, WALL, MEMORY))
        return cls(step=event.step_key, cpu=cpu, wall=wall, memory=int(memory))


class StepMeter:
    """Listens to the events of one run in the process that executes its steps, one after another."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._began: tuple[float, float] | None = None

    def listen(self, run_id: str) -> None:
        """Report every step of a run from now on."""
        self._instance.add_event_listener(run_id, self._heard)

    def so_far(self, step: str) -> Spent | None:
        """What the step that is being taken has spent until now; None between steps."""
        if self._began is None:
            return None
        cpu, wall = self._began
        return Spent(step=step, cpu=_cpu() - cpu, wall=time.monotonic() - wall, memory=_peak())

    def _heard(self, entry: EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        if event.event_type == dg.DagsterEventType.STEP_START:
            _forget_peak()
            self._began = (_cpu(), time.monotonic())
        elif event.event_type in ENDED and (spent := self.so_far(event.step_key)) is not None:
            self._began = None
            self._instance.report_engine_event(
                f"{spent.cpu:.2f} CPU seconds in {spent.wall:.2f} s, {spent.memory / 1e6:,.0f} MB at most.",
                run_id=entry.run_id,
                job_name=event.job_name,
                step_key=event.step_key,
                engine_event_data=EngineEventData(spent.facts()),
            )


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _forget_peak() -> None:
    """Let the peak of memory begin anew; where the system does not let us, it is that of the process."""
    try:
        (PROCESS / "clear_refs").write_text(FORGET_PEAK)
    except OSError:
        return


def _peak() -> int:
    """The most bytes that this process held in memory at once since its peak was forgotten."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        peak = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE
    return int(peak) * KILOBYTE
