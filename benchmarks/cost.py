"""`python -m benchmarks.cost`: what images cost in requests, storage and processors, in both forms.

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
from dataclasses import dataclass

from benchmarks.backtest import START, judged
from transforms.storage import stores
from transforms.storage.packed_output import write_file
from transforms.storage.packed_rows import PackedRow
from transforms.store_packed import IMAGES_A_FILE

_CAMERAS, _EACH = 100, 10
"""The images whose records are measured: those of five minutes."""
_DAYS_A_MONTH = 30
_GB = 10**9


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


@functools.lru_cache(maxsize=1)
def record_bytes() -> tuple[float, float]:
    """Measures the bytes of an image's records: as JSON files, and as a row of a packed file."""
    images = [
        image
        for number in range(_CAMERAS)
        for image in judged(f"camera-{number:03}", _EACH, seed=1)
    ]
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
    ):
        parser.add_argument(name, type=kind, default=default, help=help)
    print(table(parser.parse_args(words)))


if __name__ == "__main__":
    main()
