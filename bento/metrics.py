"""What Prometheus reads of the box: requests, waiting, rows, scores, swaps, the log; labels from closed lists only.

Here: the metrics and their page. Not here: what is counted where (`application`). With several workers the counts are
added up through PROMETHEUS_MULTIPROC_DIR, which BentoML sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

REGISTRY = CollectorRegistry()
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 10))

# Its count is the number of requests, by route and status.
LATENCY = Histogram("loan_request_seconds", "Time to answer", ("route", "status"), buckets=SECONDS, registry=REGISTRY)
WAITING = Gauge("loan_requests_in_flight", "Requests being answered", multiprocess_mode="livesum", registry=REGISTRY)
# Its count is the number of rows, by arm and decision.
SCORES = Histogram(
    "loan_default_probability",
    "Probabilities answered",
    ("arm", "decision"),
    buckets=PROBABILITIES,
    registry=REGISTRY,
)
SHADOWED = Counter(
    "loan_shadow_rows", "Rows scored in shadow, by whether it decided alike", ("agrees",), registry=REGISTRY
)
STALE = Counter("loan_stale_rows", "Rows asked for with features past their life", registry=REGISTRY)
REPEATS = Counter("loan_repeated_requests", "Requests answered from the record", registry=REGISTRY)
SWAPS = Counter("loan_swaps", "Releases swapped in", registry=REGISTRY)
REFUSED = Counter("loan_refused_releases", "Releases and online tables that were refused", registry=REGISTRY)
VERSION = Gauge(
    "loan_model_version",
    "Version by role, 0 where none stands",
    ("role",),
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SHARE = Gauge("loan_canary_share", "Share of clients a canary answers", multiprocess_mode="livemax", registry=REGISTRY)
BUILT_IN = Gauge(
    "loan_built_in_release", "1 where the box's own release answers", multiprocess_mode="livemax", registry=REGISTRY
)
BACKLOG = Gauge(
    "loan_log_backlog_bytes", "Log lines not yet forced to disk", multiprocess_mode="livesum", registry=REGISTRY
)
LOG_BYTES = Gauge("loan_log_bytes", "Size of the whole log", multiprocess_mode="livemax", registry=REGISTRY)
UNSHIPPED = Gauge(
    "loan_log_unshipped_bytes", "Log lines not yet in the bucket", multiprocess_mode="livemax", registry=REGISTRY
)
AWAY = Gauge(
    "loan_bucket_away",
    "1 where a bucket could not be used the last time",
    ("what",),
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
UNSYNCED = Counter("loan_log_sync_failures", "Times that the log could not be forced to disk", registry=REGISTRY)


@lru_cache(maxsize=512)
def latency_of(route: str, status: int) -> Histogram:
    """The histogram of one route and status, looked up once."""
    return LATENCY.labels(route, str(status))


@lru_cache(maxsize=16)
def scores_of(arm: str, decision: str) -> Histogram:
    """The histogram of one arm and decision, looked up once."""
    return SCORES.labels(arm, decision)


@contextmanager
def away(what: str) -> Iterator[None]:
    """Show whether what is done inside could use its bucket."""
    try:
        yield
    except Exception:
        AWAY.labels(what).set(1)
        raise
    AWAY.labels(what).set(0)


def page() -> bytes:
    """Every worker's metrics as Prometheus reads them."""
    if values.ValueClass is values.MutexValue:
        return bytes(generate_latest(REGISTRY))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return bytes(generate_latest(registry))


def forget_dead_workers() -> None:
    """Drop the gauges of workers that are gone; their counters stay counted."""
    place = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not place:
        return
    for name in os.listdir(place):
        worker = name.rpartition("_")[2].removesuffix(".db")
        if name.startswith("gauge_live") and worker.isdigit() and not os.path.exists(f"/proc/{worker}"):
            mark_process_dead(int(worker), place)
