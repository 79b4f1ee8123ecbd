"""Surveys the names of an input: which preset reads how many of them, and as what."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import rules
from rules.local_offsets import Pair, offset_text, seen_offset, zone_for
from transforms.records.file_names import InvalidNameError, read_timestamp, split_name
from transforms.records.images import ImageFile
from transforms.records.received_names import path_below, read_name
from transforms.records.text import printable
from transforms.records.times import from_unix

EXAMPLES = 3
_ENDINGS = (".jpg", ".jpeg")
_IMAGES_WITH_SHAPES = 20_000


@dataclass(frozen=True)
class Image:
    """A file of the input that may be an image.

    Attributes:
      path: Its path below the input.
      changed: When it was written, in Unix time; None if unknown.
    """

    path: str
    changed: float | None = None


@dataclass(frozen=True)
class Read:
    """One image as a way of naming reads it.

    Attributes:
      image: The image.
      id: The camera's id.
      time: The capture time in UTC.
      has_offset: Whether the name itself says its offset from UTC.
    """

    image: Image
    id: str
    time: datetime
    has_offset: bool


@dataclass
class WayOfNaming:
    """What one way of naming reads.

    Attributes:
      settings: The preset or pattern, and the time zone.
      reads: What it reads, in the order of the input.
    """

    settings: rules.NameSettings
    reads: list[Read] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Its name in a table."""
        return self.settings.preset or ("pattern" if self.settings.pattern else "canonical")

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """The ids of the cameras, sorted."""
        return tuple(sorted({read.id for read in self.reads}))

    def examples(self) -> list[Read]:
        """Returns a few reads, of different cameras as far as there are."""
        firsts = {read.id: read for read in reversed(self.reads)}
        chosen = sorted(firsts.values(), key=lambda read: read.image.path)
        others = [read for read in self.reads if read is not firsts[read.id]]
        return [*chosen, *others][:EXAMPLES]


@dataclass(frozen=True)
class Survey:
    """The names of an input.

    Attributes:
      images: Files whose names end as those of JPEGs.
      others: How many other files there are.
      ways: Every way of naming, the canonical one first.
    """

    images: Sequence[Image]
    others: int
    ways: Sequence[WayOfNaming]

    def chosen(self) -> list[WayOfNaming]:
        """Returns the ways of naming that together read all that can be read: each reads most of
        what those before it do not read.
        """
        canonical, *others = ((way, {read.image.path for read in way.reads}) for way in self.ways)
        rest = {image.path for image in self.images} - canonical[1]  # They are read in any case.
        chosen: list[WayOfNaming] = []
        while True:
            best, paths = max(others, key=lambda other: len(rest & other[1]))
            if not rest & paths:
                return chosen
            chosen.append(best)
            rest -= paths

    def unread(self) -> list[Image]:
        """Returns the images that no way of naming reads."""
        read = {read.image.path for way in self.ways for read in way.reads}
        return [image for image in self.images if image.path not in read]


def survey(
    files: Iterable[ImageFile],
    top: str | None,
    timezone: str | None = None,
    pattern: str | None = None,
) -> Survey:
    """Reads the names of files by every preset.

    Args:
      files: The files.
      top: The folder of the input.
      timezone: The time zone of times without an offset; None for UTC.
      pattern: A pattern that is tried too.
    """
    images, others = [], 0
    for file in files:
        if file.name.lower().endswith(_ENDINGS):
            images.append(Image(path_below(file.uri, top), file.changed))
        else:
            others += 1
    forms = [rules.NameForm()]
    forms += [rules.NameForm(pattern=pattern)] if pattern is not None else []
    forms += [rules.NameForm(preset) for preset in rules.PRESETS]
    ways = [WayOfNaming(rules.NameSettings(form.preset, form.pattern, timezone)) for form in forms]
    for way in ways:
        names = rules.Names(way.settings)
        for image in images:
            read = _read(image, names, or_canonical=not way.settings.form)
            if read is not None:
                way.reads.append(read)
    return Survey(images, others, ways)


def read_as_utc(files: Iterable[ImageFile], top: str | None, names: rules.Names) -> list[Read]:
    """Returns what a job reads in names without an offset, of cameras that have no time zone.

    Args:
      files: The files.
      top: The folder of the input.
      names: How names are read.
    """
    return [
        read
        for read in read_names(files, top, names)
        if not read.has_offset and names.for_camera(read.id).timezone is None
    ]


def read_names(files: Iterable[ImageFile], top: str | None, names: rules.Names) -> Iterator[Read]:
    """Yields what a job reads in the names of files, as far as it can read them.

    Args:
      files: The files.
      top: The folder of the input.
      names: How names are read.
    """
    for file in files:
        image = Image(path_below(file.uri, top), file.changed)
        read = _read(image, names, or_canonical=True)
        if read is not None:
            yield read


def _read(image: Image, names: rules.Names, *, or_canonical: bool) -> Read | None:
    try:
        found = names.find(image.path)
        if found is not None:
            has_offset = found.match.offset is not None
        elif or_canonical:
            _, timestamp = split_name(image.path.rsplit("/", 1)[-1])
            has_offset = read_timestamp(timestamp)[1] is not None
        else:
            return None
        id, time = read_name(image.path, names, image.changed)
    except (InvalidNameError, rules.AmbiguousNameError):
        return None
    return Read(image, id, time, has_offset)


def local_times(reads: Iterable[Read]) -> dict[str, tuple[timedelta, str | None]]:
    """Returns the offset that the times of a camera's names seem to have, and a zone that fits.

    Args:
      reads: Images, with their names read as UTC.
    """
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for read in reads:
        if read.image.changed is not None:
            pairs[read.id].append((read.time, from_unix(read.image.changed)))
    found = {}
    for id, times in sorted(pairs.items()):
        offset = seen_offset(times)
        if offset is not None:
            found[id] = offset, zone_for(times)
    return found


def describe_local_times(found: Mapping[str, tuple[timedelta, str | None]]) -> list[str]:
    """Returns a line for each offset that the names of some cameras seem to have."""
    by_offset: dict[tuple[timedelta, str | None], list[str]] = defaultdict(list)
    for id, offset_and_zone in found.items():
        by_offset[offset_and_zone].append(id)
    lines = []
    for (offset, zone), ids in by_offset.items():
        shown = ", ".join(ids[:EXAMPLES]) + (f" and {len(ids) - EXAMPLES} more" * (len(ids) > 3))
        option = f"--timezone {zone}" if zone is not None else "give --timezone"
        lines.append(f"names of {shown} seem to be local time ({offset_text(offset)}): {option}")
    return lines


def shapes(images: Iterable[Image]) -> list[str]:
    """Returns the most frequent kinds of paths, digits written as `#`, with how many there are."""
    kinds: Counter[str] = Counter()
    for image in list(images)[:_IMAGES_WITH_SHAPES]:
        kinds[re.sub("[0-9]", "#", image.path)] += 1
    return [f"{printable(kind)} ({number})" for kind, number in kinds.most_common(EXAMPLES)]


def options_for(way: WayOfNaming) -> str:
    """Returns the options by which a job reads names in this way."""
    settings = way.settings
    option = ""
    if settings.preset is not None:
        option = f"--name_preset {settings.preset}"
    elif settings.pattern is not None:
        option = f"--name_pattern '{settings.pattern}'"
    if settings.timezone is not None:
        option += f" --timezone {settings.timezone}"
    return option.strip()
