"""Finds cameras whose names seem to be in local time, from what an output holds of their images.

An output does not say by which options its names were read. So an image says something only if its
name has no offset, and was read as UTC: if the canonical form, or a preset, finds the stored time
in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

import rules
from beam_pipeline.inputs.name_survey import Image, Read, local_times
from transforms.records.file_names import InvalidNameError, read_timestamp, split_name
from transforms.records.images import DetectedImage
from transforms.records.times import parse_time
from transforms.storage import stores

OF_EACH_CAMERA = 100
"""Images of a camera of which the files are looked up."""

_FORMS = tuple(rules.NameForm(preset) for preset in rules.PRESETS)


def stored_local_times(
    images: Mapping[str, Sequence[DetectedImage]],
) -> dict[str, tuple[timedelta, str | None]]:
    """Returns the offset that the names of a camera seem to have, and a zone that fits, by id.

    The files of the newest `OF_EACH_CAMERA` images are looked up, if they are on a local disk.
    Nothing is said of a camera whose names have offsets, were read in a time zone, or are read by a
    pattern.

    Args:
      images: The images of each camera, in the order of time.
    """
    reads = (read for of_camera in images.values() for read in _reads(of_camera[-OF_EACH_CAMERA:]))
    return local_times(reads)


def _reads(images: Iterable[DetectedImage]) -> list[Read]:
    reads: list[Read] = []
    form: rules.NameForm | None = None
    for image in images:
        time = parse_time(image.timestamp)
        form = form if form is not None and _is_read_as_utc(form, image, time) else None
        form = form or _form_of(image, time)
        changed = _changed(image.uri)
        if form is not None and changed is not None:
            reads.append(Read(Image(image.uri, changed), image.id, time, has_offset=False))
    return reads


def _form_of(image: DetectedImage, time: datetime) -> rules.NameForm | None:
    forms = (rules.NameForm(), *_FORMS)
    return next((form for form in forms if _is_read_as_utc(form, image, time)), None)


def _is_read_as_utc(form: rules.NameForm, image: DetectedImage, time: datetime) -> bool:
    """Returns whether a form finds the stored time in a name that has no offset."""
    if form.preset is None:
        try:
            local, offset = read_timestamp(split_name(image.file)[1])
        except InvalidNameError:
            return False
        return offset is None and local.replace(tzinfo=timezone.utc) == time
    folders = image.uri.strip("/").split("/")
    for first in range(len(folders)):  # Where the input begins is not known.
        match = form.match("/".join(folders[first:]))
        if match is not None and match.local is not None:
            read_as_utc = match.local.replace(tzinfo=timezone.utc)
            return match.offset is None and read_as_utc == time
    return False


def _changed(uri: str) -> float | None:
    """Returns when a local file was last changed, in Unix time; None if it is not there."""
    if not uri or not stores.is_local(uri):
        return None
    try:
        return os.stat(uri).st_mtime
    except (OSError, ValueError):
        return None
