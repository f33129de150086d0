"""Pushes that are killed at a chosen instant, by the harness of `kill_drill`.

Here: the deed, and what the stores hold afterwards. Not here: what has to hold then (`test_stream`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from loan_assets.settings import Settings
from loan_assets.stream import Stream
from loan_assets_tests.kill_drill import told_to

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLIENT, MONTH = 7, "2005-10"
EVENT = {
    "event_id": "october",
    "client_id": CLIENT,
    "month": MONTH,
    "known_at": "2005-10-31T09:30:00Z",
    "pay_status": 2,
    "bill_amount": 350_000.0,
    "payment_amount": 0,
}


def push(stream: Stream) -> dict[str, Any]:
    """The event is sent."""
    return stream.take([EVENT], NOW).facts()


def seen(stream: Stream) -> dict[str, Any]:
    """What the record, the endpoint's table and Feast's online store hold of the client."""
    feast = stream.features.read_online([CLIENT], stream.book)[list(stream.book.feature_names)].to_numpy("float32")
    return {
        "events": len(stream.events.of_month(MONTH, stream.book)),
        "table": stream.online.table().of([CLIENT]).tobytes().hex(),
        "feast": np.ascontiguousarray(feast).tobytes().hex(),
    }


def warm_up(stream: Stream) -> None:
    """Load everything that a push needs."""
    seen(stream)
    push(stream)


def _over(home: Path, work: Callable[[Stream], Any]) -> Any:
    return work(Stream.over(Settings.from_environment({"LOAN_HOME": str(home)})))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    told_to({work.__name__: partial(_over, place, work) for work in (push, seen)}, partial(_over, place, warm_up))
