"""The command ``export``: what was detected, as one file in MegaDetector's format.

Version 1.6 of https://lila.science/megadetector-output-format, which Timelapse, AddaxAI and other
review tools read. Images go from the archive to a file on this disk and from there to their
place, so that an archive of any size needs little memory. The same archive gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from typing import IO, TypedDict

from beam_pipeline.fleet.output_scan import camera_and_time
from beam_pipeline.inputs import paths, selection
from transforms.records.images import DetectedImage
from transforms.storage import stores

FORMAT_VERSION = "1.6"
_CHUNK = 1 << 20
_IMAGE_ENDINGS = (".jpg", ".jpeg")


class DetectionEntry(TypedDict):
    """A detection in the file."""

    category: str
    conf: float
    bbox: list[float]


class ImageEntry(TypedDict):
    """The entry of an image on which the model ran."""

    file: str
    detections: list[DetectionEntry]


class FailureEntry(TypedDict):
    """The entry of an image on which the model did not run."""

    file: str
    failure: str
    detections: None


def export(parsed: argparse.Namespace) -> int:
    """Writes the file.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CommandFailedError: A store was lost, or can't be written.
    """
    chosen = selection.select(parsed)
    target = paths.writable_file("--to", parsed.to)
    entries = _Export(chosen, by_uri=parsed.paths == "uri")
    with selection.store_errors_as_failures(), tempfile.TemporaryFile() as spool:
        for entry in entries.images():
            spool.write(b",\n  " if spool.tell() else b"\n  ")
            spool.write(json.dumps(entry, separators=(",", ":")).encode())
        stores.write_chunks(target, _document(entries, spool))
    selection.print_problems(
        entries.problems, "pack the archive to have all of them listed in a file"
    )
    print(
        f"{entries.images_written:,} images and {entries.failures:,} failures written to {target}"
    )
    return 0


def _document(entries: _Export, spool: IO[bytes]) -> Iterator[bytes]:
    info = {"format_version": FORMAT_VERSION}
    if entries.models:
        info["detector"] = ", ".join(sorted(entries.models))
    names = entries.categories.names
    categories = {number: names[number] for number in sorted(names, key=int)}
    head = {"info": info, "detection_categories": categories}
    yield json.dumps(head, indent=1)[:-2].encode() + b',\n "images": ['
    spool.seek(0)
    while chunk := spool.read(_CHUNK):
        yield chunk
    yield b"\n ]\n}\n"


class Categories:
    """The categories of a file: each number has one name, whatever models ran.

    A number that an earlier image has for another label, or that is none, is replaced by one
    that is free.

    Attributes:
      names: The labels by their numbers.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._numbers: dict[tuple[str, str], str] = {}

    def number(self, category: str, label: str) -> str:
        """Returns the number under which a detection goes into the file."""
        number = self._numbers.get((category, label))
        if number is None:
            is_number = (
                category.isascii() and category.isdecimal() and str(int(category)) == category
            )
            number = category if is_number and category not in self.names else self._free()
            self._numbers[category, label] = number
            self.names[number] = label if label.strip() else f"category {category}"
        return number

    def _free(self) -> str:
        return str(max(map(int, self.names), default=0) + 1)


class _Export:
    """Makes the entries of the file, and keeps what its head must say.

    Attributes:
      categories: Those of the detections so far.
      models: The models that ran.
      images_written: How many images the model looked at.
      failures: How many could not be.
      problems: What could not be read.
    """

    def __init__(self, chosen: selection.Selection, *, by_uri: bool) -> None:
        self._chosen = chosen
        self._by_uri = by_uri
        self.categories = Categories()
        self.models: set[str] = set()
        self.images_written = 0
        self.failures = 0
        self.problems = chosen.archive.problems

    def images(self) -> Iterator[ImageEntry | FailureEntry]:
        """Yields the entries of `images`: camera by camera in order of time, then the failures."""
        chosen = self._chosen
        for id in chosen.ids:
            for archived in chosen.archive.images(id, chosen.since, chosen.until):
                yield self._entry(archived.image)
        for uri in chosen.archive.uris:
            yield from self._failures(uri)

    def _entry(self, image: DetectedImage) -> ImageEntry:
        self.images_written += 1
        self.models.add(f"{image.model.name} {image.model.version}")
        return {
            "file": image.uri if self._by_uri else f"validated/{image.id}/{image.stored_name}",
            "detections": [
                {
                    "category": self.categories.number(detection.category, detection.label),
                    "conf": detection.conf,
                    "bbox": list(detection.bbox),
                }
                for detection in image.detections
            ],
        }

    def _failures(self, archive: str) -> Iterator[FailureEntry]:
        """Images that were not looked at. Files of another kind are no failed images."""
        invalid = stores.join(archive, "invalid")
        for file in sorted(metadata.path for metadata in stores.list_beneath(invalid)):
            record_of, ending = file[:-5], file[-5:]
            if ending != ".json" or not record_of.lower().endswith(_IMAGE_ENDINGS):
                continue
            try:
                record = json.loads(stores.read_bytes(file))
                reason, detail = str(record["reason"]), str(record["detail"])
                uri = str(record["uri"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.problems.append((file, f"no record of an invalid image: {error!r}"))
                continue
            if self._is_chosen(record_of.rsplit("/", 1)[-1]):
                self.failures += 1
                yield {
                    "file": uri if self._by_uri else record_of[len(archive) + 1 :],
                    "failure": f"{reason}: {detail}",
                    "detections": None,
                }

    def _is_chosen(self, name: str) -> bool:
        """Returns whether an image belongs to the cameras and the period; one whose name says
        neither belongs to all cameras and times.
        """
        chosen = self._chosen
        everything = chosen.since is None and chosen.until is None
        camera, capture_time = camera_and_time(name)
        if camera is None or capture_time is None:
            return everything and not chosen.by_id
        return (
            (not chosen.by_id or camera in chosen.ids)
            and (chosen.since is None or capture_time >= chosen.since)
            and (chosen.until is None or capture_time < chosen.until)
        )
