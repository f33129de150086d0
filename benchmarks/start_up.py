"""What it costs to load the graph: `dagster definitions validate` of ours beside that of one empty asset.

Run: `python benchmarks/start_up.py`. The two take turns, so that a busy machine slows both; the figure is the median of
the pairwise ratios of CPU seconds (user and system, children included).
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 5
EMPTY = """
import dagster as dg


@dg.asset
def nothing() -> None: ...


defs = dg.Definitions(assets=[nothing])
"""


def cpu_seconds(command: list[str], folder: Path) -> float:
    """CPU seconds of one command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure in turns and print the medians."""
    root = Path(__file__).resolve().parents[1]
    validate = [str(Path(sys.executable).parent / "dagster"), "definitions", "validate"]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "empty.py").write_text(EMPTY)
        pairs = []
        for turn in range(ROUNDS + 1):
            ours = cpu_seconds([*validate, "-w", "workspace.yaml"], root)
            empty = cpu_seconds([*validate, "-f", "empty.py"], Path(place))
            if turn:  # the first turn writes byte code
                pairs.append((ours, empty))
    ratio = statistics.median(ours / empty for ours, empty in pairs)
    ours, empty = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"whole graph {ours:.2f} CPU-s, one empty asset {empty:.2f} CPU-s, ratio {ratio:.2f}")
    print(f"median of {ROUNDS} turns; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
