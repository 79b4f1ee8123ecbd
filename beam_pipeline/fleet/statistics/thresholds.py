"""What asks for a finding: rates of false ones, and how large a difference must be to matter."""

from __future__ import annotations

RATE = 0.01
"""The false discovery rate of each kind on a day with a look in every hour."""
LOOK_RATE = 0.002
"""The rate of a single look that keeps it: 24 looks a day find about five times as much."""
MIN_PERIODS, MAX_PERIODS = 4, 28
"""The minimum and maximum number of comparable earlier periods that are used."""
SILENT_SHARE, MIN_EXPECTED = 0.25, 3.0
"""A camera is silent only with at most this share of the images that were expected, and only if so
many were."""
MIN_GAPS, MIN_REFUSED, MIN_RUN = 10, 5, 10
"""The minimum number of gaps between images, of refused images, and of images in a run."""
HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
"""In seconds."""
