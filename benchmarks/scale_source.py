"""Made-up records of cameras, as a stream and as a batch, at the step where images' bytes end.

Each camera has an image a minute of its own time. Most images show nothing, some weak detections,
and a few a person. A record depends on its number alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

import rules
from beam_pipeline.sources.unbounded import EventTimeProvider, UnboundedProvider
from transforms.records.images import DetectedImage, ModelInfo
from transforms.records.times import canonical_time, from_unix

_IN_ONE_POLL = 200
_NAP_SECONDS = 0.1
_GRACE_SECONDS = 10.0
_FAR_SECONDS = 30 * 86400.0
_MODEL = ModelInfo("made-up", "000000000000", "000000000000", "detections")
_THREATS = 0.03


@dataclass(frozen=True)
class Fleet:
    """The cameras.

    Attributes:
      cameras: How many there are, each with an image a minute.
      start: When the first image is taken, in Unix time.
      shards: The number of sources that share the images.
    """

    cameras: int
    start: float
    shards: int

    def number_of(self, shard: int, index: int) -> int:
        """Returns which image of the fleet is the one of this index in a shard."""
        return index * self.shards + shard

    def taken(self, number: int) -> float:
        """Returns when an image is taken, in Unix time: the cameras take turns."""
        return self.start + number * 60 / self.cameras

    def image(self, number: int, *, streaming: bool) -> DetectedImage:
        """Makes the record of an image."""
        drawn = random.Random(number)
        camera = f"camera-{number % self.cameras:06}"
        taken = from_unix(self.taken(number))
        detections = [
            rules.Detection("3", "car", round(0.05 + 0.3 * drawn.random(), 4), (0.1, 0.5, 0.2, 0.1))
            for _ in range(drawn.randint(0, 3))
        ]
        if drawn.random() < _THREATS:
            left = round(0.6 * drawn.random(), 4)
            detections.insert(0, rules.Detection("1", "person", 0.9, (left, 0.4, 0.1, 0.3)))
        name = f"{camera}_{taken:%Y%m%dT%H%M%S.%fZ}.jpg"
        arrived = canonical_time(taken - timedelta(seconds=_GRACE_SECONDS))
        return DetectedImage(
            id=camera,
            timestamp=canonical_time(taken),
            file=name,
            uri=f"/srv/pictures/{name}",
            sha256=f"{drawn.getrandbits(256):064x}",
            width=1280,
            height=720,
            model=_MODEL,
            detections=tuple(detections),
            brightness=0.5,
            sharpness=0.05,
            stream_time=arrived if streaming else None,
            changed=self.taken(number),
            is_contested=streaming,  # A stream never knows whether other files will come.
        )


_RESTRICTION = beam.DoFn.RestrictionParam(UnboundedProvider((0.0, 0), FastPrimitivesCoder()))
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(EventTimeProvider())


def fed_path(released: Path, shard: int) -> Path:
    """Returns where a shard writes how many images it has fed, once it has fed all."""
    return released.with_name(f"{released.name}.{shard}")


class _Feed(beam.DoFn):
    """Emits a shard's images at a rate for a while, or as many of them as the runner takes.

    It emits few at a time and comes back, so that a runner whose buffers are full slows it down. No
    image is skipped: a fleet that is fed more slowly is one whose time passes more slowly.
    """

    def __init__(self, fleet: Fleet, rate: float, seconds: float, released: Path) -> None:
        self._fleet = fleet
        self._rate = rate / fleet.shards
        self._seconds = seconds
        self._released = released

    @beam.DoFn.unbounded_per_element()
    def process(
        self, element: int, tracker: Any = _RESTRICTION, estimator: Any = _WATERMARK
    ) -> Iterator[Any]:
        time.sleep(_NAP_SECONDS)
        started, index = tracker.current_restriction()
        now = time.time()
        started = started or now
        end = index
        if now - started < self._seconds:
            end = max(index, min(int((now - started) * self._rate), index + _IN_ONE_POLL))
        if not tracker.try_claim((started, end)):
            return
        for number in (self._fleet.number_of(element, done) for done in range(index, end)):
            image = self._fleet.image(number, streaming=True)
            yield TimestampedValue(image, Timestamp(self._fleet.taken(number)))
        if now - started >= self._seconds:
            fed_path(self._released, element).write_text(str(end))
        reached = self._fleet.taken(self._fleet.number_of(element, end)) - _GRACE_SECONDS
        if self._released.exists():
            reached += _FAR_SECONDS
        before, now_at = estimator.current_watermark(), Timestamp(reached)
        estimator.set_watermark(now_at if before is None else max(before, now_at))
        tracker.defer_remainder(Duration(0))


class FeedStream(beam.PTransform):
    """Feeds a stream.

    Output: `PCollection[DetectedImage]`, unbounded.

    Args:
      fleet: The cameras.
      rate: Images a second, at most.
      seconds: For how long.
      released: A path; once a file is there, event time goes on to the far future, so that all
        windows close. Beside it, each shard writes how many images it has fed.
    """

    def __init__(self, fleet: Fleet, rate: float, seconds: float, released: Path) -> None:
        super().__init__()
        self._shards = fleet.shards
        self._feed = _Feed(fleet, rate, seconds, released)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[DetectedImage]:
        return (
            begin
            | "Shards" >> beam.Create(range(self._shards), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Feed" >> beam.ParDo(self._feed).with_output_types(DetectedImage)
        )


class FeedBatch(beam.PTransform):
    """Feeds a batch.

    Output: `PCollection[DetectedImage]`.

    Args:
      fleet: The cameras.
      images: How many images, in all.
    """

    def __init__(self, fleet: Fleet, images: int) -> None:
        super().__init__()
        self._fleet = fleet
        self._images = images

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[DetectedImage]:
        def images_of(shard: int) -> Iterator[DetectedImage]:
            for number in range(shard, self._images, self._fleet.shards):
                yield self._fleet.image(number, streaming=False)

        return (
            begin
            | "Shards" >> beam.Create(range(self._fleet.shards), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Images" >> beam.FlatMap(images_of).with_output_types(DetectedImage)
        )
