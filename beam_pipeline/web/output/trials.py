"""What a zone or mask that a person draws would have changed: the images, read once and kept.

While somebody draws, the page asks again with each change. The images of the camera and what the
rules make of them are read and judged at the first time, and kept for some minutes.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import orjson

import rules
from beam_pipeline.evaluation.area_trial import (
    AreaTrial,
    SentAlert,
    anchor_points,
    compare,
    judge,
)
from beam_pipeline.evaluation.areas import DrawnArea, labels_of_camera
from beam_pipeline.evaluation.mark_facts import Facts, Key
from beam_pipeline.fleet.output_scan import map_in_threads
from beam_pipeline.web.output.pictures import COPIES, record_names, stored_image
from transforms.backtest import look_back
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores
from transforms.storage.archive import detected_image
from transforms.storage.packed_output import read_output

DAYS = (1, 7, 30)
"""The periods that a person can choose, in days before the last image."""
MOST_IMAGES = 5_000
"""So many of the newest images are judged; those to which the rules look back count among them."""
MOST_DOTS = 400
_KEPT_SECONDS = 600.0
_KEPT_CAMERAS = 4


@dataclass(frozen=True)
class Archived:
    """The images of a camera.

    Attributes:
      images: In the order of time.
      is_cut: Whether there are older ones in the period, too many to be judged.
      unread: How many could not be read.
    """

    images: tuple[rules.Image, ...]
    is_cut: bool
    unread: int


@dataclass(frozen=True)
class Tried:
    """What came of a try.

    Attributes:
      trial: What the area would have changed.
      dots: Where up to `MOST_DOTS` of the newest threats have their anchor, see `anchor_points`.
      days: The period.
      newest: The end of the period: the capture time (UTC) of the newest image; None without one.
      is_cut: See `Archived`.
      unread: See `Archived`.
    """

    trial: AreaTrial
    dots: tuple[tuple[float, float, bool], ...]
    days: int
    newest: datetime | None
    is_cut: bool
    unread: int


@dataclass(frozen=True)
class _Kept:
    at: float
    newest: datetime | None
    since: datetime | None
    archived: Archived
    before: tuple[SentAlert, ...]


class Trials:
    """Tries areas on the images of an output. Thread-safe.

    Args:
      output: The output.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._kept: OrderedDict[tuple[str, int, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: dict[tuple[str, int, str], threading.Lock] = {}

    def attempt(
        self,
        area: DrawnArea,
        now: rules.Rules,
        changed: rules.Rules,
        facts: Mapping[Key, Facts],
        *,
        days: int,
        find_newest: Callable[[], datetime | None],
        is_wanted: Callable[[], bool],
    ) -> Tried:
        """Returns what an area would have changed.

        Args:
          area: The area.
          now: The rules as they are.
          changed: The rules with the area.
          facts: What marks say of the camera's images.
          days: How many days before the newest image count.
          find_newest: Returns the capture time (UTC) of the newest image; None if there is none.
          is_wanted: Asked now and then whether somebody still waits.

        Raises:
          AbandonedError: Nobody does.
          OSError: The store can't be read.
        """
        kept = self._of_camera(area.camera, now, days, find_newest)
        after = judge(kept.archived.images, changed, kept.since, is_wanted)
        return Tried(
            trial=compare(kept.before, after, facts, area),
            dots=tuple(anchor_points(kept.before, area, MOST_DOTS)),
            days=days,
            newest=kept.newest,
            is_cut=kept.archived.is_cut,
            unread=kept.archived.unread,
        )

    def _of_camera(
        self, camera: str, now: rules.Rules, days: int, find_newest: Callable[[], datetime | None]
    ) -> _Kept:
        key = camera, days, now.version
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        # Whoever draws on asks again before the first answer is there, and needs what it has read.
        with reading:
            with self._lock:
                kept = self._kept.get(key)
            if kept is None or time.monotonic() - kept.at >= _KEPT_SECONDS:
                kept = self._read(camera, now, days, find_newest())
            with self._lock:
                self._reading.pop(key, None)
                self._kept[key] = kept
                self._kept.move_to_end(key)
                while len(self._kept) > _KEPT_CAMERAS:
                    self._kept.popitem(last=False)
            return kept

    def _read(self, camera: str, now: rules.Rules, days: int, newest: datetime | None) -> _Kept:
        if newest is None:
            return _Kept(time.monotonic(), None, None, Archived((), False, 0), ())
        since = _earlier(newest, timedelta(days=days))
        looks_back = look_back(now, camera)
        first = _earlier(since, looks_back)
        labels = frozenset(labels_of_camera(now.for_camera(camera)))
        archived = read_images(self._output, camera, first, newest, labels)
        if archived.is_cut and archived.images:  # The rules look back to the first of them.
            since = max(since, _later(parse_time(archived.images[0].timestamp), looks_back))
        before = judge(archived.images, now, since)
        return _Kept(time.monotonic(), newest, since, archived, before)


def _earlier(time: datetime, by: timedelta) -> datetime:
    return time - min(by, time - datetime.min.replace(tzinfo=timezone.utc))


def _later(time: datetime, by: timedelta) -> datetime:
    return time + min(by, datetime.max.replace(tzinfo=timezone.utc) - time)


def read_images(
    output: str, camera: str, since: datetime, until: datetime, labels: frozenset[str]
) -> Archived:
    """Reads the images of a camera, and of more than `MOST_IMAGES` the newest.

    Args:
      output: The output.
      camera: The camera, whose id was checked.
      since: The earliest capture time (UTC).
      until: The latest one.
      labels: The labels of the detections that are kept; no rule is about others.

    Raises:
      OSError: The store can't be read.
    """

    def shortened(image: rules.Image) -> rules.Image:
        kept = tuple(one for one in image.detections if one.label in labels)
        return replace(image, detections=kept)

    # Of more images than are judged, only the times are kept.
    known: set[datetime] = set()
    packed: deque[tuple[datetime, rules.Image]] = deque(maxlen=MOST_IMAGES)
    number = 0
    last = datetime.max.replace(tzinfo=timezone.utc)
    end = until + timedelta(microseconds=1) if until < last else None
    rows = read_output(output, [], since=since, until=end, id=camera, copies=COPIES)
    for row in rows.of_camera(camera, since, end):
        capture_time = parse_time(row.image.timestamp)
        known.add(capture_time)
        if not row.is_retracted:
            packed.append((capture_time, shortened(row.image.for_rules())))
            number += 1
    day = since.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [day + timedelta(days=n) for n in range((until - day) // timedelta(days=1) + 1)]
    named = [
        image
        for name in record_names(output, camera, days)
        if name.endswith(".json")
        and (image := stored_image(camera, name.removesuffix(".json"))) is not None
        and since <= image.capture_time <= until
        and image.capture_time not in known
    ]
    found: list[tuple[datetime, str, rules.Image | None]] = [
        (image.capture_time, image.stem, None) for image in named
    ]
    found += [(at, "", image) for at, image in packed]
    found.sort(key=lambda one: one[:2])
    chosen = found[-MOST_IMAGES:]

    def read(one: tuple[datetime, str, rules.Image | None]) -> rules.Image:
        capture_time, stem, image = one
        if image is not None:
            return image
        data = orjson.loads(stores.read_bytes(stores.final_uri(output, camera, stem)))
        image = detected_image(data).for_rules()
        if (image.id, image.timestamp) != (camera, canonical_time(capture_time)):
            raise ValueError("the record is of another image")
        return shortened(image)

    results = map_in_threads(read, chosen)
    for result in results:
        if isinstance(result, OSError) and not isinstance(result, FileNotFoundError):
            raise result
    images = [result for result in results if not isinstance(result, Exception)]
    return Archived(tuple(images), len(named) + number > len(chosen), len(results) - len(images))
