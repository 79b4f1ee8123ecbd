"""`python -m benchmarks [speed|overhead|memory ...]`: measures, and prints tables in Markdown.

Every part compares things in one run, each in a process of its own, in turn, because machines
drift: the ratios are to be quoted, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pictures import copies_of_photographs, small_pictures
from tests.stores.bucket import Bucket
from tests.stores.servers import Proxy, s3proxy

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def in_process(module: str, *arguments: str | Path | int) -> dict[str, Any]:
    """What `python -m benchmarks.MODULE` printed as JSON on its last line."""
    finished = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SystemExit(f"benchmarks.{module} failed:\n{finished.stderr}")
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def speed(photos: Path, model: Path, images: int, rounds: int) -> None:
    """The job with all its outputs written against a bare loop over the same files."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "pictures"
        copies_of_photographs(photos, pictures, images)
        bare, job, ratios = [], [], []
        for turn in range(rounds):
            bare.append(in_process("bare_loop", pictures, model)["images_per_second"])
            output = Path(scratch) / f"output-{turn}"
            job.append(in_process("whole_job", pictures, model, output)["images_per_second"])
            ratios.append(job[-1] / bare[-1])
    print(f"\n### Speed: {images} photographs, {rounds} rounds in turn, start-up taken out\n")
    print("| | images/s (median) | least to most |")
    print("|---|---|---|")
    print(f"| bare loop: scaled decode, batch 8, TensorFlow's own threads | {spread(bare)} |")
    print(f"| the job on DirectRunner, every output written | {spread(job)} |")
    print(f"| ratio, round by round | {spread(ratios, 2)} |")


def overhead(images: int) -> None:
    """What the framework itself costs an image, with a model that does nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures, model = Path(scratch) / "pictures", Path(scratch) / "idle"
        small_pictures(pictures, images)
        in_process("idle_model", model)
        bare = in_process("bare_loop", pictures, model)["images_per_second"]
        job = in_process("whole_job", pictures, model, Path(scratch) / "out")["images_per_second"]
    print(f"\n### The framework's own cost: {images} small pictures, a model that does nothing\n")
    print("| | images/s | ms an image |")
    print("|---|---|---|")
    print(f"| bare loop: read, decode, idle model | {bare:.0f} | {1000 / bare:.2f} |")
    print(f"| the job, every output written | {job:.0f} | {1000 / job:.2f} |")


def memory(few: int, many: int) -> None:
    """The job's peak memory with few and with many small pictures."""
    peaks = []
    for images in (few, many):
        with tempfile.TemporaryDirectory() as scratch:
            pictures, model = Path(scratch) / "pictures", Path(scratch) / "idle"
            small_pictures(pictures, images)
            in_process("idle_model", model)
            peaks.append(
                in_process("whole_job", pictures, model, Path(scratch) / "out")["peak_mib"]
            )
    print("\n### Peak memory of the job, small pictures\n")
    print("| pictures | peak MiB |")
    print("|---|---|")
    print(f"| {few} | {peaks[0]:.0f} |")
    print(f"| {many} | {peaks[1]:.0f} ({peaks[1] / peaks[0]:.2f} times) |")


def stores(photos: Path, model: Path, images: int, rounds: int) -> None:
    """The same pictures from the local disk and from S3 on the loopback, near and far."""
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch, s3proxy() as near, Proxy(near) as proxy:
        pictures = Path(scratch) / "pictures"
        copies_of_photographs(photos, pictures, images)
        bucket = Bucket.make(near, "pictures-to-measure-with")
        bucket.put_tree(pictures, "pictures")
        os.environ.update(near.environment)

        def measure(row: str, source: Path | str, output: Path | str, *options: str) -> None:
            result = in_process("whole_job", source, model, output, *options)
            rows.setdefault(row, []).append(result["images_per_second"])

        for turn in range(rounds):
            output = Path(scratch) / f"output-{turn}"
            source = bucket.uri("pictures")
            measure("the local disk", pictures, output / "local")
            measure("S3", source, output / "near", *near.options)
            for milliseconds in (20, 50):
                proxy.delay = milliseconds / 1000
                row = f"S3, each request {milliseconds} ms late"
                measure(row, source, output / str(milliseconds), *proxy.server.options)
            proxy.delay = 0.02
            measure(
                "S3, each request 20 ms late, the results in it too",
                *(source, bucket.uri(f"output-{turn}"), *proxy.server.options),
            )
    local = rows["the local disk"]
    print(f"\n### Stores: {images} photographs, {rounds} rounds in turn, start-up taken out\n")
    print("| pictures from | images/s (median) | least to most | of the local disk's |")
    print("|---|---|---|---|")
    for row, speeds in rows.items():
        ratio = statistics.median(one / two for one, two in zip(speeds, local, strict=True))
        print(f"| {row} | {spread(speeds)} | {ratio:.2f} |")


def spread(values: list[float], decimals: int = 1) -> str:
    """Median, and least to most, as two cells of a table."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{decimals}f} | {low:.{decimals}f} to {high:.{decimals}f}"


def machine() -> str:
    """What it was measured on."""
    kind = platform.processor() or platform.machine()
    version = platform.python_version()
    return f"{kind}, {os.cpu_count()} processors, Python {version}, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="speed, overhead, memory, stores")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos" / "coco")
    parser.add_argument(
        "--model", type=Path, default=SHARED / "models" / "yolox_nano_coco" / "saved_model"
    )
    parser.add_argument("--images", type=int, default=720)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    parts = args.parts or ["speed", "overhead", "memory", "stores"]
    print(machine())
    real = args.photos.is_dir() and args.model.exists()
    for part in {"speed", "stores"} & set(parts):
        if not real:
            print(f"{part}: give --photos (a directory of JPEGs) and --model (a SavedModel)")
    if "speed" in parts and real:
        speed(args.photos, args.model, args.images, args.rounds)
    if "overhead" in parts:
        overhead(2000)
    if "memory" in parts:
        memory(1000, 10000)
    if "stores" in parts and real:
        stores(args.photos, args.model, 500, args.rounds)


if __name__ == "__main__":
    main()
