"""Archives: the detections and verdicts of a job, read camera by camera in the order of time.

An archive is a job's output, or what ``pack`` has written (see :mod:`transforms.storage.packed`),
on any of Beam's filesystems. An output has a JSON for each image
(``detections/<id>/<stem>.json`` and ``final/<id>/<stem>.json``), or files of many images (see
:mod:`transforms.storage.packed_output`). All forms hold the same images.

    archive = open_archive("output")
    for id in archive.ids:
        for archived in archive.images(id):
            archived.image.detections, archived.threat
    archive.problems      # the files that could not be read, and why

Several archives (such as one per month) can be read as one.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

import orjson

import rules
from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.images import DetectedImage, ModelInfo
from transforms.records.text import one_line, printable
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores
from transforms.storage.packed import PackedArchive
from transforms.storage.packed_output import PackedOutput

_DETECTIONS, _FINAL = "detections", "final"
_AT_ONCE = 16
"""The number of concurrent reads of a store."""

Problem = tuple[str, str]
"""The address of a file that could not be read, and the reason."""


class ArchiveError(ValueError):
    """There is no archive, or it can't be listed; the message is one line."""


@dataclass(frozen=True)
class ArchivedImage:
    """One image of an archive.

    Attributes:
      image: The object data.
      threat: The `threat` object of `final/`, which may be of an earlier release; None if missing.
    """

    image: DetectedImage
    threat: dict[str, Any] | None


class _Source(Protocol):
    """One archive of one form."""

    @property
    def ids(self) -> frozenset[str]:
        """The cameras with images."""

    @property
    def has_verdicts(self) -> bool:
        """Whether it holds verdicts."""

    def images(
        self,
        id: str,
        since: datetime | None,
        until: datetime | None,
        problems: list[Problem],
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        """Yields the images of one camera in the order of time and file name."""


class Archive:
    """One archive, or several read as one. Picklable; made by :func:`open_archive`.

    Attributes:
      uris: The addresses that were opened.
      ids: The cameras with images, sorted.
      has_verdicts: Whether there is any `final/`.
      problems: The files that could not be read so far; it grows while :meth:`images` is read.
    """

    def __init__(self, uris: tuple[str, ...], sources: tuple[_Source, ...]) -> None:
        self._sources = sources
        self.uris = uris
        self.ids = tuple(sorted(frozenset().union(*(source.ids for source in sources))))
        self.has_verdicts = any(source.has_verdicts for source in sources)
        self.problems: list[Problem] = []

    def images(
        self, id: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[ArchivedImage]:
        """Yields the images of one camera in the order of time and file name, each file name once.

        Args:
          id: The camera; an unknown camera has no images.
          since: The start of the period in UTC; None for all.
          until: The end of the period, exclusive; None for all.

        Raises:
          OSError: A store that could be listed can no longer be reached.
        """
        iterators = [
            source.images(id, since, until, self.problems)
            for source in self._sources
            if id in source.ids
        ]
        images = iterators[0] if len(iterators) == 1 else _merged(iterators)
        for image, threat in images:
            yield ArchivedImage(image, threat)


def _merged(
    sources: Iterable[Iterator[tuple[DetectedImage, dict[str, Any] | None]]],
) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
    last_key: tuple[str, str] | None = None
    for item in heapq.merge(
        *sources, key=lambda item: (parse_time(item[0].timestamp), item[0].file)
    ):
        key = item[0].timestamp, item[0].file
        if key != last_key:
            yield item
        last_key = key


def open_archive(*uris: str) -> Archive:
    """Opens an archive, or several archives as one.

    Args:
      uris: Each is a job's `--output` or a packed archive.

    Raises:
      ArchiveError: There is no archive, it can't be listed, or no packed file of it can be read.
    """
    sources: list[_Source] = []
    for uri in uris:
        address = uri.removeprefix("file://").rstrip("/") or "/"
        try:
            opened: list[_Source] = [*_open_output(address), *PackedArchive.at(address)]
        except OSError as error:
            raise ArchiveError(
                f"{uri}: can't be listed ({one_line(error)}); is the address right, and are there "
                "credentials for it?"
            ) from None
        if not opened:
            raise ArchiveError(
                f"{uri}: no archive there, neither a job's detections/, final/ or packed/ nor what "
                "`pack` has written; give the --output of a job"
            )
        sources += opened
    return Archive(uris, tuple(sources))


# A job's output


@dataclass(frozen=True)
class _Output:
    """`detections/`, `final/` and `packed/` as a job has written them.

    The first two both hold the object data. It is read from `detections/`, or from `final/` if it
    is missing there. Files of a camera and capture time that `packed/` has are not read: if an
    output has both forms, the packed one stands.
    """

    uri: str
    folders: Mapping[str, frozenset[str]]
    """The cameras in each of the first two folders, if it exists."""
    packed: PackedOutput | None = None

    @cached_property
    def ids(self) -> frozenset[str]:
        packed = frozenset[str]() if self.packed is None else self.packed.ids
        return packed.union(*self.folders.values())

    @property
    def has_verdicts(self) -> bool:
        return _FINAL in self.folders or self.packed is not None

    def images(
        self,
        id: str,
        since: datetime | None,
        until: datetime | None,
        problems: list[Problem],
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        files = self._from_files(id, since, until, problems)
        if self.packed is None:
            return files
        return _merged([self.packed.images(id, since, until, problems), files])

    def _from_files(
        self,
        id: str,
        since: datetime | None,
        until: datetime | None,
        problems: list[Problem],
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        names = {folder: frozenset(self._names(folder, id)) for folder in self.folders}
        dated = []
        for name in frozenset().union(*names.values()):
            stem = name.removesuffix(".json")
            try:
                camera, capture_time = parse_name(f"{stem}.jpg")
                if camera != id:
                    raise InvalidNameError("", f"the name is that of an image of {camera}")
            except InvalidNameError as error:
                folder = next(folder for folder in names if name in names[folder])
                problems.append((self._uri(folder, id, name), str(error)))
                continue
            if (since is not None and capture_time < since) or (
                until is not None and capture_time >= until
            ):
                continue
            if self.packed is None or not self.packed.has(id, capture_time, since, until):
                dated.append((capture_time, name))
        dated.sort()
        uris = [
            self._uri(folder, id, name)
            for _, name in dated
            for folder in self.folders
            if name in names[folder]
        ]
        with _Reader(uris) as reader:
            for capture_time, name in dated:
                yield from self._image(id, capture_time, name, names, reader, problems)

    def _image(
        self,
        id: str,
        capture_time: datetime,
        name: str,
        names: Mapping[str, frozenset[str]],
        reader: _Reader,
        problems: list[Problem],
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        read: dict[str, tuple[DetectedImage, Any]] = {}
        for folder in self.folders:
            uri = self._uri(folder, id, name)
            if name not in names[folder]:
                problems.append((uri, "not there"))
                continue
            try:
                data = orjson.loads(reader.read(uri))
                image = detected_image(data)
                _check_name(image, id, capture_time, name)
                if folder == _FINAL and not isinstance(data.get("threat"), dict):
                    raise ValueError("image JSON: 'threat' is missing")
            except ConnectionError:
                raise
            except (OSError, ValueError) as error:
                problems.append((uri, _problem_text(error)))
                continue
            read[folder] = image, data.get("threat")
        if _DETECTIONS not in read:
            yield from list(read.values())
            return
        image, _ = read[_DETECTIONS]
        judged, threat = read.get(_FINAL, (image, None))
        if judged != image:
            uri = self._uri(_FINAL, id, name)
            problems.append((uri, "holds other object data than detections/: judged before it?"))
            threat = None
        yield image, threat

    def _uri(self, folder: str, id: str, name: str) -> str:
        return stores.join(self.uri, folder, id, name)

    def _names(self, folder: str, id: str) -> Iterator[str]:
        if id not in self.folders[folder]:
            return
        folder_uri = stores.join(self.uri, folder, id)
        if stores.is_local(folder_uri):
            names: Iterable[str] = os.listdir(folder_uri)
        else:
            names = (file.path.rsplit("/", 1)[-1] for file in stores.list_beneath(folder_uri))
        yield from (name for name in names if name.endswith(".json") and name[0] != ".")


def _open_output(uri: str) -> Iterator[_Output]:
    folders = {}
    for folder in (_DETECTIONS, _FINAL):
        folder_uri = stores.join(uri, folder)
        if stores.is_local(folder_uri):
            if not os.path.isdir(folder_uri):
                continue
            ids = {entry.name for entry in os.scandir(folder_uri) if entry.is_dir()}
        else:
            ids = {
                file.path[len(folder_uri) + 1 :].split("/", 1)[0]
                for file in stores.list_beneath(folder_uri)
            }
            if not ids:
                continue
        folders[folder] = frozenset(ids)
    packed = PackedOutput.at(uri)
    if packed is not None and packed.unread and not packed.ids.union(*folders.values()):
        file, why = packed.unread[0]
        raise ArchiveError(
            f"{uri}: none of its {len(packed.unread)} packed files can be read, such as {file} "
            f"({why}); restore them, or run the job again"
        )
    if folders or packed is not None:
        yield _Output(uri, folders, packed)


def detected_image(data: Any) -> DetectedImage:
    """Reads the object data from an image JSON of `detections/` or `final/`.

    Raises:
      ValueError: The JSON is no image JSON.
    """
    if not isinstance(data, dict):
        raise ValueError("image JSON: not an object")
    image = rules.Image.from_json(data)
    model = ModelInfo.from_json(data.get("model"))
    file, uri, sha256 = (_text(data, key) for key in ("file", "uri", "sha256"))
    return DetectedImage(
        id=image.id,
        timestamp=image.timestamp,
        file=file,
        uri=uri,
        sha256=sha256,
        width=image.width,
        height=image.height,
        model=model,
        detections=image.detections,
        brightness=image.brightness,
        sharpness=_share(data, "sharpness"),
    )


def _problem_text(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON: {printable(error.msg)}"
    if isinstance(error, ValueError):
        return printable(" ".join(str(error).split()))[:200]
    return printable(one_line(error))


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"image JSON: {key!r} is missing, or not a text")
    return value


def _share(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"image JSON: {key!r} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _check_name(image: DetectedImage, id: str, capture_time: datetime, name: str) -> None:
    if (image.id, image.timestamp) != (id, canonical_time(capture_time)):
        raise ValueError(
            f"holds the image of {image.id!r} at {image.timestamp!r}, not the one in its name"
        )
    if image.stem != name.removesuffix(".json"):
        raise ValueError(f"holds the image {image.file!r}, not the one in its name")


class _Reader:
    """Reads files in a given order; files of a store are read ahead in threads."""

    def __init__(self, uris: list[str]) -> None:
        self._ahead = iter(uris)
        self._pool: ThreadPoolExecutor | None = None
        self._futures: dict[str, Any] = {}
        self._is_remote = bool(uris) and not stores.is_local(uris[0])

    def __enter__(self) -> _Reader:
        if self._is_remote:
            self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="archive")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, uri: str) -> bytes:
        """Returns the bytes of the next file."""
        if self._pool is None:
            with open(uri, "rb") as file:
                return file.read()
        while len(self._futures) < _AT_ONCE and (following := next(self._ahead, None)):
            self._futures[following] = self._pool.submit(stores.read_bytes, following)
        result: bytes = self._futures.pop(uri).result()
        return result
