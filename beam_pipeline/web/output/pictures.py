"""Images of an output for pages: upright, scaled down, and only by camera and capture time.

No address comes from a client: the camera and the name are checked, and the record in `final/` says
which image it is. Only an image with the hash of that record is shown. It is encoded anew, so a
page gets nothing but pixels.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

import orjson

import rules
from transforms.images.annotating import read_with_boxes
from transforms.records.file_names import InvalidNameError, parse_name, stored_name
from transforms.records.text import one_line
from transforms.records.times import EPOCH, canonical_time
from transforms.storage import stores
from transforms.storage.packed import KeptCopies
from transforms.storage.packed_output import find_image, read_output

SIZES: Mapping[str, int] = {"card": 480, "full": 1600}
"""The longest side of each size in pixels."""
_COLOUR = (214, 40, 40)
_KEPT_BYTES = 64 << 20
_KEPT_SECONDS = 300.0
_MAX_STEM = 200
COPIES = KeptCopies(256 << 20)
"""Those of packed files, as one page shows many images of one file."""


class NoPictureError(Exception):
    """Why there is no picture, in a few words for a person."""


@dataclass(frozen=True)
class StoredImage:
    """An image of the output.

    Attributes:
      camera: The camera.
      stem: The name of its JSON, without `.json`.
      capture_time: In UTC.
    """

    camera: str
    stem: str
    capture_time: datetime


def stored_image(camera: str, stem: str) -> StoredImage | None:
    """Returns the image that a client names; None if that can't be the name of one."""
    if not rules.is_camera_id(camera) or len(stem) > _MAX_STEM:
        return None
    try:
        named, capture_time = parse_name(f"{stem}.jpg")
    except InvalidNameError:
        return None
    return StoredImage(camera, stem, capture_time) if named == camera else None


def read_record(output: str, image: StoredImage) -> dict[str, Any]:
    """Reads the image JSON of an image: that of `final/`, or else of `detections/` or `packed/`.

    Raises:
      NoPictureError: There is none.
      OSError: The store can't be read.
    """
    for uri in (
        stores.final_uri(output, image.camera, image.stem),
        stores.detections_uri(output, image.camera, image.stem),
    ):
        data = stores.read_if_there(uri)
        if data is None:
            continue
        try:
            record = orjson.loads(data)
        except ValueError as error:
            raise NoPictureError("the record of the image is damaged") from error
        if isinstance(record, dict) and record.get("id") == image.camera:
            return record
        raise NoPictureError("the record of the image is damaged")
    packed = find_image(output, image.camera, image.stem, COPIES)
    if packed is None:
        raise NoPictureError("the image is not in the output, or was deleted by prune")
    record = dict(packed.image.to_json())
    return record if packed.threat is None else {**record, "threat": packed.threat}


class Pictures:
    """Reads images of an output, and keeps the last ones for some minutes. Thread-safe.

    Args:
      output: The output.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._kept: OrderedDict[tuple[StoredImage, str], tuple[float, bytes]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def jpeg(self, image: StoredImage, size: str) -> bytes:
        """Returns an image as JPEG.

        Args:
          image: The image.
          size: One of `SIZES`.

        Raises:
          NoPictureError: It can't be shown.
          OSError: The store can't be read.
        """
        key = image, size
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and time.monotonic() - kept[0] < _KEPT_SECONDS:
                self._kept.move_to_end(key)
                return kept[1]
        data = self._read(image, size)
        with self._lock:
            self._size += len(data) - len(self._kept.pop(key, (0.0, b""))[1])
            self._kept[key] = time.monotonic(), data
            while self._size > _KEPT_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1][1])
        return data

    def _read(self, image: StoredImage, size: str) -> bytes:
        record = read_record(self._output, image)
        sha256, uri = record.get("sha256"), record.get("uri")
        if not isinstance(sha256, str) or not sha256:
            raise NoPictureError("the record of the image does not say which image it is")
        name = stored_name(
            str(record.get("file")), image.camera, canonical_time(image.capture_time)
        )
        uris = [stores.validated_uri(self._output, image.camera, name)]
        if isinstance(uri, str) and uri:
            uris.append(uri)
        drawn = read_with_boxes(uris, sha256, (), _COLOUR, longest_side=SIZES[size])
        if drawn.jpeg is None:
            raise NoPictureError("the file of the image was deleted, moved or replaced")
        return drawn.jpeg


def record_names(output: str, camera: str, days: Iterable[datetime]) -> list[str]:
    """Returns the names of the records in `final/` that may be of some days, and maybe others.

    A folder with the images of years is not listed as a whole where the store can do better.

    Args:
      output: The output.
      camera: The camera, whose id was checked.
      days: The first moment of each day (UTC).

    Raises:
      OSError: The store can't be listed.
    """
    prefixes: list[str] = []
    for begin in days:
        year = f"{begin.year:04d}"
        seconds = (begin - EPOCH) // timedelta(seconds=1)
        # Five digits of Unix time are 100,000 s, a little more than a day.
        unix = {f"{second:010d}"[:5] for second in (seconds, seconds + 86_399)}
        prefixes += [
            f"{camera}_{text}" for text in (f"{year}{begin:%m%d}", f"{year}{begin:-%m-%d}")
        ]
        prefixes += [f"{camera}_{text}" for text in sorted(unix)] if seconds >= 0 else []
    names = stores.names_with_prefix(stores.final_folder(output, camera), sorted(set(prefixes)))
    return sorted(set(names))


def images_of_day(output: str, camera: str, day: datetime) -> list[StoredImage]:
    """Returns the images of a camera on a day, the oldest first, by the names of their records.

    Args:
      output: The output.
      camera: The camera, whose id was checked.
      day: Any time of the day (UTC).

    Raises:
      OSError: The store can't be listed.
    """
    begin = day.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    names = record_names(output, camera, [begin])
    found = {
        image
        for name in names
        if name.endswith(".json")
        and (image := stored_image(camera, name.removesuffix(".json"))) is not None
        and image.capture_time.date() == begin.date()
    }
    end = begin + timedelta(days=1) if begin.date() < date.max else None
    packed = read_output(output, [], since=begin, until=end, id=camera, copies=COPIES)
    found |= {
        image
        for row in packed.of_camera(camera, begin, end)
        if not row.is_retracted and (image := stored_image(camera, row.image.stem)) is not None
    }
    return sorted(found, key=lambda image: (image.capture_time, image.stem))


def why_unreadable(error: Exception) -> str:
    """Returns why a picture can't be shown, for a person; no address of the store."""
    return str(error) if isinstance(error, NoPictureError) else one_line(error).partition(":")[0]
