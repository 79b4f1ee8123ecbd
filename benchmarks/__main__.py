"""`python -m benchmarks [PART ...]`: measures, and prints tables in Markdown.

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
from benchmarks.processor_time import ProcessorTime
from tests.stores.bucket import Bucket
from tests.stores.servers import Proxy, s3proxy

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
_CPU = "ms_of_cpu"


def in_process(module: str, *arguments: str | Path | int) -> dict[str, Any]:
    """Returns what `python -m benchmarks.MODULE` printed as JSON on its last line."""
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
    """The job with all its outputs written against bare loops over the same files."""
    loops = {
        "bare loop: scaled decode, batch 8, TensorFlow's own threads": "bare_loop",
        "bare loop of two threads: scaled decode, the converted model": "converted_loop",
    }
    job = "the job on DirectRunner, every output written"
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in (*loops, job)}
    with tempfile.TemporaryDirectory() as scratch:
        images_folder = Path(scratch) / "pictures"
        copies_of_photographs(photos, images_folder, images)
        for turn in range(rounds):
            for name, module in loops.items():
                measured[name].append(in_process(module, images_folder, model))
            output = Path(scratch) / f"output-{turn}"
            measured[job].append(in_process("whole_job", images_folder, model, output))
    print(f"\n### Speed: {images} photographs, {rounds} rounds in turn, start-up taken out\n")
    print("| | images/s (median) | least to most | ms of processor time an image (median) |")
    print("|---|---|---|---|")
    for name, results in measured.items():
        speeds, cpu = ([result[key] for result in results] for key in ("images_per_second", _CPU))
        print(f"| {name} | {spread(speeds)} | {statistics.median(cpu):.1f} |")
    print("\n| the job relative to | images/s, round by round | least to most |")
    print("|---|---|---|")
    for name in loops:
        ratios = [
            one["images_per_second"] / other["images_per_second"]
            for one, other in zip(measured[job], measured[name], strict=True)
        ]
        print(f"| {name} | {spread(ratios, 2)} |")


def runtimes(photos: Path, model: Path, rounds: int) -> None:
    """The model's calls alone, as a SavedModel and converted, and what 8-bit weights cost."""
    annotations = photos.with_name(f"{photos.name}.annotations.json")
    truth = [annotations] if annotations.is_file() else []
    names = ("savedmodel", "tflite", "tflite-int8")
    speeds: dict[tuple[str, int], list[float]] = {}
    precision = {}
    for _ in range(rounds):
        for threads in (1, os.cpu_count() or 1):
            for name in names:
                result = in_process("model_alone", photos, model, name, threads, *truth)
                speeds.setdefault((name, threads), []).append(result["images_per_second"])
                precision[name] = result.get("average_precision")
    print(f"\n### Runtimes: photographs in memory, {rounds} rounds in turn\n")
    print("| runtime | calls at once | images/s (median) | least to most | ratio | AP |")
    print("|---|---|---|---|---|---|")
    for (name, threads), measured in speeds.items():
        base_rates = speeds["savedmodel", threads]
        ratio = statistics.median(
            rate / base_rate for rate, base_rate in zip(measured, base_rates, strict=True)
        )
        ap = precision[name]
        precision_text = "" if ap is None else f"{ap:.4f}"
        print(f"| {name} | {threads} | {spread(measured)} | {ratio:.2f} | {precision_text} |")


def overhead(images: int) -> None:
    """What the framework itself costs an image, with a model that does nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        images_folder, model = Path(scratch) / "pictures", Path(scratch) / "idle"
        small_pictures(images_folder, images)
        in_process("idle_model", model)
        bare = in_process("bare_loop", images_folder, model)["images_per_second"]
        job = in_process("whole_job", images_folder, model, Path(scratch) / "out")[
            "images_per_second"
        ]
    print(f"\n### The framework's own cost: {images} small pictures, a model that does nothing\n")
    print("| | images/s | ms an image |")
    print("|---|---|---|")
    print(f"| bare loop: read, decode, idle model | {bare:.0f} | {1000 / bare:.2f} |")
    print(f"| the job, every output written | {job:.0f} | {1000 / job:.2f} |")


def memory(few: int, many: int) -> None:
    """The job's peak memory with few and with many small images."""
    peaks = []
    for images in (few, many):
        with tempfile.TemporaryDirectory() as scratch:
            images_folder, model = Path(scratch) / "pictures", Path(scratch) / "idle"
            small_pictures(images_folder, images)
            in_process("idle_model", model)
            peaks.append(
                in_process("whole_job", images_folder, model, Path(scratch) / "out")["peak_mib"]
            )
    print("\n### Peak memory of the job, small pictures\n")
    print("| pictures | peak MiB |")
    print("|---|---|")
    print(f"| {few} | {peaks[0]:.0f} |")
    print(f"| {many} | {peaks[1]:.0f} ({peaks[1] / peaks[0]:.2f} times) |")


def stores(photos: Path, model: Path, images: int, rounds: int) -> None:
    """The same images from the local disk and from S3 on the loopback, near and far."""
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch, s3proxy() as near, Proxy(near) as proxy:
        images_folder = Path(scratch) / "pictures"
        copies_of_photographs(photos, images_folder, images)
        bucket = Bucket.make(near, "pictures-to-measure-with")
        bucket.put_tree(images_folder, "pictures")
        os.environ.update(near.environment)
        source = bucket.uri("pictures")
        # A server in Java is several times slower until it has run for a while.
        in_process("whole_job", source, model, bucket.uri("warm"), *near.options)

        def measure(row: str, source: Path | str, output: Path | str, *options: str) -> None:
            servers = ProcessorTime(with_children=True)
            result = in_process("whole_job", source, model, output, *options)
            result["ms_of_servers"] = servers.ms_per(images)
            rows.setdefault(row, []).append(result)

        for turn in range(rounds):
            output = Path(scratch) / f"output-{turn}"
            measure("the local disk", images_folder, output / "local")
            measure("S3", source, output / "near", *near.options)
            measure("S3, the results in it too", source, bucket.uri(f"near-{turn}"), *near.options)
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
    print(
        "| pictures from | images/s (median) | least to most | of the local disk's "
        "| ms of the job's processor time an image | of the store's |"
    )
    print("|---|---|---|---|---|---|")
    for row, results in rows.items():
        speeds = [result["images_per_second"] for result in results]
        ratio = statistics.median(
            result["images_per_second"] / local_result["images_per_second"]
            for result, local_result in zip(results, local, strict=True)
        )
        cpu, servers = (
            statistics.median(result[key] for result in results) for key in (_CPU, "ms_of_servers")
        )
        print(f"| {row} | {spread(speeds)} | {ratio:.2f} | {cpu:.1f} | {servers:.1f} |")


def spread(values: list[float], decimals: int = 1) -> str:
    """Median, and least to most, as two cells of a table."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{decimals}f} | {low:.{decimals}f} to {high:.{decimals}f}"


def machine() -> str:
    """Returns what it was measured on."""
    kind = platform.processor() or platform.machine()
    version = platform.python_version()
    return f"{kind}, {os.cpu_count()} processors, Python {version}, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="speed, runtimes, overhead, memory, stores"
    )
    parser.add_argument("--photos", type=Path, default=SHARED / "photos" / "coco")
    parser.add_argument(
        "--model", type=Path, default=SHARED / "models" / "yolox_nano_coco" / "saved_model"
    )
    parser.add_argument("--images", type=int, default=720)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    parts = args.parts or ["speed", "runtimes", "overhead", "memory", "stores"]
    print(machine())
    real = args.photos.is_dir() and args.model.exists()
    for part in {"speed", "runtimes", "stores"} & set(parts):
        if not real:
            print(f"{part}: give --photos (a directory of JPEGs) and --model (a SavedModel)")
    if "speed" in parts and real:
        speed(args.photos, args.model, args.images, args.rounds)
    if "runtimes" in parts and real:
        runtimes(args.photos, args.model, args.rounds)
    if "overhead" in parts:
        overhead(2000)
    if "memory" in parts:
        memory(1000, 10000)
    if "stores" in parts and real:
        stores(args.photos, args.model, args.images, args.rounds)


if __name__ == "__main__":
    main()
