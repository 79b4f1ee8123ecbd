"""Counters with names that a person can read on the runner's page.

Each is Beam's own metric, and is also kept in this process, where a progress line can read it
while a runner in the same process is still busy.
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


def count(name: str, by: int = 1) -> None:
    """Adds to a counter, e.g. `images.invalid.not_jpeg`. Called in a bundle's own thread."""
    _metric(name).inc(by)
    with _lock:
        _here[name] += by


def counted_here() -> Counter[str]:
    """What was counted in this process so far."""
    with _lock:
        return Counter(_here)


def counted(result: PipelineResult) -> Counter[str]:
    """What a job has counted, on all its machines."""
    query = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    totals: Counter[str] = Counter()
    for one in query["counters"]:
        totals[one.key.metric.name] += one.result or 0
    return totals
