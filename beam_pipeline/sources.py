"""ListImages: the files that `--input` names, on any of Beam's filesystems."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from transforms.records import ImageFile
from transforms.stores import is_local

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
    yield from _list_local(source) if is_local(source) else _list_remote(source)


def _list_local(source: str) -> Iterator[ImageFile]:
    source = os.path.abspath(source)
    if os.path.isdir(source):
        paths = _walk(source)
    elif os.path.lexists(source) or not _GLOB.search(source):
        paths = iter([source])
    else:
        matches = re.compile(FileSystems.get_filesystem(source).translate_pattern(source)).match
        top = os.path.dirname(source[: _GLOB.search(source).start()])  # type: ignore[union-attr]
        paths = (path for path in _walk(top) if matches(path))
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
    (found,) = FileSystems.match([source])
    if not found.metadata_list:
        (found,) = FileSystems.match([f"{glob.escape(source.rstrip('/'))}/**"])
    for one in sorted(found.metadata_list, key=lambda one: one.path):
        if not one.path.endswith("/"):  # Some clients make empty keys that stand for folders.
            yield ImageFile(one.path, one.size_in_bytes)


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
