"""Shared parts of the unbounded sources: splittable DoFns whose state is their restriction.

Such a source polls for new data, claims its new state, and defers the rest until its next poll. So
its state is small, and the runner checkpoints it together with all other state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider, WatermarkEstimatorProvider
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.records.codecs import VersionedCoder
from transforms.records.times import canonical_time, from_unix

GRACE_SECONDS = 10.0
"""How far event time stays behind the clock: about what an image takes to arrive."""

EVENT_TIME_CODER: VersionedCoder[Timestamp | None] = VersionedCoder(
    int | None,
    pack=lambda reached: None if reached is None else reached.micros,
    unpack=lambda micros: None if micros is None else Timestamp(micros=micros),
)
"""Writes how far event time has come, or None where it has not begun."""

_ROUNDING_SECONDS = 0.2
"""Flink's runner cuts a pause to whole seconds, and a little is gone when it hears of it."""


def defer_duration(seconds: float) -> Duration:
    """Returns for how long to defer the rest, so that the runner pauses about that long."""
    return Duration(seconds + _ROUNDING_SECONDS if seconds else 0)


class UnboundedTracker(RestrictionTracker):
    """Claims one state of a source after the other, without end."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def current_restriction(self) -> Any:
        return self._state

    def try_claim(self, position: Any) -> bool:
        if self._state is None:
            return False
        self._state = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[None, Any] | None:
        if fraction_of_remainder != 0 or self._state is None:
            return None  # One reader looks at the whole input.
        rest, self._state = self._state, None
        return None, rest

    def current_progress(self) -> RestrictionProgress:
        return RestrictionProgress(completed=0, remaining=1)

    def check_done(self) -> None:
        if self._state is not None:
            raise ValueError("the source is unbounded, and did not say when to continue")

    def is_bounded(self) -> bool:
        return False


class UnboundedProvider(RestrictionProvider):
    """Makes the trackers.

    Args:
      initial: The state of a source that knows nothing; not None.
      coder: Writes a state, or None where nothing is left of a source.
    """

    def __init__(self, initial: Any, coder: beam.coders.Coder) -> None:
        self._initial = initial
        self._coder = coder

    def initial_restriction(self, element: Any) -> Any:
        return self._initial

    def create_tracker(self, restriction: Any) -> UnboundedTracker:
        return UnboundedTracker(restriction)

    def restriction_size(self, element: Any, restriction: Any) -> int:
        return 1

    def restriction_coder(self) -> beam.coders.Coder:
        return self._coder

    def truncate(self, element: Any, restriction: Any) -> None:
        """Nothing is left of the source when a job is drained."""


class EventTimeProvider(WatermarkEstimatorProvider):
    """Keeps how far event time has come in a source; it has not begun in a new one."""

    def initial_estimator_state(self, element: Any, restriction: Any) -> Timestamp | None:
        return None

    def create_watermark_estimator(self, event_time: Timestamp | None) -> ManualWatermarkEstimator:
        return ManualWatermarkEstimator(event_time)

    def estimator_state_coder(self) -> beam.coders.Coder:
        return EVENT_TIME_CODER


class PollingDoFn(beam.DoFn):
    """A step that polls a source for as long as the job runs.

    Args:
      source: The address that is polled, for messages.
      poll_seconds: Seconds between two polls.
      clock: Gives Unix time in seconds.

    Raises:
      ValueError: `poll_seconds` is not more than 0.
    """

    def __init__(self, source: str, poll_seconds: float, clock: Callable[[], float]) -> None:
        if poll_seconds <= 0:
            raise ValueError(f"poll_seconds is {poll_seconds}; it must be more than 0")
        self._source = source
        self._poll_seconds = poll_seconds
        self._clock = clock

    def _defer(self, tracker: Any, seconds: float | None = None) -> None:
        """Ends this poll; the next one follows after a pause, by default that between two polls."""
        tracker.defer_remainder(defer_duration(self._poll_seconds if seconds is None else seconds))


def event_time_of(estimator: Any) -> str | None:
    """Returns how far event time has come by an estimator, canonical; None: it has not begun."""
    reached = estimator.current_watermark()
    return None if reached is None else canonical_time(from_unix(float(reached)))


def advance_event_time(estimator: Any, until: float) -> None:
    """Sets event time to shortly before a time, and never back.

    Args:
      estimator: Keeps event time.
      until: Unix time in seconds up to which the source has emitted all that there was.
    """
    reached = estimator.current_watermark()
    new = Timestamp(until - GRACE_SECONDS)
    estimator.set_watermark(new if reached is None else max(new, reached))
