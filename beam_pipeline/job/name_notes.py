"""Notes on the names of images in the summary of a job."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator

from beam_pipeline.inputs.name_checks import input_top
from beam_pipeline.inputs.name_survey import (
    describe_local_times,
    local_times,
    options_for,
    read_as_utc,
    read_names,
    survey,
)
from beam_pipeline.job.preparation import Job
from beam_pipeline.sources.listing import list_images
from transforms.records import reasons
from transforms.records.images import ImageFile
from transforms.records.text import printable
from transforms.storage import stores

_SURVEYED = 2_000
_COMPARED = 10_000


def name_notes(job: Job, counts: Counter[str]) -> list[str]:
    """Returns lines for a person: that most names can't be read, or that they are in local time.

    The input is listed once more, as far as is needed. One that can't be listed any more has no
    lines.

    Args:
      job: The job.
      counts: The counters of all its steps.
    """
    unusable = sum(counts[f"images.invalid.{reason}"] for reason in reasons.OF_NAMES)
    try:
        lines = []
        if unusable * 2 > counts["images.found"]:
            lines.append(_unusable(job, unusable, counts["images.found"]))
        if stores.is_local(job.input):  # Only there the times of files cost nothing.
            lines += _local_times(job)
            lines += _other_cameras(job)
        return lines
    except Exception:  # What is for people must not fail a job that is done.
        return []


def schedules_in_utc(job: Job) -> str | None:
    """Returns a line for a person if `--timezone` is given, and schedules are in UTC nevertheless.

    The rule file alone says by which clock it judges, as later commands do not know the option.
    """
    ruleset, zone = job.rules.current, job.options.timezone
    cameras = {"any other camera": ruleset.defaults, **ruleset.by_camera}
    affected = [
        id
        for id, camera in cameras.items()
        if (camera.schedule is not None or camera.night is not None)
        and "timezone" not in camera.origins
        and camera.names.timezone is None
    ]
    if zone in (None, "UTC") or not affected:
        return None
    others = f" and {len(affected) - 1} more" if len(affected) > 1 else ""
    return (
        f"{job.rules_source}: the schedule or night of {affected[0]}{others} is in UTC, as the "
        f"rule file has no time zone for it; write `timezone: {zone}` under `defaults` if it is "
        "meant in local time"
    )


def _other_cameras(job: Job) -> list[str]:
    """Returns a line for each camera that the rule file seems to name in another way."""
    ruleset = job.rules.current
    named = {_folded(id): id for id in ruleset.cameras}
    top, names = input_top(job.input), ruleset.names(job.options.names)
    ids = {read.id for read in read_names(_listed(job, _COMPARED), top, names)}
    return [
        f"{id} is not in the rule file, so the defaults apply; did you mean {near}?"
        for id in sorted(ids)
        if not ruleset.has_camera(id) and (near := named.get(_folded(id)))
    ]


def _folded(id: str) -> str:
    return re.sub(r"[^a-z0-9]", "", id.casefold())


def _listed(job: Job, number: int) -> Iterator[ImageFile]:
    files = list_images(job.input, follow_links=job.options.follow_links)
    return itertools.islice(files, number)


def _unusable(job: Job, unusable: int, found_images: int) -> str:
    found = survey(_listed(job, _SURVEYED), input_top(job.input), job.options.timezone)
    canonical = {read.image.path for read in found.ways[0].reads}
    unread = [image for image in found.images if image.path not in canonical]
    text = f"{unusable} of {found_images} can't be read"
    if unread:
        text += f", such as {printable(unread[0].path)}"
    chosen = found.chosen()
    if len(chosen) == 1:
        text += f": {options_for(chosen[0])} reads them"
    elif chosen:
        each = " and ".join(options_for(way) for way in chosen)
        text += f": {each} each read some of them, which the rule file can set for each camera"
    else:
        text += ": write their form as --name_pattern (docs/names.md)"
    return f"{text}; `names check {job.input}` shows more"


def _local_times(job: Job) -> list[str]:
    names = job.rules.current.names(job.options.names)
    reads = read_as_utc(_listed(job, _COMPARED), input_top(job.input), names)
    return describe_local_times(local_times(reads))
