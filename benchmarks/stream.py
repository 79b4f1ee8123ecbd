"""`python -m benchmarks.stream [latency|batch|state ...]`: measures the stream on a real Flink.

- latency: from the time when an image's file is whole to its detections, its verdict, and its alert
  on the service's socket. With `--runner prism`, on one machine without Flink.
- batch: images a second of the batch job on Flink, beside DirectRunner and a bare loop.
- state: size of a checkpoint after few and after many images, with a model that does nothing and
  the default options.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.__main__ import SHARED, in_process, machine
from benchmarks.pictures import copies_of_photographs, small_pictures
from tests.flink.stream_job import StreamJob, flink_cluster, wait_for
from tests.transforms.web_service import WebService

RULES = """version: 1
defaults:
  objects:
    person: {min_score: 0.3, severity: alert}
  cooldown: 0s
"""


@contextmanager
def cluster(scratch: Path) -> Iterator[Any]:
    """A Flink of two slots."""
    try:
        yield flink_cluster.up(scratch / "flink", rest_port=0, worker_pool_port=0)
    finally:
        flink_cluster.down(scratch / "flink")


def feed(target: Path, sources: Sequence[Path], count: int, rate: float) -> dict[str, float]:
    """Moves images in at a rate; the Unix time at which each was there, by its name."""
    closed = {}
    first = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, first + number / rate - time.monotonic()))
        name = f"camera-{number % 8}_{int(time.time() * 1000)}"
        partial = target / f".{name}.part"
        shutil.copyfile(sources[number % len(sources)], partial)
        os.replace(partial, target / f"{name}.jpg")
        closed[name] = time.time()
    return closed


class LocalStream:
    """A stream on Prism, on this machine.

    Args:
      log: What it says.
      arguments: Its command line, but for the runner's options.
    """

    def __init__(self, log: Path, *arguments: str | os.PathLike[str]) -> None:
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "beam_pipeline", "--runner", "DirectRunner"),
                    *("--streaming", *map(os.fspath, arguments)),
                ],
                stdout=out,
                stderr=out,
            )

    def cancel(self) -> None:
        """Ends the job."""
        self._process.terminate()
        self._process.wait(timeout=60)


def _delays(
    output: Path, closed: Mapping[str, float], service: WebService
) -> dict[str, list[float]]:
    """Seconds from when each file was whole, in order, by what came of it."""
    to_wall_clock = time.time() - time.monotonic()
    found: dict[str, list[float]] = {}
    for kind in ("detections", "final"):
        written = {path.stem: path.stat().st_mtime for path in output.glob(f"{kind}/*/*.json")}
        found[kind] = sorted(written[name] - at for name, at in closed.items())
    names = [Path(json.loads(request.body)["image_uri"]).stem for request in service.requests]
    found["alert"] = sorted(
        request.at + to_wall_clock - closed[name]
        for name, request in zip(names, list(service.requests), strict=False)
        if name in closed
    )
    return found


def latency(
    folder: Path,
    start: Callable[..., StreamJob | LocalStream],
    images_folder: Sequence[Path],
    model: Path,
    rate: float,
    seconds: float,
) -> None:
    """One row of the table: p50 and p95 of the times from file closed."""
    (folder / "in").mkdir(parents=True)
    (folder / "rules.yaml").write_text(RULES)
    with WebService() as service:
        job = start(
            *(folder / "log", "--input", folder / "in", "--output", folder / "out"),
            *("--model", model, "--model_input_size", "416", "--rules", folder / "rules.yaml"),
            *("--poll_interval_seconds", "1", "--alert_url", service.url),
        )
        try:
            first = feed(folder / "in", images_folder, 8, 4)
            final = folder / "out" / "final"
            count = len(first)
            wait_for("the first verdicts", lambda: len(list(final.glob("*/*.json"))) == count, 300)
            closed = feed(folder / "in", images_folder, round(seconds * rate), rate)
            count += len(closed)
            wait_for("all verdicts", lambda: len(list(final.glob("*/*.json"))) == count, 600)
            time.sleep(3)
        finally:
            job.cancel()
        delays = _delays(folder / "out", closed, service)
    cells = [f"{rate:g}", f"{len(closed)}", f"{len(delays['alert'])}"]
    for kind in ("detections", "final", "alert"):
        cuts = statistics.quantiles(delays[kind], n=20)
        cells += [f"{cuts[9]:.2f} s", f"{cuts[18]:.2f} s"]
    print(f"| {' | '.join(cells)} |", flush=True)


def flink_batch(scratch: Path, flink: Any, images_folder: Path, model: Path) -> float:
    """Images a second of the batch job on Flink, from the 16th verdict to the last."""
    count, output = len(list(images_folder.iterdir())), scratch / "flink-batch"
    final = output / "final"
    job = subprocess.Popen(
        [
            *(sys.executable, "-m", "beam_pipeline", *flink.pipeline_options()),
            *("--runner", "FlinkRunner", "--input", images_folder, "--output", output),
            *("--model", model, "--model_input_size", "416"),
        ],
        stdout=subprocess.DEVNULL,
    )

    def done() -> int:
        return (
            sum(len(os.listdir(camera_folder)) for camera_folder in final.iterdir())
            if final.is_dir()
            else 0
        )

    warm = wait_for("the first verdicts", lambda: done() >= 16 and done(), 300)
    begun = time.monotonic()
    wait_for("all verdicts", lambda: done() >= count, 1200)
    speed = (count - warm) / (time.monotonic() - begun)
    if job.wait(timeout=120):
        raise SystemExit("the batch job on Flink failed")
    shutil.rmtree(output)
    return float(speed)


def batch(scratch: Path, flink: Any, photos: Path, model: Path, images: int, rounds: int) -> None:
    """The batch job on Flink, on DirectRunner, and a bare loop, in turn."""
    images_folder = scratch / "pictures"
    copies_of_photographs(photos, images_folder, images)
    names = ("bare loop", "the job on DirectRunner", "the job on Flink, 2 slots")
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        speeds[names[0]].append(in_process("bare_loop", images_folder, model)["images_per_second"])
        direct = in_process("whole_job", images_folder, model, scratch / f"direct-{turn}")
        speeds[names[1]].append(direct["images_per_second"])
        speeds[names[2]].append(flink_batch(scratch, flink, images_folder, model))
    print(f"\n### The batch job on Flink: {images} photographs, {rounds} rounds in turn\n")
    print("| | images/s (median) | of DirectRunner, round by round |")
    print("|---|---|---|")
    for name, measured in speeds.items():
        of_direct = statistics.median(
            rate / other_rate for rate, other_rate in zip(measured, speeds[names[1]], strict=True)
        )
        print(f"| {name} | {statistics.median(measured):.1f} | {of_direct:.2f} |")


def state(scratch: Path, flink: Any, few: int, many: int, rate: float) -> None:
    """The size of a checkpoint after few and after many images of one job."""
    folder, model = scratch / "state", scratch / "idle"
    (folder / "in").mkdir(parents=True)
    small_pictures(folder / "small", 200)
    in_process("idle_model", model)
    job = StreamJob(
        *(flink, folder / "log", "--input", folder / "in", "--output", folder / "out"),
        *("--model", model, "--model_input_size", "320", "--no_store_validated"),
        *("--poll_interval_seconds", "1"),
    )
    try:
        sources = sorted((folder / "small").glob("*.jpg"))
        sizes = []
        for count, so_far in ((few, few), (many - few, many)):
            feed(folder / "in", sources, count, rate)
            wait_for(
                "all are judged", lambda so_far=so_far: job.counter("images.valid") >= so_far, 900
            )
            sizes.append(wait_for("a checkpoint", _next_checkpoint(job), 60))
    finally:
        job.cancel()
    print(f"\n### State, a model that does nothing, {rate:g} pictures/s, the default options\n")
    print("| pictures | checkpoint | bytes a picture since then |")
    print("|---|---|---|")
    print(f"| {few} | {sizes[0] / 1024:.0f} KiB | |")
    growth = (sizes[1] - sizes[0]) / (many - few)
    print(f"| {many} | {sizes[1] / 1024:.0f} KiB | {growth:.0f} |")


def _next_checkpoint(job: StreamJob) -> Callable[[], int | None]:
    begun = job.checkpoints()["counts"]["completed"]

    def size() -> int | None:
        checkpoints = job.checkpoints()
        if checkpoints["counts"]["completed"] < begun + 2:
            return None
        return int(checkpoints["latest"]["completed"]["state_size"])

    return size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="latency, batch, state")
    parser.add_argument("--cameras", type=Path, default=SHARED / "photos" / "cameras")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos" / "coco")
    parser.add_argument(
        "--model", type=Path, default=SHARED / "models" / "yolox_nano_coco" / "saved_model"
    )
    parser.add_argument("--images", type=int, default=720)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--runner", choices=("flink", "prism"), default="flink", help="prism: for latency alone"
    )
    parser.add_argument("--rates", type=float, nargs="*", default=[5, 20], help="images a second")
    parser.add_argument("--seconds", type=float, default=60, help="how long each rate is fed")
    args = parser.parse_args()
    parts = args.parts or ["latency", *(("batch", "state") if args.runner == "flink" else ())]
    if args.runner == "prism" and parts != ["latency"]:
        parser.error("--runner prism: only latency is measured there; leave the other parts out")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with cluster(scratch) if args.runner == "flink" else nullcontext() as flink:
            if "latency" in parts:
                halls = sorted(args.cameras.rglob("hall_*.jpg"))
                name = "Flink, 2 slots" if flink else "Prism"
                print(f"\n### From a whole file to what comes of it: the stream on {name}\n")
                print("| pictures/s | pictures | alerts | detections p50 | p95 ", end="")
                print("| verdict p50 | p95 | alert p50 | p95 |")
                print("|---" * 9 + "|")
                start = partial(StreamJob, flink) if flink else LocalStream
                for rate in args.rates:
                    at = scratch / f"latency-{rate:g}"
                    latency(at, start, halls, args.model, rate, args.seconds)
            if "batch" in parts:
                batch(scratch, flink, args.photos, args.model, args.images, args.rounds)
            if "state" in parts:
                state(scratch, flink, 1000, 5000, 25)


if __name__ == "__main__":
    main()
