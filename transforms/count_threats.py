"""CountThreats: images and threats for each id in event-time windows.

A batch combines the images of each window by Beam's own windows. A stream would keep each image
there, and add them all up whenever a window is written. So it adds up the images of each bundle
first, and keeps the sums of a window in state: a firing costs what has been added since the last
one, and one row for each camera, as all rows of a file are written together.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypedDict, cast

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.trigger import (
    AccumulationMode,
    AfterCount,
    AfterProcessingTime,
    AfterWatermark,
)
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import FixedWindows, GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Duration, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

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
_NUMBERS = ("images", "threat_images", "threats", "alerts", "retracted")


def _pack_tallies(tallies: dict[str, CountTally]) -> dict[str, list[Any]]:
    return {camera: _to_list(_pack_tally(tally)) for camera, tally in tallies.items()}


def _to_list(plain: dict[str, Any]) -> list[Any]:
    return [*(plain[name] for name in _NUMBERS), plain["by_label"]]


def _unpack_tallies(plain: dict[str, list[Any]]) -> dict[str, CountTally]:
    return {
        camera: _unpack_tally({**dict(zip(_NUMBERS, numbers, strict=True)), "by_label": labels})
        for camera, (*numbers, labels) in plain.items()
    }


def _without_names(plain: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Upgrades from version 1, which wrote the name of each number."""
    return {camera: _to_list(tally) for camera, tally in plain.items()}


TALLIES: VersionedCoder[dict[str, CountTally]] = VersionedCoder(
    dict, version=2, upgrades={1: _without_names}, pack=_pack_tallies, unpack=_unpack_tallies
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


def _window_counts(
    tallies: dict[str, CountTally], shard: int, start: datetime, end: datetime
) -> WindowCounts:
    rows = tuple(row.to_json() for row in count_rows(tallies, start, end))
    added = sum(tally["images"] + tally["retracted"] for tally in tallies.values())
    return WindowCounts(canonical_time(start), canonical_time(end), shard, rows, added)


class _ToWindowCounts(beam.DoFn):
    def process(
        self,
        element: tuple[int, dict[str, CountTally]],
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowCounts]:
        shard, tallies = element
        if tallies:  # A window may fire an empty pane if the watermark leaps past its lateness.
            start, end = _window_time(window.start), _window_time(window.end)
            yield _window_counts(tallies, shard, start, end)


_Sums = tuple[str, dict[str, CountTally]]


class _SumInBundle(beam.DoFn):
    """Adds up the images of a bundle by window and shard, so that no key gets each image."""

    def __init__(self, window_seconds: int, shards: int) -> None:
        self._length = window_seconds * 1_000_000
        self._shards = shards
        self._combine = SumTallies()

    def start_bundle(self) -> None:
        self._sums: dict[str, dict[str, CountTally]] = {}
        self._earliest = MAX_TIMESTAMP

    def process(
        self,
        element: JudgedImage | CountedImage,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> None:
        counted = CountedImage.of(element) if isinstance(element, JudgedImage) else element
        start = event_time(counted.timestamp).micros // self._length * self._length
        key = f"{start}\n{shard_of(counted.id, self._shards)}"
        sums = self._sums.setdefault(key, {})
        self._combine.add_input(sums, (counted.id, counted.tally))
        self._earliest = min(self._earliest, timestamp)

    def finish_bundle(self) -> Iterator[Any]:
        for sums in self._sums.items():
            yield WindowedValue(sums, self._earliest, (GlobalWindow(),))
        self._sums = {}


_NOTHING_NEW, _NEW, _CLOSED = 0, 1, 2


class _SumInStream(beam.DoFn):
    """Keeps the sums of a window and shard, and yields the counts at each firing.

    What is added before a window ends waits in a bag until the next firing. After the end, each
    addition fires at once, as long as the window takes images.

    Args:
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
      early_firing_seconds: Seconds between early firings; None for none.
      clock: Returns Unix seconds.
    """

    _ADDED = BagStateSpec("added", TALLIES)
    _SUM = ReadModifyWriteStateSpec("sum", TALLIES)
    _STATUS = ReadModifyWriteStateSpec("status", VarIntCoder())
    _EARLY = TimerSpec("early", TimeDomain.REAL_TIME)
    _END = TimerSpec("end", TimeDomain.WATERMARK)
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(
        self,
        window_seconds: int,
        allowed_lateness_seconds: int,
        early_firing_seconds: int | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._window_seconds = window_seconds
        self._lateness_seconds = allowed_lateness_seconds
        self._early_firing_seconds = early_firing_seconds
        self._clock = clock
        self._combine = SumTallies()

    def process(
        self,
        element: _Sums,
        added: Any = beam.DoFn.StateParam(_ADDED),
        total: Any = beam.DoFn.StateParam(_SUM),
        status: Any = beam.DoFn.StateParam(_STATUS),
        early: Any = beam.DoFn.TimerParam(_EARLY),
        end: Any = beam.DoFn.TimerParam(_END),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[WindowCounts]:
        key, sums = element
        before = status.read() or _NOTHING_NEW
        if before == _CLOSED:
            yield from self._fire(key, [sums], total)
            return
        added.add(sums)
        if before == _NOTHING_NEW:
            status.write(_NEW)
            if self._early_firing_seconds is not None:
                early.set(Timestamp.of(self._clock() + self._early_firing_seconds))
            end.set(self._end_of(key))
            forget.set(self._end_of(key) + Duration(self._lateness_seconds))

    @on_timer(_EARLY)
    def fire_early(
        self,
        key: Any = beam.DoFn.KeyParam,
        added: Any = beam.DoFn.StateParam(_ADDED),
        total: Any = beam.DoFn.StateParam(_SUM),
        status: Any = beam.DoFn.StateParam(_STATUS),
    ) -> Iterator[WindowCounts]:
        """Yields the counts while a window fills."""
        if status.read() == _NEW:
            yield from self._fire(key, added.read(), total)
            added.clear()
            status.write(_NOTHING_NEW)

    @on_timer(_END)
    def fire_at_end(
        self,
        key: Any = beam.DoFn.KeyParam,
        added: Any = beam.DoFn.StateParam(_ADDED),
        total: Any = beam.DoFn.StateParam(_SUM),
        status: Any = beam.DoFn.StateParam(_STATUS),
    ) -> Iterator[WindowCounts]:
        """Yields the counts at the end of a window."""
        before = status.read()
        if before == _NEW:
            yield from self._fire(key, added.read(), total)
            added.clear()
        if before is not None:  # A window that takes no more images may be forgotten first.
            status.write(_CLOSED)

    @on_timer(_FORGET)
    def forget(
        self,
        key: Any = beam.DoFn.KeyParam,
        added: Any = beam.DoFn.StateParam(_ADDED),
        total: Any = beam.DoFn.StateParam(_SUM),
        status: Any = beam.DoFn.StateParam(_STATUS),
    ) -> Iterator[WindowCounts]:
        """Ends the state of a window that takes no more images."""
        if status.read() == _NEW:
            yield from self._fire(key, added.read(), total)
        for cell in (added, total, status):
            cell.clear()

    def _fire(
        self, key: str, added: Iterable[dict[str, CountTally]], total: Any
    ) -> Iterator[WindowCounts]:
        tallies = self._combine.merge_accumulators([total.read() or {}, *added])
        total.write(tallies)
        start, shard = map(int, key.split("\n"))
        start_time = _window_time(Timestamp(micros=start))
        yield _window_counts(tallies, shard, start_time, _window_time(self._end_of(key)))

    def _end_of(self, key: str) -> Timestamp:
        start, _ = key.split("\n")
        return Timestamp(micros=int(start)) + Duration(self._window_seconds)


class CountThreats(beam.PTransform):
    """Counts images and threats for each id in fixed windows of event time.

    A window fires early while it fills, if `early_firing_seconds` is set, once when the watermark
    passes its end, and again for each image that is late by no more than the allowed lateness.
    Each firing holds all counts of the window so far.

    Input: `PCollection[JudgedImage]`, or `PCollection[CountedImage]`, which can retract images.
    Output: `PCollection[WindowCounts]`, one for each shard of a window and each firing.

    Args:
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
      early_firing_seconds: Seconds of processing time between early firings; None for none, as in
        a batch, where Beam's in-process runner has no processing time.
      shards: How many files each window has.
      streaming: Whether the input is unbounded: sums are then kept in state. An image that comes
        after the allowed lateness is no longer dropped; it has to be left out before this step.
    """

    def __init__(
        self,
        *,
        window_seconds: int = 300,
        allowed_lateness_seconds: int = 3600,
        early_firing_seconds: int | None = None,
        shards: int = 1,
        streaming: bool = False,
    ) -> None:
        super().__init__()
        if window_seconds < 1 or shards < 1:
            raise ValueError(f"{window_seconds} s a window and {shards} shards: at least 1 of each")
        early = None if early_firing_seconds is None else AfterProcessingTime(early_firing_seconds)
        self._shards = shards
        self._streaming = streaming
        self._sum_in_bundle = _SumInBundle(window_seconds, shards)
        self._sum_in_stream = _SumInStream(
            window_seconds, allowed_lateness_seconds, early_firing_seconds
        )
        self._windows = beam.WindowInto(
            FixedWindows(window_seconds),
            trigger=AfterWatermark(early=early, late=AfterCount(1)),
            accumulation_mode=AccumulationMode.ACCUMULATING,
            allowed_lateness=allowed_lateness_seconds,
        )

    def expand(
        self, images: beam.PCollection[JudgedImage | CountedImage]
    ) -> beam.PCollection[WindowCounts]:
        if self._streaming:
            return (
                images
                | "SumInBundle" >> beam.ParDo(self._sum_in_bundle).with_output_types(_Sums)
                | "SumInStream" >> beam.ParDo(self._sum_in_stream).with_output_types(WindowCounts)
            )
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
