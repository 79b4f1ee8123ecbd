"""Checks how the names of an input are read, before a job starts."""

from __future__ import annotations

from collections.abc import Iterable

import rules
from beam_pipeline.sources.folders import source_of
from transforms.records.images import ImageFile
from transforms.records.received_names import path_below, top_of
from transforms.records.text import printable
from transforms.storage import stores


class NameConflictError(ValueError):
    """Names that can't be read in one way only. Its text is one line for a person."""


def input_top(source: str) -> str:
    """Returns the folder of an input, below which paths are matched against patterns.

    Args:
      source: A file, directory or glob, on any filesystem.
    """
    return source_of(source).top if stores.is_local(source) else top_of(source)


def check_names(files: Iterable[ImageFile], source: str, names: rules.Names) -> None:
    """Checks that names are read in one way, and that no two cameras have one id.

    Args:
      files: The files of the input, or some of them.
      source: The input.
      names: How names are read.

    Raises:
      NameConflictError: Two presets or patterns read a name as different images, or the names of
        two cameras become one id.
    """
    top = input_top(source)
    check_paths((path_below(file.uri, top) for file in files), names)


def check_paths(paths: Iterable[str], names: rules.Names) -> None:
    """Does what :func:`check_names` does for paths below the input."""
    known: dict[str, tuple[tuple[str, int | None], str]] = {}
    for path in paths:
        try:
            found = names.find(path)
        except rules.AmbiguousNameError as error:
            raise NameConflictError(printable(f"{path}: {error}")) from None
        if found is None:
            continue
        camera = found.match.camera, found.match.channel
        first, first_path = known.setdefault(found.id, (camera, path))
        if camera != first:
            raise NameConflictError(
                printable(
                    f"{_name(first)} ({first_path}) and {_name(camera)} ({path}) would both be "
                    f"the camera {found.id}; rename one of them, or tell them apart by "
                    "--name_pattern"
                )
            )


def _name(camera: tuple[str, int | None]) -> str:
    name, channel = camera
    return repr(name) if channel is None else f"channel {channel} of {name!r}"
