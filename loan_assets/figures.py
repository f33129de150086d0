"""A figure as Prometheus reads it: a name with its unit, what it says, and a value for each combination of labels.

Here: its two forms, and the page of many. Not here: any figure of the platform (`platform_metrics` and below it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

By = Mapping[tuple[str, ...], float]


def gauge(name: str, said: str, value: float) -> Metric:
    """A figure that goes up and down."""
    return GaugeMetricFamily(name, said, value=value)


def gauges(name: str, said: str, labels: Sequence[str], values: By) -> Metric:
    """The same by labels, the values of each in the order of their names."""
    return _labelled(GaugeMetricFamily(name, said, labels=labels), values)


def counters(name: str, said: str, labels: Sequence[str], values: By) -> Metric:
    """What only grows, by labels; its samples are called `name`_total."""
    return _labelled(CounterMetricFamily(name, said, labels=labels), values)


def page(figures: Iterable[Metric]) -> bytes:
    """The text that a scrape is answered with."""
    return bytes(generate_latest(_Collected(figures)))


def _labelled(family: Metric, values: By) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


class _Collected:
    def __init__(self, figures: Iterable[Metric]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield from self._figures
