"""`python -m benchmarks.cost`: what images cost in requests, storage and processors, in both forms.

With `--cameras`, it also says what a fleet needs whose cameras send an image a minute: processors,
memory, state, requests a second. Its assumptions are what `make bench-scale` has measured.

All prices are assumptions, and so are the options that say what the images are like: give your own.
What an image costs in requests is what `tests/stores/test_requests.py` counts at a server of S3's
protocol. The size of records is measured, on images that are drawn as for the benchmark of
`backtest`. The time of a processor is that of the benchmark of the batch job (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.backtest import START, judged
from transforms.records.images import JudgedImage
from transforms.records.precedence import CAPTURE_TIMES, Version, settle
from transforms.storage import stores
from transforms.storage.packed_output import write_file
from transforms.storage.packed_rows import PackedRow
from transforms.store_packed import IMAGES_A_FILE

_CAMERAS, _EACH = 100, 10
"""The images whose records are measured: those of five minutes."""
_DAYS_A_MONTH = 30
_GB = 10**9
_SECONDS_BETWEEN = 60
"""Between two images of a camera of a fleet."""


@dataclass(frozen=True)
class Requests:
    """Requests for one image on average.

    Attributes:
      gets: GET.
      puts: PUT and COPY, which stores charge alike.
    """

    gets: float
    puts: float


def requests_of(
    *, packed: bool, copies: bool, alert_share: float, images_a_file: float
) -> Requests:
    """Returns the requests for an image of a batch whose input and output are in one store.

    Args:
      packed: Whether verdicts are packed.
      copies: Whether valid images are copied to `validated/`.
      alert_share: The share of images with an alert.
      images_a_file: The images in one window and shard.
    """
    counts = 1 / images_a_file
    records = 1 / images_a_file + 1 / min(IMAGES_A_FILE, images_a_file) if packed else 2
    # An alert is looked for and then written; a packed image with one has a file in `final/` too.
    with_alert = 2 if packed else 1
    return Requests(gets=1 + alert_share, puts=records + counts + copies + with_alert * alert_share)


def _images() -> list[JudgedImage]:
    return [
        image
        for number in range(_CAMERAS)
        for image in judged(f"camera-{number:03}", _EACH, seed=1)
    ]


def verdict_bytes() -> float:
    """Measures the bytes of an image's verdict in the state of a packed stream."""
    known = [replace(settle([Version(judged=image)]), counted=True) for image in _images()]
    return sum(map(len, map(CAPTURE_TIMES.encode, known))) / len(known)


@functools.lru_cache(maxsize=1)
def record_bytes() -> tuple[float, float]:
    """Measures the bytes of an image's records: as JSON files, and as a row of a packed file."""
    images = _images()
    as_json = sum(
        len(stores.json_bytes(value))
        for image in images
        for value in (image.image.to_json(), image.to_json())
    )
    rows = [PackedRow(image.image, {**image.to_json()["threat"]}) for image in images]
    with tempfile.TemporaryDirectory() as scratch:
        uri = write_file(scratch, f"{START:%Y%m%dT%H%M%SZ}", rows)
        assert uri is not None
        return as_json / len(images), os.path.getsize(uri) / len(images)


def table(args: argparse.Namespace) -> str:
    """Returns the table of all costs."""
    size_json, size_packed = record_bytes()
    columns = []
    for packed, copies in ((False, True), (True, True), (False, False), (True, False)):
        each = requests_of(
            packed=packed,
            copies=copies,
            alert_share=args.alert_share,
            images_a_file=args.images_a_file,
        )
        records = size_packed + args.alert_share * size_json / 2 if packed else size_json
        gigabytes = args.images * (records + copies * args.image_kb * 1000) / _GB
        requests = args.images * (each.gets * args.price_get + each.puts * args.price_put) / 1000
        storage = gigabytes * args.price_storage * args.days / _DAYS_A_MONTH
        processors = args.images * args.processor_ms / 3_600_000 * args.price_processor
        columns.append(
            (
                f"{'packed' if packed else 'json'}{'' if copies else ', no copies'}",
                f"{args.images * each.gets:,.0f}",
                f"{args.images * each.puts:,.0f}",
                f"{gigabytes:,.1f}",
                *(f"{cost:,.2f}" for cost in (requests, storage, processors)),
                f"{requests + storage + processors:,.2f}",
            )
        )
    names = (
        f"{args.images:,} images",
        "GET",
        "PUT and COPY",
        "GB stored",
        "cost of requests",
        f"cost of storage for {args.days:g} days",
        "cost of processors",
        "total cost",
    )
    lines = [f"| {' | '.join(cells)} |" for cells in zip(names, *columns, strict=True)]
    lines.insert(1, f"|---|{'---|' * len(columns)}")
    return "\n".join(lines)


def fleet_table(args: argparse.Namespace) -> str:
    """Returns the table of what a fleet needs, each row with its arithmetic."""
    rate = args.cameras / _SECONDS_BETWEEN
    busy = args.busy
    of_images = rate * args.processor_ms / 1000 / busy
    of_flink = rate * args.flink_ms / 1000 / busy
    processors = of_images + of_flink
    state = rate * args.state_seconds * args.state_bytes / _GB
    verdict = round(verdict_bytes())
    packed_state = rate * args.state_seconds * (args.state_bytes + verdict) / _GB
    packed = requests_of(
        packed=True,
        copies=False,
        alert_share=args.alert_share,
        images_a_file=args.images_a_file,
    )
    as_json = requests_of(
        packed=False,
        copies=True,
        alert_share=args.alert_share,
        images_a_file=args.images_a_file,
    )
    gigabytes = rate * args.image_kb / 1e6
    rows = [
        ("images/s", f"{rate:,.0f}", f"{args.cameras:,} cameras / {_SECONDS_BETWEEN} s"),
        ("GB/s that are read", f"{gigabytes:,.2f}", f"images/s x {args.image_kb:g} kB"),
        (
            "processors for images and their model",
            f"{of_images:,.0f}",
            f"images/s x {args.processor_ms:g} ms / {busy:g} busy",
        ),
        (
            "processors for the stream on Flink",
            f"{of_flink:,.0f}",
            f"images/s x {args.flink_ms:g} ms / {busy:g} busy",
        ),
        (
            "memory in GB",
            f"{processors * args.memory_gb:,.0f}",
            f"processors x {args.memory_gb:g} GB for a slot",
        ),
        (
            "state in GB",
            f"{state:,.1f}",
            f"images/s x {args.state_seconds:g} s x {args.state_bytes:g} bytes",
        ),
        (
            "state in GB, packed",
            f"{packed_state:,.1f}",
            f"images/s x {args.state_seconds:g} s x ({args.state_bytes:g} + {verdict}) bytes",
        ),
        (
            "GET/s",
            f"{rate * packed.gets:,.0f}",
            f"images/s x {packed.gets:.3f}",
        ),
        (
            "PUT and COPY/s, json",
            f"{rate * as_json.puts:,.0f}",
            f"images/s x {as_json.puts:.3f}",
        ),
        (
            "PUT and COPY/s, packed, no copies",
            f"{rate * packed.puts:,.0f}",
            f"images/s x {packed.puts:.3f}",
        ),
        (
            "processors for 30 days",
            f"{processors * 24 * 30 * args.price_processor:,.0f}",
            f"processors x 720 h x {args.price_processor:g}",
        ),
    ]
    lines = [f"| {args.cameras:,} cameras | | |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in rows])


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, kind, default, help in (
        ("--images", int, 1_000_000, "how many images"),
        ("--image_kb", float, 100.0, "the size of an image, in kB"),
        ("--alert_share", float, 0.01, "the share of images with an alert"),
        ("--images_a_file", float, 5000.0, "the images of one window and shard"),
        ("--days", float, 30.0, "how long the output is stored"),
        ("--processor_ms", float, 42.8, "the processor time of an image, in milliseconds"),
        ("--price_get", float, 0.0004, "the price of 1,000 GETs"),
        ("--price_put", float, 0.005, "the price of 1,000 PUTs or COPYs"),
        ("--price_storage", float, 0.023, "the price of a GB for 30 days"),
        ("--price_processor", float, 0.04, "the price of a processor for an hour"),
        ("--flink_ms", float, 5.0, "the processor time of an image after the model, on Flink"),
        ("--state_bytes", float, 350.0, "the state of an image in a stream"),
        ("--state_seconds", float, 4800.0, "how long it is kept: 80 minutes at most"),
        ("--memory_gb", float, 2.0, "the memory of a slot on Flink"),
        ("--busy", float, 0.7, "the share of their time in which processors work"),
    ):
        parser.add_argument(name, type=kind, default=default, help=help)
    parser.add_argument("--cameras", type=int, help="also show what so many cameras need")
    args = parser.parse_args(words)
    if args.cameras is not None:
        args.images = args.cameras * 86_400 * _DAYS_A_MONTH // _SECONDS_BETWEEN
        print(f"{fleet_table(args)}\n")
    print(table(args))


if __name__ == "__main__":
    main()
