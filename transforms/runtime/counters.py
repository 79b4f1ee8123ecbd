"""Counters with names that a person can read on the runner's page.

Each counter is a metric of Beam. Its value is also kept in this process, so that a progress line
can read it while a runner in the same process is busy.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter

from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.runner import PipelineResult

NAMESPACE = "threats"

_lock = threading.Lock()
_here: Counter[str] = Counter()


@functools.cache
def _metric(name: str) -> Metrics.DelegatingCounter:
    return Metrics.counter(NAMESPACE, name)


def count(name: str, amount: int = 1) -> None:
    """Adds to a counter, e.g. `images.invalid.not_jpeg`. Called in the bundle's own thread."""
    _metric(name).inc(amount)
    with _lock:
        _here[name] += amount


def counted_here() -> Counter[str]:
    """Returns the counts of this process so far."""
    with _lock:
        return Counter(_here)


def counted(result: PipelineResult) -> Counter[str]:
    """Returns the counts of a job, over all its machines."""
    query = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    totals: Counter[str] = Counter()
    for counter in query["counters"]:
        totals[counter.key.metric.name] += counter.result or 0
    return totals
