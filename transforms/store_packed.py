"""StorePackedDetections and StorePackedVerdicts: the repositories as files of many images.

A batch writes one file for each window and shard, with the object data and the verdict of each
image. It compares them with what earlier runs have left: a row that says the same is not written
again, and one that says otherwise replaces the earlier one by its generation. If no image is valid
any more at the address of an earlier verdict, a row retracts it. So a bundle that is tried again,
or a second job, writes at most a further file with the same rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms.count_threats import window_of
from transforms.records import reasons
from transforms.records.images import DetectedImage, InvalidImage, JudgedImage, stem_of
from transforms.records.precedence import Version, key_of
from transforms.records.text import printable
from transforms.storage import stores
from transforms.storage.packed_output import (
    EarlierRows,
    is_packed,
    list_files,
    period_name,
    write_file,
)
from transforms.storage.packed_rows import PackedRow, Rows

IMAGES_A_FILE = 512
"""How many images a run can lose that is killed, by the file that its detections are written in."""


class _WriteDetections(beam.DoFn):
    def __init__(self, output: str) -> None:
        self._folder = stores.packed_detections_folder(output)

    def start_bundle(self) -> None:
        self._rows: list[PackedRow] = []

    def process(self, element: DetectedImage) -> Iterator[str]:
        self._rows.append(PackedRow(element, None))
        if len(self._rows) >= IMAGES_A_FILE:
            yield from self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for uri in self._write():
            yield WindowedValue(uri, window.max_timestamp(), [window])

    def _write(self) -> Iterator[str]:
        rows, self._rows = self._rows, []
        rows.sort(key=lambda row: (row.image.id, row.image.timestamp, row.image.file))
        uri = write_file(self._folder, None, rows)
        if uri is not None:
            yield uri


class StorePackedDetections(beam.PTransform):
    """Stores the object data of uncontested images in `packed/detections/`, for `--resume`.

    Input: `PCollection[DetectedImage]`. Output: `PCollection[str]`, the files that were written.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, images: beam.PCollection[DetectedImage]) -> beam.PCollection[str]:
        return (
            images
            | "Alone" >> beam.Filter(lambda image: not image.is_contested)
            | "Write" >> beam.ParDo(_WriteDetections(self._output))
        )


class _Window:
    """Finds the window and the shard of a version, as a key.

    Args:
      seconds: Length of a window.
      shards: How many files a window has.
    """

    def __init__(self, seconds: int, shards: int) -> None:
        self._seconds = seconds
        self._shards = shards

    def __call__(self, version: Version) -> tuple[str, Version]:
        camera, timestamp = key_of(version).split("\n")
        period = period_name(*window_of(timestamp, self._seconds))
        if self._shards > 1:
            period += f"-{zlib.crc32(camera.encode()) % self._shards}-of-{self._shards}"
        return period, version


class _WriteVerdicts(beam.DoFn):
    """Writes the verdicts of a window and shard.

    Args:
      output: The job's output.
      has_record: Whether an image has a record in `alerts/`, and so a file in `final/`.
      has_earlier: Whether the output has verdicts already.
    """

    def __init__(
        self, output: str, has_record: Callable[[JudgedImage], bool], *, has_earlier: bool
    ) -> None:
        self._output = output
        self._has_record = has_record
        self._earlier = EarlierRows(output) if has_earlier else None

    def process(self, element: tuple[str, Iterable[Version]]) -> None:
        period, versions = element
        rows, recorded, invalid = Rows(), set[tuple[str, str]](), list[InvalidImage]()
        for version in versions:
            if version.judged is None:
                assert version.invalid is not None
                invalid.append(version.invalid)
                continue
            image, threat = version.judged.image, version.judged.to_json()["threat"]
            rows.add([PackedRow(image, dict(threat))])
            if self._has_record(version.judged):
                recorded.add((image.id, image.timestamp))
        if self._earlier is not None:
            rows = self._changed(self._earlier, rows, recorded, invalid)
        write_file(stores.packed_folder(self._output), period, rows)

    def _changed(
        self,
        earlier: EarlierRows,
        rows: Rows,
        recorded: set[tuple[str, str]],
        invalid: Iterable[InvalidImage],
    ) -> Rows:
        """Returns the rows that say another thing than those of earlier runs."""
        changed = Rows()
        for row in rows:
            key = row.image.id, row.image.timestamp
            before = earlier.get(*key)
            if before is None:
                changed.add([row])
            elif not row.says_what(before):
                self._forget(before, row.image, has_record=key in recorded)
                changed.add([replace(row, generation=before.generation + 1)])
        for image in invalid:
            key = str(image.camera), str(image.timestamp)
            before = earlier.get(*key)
            if (
                rows.get(*key) is None
                and before is not None
                and not before.is_retracted
                and (before.image.uri, before.image.stem)
                == (printable(image.file.uri), stem_of(image.stored_name))
            ):
                self._forget(before, None)
                blank = replace(before.image, detections=())
                changed.add([PackedRow(blank, None, before.generation + 1, is_retracted=True)])
        return changed

    def _forget(
        self, before: PackedRow, after: DetectedImage | None, *, has_record: bool = False
    ) -> None:
        """Deletes the files of an earlier verdict that is replaced or retracted."""
        image = before.image
        if before.is_retracted:
            return
        has_its_name = after is not None and after.stem == image.stem
        if before.has_severity and not (has_record and has_its_name):
            stores.delete(stores.final_uri(self._output, image.id, image.stem))
        if not has_its_name:
            stores.delete(stores.validated_uri(self._output, image.id, image.stored_name))


def _delete_detections(earlier: Sequence[str], _: Any, own: Iterable[str]) -> None:
    for uri in (*earlier, *own):
        stores.delete(uri)


class StorePackedVerdicts(beam.PTransform):
    """Stores the winners' object data and verdicts in `packed/`, a file for each window and shard.

    Input: `PCollection[JudgedImage]`, the winners.

    Args:
      output: The job's output.
      invalid: The invalid images that name a camera and a capture time: an earlier verdict on such
        a file is retracted. Each with the resource hints of the step that it comes from.
      detections: The output of :class:`StorePackedDetections`. These files are deleted in the end,
        and those that were there before, but none of another job that has begun meanwhile.
      has_record: Whether an image has a record in `alerts/`.
      window_seconds: Length of a window.
      shards: How many files each window has.
    """

    def __init__(
        self,
        output: str,
        *,
        invalid: Iterable[tuple[beam.PCollection[InvalidImage], Mapping[str, int | str]]],
        detections: beam.PCollection[str],
        has_record: Callable[[JudgedImage], bool],
        window_seconds: int,
        shards: int = 1,
    ) -> None:
        super().__init__()
        self._output = output
        self._invalid = tuple(invalid)
        self._detections = detections
        self._has_record = has_record
        self._window = _Window(window_seconds, shards)

    def expand(self, winners: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        has_earlier = is_packed(self._output)
        versions = winners | "Winners" >> beam.Map(_judged_version).with_output_types(Version)
        if has_earlier:
            versions = (
                versions,
                *(
                    images
                    | f"Invalid{at}"
                    >> beam.FlatMap(_invalid_versions)
                    .with_output_types(Version)
                    .with_resource_hints(**hints)
                    for at, (images, hints) in enumerate(self._invalid)
                ),
            ) | "Versions" >> beam.Flatten()
        written = (
            versions
            | "Window" >> beam.Map(self._window).with_output_types(tuple[str, Version])
            | "GroupByWindow" >> beam.GroupByKey()
            | "Write"
            >> beam.ParDo(_WriteVerdicts(self._output, self._has_record, has_earlier=has_earlier))
        )
        found = list_files(self._output, stores.packed_detections_folder(self._output))
        return (
            winners.pipeline
            | "Once" >> beam.Create([[file.uri for file in found]])
            | "DeleteDetections"
            >> beam.Map(
                _delete_detections,
                beam.pvalue.AsIter(written),
                beam.pvalue.AsIter(self._detections),
            )
        )


def _judged_version(judged: JudgedImage) -> Version:
    return Version(judged=judged)


def _invalid_versions(image: InvalidImage) -> Iterator[Version]:
    """Yields an invalid image, unless its earlier verdict stays: it has no camera and time, or
    can't be read."""
    if None not in (image.camera, image.timestamp) and image.reason != reasons.READ_FAILED:
        yield Version(invalid=replace(image, data=None))
