"""`python -m benchmarks.scale`: what fleets of cameras cost on a real Flink, without the model.

Made-up records of cameras, each with an image a minute of its own time, go through all of the job
that follows detection: verdicts, repositories, versions, counts and alerts. So what is measured is
what the number of cameras and images costs, not the model (that is `make bench`).

- The stream is fed at the rate of the fleet at `--speed_up` times the speed, or as fast as Flink
  takes the records, if that is slower. Then the fleet's own time passes more slowly, too.
- The batch is given `--batch_images` records.

Each run is recounted: it fails unless there are as many verdicts and counts as records.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import apache_beam as beam
from apache_beam.internal.cloudpickle import cloudpickle

import rules
from beam_pipeline.job.options import job_options
from beam_pipeline.job.pipeline import judge_and_store
from beam_pipeline.job.preparation import Job
from beam_pipeline.runners import launching
from beam_pipeline.runners.beam_options import beam_options
from benchmarks import scale_source
from benchmarks.__main__ import machine
from benchmarks.scale_source import FeedBatch, FeedStream, Fleet, fed_path
from tests.flink.stream_job import FlinkJob, flink_cluster, wait_for
from transforms.records.images import InvalidImage
from transforms.runtime.live_rules import LiveRules
from transforms.validate_image import Limits

RULES = """\
version: 1
defaults:
  objects:
    person: {min_score: 0.5}
    car: {min_score: 0.6}
  repeats: {iou: 0.85, occurrences: 3, within: 24h}
  cooldown: 5m
"""
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 1800.0


@dataclass(frozen=True)
class Usage:
    """What a process has taken.

    Attributes:
      kind: `worker`, or `flink` for a TaskManager.
      seconds: Its processor time.
      peak_mib: The largest resident size.
    """

    kind: str
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Figures:
    """What one run has measured.

    Attributes:
      kind: `stream` or `batch`.
      cameras: How many cameras the fleet has.
      asked: Images a second of the fleet; None for a batch, which takes them as fast as it can.
      images: The records that were fed, all of which were recounted.
      sustained: Images a second.
      worker_ms: Processor time of the Python workers for an image, in milliseconds.
      flink_ms: The same of the TaskManagers.
      worker_mib: The largest memory of the Python workers, all together.
      flink_mib: The same of the TaskManagers.
      skew: Records of the busiest slot relative to the mean, in the step where it is largest.
      skew_step: That step, by Flink's name.
      checkpoint_kib: The size of the state after the last image; None for a batch, as what follows.
      drained_kib: The size after the windows have closed.
      checkpoint_ms: The median time that a checkpoint took while the stream was fed.
      longest_ms: The longest time.
    """

    kind: str
    cameras: int
    asked: float | None
    images: int
    sustained: float
    worker_ms: float
    flink_ms: float
    worker_mib: float
    flink_mib: float
    skew: float
    skew_step: str = ""
    checkpoint_kib: float | None = None
    drained_kib: float | None = None
    checkpoint_ms: float | None = None
    longest_ms: float | None = None


def job_of(output: Path, cameras: int, *words: str) -> Job:
    """Returns the part of a job's set-up that the steps after detection need."""
    options = job_options(
        ["--input", "/srv/pictures", "--output", str(output), "--no_store_validated", *words]
    )
    return Job(
        input="/srv/pictures",
        output=str(output),
        rules=LiveRules(rules.parse_rules(RULES, "scale.yaml")),
        rules_source="scale.yaml",
        shadow=None,
        shadow_source=None,
        model=cast(Any, None),
        detections=None,
        limits=Limits(),
        max_clock_skew=cast(Any, None),
        earlier=None,
        options=options,
        count_shards=max(1, math.ceil(cameras / 5000)),  # As if the rule file named the cameras.
    )


class Run:
    """A run of the fleet on a cluster.

    Args:
      cluster: The cluster.
      source: Gives the records.
      job: The job.
      beam_words: Beam's options, besides those of the cluster.
    """

    def __init__(self, cluster: Any, source: beam.PTransform, job: Job, *beam_words: str) -> None:
        before = {entry["id"] for entry in cluster.get("/jobs")["jobs"]}
        cloudpickle.register_pickle_by_value(scale_source)  # Workers do not have this package.
        words = [*cluster.pipeline_options(), *beam_words]
        pipeline = launching.new_pipeline(beam_options(words, streaming=job.options.streaming))
        nothing = pipeline | "Nothing" >> beam.Create([]).with_output_types(InvalidImage)
        judge_and_store(pipeline | "Source" >> source, nothing, {}, job)
        self._cluster = cluster
        self._seen: dict[int, Usage] = {}
        self.before = self.usage()
        self.result = pipeline.run()

        def new() -> str | None:
            ids = [entry["id"] for entry in cluster.get("/jobs")["jobs"]]
            return next((id_ for id_ in ids if id_ not in before), None)

        self.flink = FlinkJob(cluster, wait_for("the job is there", new, 300))

    def state(self) -> str:
        """Returns what Flink says of the job."""
        return str(self._cluster.get(f"/jobs/{self.flink.id}")["state"])

    def check(self) -> None:
        """Ends the benchmark if the job has failed."""
        if self.state() not in ("RUNNING", "FINISHED", "CREATED", "INITIALIZING"):
            raise SystemExit(f"the job is {self.state()}; see {self._cluster.path('log')}")

    def usage(self) -> dict[int, Usage]:
        """Returns what the workers and the TaskManagers have taken, also those that ended."""
        for pid in flink_cluster._processes(self._cluster.path()):
            with suppress(OSError, StopIteration):  # It has just ended.
                line = Path(f"/proc/{pid}/cmdline").read_text()
                if "sdk_worker_main" in line:
                    self._seen[pid] = _usage_of(pid, "worker")
                elif "TaskManagerRunner" in line:
                    self._seen[pid] = _usage_of(pid, "flink")
        return dict(self._seen)

    def skew(self, images: int) -> tuple[float, str]:
        """Returns the share of the busiest slot in the step where it is largest, and that step."""
        found = [(1.0, "")]
        for vertex in self._cluster.get(f"/jobs/{self.flink.id}")["vertices"]:
            path = f"/jobs/{self.flink.id}/vertices/{vertex['id']}"
            read = [one["metrics"]["read-records"] for one in self._cluster.get(path)["subtasks"]]
            if sum(read) >= images / 2:  # Others get too few to tell.
                found.append((max(read) / statistics.mean(read), vertex["name"]))
        return max(found)

    def checkpoint_times(self) -> list[float]:
        """Returns how long the last checkpoints took, in milliseconds."""
        history = self.flink.checkpoints()["history"]
        return [one["end_to_end_duration"] for one in history if one["status"] == "COMPLETED"]

    def checkpoint_bytes(self) -> int:
        """Waits for a checkpoint that began after now; returns the size of the state."""
        begun = self.flink.checkpoints()["counts"]["completed"]

        def size() -> int | None:
            checkpoints = self.flink.checkpoints()
            if checkpoints["counts"]["completed"] < begun + 2:
                return None
            return int(checkpoints["latest"]["completed"]["state_size"])

        return int(wait_for("a checkpoint", size, 600))


def _usage_of(pid: int, kind: str) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return Usage(kind, (int(fields[11]) + int(fields[12])) / _TICKS, int(peak) / 1024)


def _counted(output: Path) -> int:
    """The images in the counts."""
    total = 0
    for path in (output / "counts").glob("*.jsonl"):
        total += sum(json.loads(line)["images"] for line in path.read_text().splitlines())
    return total


def _verdicts(output: Path) -> int:
    folders = (output / "final").iterdir() if (output / "final").is_dir() else ()
    return sum(len(os.listdir(folder)) for folder in folders)


def _recount(output: Path, images: int) -> None:
    found = {"verdicts": _verdicts(output), "counts": _counted(output)}
    wrong = {name: number for name, number in found.items() if number != images}
    if wrong:
        raise SystemExit(f"{images} records were fed, but there are {wrong}; see {output}")


def stream(
    cluster: Any,
    output: Path,
    cameras: int,
    *,
    speed_up: float = 60,
    seconds: float = 60,
    words: Sequence[str] = (),
    checkpoint_ms: int = 10_000,
) -> Figures:
    """Feeds a stream, and measures it.

    Args:
      cluster: The cluster.
      output: Where the job's output goes.
      cameras: How many cameras there are.
      speed_up: How much faster the fleet's time passes than the clock, at most.
      seconds: For how long it is fed.
      words: Further options of the job.
      checkpoint_ms: The interval of checkpoints.
    """
    slots = cluster.taskmanagers * cluster.slots
    asked = cameras / 60 * speed_up
    released = output.with_name(output.name + ".released")
    source = FeedStream(Fleet(cameras, float(int(time.time())), slots), asked, seconds, released)
    job = job_of(output, cameras, "--streaming", "--alert_max_age", "off", *words)
    run = Run(cluster, source, job, f"--checkpointing_interval={checkpoint_ms}")
    try:
        wait_for("the first verdict", lambda: run.check() or _verdicts(output), 300)
        used = run.usage()
        fed = [fed_path(released, shard) for shard in range(slots)]
        wait_for("all are fed", lambda: run.check() or all(path.exists() for path in fed), 300)
        images = sum(int(path.read_text()) for path in fed)
        times = run.checkpoint_times()
        wait_for("all verdicts", lambda: run.flink.counter("images.valid") >= images, _PATIENCE)
        ended = run.usage()
        size = run.checkpoint_bytes()
        skew = run.skew(images)
        released.touch()
        wait_for("all counts", lambda: _counted(output) >= images, _PATIENCE)
        drained = run.checkpoint_bytes()
    finally:
        run.flink.cancel()
    _recount(output, images)
    return Figures(
        "stream",
        cameras,
        asked,
        images,
        sustained=_pace(output),
        **_taken(used, ended, images),
        skew=skew[0],
        skew_step=skew[1],
        checkpoint_kib=size / 1024,
        drained_kib=drained / 1024,
        checkpoint_ms=statistics.median(times),
        longest_ms=max(times),
    )


def batch(
    cluster: Any, output: Path, cameras: int, images: int, words: Sequence[str] = ()
) -> Figures:
    """Runs a batch of records, and measures it together with the start of its workers.

    Args:
      cluster: The cluster.
      output: Where the job's output goes.
      cameras: How many cameras there are.
      images: How many records.
      words: Further options of the job.
    """
    slots = cluster.taskmanagers * cluster.slots
    source = FeedBatch(Fleet(cameras, float(int(time.time())), slots), images)
    run = Run(cluster, source, job_of(output, cameras, *words))
    while run.state() in ("CREATED", "INITIALIZING", "RUNNING"):
        ended = run.usage()
        time.sleep(0.5)
    run.check()
    seconds = cluster.get(f"/jobs/{run.flink.id}")["duration"] / 1000
    skew = run.skew(images)
    run.result.wait_until_finish()
    _recount(output, images)
    return Figures(
        "batch",
        cameras,
        None,
        images,
        sustained=images / seconds,
        **_taken(run.before, ended, images),
        skew=skew[0],
        skew_step=skew[1],
    )


def _taken(used: dict[int, Usage], ended: dict[int, Usage], images: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in ("worker", "flink"):
        processes = {pid: usage for pid, usage in ended.items() if usage.kind == kind}
        seconds = sum(
            usage.seconds - (used[pid].seconds if pid in used else 0)
            for pid, usage in processes.items()
        )
        found[f"{kind}_ms"] = 1000 * seconds / images
        found[f"{kind}_mib"] = sum(usage.peak_mib for usage in processes.values())
    return found


def _pace(output: Path) -> float:
    """Images a second by the dates of the verdicts, without the first and last tenth."""
    dates = sorted(path.stat().st_mtime for path in output.glob("final/*/*.json"))
    first, last = len(dates) // 10, len(dates) * 9 // 10
    return (last - first) / max(dates[last] - dates[first], 0.001)


def table(figures: Sequence[Figures]) -> str:
    """Returns the table of all runs."""
    columns: list[tuple[str, Callable[[Figures], str]]] = [
        ("", lambda one: one.kind),
        ("cameras", lambda one: f"{one.cameras:,}"),
        ("images/s of the fleet", lambda one: _number(one.asked, ",.0f")),
        ("images", lambda one: f"{one.images:,}"),
        ("images/s sustained", lambda one: f"{one.sustained:,.0f}"),
        ("workers: processor time of an image", lambda one: f"{one.worker_ms:.2f} ms"),
        ("TaskManagers: the same", lambda one: f"{one.flink_ms:.2f} ms"),
        ("memory of workers", lambda one: f"{one.worker_mib:,.0f} MiB"),
        ("of TaskManagers", lambda one: f"{one.flink_mib:,.0f} MiB"),
        ("busiest slot / mean", lambda one: f"{one.skew:.2f}"),
        ("state", lambda one: _number(one.checkpoint_kib, ",.0f", " KiB")),
        (
            "state for each image",
            lambda one: _number(
                one.checkpoint_kib and one.checkpoint_kib * 1024 / one.images, ",.0f", " bytes"
            ),
        ),
        ("after all windows", lambda one: _number(one.drained_kib, ",.0f", " KiB")),
        ("checkpoint, median", lambda one: _number(one.checkpoint_ms, ",.0f", " ms")),
        ("longest", lambda one: _number(one.longest_ms, ",.0f", " ms")),
    ]
    lines = [
        " | ".join(["", *(name for name, _ in columns), ""]).strip(),
        "|---" * len(columns) + "|",
    ]
    for one in figures:
        lines.append(" | ".join(["", *(show(one) for _, show in columns), ""]).strip())
    return "\n".join(lines)


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def main(words: Sequence[str] | None = None) -> int:
    """Measures each fleet, and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="stream, batch; none: both")
    parser.add_argument("--cameras", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--speed_up", type=float, default=60, help="at most (default: 60)")
    parser.add_argument("--seconds", type=float, default=60, help="how long a stream is fed")
    parser.add_argument("--batch_images", type=int, default=20_000)
    parser.add_argument("--taskmanagers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=1, help="slots of each TaskManager")
    args = parser.parse_args(words)
    parts = args.parts or ["stream", "batch"]
    for part in set(parts) - {"stream", "batch"}:
        parser.error(f"there is no part {part}: give stream, batch, or both")
    figures = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        try:
            cluster = flink_cluster.up(
                scratch / "flink",
                rest_port=0,
                worker_pool_port=0,
                taskmanagers=args.taskmanagers,
                slots=args.slots,
            )
            for part in parts:
                for cameras in args.cameras:
                    output = scratch / f"{part}-{cameras}"
                    figures.append(
                        stream(
                            *(cluster, output, cameras),
                            speed_up=args.speed_up,
                            seconds=args.seconds,
                        )
                        if part == "stream"
                        else batch(cluster, output, cameras, args.batch_images)
                    )
                    print(figures[-1], file=sys.stderr, flush=True)
        finally:
            flink_cluster.down(scratch / "flink")
    print(f"{machine()}, load {load:.0f} before and {os.getloadavg()[0]:.0f} after the runs\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
