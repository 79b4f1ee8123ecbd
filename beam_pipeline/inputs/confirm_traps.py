"""Cameras for which `confirm` is a trap: it asks for more images than their events have.

An event is a run of images of a camera of which none is later than the one before by more than
`confirm.within`: what a camera sends when something moves. If most events have fewer images than
`confirm.pictures`, nothing in them is ever a threat, however clearly it is seen.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median

import rules
from rules.effective import Confirm
from transforms.records.times import parse_time
from transforms.storage.archive import Archive


def confirm_traps(ruleset: rules.Rules, archive: Archive) -> list[str]:
    """Returns a line for each camera of an archive for which `confirm` is a trap.

    Args:
      ruleset: The rules.
      archive: The archive, which shows how many images an event of a camera has.

    Raises:
      OSError: A store can't be reached any more.
    """
    lines = []
    for id in archive.ids:
        camera = ruleset.for_camera(id)
        labels = _confirmed_labels(camera)
        is_refused = ruleset.strict_ids and not ruleset.has_camera(id)
        if camera.confirm is None or not labels or is_refused:
            continue
        times = sorted({parse_time(archived.image.timestamp) for archived in archive.images(id)})
        events = _events(times, camera.confirm.within)
        short = [event for event in events if not _can_confirm(event, camera.confirm)]
        if 2 * len(short) > len(events):
            lines.append(_line(id, camera.confirm, events, len(short), labels))
    return lines


def _confirmed_labels(camera: rules.CameraRules) -> list[str]:
    """Returns the labels of which some object needs confirmation."""
    confirm = camera.confirm
    at_least = 1.0 if confirm is None or confirm.unless_score is None else confirm.unless_score
    return sorted(
        {
            label
            for label, rule in camera.all_rules()
            if rule.confirm and rule.severity != "ignore" and rule.min_score < at_least
        }
    )


def _events(times: Iterable[datetime], gap: timedelta) -> list[list[datetime]]:
    events: list[list[datetime]] = []
    for time in times:
        if not events or time - events[-1][-1] > gap:
            events.append([])
        events[-1].append(time)
    return events


def _can_confirm(event: Sequence[datetime], confirm: Confirm) -> bool:
    return any(
        bisect_right(event, time + confirm.within) - bisect_left(event, time - confirm.within)
        >= confirm.pictures
        for time in event
    )


def _line(
    id: str,
    confirm: Confirm,
    events: Sequence[Sequence[datetime]],
    short: int,
    labels: Sequence[str],
) -> str:
    usual = median(map(len, events))
    seconds = confirm.within // timedelta(seconds=1)
    below = "" if confirm.unless_score is None else f" with scores below {confirm.unless_score:g}"
    return (
        f"confirm is a trap for {id}: it needs {confirm.pictures} images within {seconds}s, and "
        f"{short} of {len(events)} events in the archive have fewer (usually {usual:g} an event), "
        f"in which {', '.join(labels)}{below} can't be confirmed; set confirm: false for these "
        "labels, or confirm: {enabled: false} for the camera"
    )
