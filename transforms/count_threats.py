"""CountThreats: images and threats for each id in event-time windows."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
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
from transforms.times import canonical_time, parse_time

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
_LATEST = datetime.max.replace(microsecond=0, tzinfo=timezone.utc)

Tally = dict[str, Any]
"""Of one id: `images`, `threat_images`, `threats`, `alerts` and the Counter `by_label`."""


def event_time(timestamp: str) -> Timestamp:
    """The Beam timestamp of a canonical time."""
    microseconds = (parse_time(timestamp) - _EPOCH) // timedelta(microseconds=1)
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
    return {key: one[key] + other[key] for key in one}


def count_rows(tallies: dict[str, Tally], start: str, end: str) -> tuple[dict[str, Any], ...]:
    """The count rows of a window, in the order of the ids."""
    return tuple(
        {
            "id": camera,
            "window_start": start,
            "window_end": end,
            **one,
            "by_label": dict(sorted(one["by_label"].items())),
        }
        for camera, one in sorted(tallies.items())
    )


def _window_time(bound: Timestamp) -> datetime:
    """A window's bound as a datetime, which reaches from the year 1 to the year 9999."""
    try:
        return _EPOCH + timedelta(microseconds=bound.micros)
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
        yield WindowCounts(start, end, shard, count_rows(tallies, start, end))


class CountThreats(beam.PTransform):
    """Counts images and threats for each id in fixed windows of event time.

    A window's counts come early while it fills, where that is asked for, once when the watermark
    passes its end, and again for each image that is late by no more than the allowed lateness.
    Panes accumulate: each holds the window's whole counts so far.

    Input: `PCollection[JudgedImage]`. Output: `PCollection[WindowCounts]`, one for each shard of
    a window and each firing.

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

    def expand(self, judged: beam.PCollection[JudgedImage]) -> beam.PCollection[WindowCounts]:
        shards = self._shards

        def keyed(one: JudgedImage) -> TimestampedValue:
            camera = one.image.id
            return TimestampedValue(
                (shard_of(camera, shards), (camera, tally(one))),
                event_time(one.image.timestamp),
            )

        return (
            judged
            | "AtEventTime" >> beam.Map(keyed)
            | "Window" >> self._windows
            | "Sum" >> beam.CombinePerKey(SumTallies())
            | "ToRows" >> beam.ParDo(_ToWindowCounts()).with_output_types(WindowCounts)
        )


class _WriteCounts(ReadAheadDoFn):
    def __init__(self, output: str, shards: int) -> None:
        super().__init__(threads=1, max_waiting=16)  # One thread: panes are written in order.
        self._output = output
        self._shards = shards

    def work(self, element: WindowCounts) -> None:
        window = f"{_in_name(element.start)}_{_in_name(element.end)}"
        uri = stores.counts_uri(self._output, window, element.shard, self._shards)
        stores.write_bytes(uri, b"".join(map(stores.json_bytes, element.rows)))


def _in_name(timestamp: str) -> str:
    return timestamp.replace("-", "").replace(":", "")


class StoreCounts(beam.PTransform):
    """Keeps the counts of each window in `counts/`.

    Input: `PCollection[WindowCounts]`.

    Args:
      output: The job's output.
      shards: Files a window.
    """

    def __init__(self, output: str, *, shards: int = 1) -> None:
        super().__init__()
        self._output = output
        self._shards = shards

    def expand(self, counts: beam.PCollection[WindowCounts]) -> beam.PCollection[Any]:
        return counts | "Write" >> beam.ParDo(_WriteCounts(self._output, self._shards))
