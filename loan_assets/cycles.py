"""How seldom Python looks for reference cycles in a process of this platform. Standard library only.

A run imports some sixteen thousand classes, which stay, and Python's default walks over them again and again while more
arrive: with it, a day's watch takes a quarter more processor time. The endpoint has rules of its own (`bento`).
"""

from __future__ import annotations

import atexit
import gc
import sys

# New containers before the young are looked at, and how often a generation before the next one: 20 MB more at most.
THRESHOLDS = (100_000, 20, 100)
# Their bindings print, as the process ends, whatever of theirs was not freed by then.
COUNTING = ("duckdb", "onnx")


def look_seldom() -> None:
    """Set the collector of this process for work that begins with imports and ends soon, or then makes little.

    As the process ends, Python would walk over all that was imported once more, for memory that the system takes back
    anyway: a quarter of what a short command costs. What is frozen, now or as it ends, is passed over.
    """
    gc.set_threshold(*THRESHOLDS)
    gc.freeze()
    atexit.register(_leave)


def _leave() -> None:
    if not any(library in sys.modules for library in COUNTING):
        gc.freeze()
