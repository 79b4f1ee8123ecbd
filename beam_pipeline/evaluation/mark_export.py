"""The commands `marks list` and `marks export`: marks as a table, or as a truth file.

A truth file says of each label whether it is in an image, and marks do not. So an image is exported
only if it is known of each label that its alert names, and a line says how many are left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import align, write_stdout
from beam_pipeline.evaluation.mark_facts import Facts
from beam_pipeline.evaluation.marked import MarkedTruth, read_truth
from beam_pipeline.evaluation.truth import EMPTY
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.preflight import check_readable
from rules.text import escaped, shortened
from transforms.records.images import DetectedImage
from transforms.records.times import parse_time
from transforms.storage import stores
from transforms.storage.archive import Archive, Problem

_MOMENT = timedelta(microseconds=1)


def list_marks(args: argparse.Namespace) -> int:
    """Prints the marks that stand; returns the exit code.

    Raises:
      SetupError: There is none.
      CommandFailedError: The store failed.
    """
    truth = _read(args.output)
    rows = [("when", "id", "mark", "label", "by", "marked at", "note")]
    for mark in sorted(truth.marks, key=lambda mark: (mark.timestamp, mark.id, mark.at)):
        label, note = mark.label or "", shortened(escaped(" ".join(mark.note.split())))
        rows.append((mark.timestamp, mark.id, mark.mark, label, mark.by, mark.at, note))
    write_stdout("".join(f"{line}\n" for line in align(rows, left=len(rows[0]))))
    selection.print_problems(truth.problems, "they are not marks")
    return 0


def export_marks(args: argparse.Namespace) -> int:
    """Writes the truth file; returns the exit code.

    Raises:
      SetupError: There is no mark, or none that can be exported; nothing was written.
      CommandFailedError: A store failed.
    """
    file = None if args.file is None else paths.writable_file("--file", args.file)
    truth = _read(args.output)
    archive = selection.open_archives([args.output])
    with selection.store_errors_as_failures():
        images = list(_images(archive, truth))
        absent = len(truth.facts) - len(images)
        chosen = [image for image in images if image.facts.is_complete]
        left_out = {
            "unsure, disputed, or marked right as a whole though the alert names several labels "
            "(mark each with --label)": len(images) - len(chosen),
            "no longer in the archive": absent,
        }
        if args.format == "coco":
            boxed = [image for image in chosen if not image.facts.unboxed]
            left_out["without a box for each object"] = len(chosen) - len(boxed)
            chosen = boxed
        if not chosen:
            raise SetupError(f"no marked image can be exported: {_reasons(left_out)}")
        text = _coco(chosen) if args.format == "coco" else _csv(chosen)
        if file is None:
            write_stdout(text)
        else:
            stores.write_bytes(file, text.encode())
    print(f"{len(chosen)} of {len(truth.facts)} marked images exported", file=sys.stderr)
    if any(left_out.values()):
        print(f"left out: {_reasons(left_out)}", file=sys.stderr)
    problems: list[Problem] = [*archive.problems, *truth.problems]
    selection.print_problems(problems, "evaluate --format json lists all")
    return 0


def _reasons(left_out: dict[str, int]) -> str:
    return "; ".join(f"{number} {reason}" for reason, number in left_out.items() if number)


def _read(output: str) -> MarkedTruth:
    address = paths.absolute("--output", output)
    check_readable("--output", address)
    return read_truth([address])


@dataclass(frozen=True)
class _Image:
    """A marked image that is in the archive."""

    image: DetectedImage
    facts: Facts


def _images(archive: Archive, truth: MarkedTruth) -> Iterator[_Image]:
    """Yields the marked images, camera by camera in order of time."""
    times: dict[str, list[str]] = {}
    for id, timestamp in truth.facts:
        times.setdefault(id, []).append(timestamp)
    for id, marked in sorted(times.items()):
        first, last = (parse_time(end(marked, key=parse_time)) for end in (min, max))
        for archived in archive.images(id, first, last + _MOMENT):
            facts = truth.facts.get((id, archived.image.timestamp))
            if facts is not None:
                yield _Image(archived.image, facts)


def _csv(images: list[_Image]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("file", "main_class", "count"))
    for entry in images:
        name = entry.image.stored_name
        for label, boxes in entry.facts.present.items():
            writer.writerow((name, label, max(1, len(boxes))))
        if not entry.facts.present:
            writer.writerow((name, EMPTY, 0))
    return file.getvalue()


def _coco(images: list[_Image]) -> str:
    labels = sorted({label for entry in images for label in entry.facts.present})
    numbers = {label: number for number, label in enumerate(labels, 1)}
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, entry in enumerate(images, 1):
        width, height = entry.image.width, entry.image.height
        name = entry.image.stored_name
        listed.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for label, boxes in entry.facts.present.items():
            for box in boxes:
                sides = zip(box, (width, height, width, height), strict=True)
                x_min, y_min, box_width, box_height = (round(a * b, 2) for a, b in sides)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": numbers[label],
                        "bbox": [x_min, y_min, box_width, box_height],
                        "area": round(box_width * box_height, 2),
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": number, "name": label} for label, number in numbers.items()]
    document = {"images": listed, "annotations": annotations, "categories": categories}
    return json.dumps(document, indent=1) + "\n"
