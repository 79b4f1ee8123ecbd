"""The command ``names check``: what the names of an input look like, for a person."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import align
from beam_pipeline.inputs import paths
from beam_pipeline.inputs.name_checks import NameConflictError, check_paths, input_top
from beam_pipeline.inputs.name_survey import (
    EXAMPLES,
    Survey,
    WayOfNaming,
    describe_local_times,
    local_times,
    options_for,
    shapes,
    survey,
)
from beam_pipeline.inputs.preflight import check_readable
from beam_pipeline.sources.listing import list_images
from transforms.records.text import one_line, printable
from transforms.records.times import canonical_time

MAX_FILES = 100_000
_MAX_CAMERAS = 20


def check(source: str, timezone: str | None, pattern: str | None, *, follow_links: bool) -> str:
    """Returns how the names of an input can be read.

    Args:
      source: A file, directory or glob, on any filesystem.
      timezone: The time zone of times without an offset; None for UTC.
      pattern: A pattern that is tried beside the presets.
      follow_links: Whether links are followed, as for the job.

    Raises:
      SetupError: There is nothing to read, or it can't be listed.
    """
    source = paths.absolute("names check", source)
    check_readable("names check", source)
    try:
        listed = list_images(source, follow_links=follow_links)
        files = list(itertools.islice(listed, MAX_FILES))
        more = next(listed, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        files, more = [], False
    except OSError as error:
        raise SetupError(f"names check {source}: can't be listed ({one_line(error)})") from None
    if not files:
        raise SetupError(
            f"names check {source}: no file there; give the folder to which cameras write"
        )
    found = survey(files, input_top(source), timezone, pattern)
    lines = [f"{source}: {len(files)} files{' and more, which were not looked at' * more}"]
    if found.others:
        lines.append(f"{found.others} of them do not end in .jpg or .jpeg, and are bad_name")
    lines += _describe(found, timezone)
    return "\n".join(lines) + "\n"


def _describe(found: Survey, timezone: str | None) -> Iterator[str]:
    rows = [("names", "images", "cameras")]
    rows += [
        (way.label, str(len(way.reads)), str(len(way.cameras))) for way in found.ways if way.reads
    ]
    if len(rows) > 1:
        yield ""
        yield from align(rows)
    canonical, chosen, unread = found.ways[0], found.chosen(), found.unread()
    shown = [canonical, *chosen] if canonical.reads else chosen
    for way in shown:
        yield ""
        yield f"{way.label}:"
        yield from align(
            [
                (f"  {printable(read.image.path)}", read.id, canonical_time(read.time))
                for read in way.examples()
            ],
            left=2,
        )
    if unread:
        yield ""
        yield f"not read: {len(unread)} images, named like (# is a digit)"
        yield from (f"  {shape}" for shape in shapes(unread))
    yield from _conflicts(chosen)
    yield ""
    yield from _advice(canonical, found.ways[1:], chosen, bool(unread))
    yield from _time_zone(shown, timezone)


def _conflicts(chosen: list[WayOfNaming]) -> Iterator[str]:
    """Yields what would keep a job from starting with the options that are proposed."""
    for way in chosen:
        try:
            check_paths((read.image.path for read in way.reads), rules.Names(way.settings))
        except NameConflictError as error:
            yield ""
            yield f"{way.label}: {error}"


def _advice(
    canonical: WayOfNaming,
    others: Sequence[WayOfNaming],
    chosen: list[WayOfNaming],
    has_unread: bool,
) -> Iterator[str]:
    if len(chosen) == 1:
        yield f"options: {options_for(chosen[0])}"
    elif chosen:
        yield "there are several ways of naming; write them into the rule file:"
        yield f"  names: {{{_setting(chosen[0])}}}"
        yield "  cameras:"
        for way in chosen[1:]:
            for id in way.cameras[:_MAX_CAMERAS]:
                yield f"    {id}: {{names: {{{_setting(way)}}}}}"
            if len(way.cameras) > _MAX_CAMERAS:
                yield f"    # and {len(way.cameras) - _MAX_CAMERAS} more cameras of {way.label}"
    elif canonical.reads:
        yield "options: none are needed for the names"
        yield from _other_reading(canonical, others)
    if has_unread:
        yield (
            "for names that are not read, write a pattern, such as --name_pattern "
            "'{camera}/{time:%Y-%m-%d}/*_{time:%H%M%S}.jpg' (docs/names.md)"
        )


def _other_reading(canonical: WayOfNaming, others: Sequence[WayOfNaming]) -> Iterator[str]:
    """Names such as `Garage_00_20260131175217.jpg` are canonical, and a maker's too."""
    for way in others:
        if len(way.reads) == len(canonical.reads) and way.cameras != canonical.cameras:
            cameras = ", ".join(way.cameras[:EXAMPLES])
            yield (
                f"{way.settings.form} reads them too, with the cameras {cameras}: "
                f"{options_for(way)}"
            )
            return


def _setting(way: WayOfNaming) -> str:
    settings = way.settings
    return f"preset: {settings.preset}" if settings.preset else f"pattern: '{settings.pattern}'"


def _time_zone(shown: list[WayOfNaming], timezone: str | None) -> Iterator[str]:
    without = [read for way in shown for read in way.reads if not read.has_offset]
    if timezone is not None or not without:
        return
    seeming = describe_local_times(local_times(without))
    yield from seeming
    if not seeming:
        yield (
            "times without an offset are read as UTC; if they are local time, add --timezone, "
            "such as --timezone Europe/Berlin"
        )
