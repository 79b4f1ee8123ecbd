"""Capture times that are plainly wrong, as of a camera that has lost its clock.

A camera without a battery begins again at a fixed time when its power fails: 1970, 2000, or the
beginning of a year that its maker has chosen.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

FIRST_CREDIBLE = datetime(2010, 1, 1, tzinfo=timezone.utc)
"""No image has an earlier capture time."""
LEAST_DELAY = timedelta(days=365)
"""A later capture time is plainly wrong only if the image arrived so much later."""
SINCE_NEW_YEAR = timedelta(hours=48)
"""And only if the camera's clock began with that year, no longer ago."""
LARGEST_OFFSET = timedelta(hours=14)
"""A year may begin so much earlier or later in the camera's zone than in UTC."""


def is_misdated(capture_time: datetime, arrived: datetime | None = None) -> bool:
    """Whether a capture time is plainly wrong.

    It is if it is before 2010, or if it lies in the first two days of a year and the image arrived
    more than a year later.

    Args:
      capture_time: The capture time (UTC).
      arrived: When the image arrived (UTC); None if that is unknown.
    """
    if capture_time < FIRST_CREDIBLE:
        return True
    if arrived is None or arrived - capture_time <= LEAST_DELAY:
        return False
    return any(
        -LARGEST_OFFSET <= capture_time - datetime(year, 1, 1, tzinfo=timezone.utc) < SINCE_NEW_YEAR
        for year in (capture_time.year, min(capture_time.year + 1, datetime.max.year))
    )
