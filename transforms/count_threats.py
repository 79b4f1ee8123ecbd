"""CountThreats: images and threats for each id in event-time windows."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam
from apache_beam.transforms.trigger import (
    AccumulationMode,
    AfterCount,
    AfterProcessingTime,
    AfterWatermark,
)
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms import stores
from transforms.read_ahead import ReadAheadDoFn
from transforms.records import JudgedImage, WindowCounts
from transforms.times import EPOCH, canonical_time, parse_time

_EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
_LATEST = datetime.max.replace(microsecond=0, tzinfo=timezone.utc)

Tally = dict[str, Any]
"""Of one id: `images`, `threat_images`, `threats`, `alerts` and the Counter `by_label`."""


def event_time(timestamp: str) -> Timestamp:
    """The Beam timestamp of a canonical time."""
    microseconds = (parse_time(timestamp) - EPOCH) // timedelta(microseconds=1)
    return Timestamp(micros=microseconds)


def tally(judged: JudgedImage) -> Tally:
    """What one image adds to the counts of its id."""
    threats = judged.verdict.threats
    return {
        "images": 1,
        "threat_images": int(judged.verdict.is_threat),
        "threats": len(threats),
        "alerts": int(judged.verdict.severity == "alert"),
        "by_label": Counter(threat.label for threat in threats),
    }


@dataclass(frozen=True)
class CountedImage:
    """What one image adds to the counts, or takes from them.

    Attributes:
      id: The camera's id.
      timestamp: When the image was taken, canonical.
      tally: What is added.
    """

    id: str
    timestamp: str
    tally: Tally

    @classmethod
    def of(cls, judged: JudgedImage) -> CountedImage:
        """What an image adds."""
        return cls(judged.image.id, judged.image.timestamp, tally(judged))

    def taken_back(self) -> CountedImage:
        """The same, taken from the counts."""
        less: Tally = {key: -value for key, value in self.tally.items() if key != "by_label"}
        labels: Counter[str] = Counter()
        labels.subtract(self.tally["by_label"])
        return replace(self, tally={**less, "by_label": labels})


beam.coders.registry.register_coder(CountedImage, beam.coders.PickleCoder)


def window_of(timestamp: str, window_seconds: int) -> tuple[datetime, datetime]:
    """First moment of the window that an image belongs to, and first moment after it."""
    length = window_seconds * 1_000_000
    start = event_time(timestamp).micros // length * length
    return _window_time(Timestamp(micros=start)), _window_time(Timestamp(micros=start + length))


def is_too_late(
    timestamp: str, stream_time: str | None, window_seconds: int, allowed_lateness_seconds: int
) -> bool:
    """Whether a stream's time had left an image's window for good when the image was found.

    Args:
      timestamp: When the image was taken, canonical.
      stream_time: How far event time had come, canonical; None: it had not begun.
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
    """
    if stream_time is None:
        return False
    end = window_of(timestamp, window_seconds)[1]
    return timedelta(seconds=allowed_lateness_seconds) <= parse_time(stream_time) - end


def shard_of(camera: str, shards: int) -> int:
    """Which of a window's files holds an id: the same in every run and on every machine."""
    return zlib.crc32(camera.encode()) % shards


class SumTallies(beam.CombineFn):
    """Adds up `(id, tally)` pairs by id, into `dict[id, tally]`."""

    def create_accumulator(self) -> dict[str, Tally]:
        return {}

    def add_input(
        self, accumulator: dict[str, Tally], element: tuple[str, Tally]
    ) -> dict[str, Tally]:
        camera, one = element
        known = accumulator.get(camera)
        accumulator[camera] = one if known is None else _sum(known, one)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
        merged: dict[str, Tally] = {}
        for accumulator in accumulators:
            for item in accumulator.items():
                merged = self.add_input(merged, item)
        return merged

    def extract_output(self, accumulator: dict[str, Tally]) -> dict[str, Tally]:
        return accumulator


def _sum(one: Tally, other: Tally) -> Tally:
    both = {key: one[key] + other[key] for key in one if key != "by_label"}
    labels: Counter[str] = Counter(one["by_label"])
    labels.update(other["by_label"])  # Unlike +, which drops what is below zero in between.
    return {**both, "by_label": labels}


def count_row(camera: str, counted: Tally, start: str, end: str) -> dict[str, Any]:
    """The count row of one id in one window."""
    labels = sorted((label, number) for label, number in counted["by_label"].items() if number)
    row = {"id": camera, "window_start": start, "window_end": end, **counted}
    return {**row, "by_label": dict(labels)}


def count_rows(tallies: dict[str, Tally], start: str, end: str) -> tuple[dict[str, Any], ...]:
    """The count rows of a window, in the order of the ids."""
    return tuple(
        count_row(camera, one, start, end)
        for camera, one in sorted(tallies.items())
        if one["images"]
    )


def _window_time(bound: Timestamp) -> datetime:
    """A window's bound as a datetime, which reaches from the year 1 to the year 9999."""
    try:
        return EPOCH + timedelta(microseconds=bound.micros)
    except OverflowError:
        return _EARLIEST if bound.micros < 0 else _LATEST


class _ToWindowCounts(beam.DoFn):
    def process(
        self,
        element: tuple[int, dict[str, Tally]],
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowCounts]:
        shard, tallies = element
        start = canonical_time(_window_time(window.start))
        end = canonical_time(_window_time(window.end))
        rows = count_rows(tallies, start, end)
        if rows:  # A window may fire once more, with nothing in it, when it is closed in one leap.
            yield WindowCounts(start, end, shard, rows)


class CountThreats(beam.PTransform):
    """Counts images and threats for each id in fixed windows of event time.

    A window's counts come early while it fills, where that is asked for, once when the watermark
    passes its end, and again for each image that is late by no more than the allowed lateness.
    Panes accumulate: each holds the window's whole counts so far.

    Input: `PCollection[JudgedImage]`, or `PCollection[CountedImage]`, by which images can be taken
    back. Output: `PCollection[WindowCounts]`, one for each shard of a window and each firing.

    Args:
      window_seconds: Length of a window.
      allowed_lateness_seconds: How late an image may be and still be counted.
      early_firing_seconds: Seconds of processing time between early counts; None for none, as in
        a batch, where Beam's in-process runner has no clock to fire by.
      shards: Files a window, where its ids are too many for one.
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

        def keyed(image: JudgedImage | CountedImage) -> TimestampedValue:
            one = CountedImage.of(image) if isinstance(image, JudgedImage) else image
            element = shard_of(one.id, shards), (one.id, one.tally)
            return TimestampedValue(element, event_time(one.timestamp))

        return (
            images
            | "AtEventTime" >> beam.Map(keyed)
            | "Window" >> self._windows
            | "Sum" >> beam.CombinePerKey(SumTallies())
            | "ToRows" >> beam.ParDo(_ToWindowCounts()).with_output_types(WindowCounts)
        )


class _WriteCounts(ReadAheadDoFn):
    def __init__(self, output: str, shards: int, keep_newer: bool) -> None:
        super().__init__(threads=1, max_waiting=16)  # One thread: panes are written in order.
        self._output = output
        self._shards = shards
        self._keep_newer = keep_newer

    def work(self, element: WindowCounts) -> None:
        window = f"{stores.time_in_name(element.start)}_{stores.time_in_name(element.end)}"
        uri = stores.counts_uri(self._output, window, element.shard, self._shards)
        if not self._keep_newer or images_in(element.rows) >= _images_counted(uri):
            stores.write_bytes(uri, b"".join(map(stores.json_bytes, element.rows)))


def images_in(rows: Iterable[Mapping[str, Any]]) -> int:
    """The images of all ids in a window: it never falls from one pane to the next."""
    return sum(row["images"] for row in rows)


def _images_counted(uri: str) -> int:
    try:
        return images_in(map(json.loads, stores.read_bytes(uri).splitlines()))
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # Not there, or not ours.


class StoreCounts(beam.PTransform):
    """Keeps the counts of each window in `counts/`.

    Input: `PCollection[WindowCounts]`.

    Args:
      output: The job's output.
      shards: Files a window.
      keep_newer: A stream's worker that was given up for dead may still write: counts of fewer
        images than the window's file holds already are not written.
    """

    def __init__(self, output: str, *, shards: int = 1, keep_newer: bool = False) -> None:
        super().__init__()
        self._write = _WriteCounts(output, shards, keep_newer)

    def expand(self, counts: beam.PCollection[WindowCounts]) -> beam.PCollection[Any]:
        return counts | "Write" >> beam.ParDo(self._write)


class StoreLate(beam.PTransform):
    """Counts images that came too late for their windows, a small file each in `late/<id>/`.

    Input: `PCollection[JudgedImage]`.

    Args:
      output: The job's output.
      window_seconds: Length of a window.
    """

    def __init__(self, output: str, *, window_seconds: int) -> None:
        super().__init__()
        self._output = output
        self._window_seconds = window_seconds

    def expand(self, late: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        def write(judged: JudgedImage) -> None:
            image = judged.image
            start, end = map(canonical_time, window_of(image.timestamp, self._window_seconds))
            row = {"file": image.file, **count_row(image.id, tally(judged), start, end)}
            stores.write_bytes(
                stores.late_uri(self._output, image.id, image.stem), stores.json_bytes(row)
            )

        return late | "Write" >> beam.Map(write)
