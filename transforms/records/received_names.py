"""File names as they are received: canonical ones, and those of a preset or pattern."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import rules
from transforms.records import reasons
from transforms.records.file_names import (
    InvalidNameError,
    parse_name,
    read_timestamp,
    split_name,
)
from transforms.records.text import printable

_WILDCARD = re.compile(r"[*?\[]")


def top_of(source: str) -> str:
    """Returns the folder of a store below which paths are matched against patterns.

    Args:
      source: An object, a directory or a glob; below a glob this is the folder before the first
        wildcard.
    """
    wildcard = _WILDCARD.search(source)
    if wildcard is None:
        return source.rstrip("/")
    return source[: wildcard.start()].rpartition("/")[0]


def path_below(uri: str, top: str | None) -> str:
    """Returns the path of a file below the input; its name if it is the input itself.

    Args:
      uri: The file's address.
      top: The folder of the input; None if it is unknown.
    """
    if top is not None:
        folder = top.rstrip("/") + "/"
        if uri.startswith(folder):
            return uri[len(folder) :]
    return uri.rsplit("/", 1)[-1]


def read_name(path: str, names: rules.Names, changed: float | None = None) -> tuple[str, datetime]:
    """Reads the camera's id and the capture time in UTC from a file's path.

    Presets and patterns come first; what none of them reads may be a canonical name.

    Args:
      path: The path below the input.
      names: How names are read.
      changed: When the file was last changed, in Unix time, for a local time that occurs twice;
        None if that is unknown.

    Raises:
      InvalidNameError: The name is invalid.
    """
    name = path.rsplit("/", 1)[-1]
    if names.is_canonical:
        return parse_name(name)
    try:
        found = names.find(path)
    except rules.AmbiguousNameError as error:
        raise InvalidNameError(reasons.BAD_NAME, printable(str(error))) from None
    if found is None:
        return _read_canonical(name, names, changed)
    match = found.match
    if match.local is None:
        raise InvalidNameError(
            reasons.BAD_TIMESTAMP, f"the time in {printable(name)!r} is no moment: {match.problem}"
        )
    return found.id, _in_utc(match.local, match.offset, found.settings.zone, changed, name)


def _read_canonical(name: str, names: rules.Names, changed: float | None) -> tuple[str, datetime]:
    try:
        camera, text = split_name(name)
        local, zone = read_timestamp(text)
    except InvalidNameError as error:
        if not names.forms or error.detail.endswith(".jpeg"):
            raise
        forms = " or ".join(map(str, names.forms[:3]))
        raise InvalidNameError(
            error.reason, f"{forms} does not fit its path, and {error.detail}"
        ) from None
    settings = names.for_camera(camera)
    if zone is not None and not settings.form:
        return parse_name(name)
    offset = None if zone is None else _offset_of(zone)
    return camera, _in_utc(local, offset, settings.zone, changed, name)


def _offset_of(zone: str) -> timedelta:
    digits = re.sub("[^0-9]", "", zone).ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if zone.startswith("-") else offset


def _in_utc(
    local: datetime, offset: timedelta | None, zone: str, changed: float | None, name: str
) -> datetime:
    try:
        if offset is not None:
            return (local - offset).replace(tzinfo=timezone.utc)
        return rules.choose_moment(rules.moments(local, zone), changed)
    except OverflowError:
        raise InvalidNameError(
            reasons.BAD_TIMESTAMP,
            f"the time in {printable(name)!r} is before the year 1 or after 9999 in UTC",
        ) from None
