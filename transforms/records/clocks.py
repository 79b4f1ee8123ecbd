"""Capture times that are not to be trusted, as of a camera that has lost its clock.

A camera without a battery begins again at a fixed time when its power fails: 1970, 2000, or the
beginning of a year that its maker has chosen.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

FIRST_CREDIBLE = datetime(2010, 1, 1, tzinfo=timezone.utc)
"""No image has an earlier capture time."""
LEAST_DELAY = timedelta(days=365)
"""A later capture time is taken for wrong only if the image arrived so much later."""
SINCE_NEW_YEAR = timedelta(hours=48)
"""A clock seems to have been reset if it began with a year, no longer ago."""
LARGEST_OFFSET = timedelta(hours=14)
"""A year may begin so much earlier or later in the camera's zone than in UTC."""


def is_misdated(capture_time: datetime, arrived: datetime | None = None) -> bool:
    """Whether a capture time is not to be trusted.

    It is not if it is before 2010, or more than a year before the image arrived. A clock that fell
    back, and an image of an archive that was copied anew, look the same.

    Args:
      capture_time: The capture time (UTC).
      arrived: When the image arrived (UTC); None if that is unknown.
    """
    return capture_time < FIRST_CREDIBLE or (
        arrived is not None and arrived - capture_time > LEAST_DELAY
    )


def seems_reset(capture_time: datetime, now: datetime | None = None) -> bool:
    """Whether a capture time is one at which a camera begins that has lost its clock, where nothing
    says when the image arrived.

    It is if it is before 2010, or if it lies in the first two days of a year and more than a year
    ago.

    Args:
      capture_time: The capture time (UTC).
      now: The time (UTC) at which the camera would still send; None if that is unknown.
    """
    if capture_time < FIRST_CREDIBLE:
        return True
    if not is_misdated(capture_time, now):
        return False
    return any(
        -LARGEST_OFFSET <= capture_time - datetime(year, 1, 1, tzinfo=timezone.utc) < SINCE_NEW_YEAR
        for year in (capture_time.year, min(capture_time.year + 1, datetime.max.year))
    )
