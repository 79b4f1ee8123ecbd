"""What sources share that never end: splittable DoFns whose state is their restriction.

Such a source looks for what is new, claims what it then knows, and defers the rest until its next
look. So its state is small, and is kept by the runner with all else.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration

GRACE_SECONDS = 10.0
"""How far event time stays behind the clock: about what a picture takes to arrive."""

_ROUNDING_SECONDS = 0.2
"""Flink's runner cuts a pause to whole seconds, and a little is gone when it hears of it."""


def pause_of(seconds: float) -> Duration:
    """For how long to defer the rest, so that the runner pauses about that long."""
    return Duration(seconds + _ROUNDING_SECONDS if seconds else 0)


class EndlessTracker(RestrictionTracker):
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
            raise ValueError("the source never ends, and was left without a word of when to go on")

    def is_bounded(self) -> bool:
        return False


class EndlessProvider(RestrictionProvider):
    """Makes the trackers.

    Args:
      initial: The state of a source that has seen nothing; not None.
      coder: Writes a state, or None where nothing is left of a source.
    """

    def __init__(self, initial: Any, coder: beam.coders.Coder) -> None:
        self._initial = initial
        self._coder = coder

    def initial_restriction(self, element: Any) -> Any:
        return self._initial

    def create_tracker(self, restriction: Any) -> EndlessTracker:
        return EndlessTracker(restriction)

    def restriction_size(self, element: Any, restriction: Any) -> int:
        return 1

    def restriction_coder(self) -> beam.coders.Coder:
        return self._coder

    def truncate(self, element: Any, restriction: Any) -> None:
        """Nothing is left of the source when a job is drained."""
