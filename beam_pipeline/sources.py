"""ListImages: the files that `--input` names, on any of Beam's filesystems."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from transforms import stores
from transforms.records import ImageFile

_GLOB = re.compile(r"[*?\[]")


def list_images(source: str) -> Iterator[ImageFile]:
    """Every file that a path, directory or glob names, in the order of their addresses.

    All of them, whatever their names: a wrongly named file is reported, not passed over.

    Args:
      source: A file, a directory (everything beneath it) or a glob with Beam's `*`, `**`, `?`
        and `[...]`, on any filesystem.

    Raises:
      OSError: The store can't be listed.
    """
    yield from _list_local(source) if stores.is_local(source) else _list_remote(source)


def glob_of(source: str) -> tuple[str, Callable[[str], object] | None]:
    """The local folder under which a source's files lie, and what tells which of them are its.

    Args:
      source: A directory (all files are its) or a glob; what exists under that very name is no
        glob.
    """
    source = os.path.abspath(source)
    found = _GLOB.search(source)
    if os.path.isdir(source) or (found is None and not os.path.lexists(source)):
        return source, None
    if found is None or os.path.lexists(source):
        return os.path.dirname(source), source.__eq__
    matches = re.compile(FileSystems.get_filesystem(source).translate_pattern(source)).match
    return os.path.dirname(source[: found.start()]), matches


def _list_local(source: str) -> Iterator[ImageFile]:
    source = os.path.abspath(source)
    top, matches = glob_of(source)
    paths: Iterable[str]
    if os.path.lexists(source) and not os.path.isdir(source):
        paths = [source]
    else:
        paths = (path for path in _walk(top) if matches is None or matches(path))
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            if os.path.lexists(path):  # A dangling link, say: it becomes a record.
                yield ImageFile(path, 0)
            continue
        if stat.S_ISREG(found.st_mode):  # To read a pipe or a device would wait for ever.
            yield ImageFile(path, found.st_size)


def _walk(top: str) -> Iterator[str]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names))


def _list_remote(source: str) -> Iterator[ImageFile]:
    for one in sorted(match_remote(source), key=lambda one: one.path):
        yield ImageFile(one.path, one.size_in_bytes)


def match_remote(source: str) -> list[FileMetadata]:
    """What a store lists for a file, directory or glob.

    Raises:
      OSError: The store can't be listed.
    """
    return stores.match(source) or stores.list_beneath(source)


def belongs_to(source: str) -> Callable[[str], bool]:
    """What tells whether an object's address is one that a remote source names.

    As :func:`list_images` finds it: the object itself, all beneath a directory, or what a glob
    matches. Nothing is looked up in the store.

    Args:
      source: An object, directory or glob of an object store.
    """
    source = source.rstrip("/")
    matches = None
    if _GLOB.search(source):
        matches = re.compile(FileSystems.get_filesystem(source).translate_pattern(source)).match

    def belongs(uri: str) -> bool:
        return (
            uri == source
            or uri.startswith(f"{source}/")
            or (matches is not None and matches(uri) is not None)
        )

    return belongs


class ListImages(beam.PTransform):
    """Lists the files to be looked at.

    Output: `PCollection[ImageFile]`.

    Args:
      source: See :func:`list_images`.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[ImageFile]:
        return (
            begin
            | "Input" >> beam.Create([self._source])
            | "List" >> beam.FlatMap(list_images).with_output_types(ImageFile)
        )
