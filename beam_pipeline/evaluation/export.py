"""The command ``export``: what was detected, as one file in MegaDetector's format.

Version 1.6 of https://lila.science/megadetector-output-format, which Timelapse, AddaxAI and other
review tools read. Pictures go from the archive to a file on this disk and from there to their
place, so that an archive of any size needs little memory. The same archive gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from beam_pipeline import archive_job

if TYPE_CHECKING:
    from transforms.records import DetectedImage

FORMAT_VERSION = "1.6"
_CHUNK = 1 << 20
_PICTURE = (".jpg", ".jpeg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    archive_job.add_arguments(parser)
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the JSON file to write, here or in a store"
    )
    parser.add_argument(
        "--paths",
        choices=("archive", "uri"),
        default="archive",
        help="how `file` names a picture: archive, as it is kept under the job's output "
        "(validated/ID/FILE, invalid/REASON/FILE), or uri, where it came from "
        "(default: %(default)s)",
    )


def main(parsed: argparse.Namespace) -> int:
    """Writes the file.

    Raises:
      SetupError: What is wrong, where, and what to do.
      CommandFailed: A store was lost, or can't be written.
    """
    chosen = archive_job.select(parsed)
    from transforms import stores

    target = archive_job.writable_file("--output", parsed.output)
    export = _Export(chosen, by_uri=parsed.paths == "uri")
    with archive_job.failing(), tempfile.TemporaryFile() as spool:
        for entry in export.images():
            spool.write(b",\n  " if spool.tell() else b"\n  ")
            spool.write(json.dumps(entry, separators=(",", ":")).encode())
        stores.write_chunks(target, _document(export, spool))
    archive_job.tell_problems(
        export.problems, "pack the archive to have all of them listed in a file"
    )
    print(f"{export.pictures:,} pictures and {export.failures:,} failures written to {target}")
    return 0


def _document(export: _Export, spool: IO[bytes]) -> Iterator[bytes]:
    info: dict[str, Any] = {"format_version": FORMAT_VERSION}
    if export.models:
        info["detector"] = ", ".join(sorted(export.models))
    names = export.categories.names
    categories = {number: names[number] for number in sorted(names, key=int)}
    head = {"info": info, "detection_categories": categories}
    yield json.dumps(head, indent=1)[:-2].encode() + b',\n "images": ['
    spool.seek(0)
    while chunk := spool.read(_CHUNK):
        yield chunk
    yield b"\n ]\n}\n"


class Categories:
    """The categories of a file: each number has one name, whatever models have looked.

    A number that an earlier picture has for another label, or that is none, is replaced by one
    that is free.

    Attributes:
      names: The labels by their numbers.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._given: dict[tuple[str, str], str] = {}

    def number(self, category: str, label: str) -> str:
        """The number under which a detection goes into the file."""
        given = self._given.get((category, label))
        if given is None:
            is_number = (
                category.isascii() and category.isdecimal() and str(int(category)) == category
            )
            given = category if is_number and category not in self.names else self._free()
            self._given[category, label] = given
            self.names[given] = label if label.strip() else f"category {category}"
        return given

    def _free(self) -> str:
        return str(max(map(int, self.names), default=0) + 1)


class _Export:
    """Makes the entries of the file, and keeps what its head must say.

    Attributes:
      categories: Those of the detections so far.
      models: The models that have looked.
      pictures: How many were looked at.
      failures: How many could not be.
      problems: What could not be read.
    """

    def __init__(self, chosen: archive_job.Selection, *, by_uri: bool) -> None:
        self._chosen = chosen
        self._by_uri = by_uri
        self.categories = Categories()
        self.models: set[str] = set()
        self.pictures = 0
        self.failures = 0
        self.problems = chosen.archive.problems

    def images(self) -> Iterator[dict[str, Any]]:
        """The entries of `images`: camera by camera in order of time, then the failures."""
        chosen = self._chosen
        for id in chosen.ids:
            for one in chosen.archive.images(id, chosen.since, chosen.until):
                yield self._picture(one.image)
        for uri in chosen.archive.uris:
            yield from self._failures(uri)

    def _picture(self, image: DetectedImage) -> dict[str, Any]:
        self.pictures += 1
        self.models.add(f"{image.model.name} {image.model.version}")
        return {
            "file": image.uri if self._by_uri else f"validated/{image.id}/{image.file}",
            "detections": [
                {
                    "category": self.categories.number(found.category, found.label),
                    "conf": found.conf,
                    "bbox": list(found.bbox),
                }
                for found in image.detections
            ],
        }

    def _failures(self, archive: str) -> Iterator[dict[str, Any]]:
        """Pictures that were not looked at. Files of another kind are no failed pictures."""
        from transforms import stores

        invalid = stores.join(archive, "invalid")
        for file in sorted(one.path for one in stores.list_beneath(invalid)):
            record_of, ending = file[:-5], file[-5:]
            if ending != ".json" or not record_of.lower().endswith(_PICTURE):
                continue
            try:
                record = json.loads(stores.read_bytes(file))
                name, reason = str(record["file"]), str(record["reason"])
                uri, detail = str(record["uri"]), str(record["detail"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.problems.append((file, f"no record of an invalid picture: {error!r}"))
                continue
            if self._is_chosen(name):
                self.failures += 1
                yield {
                    "file": uri if self._by_uri else record_of[len(archive) + 1 :],
                    "failure": f"{reason}: {detail}",
                    "detections": None,
                }

    def _is_chosen(self, name: str) -> bool:
        """Whether a picture belongs to the cameras and the period; one whose name says neither
        belongs to all cameras and times."""
        from transforms.parse_filename import InvalidName, parse_name

        chosen = self._chosen
        everything = chosen.since is None and chosen.until is None
        try:
            camera, moment = parse_name(name)
        except InvalidName:
            return everything and not chosen.by_id
        return (
            (not chosen.by_id or camera in chosen.ids)
            and (chosen.since is None or moment >= chosen.since)
            and (chosen.until is None or moment < chosen.until)
        )
