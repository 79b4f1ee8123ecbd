"""ListImages: the files that `--input` names, on any of Beam's filesystems."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from beam_pipeline.sources.folders import WILDCARD, Disk, Folder, UnlistableFolder, source_of, walk
from beam_pipeline.sources.listed_files import SortedRows
from beam_pipeline.sources.parts import WHOLE, Part
from transforms.records.images import ImageFile
from transforms.records.text import one_line, printable
from transforms.runtime.counters import count
from transforms.storage import stores

_LOGGER = logging.getLogger(__name__)

LINKS_SKIPPED = (
    "%s is a link to a folder, or leads out of --input, and is skipped, as all such links are; "
    "--follow_links follows them"
)


class InputLostError(OSError):
    """The input as a whole can't be listed, or is not there where it was before."""


def list_images(source: str, *, follow_links: bool = False) -> Iterator[ImageFile]:
    """Yields every file that a path, directory or glob names, in the order of their addresses.

    All of them, whatever their names: a wrongly named file is reported, not skipped.

    Args:
      source: A file, a directory (everything beneath it) or a glob with Beam's `*`, `**`, `?`
        and `[...]`, on any filesystem.
      follow_links: Whether links to folders, and those that lead out of a local source, are
        followed.

    Raises:
      OSError: The store, or a local source as a whole, can't be listed.
    """
    if not stores.is_local(source):
        yield from _list_remote(source)
        return
    for folder in list_folders(source, follow_links=follow_links):
        if isinstance(folder, Folder):
            yield from files_in(folder)


def list_folders(source: str, *, follow_links: bool = False) -> Iterator[Folder | UnlistableFolder]:
    """Returns what a local path, directory or glob names, folder by folder, with what can't be
    listed.

    Raises:
      OSError: The source as a whole can't be listed.
    """
    return walk(source_of(source), Disk(), follow_links=follow_links)


def files_in(folder: Folder) -> Iterator[ImageFile]:
    """Yields the files of a folder, by name, with those whose status can't be read.

    A link that leads nowhere is one of them: it becomes a record.
    """
    rows = SortedRows()
    for file in folder.files:
        rows.add((file.uri, file.size_bytes, file.modified))
    for path in dict.fromkeys((*folder.dangling, *(path for path, _ in folder.unread))):
        rows.add((path, 0, None))
    for uri, size_bytes, modified in rows.drain():
        yield ImageFile(uri, size_bytes, changed=modified)


def describe_unlistable(folder: Folder | UnlistableFolder) -> str:
    """Returns a line that names a folder that can't be listed, or its unreadable entries."""
    if isinstance(folder, UnlistableFolder):
        return printable(f"{folder.path} can't be listed: {folder.error.strerror or folder.error}")
    (path, error), *others = folder.unread
    suffix = f" (and {len(others)} more next to it)" if others else ""
    return printable(f"{path}{suffix} can't be accessed: {error.strerror or error}")


def _list_remote(source: str) -> Iterator[ImageFile]:
    rows = SortedRows()
    for file in match_remote(source):
        rows.add((file.path, file.size_in_bytes, file.last_updated_in_seconds or None))
    for uri, size_bytes, modified in rows.drain():
        yield ImageFile(uri, size_bytes, changed=modified)


def match_remote(source: str, part: Part = WHOLE) -> Iterator[FileMetadata]:
    """Yields what a store lists for a file, directory or glob, in the order of names.

    Args:
      source: The file, directory or glob.
      part: The part of it.

    Raises:
      OSError: The store can't be listed.
    """
    has = None if part == WHOLE else part.has
    files = stores.each_match(source, has)
    first = next(files, None)
    if first is not None:
        yield first
    elif has is None or next(stores.each_match(source), None) is None:
        files = stores.each_beneath(source, has)
    yield from files


def belongs_to(source: str) -> Callable[[str], bool]:
    """Returns a function that says whether a remote source names an object's address.

    As :func:`list_images` finds it: the object itself, all beneath a directory, or what a glob
    matches. Nothing is looked up in the store.

    Args:
      source: An object, directory or glob of an object store.
    """
    source = source.rstrip("/")
    matches = None
    if WILDCARD.search(source):
        matches = re.compile(FileSystems.get_filesystem(source).translate_pattern(source)).match

    def belongs(uri: str) -> bool:
        return (
            uri == source
            or uri.startswith(f"{source}/")
            or (matches is not None and matches(uri) is not None)
        )

    return belongs


class _List(beam.DoFn):
    def __init__(self, follow_links: bool) -> None:
        self._follow_links = follow_links

    def process(self, source: str) -> Iterator[ImageFile]:
        try:
            if stores.is_local(source):
                yield from self._local(source)
            else:
                yield from _list_remote(source)
        except OSError as error:
            # Of one argument, as Beam makes a RuntimeError of an OSError with an errno.
            raise InputLostError(f"--input {source} can't be listed ({one_line(error)})") from None

    def _local(self, source: str) -> Iterator[ImageFile]:
        links = 0
        for folder in list_folders(source, follow_links=self._follow_links):
            if isinstance(folder, UnlistableFolder):
                count("source.unlistable")
                _LOGGER.error("%s", describe_unlistable(folder))
                continue
            if folder.links:
                if not links:
                    _LOGGER.warning(LINKS_SKIPPED, printable(folder.links[0]))
                links += len(folder.links)
                count("source.links_passed_over", len(folder.links))
            yield from files_in(folder)


class ListImages(beam.PTransform):
    """Lists the files of the input.

    A folder that can't be listed is logged and counted, and stops nothing; so are links that are
    not followed.

    Output: `PCollection[ImageFile]`.

    Args:
      source: See :func:`list_images`.
      follow_links: See :func:`list_images`.
    """

    def __init__(self, source: str, *, follow_links: bool = False) -> None:
        super().__init__()
        self._source = source
        self._follow_links = follow_links

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[ImageFile]:
        return (
            begin
            | "Input" >> beam.Create([self._source])
            | "List" >> beam.ParDo(_List(self._follow_links)).with_output_types(ImageFile)
        )
