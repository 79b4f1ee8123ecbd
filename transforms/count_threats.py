"""CountThreats: images and threats for each id in event-time windows."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypedDict, cast

import apache_beam as beam
from apache_beam.transforms.trigger import (
    AccumulationMode,
    AfterCount,
    AfterProcessingTime,
    AfterWatermark,
)
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms.records.codecs import VersionedCoder, register_record
from transforms.records.count_rows import CountRow
from transforms.records.images import JudgedImage, WindowCounts
from transforms.records.times import EPOCH, canonical_time, parse_time

_EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
_LATEST = datetime.max.replace(microsecond=0, tzinfo=timezone.utc)


class CountTally(TypedDict):
    """The counts of one id in one window.

    Attributes:
      images: Images.
      threat_images: Images with a threat.
      threats: Threats.
      alerts: Images of severity `alert`.
      by_label: Threats by label.
      retracted: Images that were counted and then retracted.
    """

    images: int
    threat_images: int
    threats: int
    alerts: int
    by_label: Counter[str]
    retracted: int


def event_time(timestamp: str) -> Timestamp:
    """Returns the Beam timestamp of a canonical time."""
    microseconds = (parse_time(timestamp) - EPOCH) // timedelta(microseconds=1)
    return Timestamp(micros=microseconds)


def tally_image(judged: JudgedImage) -> CountTally:
    """Returns what one image adds to the counts of its id."""
    threats = judged.verdict.threats
    return {
        "images": 1,
        "threat_images": int(judged.verdict.is_threat),
        "threats": len(threats),
        "alerts": int(judged.verdict.severity == "alert"),
        "by_label": Counter(threat.label for threat in threats),
        "retracted": 0,
    }


@dataclass(frozen=True)
class CountedImage:
    """What one image adds to the counts.

    Attributes:
      id: The camera's id.
      timestamp: The capture time, canonical.
      tally: What is added; its numbers are negative if the image is retracted.
    """

    id: str
    timestamp: str
    tally: CountTally

    @classmethod
    def of(cls, judged: JudgedImage) -> CountedImage:
        """Returns what an image adds to the counts."""
        return cls(judged.image.id, judged.image.timestamp, tally_image(judged))

    def retraction(self) -> CountedImage:
        """Returns what has to be added to retract the image from the counts."""
        labels: Counter[str] = Counter()
        labels.subtract(self.tally["by_label"])
        negated: CountTally = {
            "images": -self.tally["images"],
            "threat_images": -self.tally["threat_images"],
            "threats": -self.tally["threats"],
            "alerts": -self.tally["alerts"],
            "retracted": 1,
            "by_label": labels,
        }
        return replace(self, tally=negated)


def _pack_tally(tally: CountTally) -> dict[str, Any]:
    return {**tally, "by_label": dict(tally["by_label"])}


def _unpack_tally(plain: dict[str, Any]) -> CountTally:
    return cast(CountTally, {**plain, "by_label": Counter(plain["by_label"])})


def _pack_counted(image: CountedImage) -> list[Any]:
    return [image.id, image.timestamp, _pack_tally(image.tally)]


def _unpack_counted(plain: list[Any]) -> CountedImage:
    camera, timestamp, tally = plain
    return CountedImage(camera, timestamp, _unpack_tally(tally))


register_record(CountedImage, pack=_pack_counted, unpack=_unpack_counted)
TALLIES: VersionedCoder[dict[str, CountTally]] = VersionedCoder(
    dict,
    pack=lambda tallies: {camera: _pack_tally(tally) for camera, tally in tallies.items()},
    unpack=lambda plain: {camera: _unpack_tally(tally) for camera, tally in plain.items()},
)
"""Encodes the tallies of a window by id, as its state."""


def window_of(timestamp: str, window_seconds: int) -> tuple[datetime, datetime]:
    """Returns the bounds of the window that a capture time belongs to; the end is exclusive."""
    length = window_seconds * 1_000_000
    start = event_time(timestamp).micros // length * length
    return _window_time(Timestamp(micros=start)), _window_time(Timestamp(micros=start + length))


def is_too_late(
    timestamp: str, stream_time: str | None, window_seconds: int, allowed_lateness_seconds: int
) -> bool:
    """Returns whether an image was listed too late to be counted in its window.

    Args:
      timestamp: The capture time, canonical.
      stream_time: The event time of the stream when the image was listed, canonical; None if no
        image had come before.
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
    """
    if stream_time is None:
        return False
    end = window_of(timestamp, window_seconds)[1]
    return timedelta(seconds=allowed_lateness_seconds) <= parse_time(stream_time) - end


def shard_of(camera: str, shards: int) -> int:
    """Returns the shard that holds an id. It is the same in every run and on every machine."""
    return zlib.crc32(camera.encode()) % shards


class SumTallies(beam.CombineFn):
    """Adds up `(id, tally)` pairs by id, into `dict[id, tally]`."""

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return TALLIES

    def create_accumulator(self) -> dict[str, CountTally]:
        return {}

    def add_input(
        self, accumulator: dict[str, CountTally], element: tuple[str, CountTally]
    ) -> dict[str, CountTally]:
        camera, tally = element
        total = accumulator.get(camera)
        accumulator[camera] = tally if total is None else _add_tallies(total, tally)
        return accumulator

    def merge_accumulators(
        self, accumulators: Iterable[dict[str, CountTally]]
    ) -> dict[str, CountTally]:
        merged: dict[str, CountTally] = {}
        for accumulator in accumulators:
            for item in accumulator.items():
                merged = self.add_input(merged, item)
        return merged

    def extract_output(self, accumulator: dict[str, CountTally]) -> dict[str, CountTally]:
        return accumulator


def _add_tallies(first: CountTally, second: CountTally) -> CountTally:
    labels: Counter[str] = Counter(first["by_label"])
    labels.update(second["by_label"])  # Unlike +, this keeps labels whose sum is not above zero.
    return {
        "images": first["images"] + second["images"],
        "threat_images": first["threat_images"] + second["threat_images"],
        "threats": first["threats"] + second["threats"],
        "alerts": first["alerts"] + second["alerts"],
        "retracted": first["retracted"] + second["retracted"],
        "by_label": labels,
    }


def count_row(camera: str, tally: CountTally, start: datetime, end: datetime) -> CountRow:
    """Returns the count row of one id in one window."""
    return CountRow(
        id=camera,
        window_start=start,
        window_end=end,
        images=tally["images"],
        threat_images=tally["threat_images"],
        threats=tally["threats"],
        alerts=tally["alerts"],
        by_label={label: number for label, number in tally["by_label"].items() if number},
    )


def count_rows(
    tallies: dict[str, CountTally], start: datetime, end: datetime
) -> tuple[CountRow, ...]:
    """Returns the count rows of a window in the order of the ids; ids without images have none."""
    return tuple(
        count_row(camera, tally, start, end)
        for camera, tally in sorted(tallies.items())
        if tally["images"]
    )


def _window_time(bound: Timestamp) -> datetime:
    """Returns a bound of a window as a datetime, limited to the years 1 to 9999."""
    try:
        return EPOCH + timedelta(microseconds=bound.micros)
    except OverflowError:
        return _EARLIEST if bound.micros < 0 else _LATEST


class _ToWindowCounts(beam.DoFn):
    def process(
        self,
        element: tuple[int, dict[str, CountTally]],
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowCounts]:
        shard, tallies = element
        start, end = _window_time(window.start), _window_time(window.end)
        rows = tuple(row.to_json() for row in count_rows(tallies, start, end))
        if tallies:  # A window may fire an empty pane if the watermark leaps past its lateness.
            added = sum(tally["images"] + tally["retracted"] for tally in tallies.values())
            yield WindowCounts(canonical_time(start), canonical_time(end), shard, rows, added)


class CountThreats(beam.PTransform):
    """Counts images and threats for each id in fixed windows of event time.

    A window fires early while it fills, if `early_firing_seconds` is set, once when the watermark
    passes its end, and again for each image that is late by no more than the allowed lateness.
    Panes accumulate: each holds all counts of the window so far.

    Input: `PCollection[JudgedImage]`, or `PCollection[CountedImage]`, which can retract images.
    Output: `PCollection[WindowCounts]`, one for each shard of a window and each firing.

    Args:
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
      early_firing_seconds: Seconds of processing time between early firings; None for none, as in
        a batch, where Beam's in-process runner has no processing time.
      shards: How many files each window has.
    """

    def __init__(
        self,
        *,
        window_seconds: int = 300,
        allowed_lateness_seconds: int = 3600,
        early_firing_seconds: int | None = None,
        shards: int = 1,
    ) -> None:
        super().__init__()
        if window_seconds < 1 or shards < 1:
            raise ValueError(f"{window_seconds} s a window and {shards} shards: at least 1 of each")
        early = None if early_firing_seconds is None else AfterProcessingTime(early_firing_seconds)
        self._shards = shards
        self._windows = beam.WindowInto(
            FixedWindows(window_seconds),
            trigger=AfterWatermark(early=early, late=AfterCount(1)),
            accumulation_mode=AccumulationMode.ACCUMULATING,
            allowed_lateness=allowed_lateness_seconds,
        )

    def expand(
        self, images: beam.PCollection[JudgedImage | CountedImage]
    ) -> beam.PCollection[WindowCounts]:
        shards = self._shards

        def key_by_shard(image: JudgedImage | CountedImage) -> TimestampedValue:
            counted = CountedImage.of(image) if isinstance(image, JudgedImage) else image
            element = shard_of(counted.id, shards), (counted.id, counted.tally)
            return TimestampedValue(element, event_time(counted.timestamp))

        return (
            images
            | "AtEventTime" >> beam.Map(key_by_shard)
            | "Window" >> self._windows
            | "Sum" >> beam.CombinePerKey(SumTallies())
            | "ToRows" >> beam.ParDo(_ToWindowCounts()).with_output_types(WindowCounts)
        )


def late_row(judged: JudgedImage, window_seconds: int) -> dict[str, Any]:
    """Returns the count row of an image that was too late for its window."""
    image = judged.image
    row = count_row(image.id, tally_image(judged), *window_of(image.timestamp, window_seconds))
    return {"file": image.file, **row.to_json()}
