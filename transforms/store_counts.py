"""StoreCounts: the counts of each window, in `counts/`."""

from __future__ import annotations

import json
from typing import Any

import apache_beam as beam

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


class StoreCounts(beam.PTransform):
    """Writes the counts of each window to `counts/`.

    Input: `PCollection[WindowCounts]`.

    Args:
      output: The job's output.
      shards: How many files each window has.
      keep_newer: Whether to keep a file that counts more images than were added to the new counts.
        A stream needs this, as a worker that was given up for dead may still write.
    """

    def __init__(self, output: str, *, shards: int = 1, keep_newer: bool = False) -> None:
        super().__init__()
        self._write = _WriteCounts(output, shards, keep_newer)

    def expand(self, counts: beam.PCollection[WindowCounts]) -> beam.PCollection[Any]:
        return counts | "Write" >> beam.ParDo(self._write)
