"""Archives: what a job has seen and judged, read back camera by camera in order of time.

An archive is a job's output (``detections/<id>/<stem>.json`` and ``final/<id>/<stem>.json``) or
what ``pack`` made of one (see :mod:`transforms.packed`), on any of Beam's filesystems. Both forms
give the same pictures.

    archive = open_archive("output")
    for id in archive.ids:
        for one in archive.images(id):
            one.image.detections, one.threat
    archive.problems      # what could not be read, and why

The pictures of several archives (one a month, say) can be read as those of one.
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
from transforms import stores
from transforms.packed import PackedArchive
from transforms.parse_filename import InvalidName, parse_name
from transforms.records import DetectedImage, ModelInfo, stem_of
from transforms.text import one_line, printable
from transforms.times import canonical_time, parse_time

_DETECTIONS, _FINAL = "detections", "final"
_AT_ONCE = 16
"""Files of a store that are read at once."""

Problem = tuple[str, str]
"""The address of what could not be read, and why."""


class ArchiveError(ValueError):
    """There is no archive, or it can't be listed: one line that says what, where, what to do."""


@dataclass(frozen=True)
class ArchivedImage:
    """One picture of an archive.

    Attributes:
      image: The object data.
      threat: The `threat` object of `final/`; None where there is none.
    """

    image: DetectedImage
    threat: dict[str, Any] | None


class _Source(Protocol):
    """One archive of a certain form."""

    @property
    def ids(self) -> frozenset[str]:
        """The cameras that it has pictures of."""

    @property
    def has_verdicts(self) -> bool:
        """Whether it holds what was judged."""

    def images(
        self,
        id: str,
        since: datetime | None,
        until: datetime | None,
        problems: list[Problem],
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        """The pictures of one camera in order of time and file name."""


class Archive:
    """One archive, or several read as one. Picklable; made by :func:`open_archive`.

    Attributes:
      uris: What was opened.
      ids: The cameras that there are pictures of, sorted.
      has_verdicts: Whether there is any `final/`.
      problems: What could not be read so far, and why; grows while :meth:`images` is read.
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
        """The pictures of one camera in order of time (those of one moment by file name), each
        file name once.

        Args:
          id: The camera; of one that is not there come no pictures.
          since: The first moment, in UTC; None for all.
          until: The first moment that is not asked for any more.

        Raises:
          OSError: A store could be listed and can't be reached any more.
        """
        found = [
            source.images(id, since, until, self.problems)
            for source in self._sources
            if id in source.ids
        ]
        pictures = found[0] if len(found) == 1 else _merged(found)
        for image, threat in pictures:
            yield ArchivedImage(image, threat)


def _merged(
    sources: Iterable[Iterator[tuple[DetectedImage, dict[str, Any] | None]]],
) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
    last: tuple[str, str] | None = None
    for one in heapq.merge(*sources, key=lambda one: (parse_time(one[0].timestamp), one[0].file)):
        place = one[0].timestamp, one[0].file
        if place != last:
            yield one
        last = place


def open_archive(*uris: str) -> Archive:
    """Opens an archive, or several to be read as one.

    Args:
      uris: A job's `--output`, or a packed archive, each.

    Raises:
      ArchiveError: There is none, or it can't be listed.
    """
    sources: list[_Source] = []
    for uri in uris:
        place = uri.removeprefix("file://").rstrip("/") or "/"
        try:
            found: list[_Source] = [*_open_output(place), *PackedArchive.at(place)]
        except Exception as error:  # Each store's client has its own kinds of error.
            raise ArchiveError(
                f"{uri}: can't be listed ({one_line(error)}); is the address right, and are there "
                "credentials for it?"
            ) from None
        if not found:
            raise ArchiveError(
                f"{uri}: no archive there, neither a job's detections/ and final/ nor what `pack` "
                "has written; give the --output of a job"
            )
        sources += found
    return Archive(uris, tuple(sources))


# A job's output


@dataclass(frozen=True)
class _Output:
    """`detections/` and `final/` as a job has written them.

    Both hold the object data. It is taken from `detections/`, and from `final/` where `detections/`
    has none.
    """

    uri: str
    folders: Mapping[str, frozenset[str]]
    """The cameras in each of the two that is there."""

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset().union(*self.folders.values())

    @property
    def has_verdicts(self) -> bool:
        return _FINAL in self.folders

    def images(
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
                camera, moment = parse_name(f"{stem}.jpg")
                if camera != id:
                    raise InvalidName("", f"the name is that of a picture of {camera}")
            except InvalidName as error:
                where = next(folder for folder in names if name in names[folder])
                problems.append((self._place(where, id, name), str(error)))
                continue
            if (since is None or moment >= since) and (until is None or moment < until):
                dated.append((moment, name))
        dated.sort()
        wanted = [
            self._place(folder, id, name)
            for _, name in dated
            for folder in self.folders
            if name in names[folder]
        ]
        with _Reader(wanted) as reader:
            for moment, name in dated:
                yield from self._image(id, moment, name, names, reader, problems)

    def _image(
        self,
        id: str,
        moment: datetime,
        name: str,
        names: Mapping[str, frozenset[str]],
        reader: _Reader,
        problems: list[Problem],
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        read: dict[str, tuple[DetectedImage, Any]] = {}
        for folder in self.folders:
            place = self._place(folder, id, name)
            if name not in names[folder]:
                problems.append((place, "not there"))
                continue
            try:
                data = orjson.loads(reader.read(place))
                image = detected_image(data)
                _check_place(image, id, moment, name)
                if folder == _FINAL and not isinstance(data.get("threat"), dict):
                    raise ValueError("image JSON: 'threat' is missing")
            except ConnectionError:
                raise
            except (OSError, ValueError) as error:
                problems.append((place, _why(error)))
                continue
            read[folder] = image, data.get("threat")
        if _DETECTIONS not in read:
            yield from list(read.values())
            return
        image, _ = read[_DETECTIONS]
        judged, threat = read.get(_FINAL, (image, None))
        if judged != image:
            place = self._place(_FINAL, id, name)
            problems.append((place, "holds other object data than detections/: judged before it?"))
            threat = None
        yield image, threat

    def _place(self, folder: str, id: str, name: str) -> str:
        return stores.join(self.uri, folder, id, name)

    def _names(self, folder: str, id: str) -> Iterator[str]:
        if id not in self.folders[folder]:
            return
        place = stores.join(self.uri, folder, id)
        if stores.is_local(place):
            names: Iterable[str] = os.listdir(place)
        else:
            names = (one.path.rsplit("/", 1)[-1] for one in stores.list_beneath(place))
        yield from (name for name in names if name.endswith(".json") and name[0] != ".")


def _open_output(uri: str) -> Iterator[_Output]:
    folders = {}
    for folder in (_DETECTIONS, _FINAL):
        place = stores.join(uri, folder)
        if stores.is_local(place):
            if not os.path.isdir(place):
                continue
            ids = {entry.name for entry in os.scandir(place) if entry.is_dir()}
        else:
            ids = {
                one.path[len(place) + 1 :].split("/", 1)[0] for one in stores.list_beneath(place)
            }
            if not ids:
                continue
        folders[folder] = frozenset(ids)
    if folders:
        yield _Output(uri, folders)


def detected_image(data: Any) -> DetectedImage:
    """The object data in an image JSON of `detections/` or `final/`.

    Raises:
      ValueError: It is none.
    """
    if not isinstance(data, dict):
        raise ValueError("image JSON: not an object")
    seen = rules.Image.from_json(data)
    model = data.get("model")
    if not isinstance(model, dict):
        raise ValueError("image JSON: 'model' is missing")
    file, uri, sha256 = (_text(data, key) for key in ("file", "uri", "sha256"))
    name, version = (_text(model, key) for key in ("name", "version"))
    return DetectedImage(
        id=seen.id,
        timestamp=seen.timestamp,
        file=file,
        uri=uri,
        sha256=sha256,
        width=seen.width,
        height=seen.height,
        model=ModelInfo(name, version),
        detections=seen.detections,
        brightness=seen.brightness,
        sharpness=_share(data, "sharpness"),
    )


def _why(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON: {printable(error.msg)}"
    if isinstance(error, ValueError):
        return printable(" ".join(str(error).split()))[:200]
    return printable(one_line(error))


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"image JSON: {key!r} is missing, or no text")
    return value


def _share(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"image JSON: {key!r} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _check_place(image: DetectedImage, id: str, moment: datetime, name: str) -> None:
    if (image.id, image.timestamp) != (id, canonical_time(moment)):
        raise ValueError(
            f"holds the picture of {image.id!r} at {image.timestamp!r}, not the one of its name"
        )
    if stem_of(image.file) != name.removesuffix(".json"):
        raise ValueError(f"holds the picture {image.file!r}, not the one of its name")


class _Reader:
    """Reads files in a given order; those of a store some ahead, as each takes its time."""

    def __init__(self, places: list[str]) -> None:
        self._ahead = iter(places)
        self._pool: ThreadPoolExecutor | None = None
        self._futures: dict[str, Any] = {}
        self._far = bool(places) and not stores.is_local(places[0])

    def __enter__(self) -> _Reader:
        if self._far:
            self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="archive")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, place: str) -> bytes:
        """The bytes of the next file."""
        if self._pool is None:
            with open(place, "rb") as file:
                return file.read()
        while len(self._futures) < _AT_ONCE and (following := next(self._ahead, None)):
            self._futures[following] = self._pool.submit(stores.read_bytes, following)
        result: bytes = self._futures.pop(place).result()
        return result
