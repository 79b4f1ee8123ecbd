"""StoreCounts: the counts of each window, in `counts/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Duration

from transforms.count_threats import event_time
from transforms.records.images import WindowCounts
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores


class _WriteCounts(ReadAheadDoFn):
    """Writes the file of each window and shard, unless a stream's file holds a newer pane."""

    def __init__(self, output: str, shards: int, keep_newer: bool) -> None:
        super().__init__(threads=1, max_waiting=16)  # One thread: panes are written in order.
        self._output = output
        self._shards = shards
        self._keep_newer = keep_newer

    def work(self, element: WindowCounts) -> None:
        window = f"{stores.time_in_name(element.start)}_{stores.time_in_name(element.end)}"
        uri = stores.counts_uri(self._output, window, element.shard, self._shards)
        if not self._keep_newer or element.added >= _images_counted(uri):
            stores.write_bytes(uri, b"".join(map(stores.json_bytes, element.rows)))


def _images_counted(uri: str) -> int:
    """Returns the number of images in a file of counts; 0 if it is missing or has another form.

    Raises:
      OSError: It can't be read, and may be the newer one: the runner tries the bundle again.
    """
    try:
        return sum(json.loads(line)["images"] for line in stores.read_bytes(uri).splitlines())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


class _Newest(beam.DoFn):
    """Lets the counts of a window pass unless newer ones have passed already.

    Args:
      kept_seconds: How long after its end a window is remembered.
    """

    _CHANGES = ReadModifyWriteStateSpec("changes", VarIntCoder())
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(self, kept_seconds: int) -> None:
        self._kept = Duration(kept_seconds)

    def process(
        self,
        element: tuple[str, WindowCounts],
        state: Any = beam.DoFn.StateParam(_CHANGES),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[WindowCounts]:
        _, counts = element
        images = sum(int(row["images"]) for row in counts.rows)
        changes = 2 * counts.added - images  # The images that were added, and those retracted.
        if changes >= (state.read() or 0):
            state.write(changes)
            forget.set(event_time(counts.end) + self._kept)
            yield counts

    @on_timer(_FORGET)
    def forget(self, state: Any = beam.DoFn.StateParam(_CHANGES)) -> None:
        """Forgets a window whose counts change no more."""
        state.clear()


def _by_file(counts: WindowCounts) -> tuple[str, WindowCounts]:
    return f"{counts.start} {counts.end} {counts.shard}", counts


class StoreCounts(beam.PTransform):
    """Writes the counts of each window to `counts/`.

    Input: `PCollection[WindowCounts]`.

    Args:
      output: The job's output.
      shards: How many files each window has.
      keep_newer: Whether to keep a file that counts more images than were added to the new counts.
        A stream needs this, as a worker that was given up for dead may still write.
      reordered: Whether counts of one window may come in any order, as on Prism, which gives
        firings of one key to several threads. Older ones are then dropped by state.
      allowed_lateness_seconds: How long a window takes images after its end. The state of a file
        lasts an hour longer.
    """

    def __init__(
        self,
        output: str,
        *,
        shards: int = 1,
        keep_newer: bool = False,
        reordered: bool = False,
        allowed_lateness_seconds: int = 3600,
    ) -> None:
        super().__init__()
        self._newest = _Newest(allowed_lateness_seconds + 3600)
        self._write = _WriteCounts(output, shards, keep_newer)
        self._reordered = reordered

    def expand(self, counts: beam.PCollection[WindowCounts]) -> beam.PCollection[Any]:
        if self._reordered:
            # Prism forgets the state of a window at its end, though late images still come.
            counts = (
                counts
                | "WithoutWindow" >> beam.WindowInto(GlobalWindows())
                | "ByFile" >> beam.Map(_by_file).with_output_types(tuple[str, WindowCounts])
                | "Newest" >> beam.ParDo(self._newest).with_output_types(WindowCounts)
            )
        return counts | "Write" >> beam.ParDo(self._write)
