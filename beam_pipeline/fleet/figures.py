"""What each camera sent in a period, and what is usual for it: findings or none.

for camera in figures(observed, ids, since=since, until=until):
    print(camera.id, camera.whole.seen, camera.whole.expected)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from beam_pipeline.fleet.statistics.histories import (
    NO_SHIFT,
    CameraHistory,
    TimeSpan,
    camera_histories,
)
from beam_pipeline.fleet.statistics.observations import LookedAtImage, Observations
from transforms.records.times import canonical_time, from_unix

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
LONGEST_BY_HOUR = timedelta(days=2)
"""A longer period is divided into days."""
MOST_WINDOWS = 400
"""A period of more days is divided into windows of as few weeks as give no more windows."""


@dataclass(frozen=True)
class Figures:
    """The figures of a camera in one window of time.

    Attributes:
      start: The start of the window (UTC).
      end: Its end, exclusive.
      expected: Images that are usual for it at these hours, or that the command line asks for; None
        if its past is too short.
      seen: Images that came, invalid and late ones too.
      images: The valid ones of them.
      invalid: The share of invalid and late images by reason, of all that came.
      brightness: The median of its images; None if none was measured.
      sharpness: The same.
      threat_share: The share of its valid images that show a threat; None without images.
      usual_threat_share: What that share usually is at these hours; None as for `expected`.
    """

    start: datetime
    end: datetime
    expected: float | None
    seen: int
    images: int
    invalid: Mapping[str, float]
    brightness: float | None
    sharpness: float | None
    threat_share: float | None
    usual_threat_share: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as a JSON object; the keys in a fixed order."""
        return {
            "start": canonical_time(self.start),
            "end": canonical_time(self.end),
            "expected": self.expected,
            "seen": self.seen,
            "images": self.images,
            "invalid": dict(self.invalid),
            "brightness": self.brightness,
            "sharpness": self.sharpness,
            "threat_share": self.threat_share,
            "usual_threat_share": self.usual_threat_share,
        }


@dataclass(frozen=True)
class CameraFigures:
    """The figures of one camera.

    Attributes:
      id: The camera.
      whole: Those of the whole period.
      windows: Those of each hour of the period, of each day if it is longer than two days, or of
        each week or several. Of a period of more than `MOST_WINDOWS` days, the days before the
        first and after the last image of any camera are left out.
    """

    id: str
    whole: Figures
    windows: tuple[Figures, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as a JSON object; the keys in a fixed order."""
        windows = [window.to_json() for window in self.windows]
        return {"id": self.id, **self.whole.to_json(), "windows": windows}


def figures(
    observed: Observations, ids: Iterable[str], *, since: datetime, until: datetime
) -> list[CameraFigures]:
    """Returns the figures of each camera in a period.

    Args:
      observed: The fleet, in the period and as long before it as there is.
      ids: The cameras.
      since: The start of the period (UTC).
      until: Its end, exclusive.
    """
    period = TimeSpan(since.timestamp(), until.timestamp())
    histories = {history.id: history for history in camera_histories(observed, period)}
    windows = _divided(_span_of_windows(histories.values(), period))
    return [
        _camera_figures(
            id,
            histories.get(id),
            observed.images.get(id, ()),
            observed.expected.get(id),
            period,
            windows,
        )
        for id in sorted(ids)
    ]


def _span_of_windows(histories: Iterable[CameraHistory], period: TimeSpan) -> TimeSpan | None:
    """Returns what is divided: the period, or the days of a long one from its first image to its
    last; None if it has none."""
    day = DAY.total_seconds()
    if period.end - period.start <= MOST_WINDOWS * day:
        return period
    spans = [span for history in histories if (span := history.arrived.span(period)) is not None]
    if not spans:
        return None
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    return TimeSpan(max(first // day * day, period.start), min((last // day + 1) * day, period.end))


def _divided(span: TimeSpan | None) -> list[TimeSpan]:
    if span is None:
        return []
    length = timedelta(seconds=span.end - span.start)
    if length <= LONGEST_BY_HOUR:
        step = HOUR
    elif length <= MOST_WINDOWS * DAY:
        step = DAY
    else:
        step = -(-length // (MOST_WINDOWS * WEEK)) * WEEK
    starts = np.arange(span.start, span.end, step.total_seconds()).tolist()
    return [TimeSpan(start, min(start + step.total_seconds(), span.end)) for start in starts]


def _camera_figures(
    id: str,
    history: CameraHistory | None,
    images: Sequence[LookedAtImage],
    expected_an_hour: float | None,
    period: TimeSpan,
    windows: Sequence[TimeSpan],
) -> CameraFigures:
    times = np.array([image.capture_time.timestamp() for image in images])
    whole, *others = (
        _figures(
            history,
            images[slice(*np.searchsorted(times, np.array(window)).tolist())],
            expected_an_hour,
            window,
        )
        for window in (period, *windows)
    )
    return CameraFigures(id, whole, tuple(others))


def _figures(
    history: CameraHistory | None,
    images: Sequence[LookedAtImage],
    expected_an_hour: float | None,
    window: TimeSpan,
) -> Figures:
    seen = valid = 0
    expected = threat_share = usual_share = None
    invalid = {}
    if history is not None:
        seen, valid, threats = (
            int(series.within(window, NO_SHIFT)[0])
            for series in (history.arrived, history.images, history.threats)
        )
        threat_share = threats / valid if valid else None
        refused = {
            reason: int(series.within(window, NO_SHIFT)[0])
            for reason, series in sorted(history.refused.items())
        }
        invalid = {reason: _rounded(number / seen) for reason, number in refused.items() if number}
        back = history.shifts(window)
        if len(back):
            expected = float(history.arrived.within(window, back).mean())
            past, past_threats = (
                float(series.within(window, back).sum())
                for series in (history.images, history.threats)
            )
            usual_share = past_threats / past if past else None
    if expected_an_hour is not None:
        expected = expected_an_hour * (window.end - window.start) / HOUR.total_seconds()
    return Figures(
        from_unix(window.start),
        from_unix(window.end),
        _optional(expected),
        seen,
        valid,
        invalid,
        _median([image.brightness for image in images]),
        _median([image.sharpness for image in images]),
        _optional(threat_share),
        _optional(usual_share),
    )


def _median(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return _rounded(float(np.median(measured))) if measured else None


def _optional(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    return round(value, 4)
