"""`python -m benchmarks.backtest`: how fast an archive is judged again, packed and as JSON.

The archive is drawn with a seed: cameras that send images with 1 to 20 detections, most of them
weak, as a detector keeps them down to 0.05. Every run is of the whole command on DirectRunner in
one process, after a first run that loads the libraries. It uses one core; where other work is on
the machine, the images for each second of the processor tell more than those for each second.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import rules
from beam_pipeline import cli
from benchmarks.__main__ import machine
from transforms.judge_threats import judge
from transforms.records.images import DetectedImage, JudgedImage, ModelInfo
from transforms.records.times import canonical_time
from transforms.storage import stores
from transforms.storage.archive import open_archive
from transforms.storage.packed import write_packed

START = datetime(2026, 1, 31, tzinfo=timezone.utc)
LABELS = {"1": "person", "2": "bicycle", "3": "car", "17": "cat", "18": "dog"}
PLAIN = """\
version: 1
defaults:
  objects:
    person: {min_score: 0.5, min_area: 0.001}
    car: {min_score: 0.6}
    dog: {severity: ignore}
"""
FULL = (
    PLAIN
    + """\
  timezone: Europe/Berlin
  night: {start: "20:00", end: "06:00"}
  zones:
    drive: {polygon: [[0, 0.3], [1, 0.3], [1, 1], [0, 1]]}
  mask:
    flag: {polygon: [[0, 0], [0.2, 0], [0.2, 0.2]], anchor: center}
  schedule:
    armed: [{start: "18:00", end: "07:00"}, {days: [sat, sun]}]
  repeats: {iou: 0.85, occurrences: 3, within: 24h}
  confirm: {pictures: 2, within: 2m}
  cooldown: 5m
"""
)


def draw(camera: str, images: int, seed: int) -> Iterator[DetectedImage]:
    """Yields the images of one camera, half a minute apart."""
    drawn = random.Random(f"{seed} {camera}")
    model = ModelInfo("drawn", "000000000000")
    for number in range(images):
        capture_time = START + timedelta(seconds=30 * number)
        detections = []
        for _ in range(drawn.randint(1, 20)):
            category = drawn.choice(list(LABELS))
            score = round(0.05 + 0.95 * drawn.random() ** 3, 4)
            width, height = (round(0.02 + 0.3 * drawn.random(), 4) for _ in range(2))
            left, top = (round(drawn.random() * (1 - side), 4) for side in (width, height))
            box = left, top, width, height
            detections.append(rules.Detection(category, LABELS[category], score, box))
        name = f"{camera}_{capture_time:%Y%m%dT%H%M%SZ}.jpg"
        yield DetectedImage(
            id=camera,
            timestamp=canonical_time(capture_time),
            file=name,
            uri=f"/srv/pictures/{name}",
            sha256=f"{drawn.getrandbits(256):064x}",
            width=1280,
            height=720,
            model=model,
            detections=tuple(detections),
            brightness=round(drawn.random(), 4),
            sharpness=round(0.1 * drawn.random(), 4),
        )


def judged(camera: str, images: int, seed: int) -> Iterator[JudgedImage]:
    """Returns the same, judged by the plain rules."""
    ruleset = rules.parse_rules(PLAIN, "plain.yaml")
    return (judge(image, ruleset) for image in draw(camera, images, seed))


def write_packed_archive(folder: Path, cameras: int, images: int, seed: int) -> None:
    """What `pack` makes of a job's output, without writing that first."""
    for number in range(cameras):
        camera = f"camera-{number:02}"
        rows = (
            (judged_image.image, judged_image.verdict.to_json())
            for judged_image in judged(camera, images, seed)
        )
        write_packed(str(folder), camera, rows)


def write_json_archive(folder: Path, cameras: int, images: int, seed: int) -> None:
    """A job's output: a JSON an image in `detections/` and in `final/`."""
    for number in range(cameras):
        camera = f"camera-{number:02}"
        for judged_image in judged(camera, images, seed):
            image = judged_image.image
            for uri, value in (
                (stores.detections_uri(str(folder), camera, image.stem), image.to_json()),
                (stores.final_uri(str(folder), camera, image.stem), judged_image.to_json()),
            ):
                os.makedirs(os.path.dirname(uri), exist_ok=True)
                Path(uri).write_bytes(stores.json_bytes(value))


def backtest(archive: Path, rule_file: Path, *more: str) -> None:
    """Runs the command."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(["backtest", "--archive", str(archive), "--rules", str(rule_file), *more])
    if code:
        raise SystemExit(f"backtest ended with {code}")


def read(folder: Path) -> None:
    """Reads an archive, and no more."""
    archive = open_archive(str(folder))
    for id in archive.ids:
        for _ in archive.images(id):
            pass


def speeds(images: int, work: Callable[[], None]) -> str:
    """Images a second, and a second of the processor, as cells of a table."""
    started, busy = time.perf_counter(), time.process_time()
    work()
    taken, used = time.perf_counter() - started, time.process_time() - busy
    return f"{images:,} | {images / taken:,.0f} | {images / used:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backtest", description=__doc__)
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=5000, help="of each camera, packed")
    parser.add_argument("--json_pictures", type=int, default=500, help="of each camera, as JSON")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain, full = folder / "plain.yaml", folder / "full.yaml"
        plain.write_text(PLAIN)
        full.write_text(FULL)
        packed, loose = folder / "packed", folder / "json"
        write_packed_archive(packed, args.cameras, args.pictures, args.seed)
        write_json_archive(loose, args.cameras, args.json_pictures, args.seed)
        backtest(packed, plain, "--id", "camera-00", "--until", "2026-01-31T01:00:00Z")
        many, few = args.cameras * args.pictures, args.cameras * args.json_pictures
        size = sum(file.stat().st_size for file in packed.iterdir())
        print(f"\n{many:,} pictures packed: {size / many:,.0f} bytes a picture\n")
        print("| archive | rules | pictures | pictures/s | pictures a second of the processor |")
        print("|---|---|---|---|---|")
        for what, archive, images in (
            ("packed", packed, many),
            ("a JSON a picture", loose, few),
        ):
            print(f"| {what} | none: only read | {speeds(images, partial(read, archive))} |")
            for name, file in (("thresholds", plain), ("all filters", full)):
                print(f"| {what} | {name} | {speeds(images, partial(backtest, archive, file))} |")


if __name__ == "__main__":
    main()
