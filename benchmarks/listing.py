"""`python -m benchmarks.listing`: what it costs a stream to find the files of a large input.

A flat folder of the local disk is watched without a runner: how fast a backlog is emitted, what a
look costs in which nothing has come, and how much memory all of this takes. Then as many files in a
folder for each camera: what a look costs in five seconds of which a twelfth of the cameras has sent
an image, as if each sent one a minute. Of a bucket in an S3
server on the loopback, the requests of a look are counted. Both are looked at with a clock that is
ahead, as if they had been there for longer.

`--flink` also measures how fast a stream on a real Flink emits the backlog of such a folder, to a
step that only counts its files. `--parts` looks at the folders of cameras a second time, divided
into parts (`--input_parts`): each in a process of its own, as on a TaskManager of its own, and all
in threads of one process, as in slots of one TaskManager.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.runners import launching
from beam_pipeline.runners.beam_options import beam_options
from beam_pipeline.sources.parts import WHOLE, Part, parts_of
from beam_pipeline.sources.watching import KNOWN_FILES_CODER, KnownFiles, Watcher, WatchImages
from tests.flink.stream_job import flink_cluster, wait_for
from tests.stores.bucket import Bucket, s3_client
from tests.stores.servers import Proxy, moto

_LINKS = 60_000
"""Links to one file; ext4 takes 65,000."""
_CAMERAS = 2
_FILES_OF_A_CAMERA = 100
_ROUNDS = 3
"""Of as many looks of a kind, the fastest is shown."""
_MIB = 1 << 20


class _Note(beam.DoFn):
    """Notes how many files each bundle has had, and when it ended."""

    def __init__(self, path: str) -> None:
        self._path = path

    def start_bundle(self) -> None:
        self._files = 0

    def process(self, file: Any) -> None:
        self._files += 1

    def finish_bundle(self) -> None:
        if self._files:
            with open(self._path, "a", encoding="utf-8") as notes:
                notes.write(f"{time.time()} {self._files}\n")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB


def _name(number: int, ends: float) -> str:
    at = time.gmtime(ends - number // _CAMERAS)
    return f"camera-{number % _CAMERAS}_{time.strftime('%Y%m%dT%H%M%SZ', at)}.jpg"


class _Stream:
    """A source that is looked at, and its state in bytes, as a runner keeps it."""

    def __init__(self, source: str, part: Part = WHOLE) -> None:
        self.ahead = 0.0
        self._watcher = Watcher(source, part=part, clock=lambda: time.time() + self.ahead)
        self._known = KNOWN_FILES_CODER.encode(KnownFiles())

    @property
    def state_bytes(self) -> int:
        return len(self._known)

    def look(self) -> int:
        """Returns how many files are emitted until nothing is left."""
        number, more = 0, True
        while more:
            known = KNOWN_FILES_CODER.decode(self._known)
            assert known is not None
            result = self._watcher.poll(known)
            self._known = KNOWN_FILES_CODER.encode(result.known)
            number, more = number + len(result.ready), result.has_more
        return number


def _fill(folder: Path, files: int) -> Path:
    flat = folder / "in"
    flat.mkdir()
    ends = time.time()
    for number in range(files):
        if number % _LINKS == 0:
            linked = folder / str(number)
            linked.write_bytes(b"")
        os.link(linked, flat / _name(number, ends))
    return flat


def on_flink(folder: Path, files: int) -> list[tuple[str, str]]:
    """Returns how fast a stream on a Flink of two slots emits a backlog.

    Args:
      folder: Where to make the files.
      files: How many there are.
    """
    cloudpickle.register_pickle_by_value(sys.modules[_Note.__module__])
    flat, notes = _fill(folder, files), folder / "notes"
    notes.touch()

    def rows() -> list[tuple[float, int]]:
        lines = (line.split() for line in notes.read_text(encoding="utf-8").splitlines())
        return [(float(ended), int(found)) for ended, found in lines]

    def is_done() -> bool:
        return sum(found for _, found in rows()) >= files

    with tempfile.TemporaryDirectory() as scratch:
        try:
            cluster = flink_cluster.up(Path(scratch, "flink"), rest_port=0, worker_pool_port=0)
            options = beam_options(cluster.pipeline_options(), streaming=True)
            pipeline = launching.new_pipeline(options)
            found = pipeline | WatchImages(str(flat), poll_seconds=1.0)
            found | "Note" >> beam.ParDo(_Note(str(notes)))
            pipeline.run()
            wait_for("all files", is_done, 600)
        finally:
            flink_cluster.down(Path(scratch, "flink"))
    (began, first), *others = rows()
    pace = (files - first) / (others[-1][0] - began)
    return [(f"the same with {files:,} files on Flink, files/s", f"{pace:,.0f}")]


def local(folder: Path, files: int) -> list[tuple[str, str]]:
    """Returns what a flat folder with so many files costs.

    Args:
      folder: Where to make it.
      files: How many files it has.
    """
    flat = _fill(folder, files)
    stream = _Stream(str(flat))
    stream.ahead = 120.0
    before, began = _peak_mib(), time.perf_counter()
    found = stream.look()
    seconds = time.perf_counter() - began
    if found != files:
        raise SystemExit(f"{found} files were emitted, not {files}")
    state = stream.state_bytes
    began = time.perf_counter()
    stream.look()
    listing = time.perf_counter() - began
    began = time.perf_counter()
    stream.look()
    look = time.perf_counter() - began
    memory = _peak_mib() - before
    return [
        (f"backlog of {files:,} files in one folder, files/s", f"{files / seconds:,.0f}"),
        ("listing in which nothing has come, once a minute, ms", f"{listing * 1000:,.1f}"),
        ("look in which nothing has come, ms", f"{look * 1000:,.1f}"),
        ("memory for all of this, MiB", f"{memory:,.0f}"),
        ("memory of the process before, MiB", f"{before:,.0f}"),
        ("state after the backlog, MiB", f"{state / _MIB:,.1f}"),
    ]


class _Parts:
    """An input in parts, each of which a thread or a process of its own looks at."""

    def __init__(self, source: str, parts: int, kind: type[Executor]) -> None:
        self._keys = [(source, part, kind.__name__) for part in parts_of(parts)]
        self._executors = [kind(max_workers=1) for _ in self._keys]  # type: ignore[call-arg]

    def look(self) -> tuple[int, float]:
        """Returns how many files all parts emit until nothing is left, and the seconds of a
        processor that the busiest one takes."""
        looks = [
            executor.submit(_look, *key)
            for executor, key in zip(self._executors, self._keys, strict=True)
        ]
        found, seconds = zip(*(look.result() for look in looks), strict=True)
        return sum(found), max(seconds)

    def close(self) -> None:
        for executor in self._executors:
            executor.shutdown()


_streams: dict[tuple[str, Part, str], _Stream] = {}
"""The inputs and parts that this process looks at."""


def _look(source: str, part: Part, kind: str) -> tuple[int, float]:
    key = source, part, kind
    if key not in _streams:
        _streams[key] = _Stream(source, part)
        _streams[key].ahead = 120.0
    began = time.thread_time()
    found = _streams[key].look()
    return found, time.thread_time() - began


def _fill_by_camera(folder: Path, cameras: int, ends: float) -> Path:
    image, top = folder / "image", folder / "in"
    for camera in range(cameras):
        of_camera = top / str(camera)
        of_camera.mkdir(parents=True)
        for number in range(_FILES_OF_A_CAMERA):
            if camera * _FILES_OF_A_CAMERA % _LINKS == number == 0:
                image = folder / str(camera)
                image.write_bytes(b"")
            os.link(image, of_camera / _name(number * _CAMERAS, ends))
    return top


_Times = tuple[float, float]
"""The seconds of a look, and those of a processor."""


def _timed_looks(ways: Mapping[str, _Parts], expected: int) -> dict[str, _Times]:
    times = {}
    for way, parts in ways.items():
        began = time.perf_counter()
        found, processor = parts.look()
        times[way] = time.perf_counter() - began, processor
        if found != expected:
            raise SystemExit(f"{found} files were emitted, not {expected}")
    return times


def _fastest(name: str, rounds: Sequence[Mapping[str, _Times]]) -> Iterator[tuple[str, str]]:
    for way in rounds[0]:
        seconds, processor = map(min, zip(*(times[way] for times in rounds), strict=True))
        yield f"{name}{way}, ms", f"{seconds * 1000:,.1f}; processor {processor * 1000:,.1f}"


def by_camera(folder: Path, files: int, parts: int = 1) -> list[tuple[str, str]]:
    """Returns what looks at a folder for each camera cost.

    Args:
      folder: Where to make them.
      files: How many files they have together.
      parts: Into how many parts they are divided, too.
    """
    cameras, ends = max(files // _FILES_OF_A_CAMERA, 12), time.time()
    top = _fill_by_camera(folder, cameras, ends)
    kinds = {
        "in a process each": ProcessPoolExecutor,
        "in threads of one process": ThreadPoolExecutor,
    }
    ways = {"": _Parts(str(top), 1, ThreadPoolExecutor)}
    if parts > 1:
        ways |= {
            f", {parts} parts {how}": _Parts(str(top), parts, kind) for how, kind in kinds.items()
        }
    _timed_looks(ways, cameras * _FILES_OF_A_CAMERA)
    _timed_looks(ways, 0)
    nothing = [_timed_looks(ways, 0) for _ in range(_ROUNDS)]
    some = []
    came = cameras // 12
    for look in range(1, _ROUNDS + 1):
        for camera in range(came):
            (top / str(camera * 12) / _name(0, ends + 60 * look)).write_bytes(b"")
        some.append(_timed_looks(ways, came))
    for way in ways.values():
        way.close()
    return [
        *_fastest(f"look at {cameras:,} folders in which nothing has come", nothing),
        *_fastest("look in which an image has come into each twelfth", some),
    ]


def bucket(objects: int) -> list[tuple[str, str]]:
    """Returns the requests that looks at a bucket with so many objects take."""
    with moto() as server, Proxy(server) as proxy:
        pictures = Bucket.make(server, "listing")
        client = s3_client(server)
        ends = time.time()

        def put(number: int, at: float) -> None:
            client.put_object(Bucket=pictures.name, Key=f"in/{_name(number, at)}", Body=b"")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: put(number, ends), range(objects)))
        os.environ.update(server.environment)
        FileSystems.set_options(PipelineOptions(list(proxy.server.options)))
        stream = _Stream(pictures.uri("in"))
        stream.ahead = 7200.0
        requests = []
        for expected in (objects, 0, 0, 1):
            if expected == 1:
                put(0, ends + 7200)
            proxy.requests.clear()
            found = stream.look()
            if found != expected:
                raise SystemExit(f"{found} objects were emitted, not {expected}")
            requests.append(len(proxy.requests))
    return [
        (
            f"full listing of {objects:,} objects of {_CAMERAS} cameras, requests",
            f"{requests[1]:,}",
        ),
        ("look in which nothing has come, requests", f"{requests[2]:,}"),
        ("look in which an image has come, requests", f"{requests[3]:,}"),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.listing",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=200_000, help="files in the folder")
    parser.add_argument(
        "--objects", type=int, default=20_000, help="objects in the bucket; 0: none"
    )
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the folder is made")
    parser.add_argument(
        "--parts", type=int, default=1, help="parts of the folders of cameras; 1: the whole only"
    )
    parser.add_argument("--flink", action="store_true", help="measure a stream on Flink, too")
    args = parser.parse_args(words)
    rows = []
    folders = partial(by_camera, parts=args.parts)
    for measure in (local, folders, on_flink) if args.flink else (local, folders):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows += measure(Path(folder), args.files)
    if args.objects:
        rows += bucket(args.objects)
    print("| | |\n|---|---|")
    for name, figure in rows:
        print(f"| {name} | {figure} |")


if __name__ == "__main__":
    main()
