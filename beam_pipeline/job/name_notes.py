"""Notes on the names of images in the summary of a job."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from beam_pipeline.inputs.name_checks import input_top
from beam_pipeline.inputs.name_survey import (
    describe_local_times,
    local_times,
    options_for,
    read_as_utc,
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
        return lines
    except Exception:  # What is for people must not fail a job that is done.
        return []


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
