"""Pack: writes an archive as Parquet, one file per camera, for fast repeated reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apache_beam as beam
import orjson

from transforms.runtime.counters import count
from transforms.storage import stores
from transforms.storage.archive import Archive, Problem
from transforms.storage.packed import PROBLEMS, write_packed


def pack_camera(
    id: str,
    archive: Archive,
    packed: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[int, list[Problem]]:
    """Packs the images of one camera; returns their number, and the files that can't be read.

    Raises:
      OSError: A store can no longer be reached, or can't be written.
    """
    archive.problems.clear()
    rows = ((archived.image, archived.threat) for archived in archive.images(id, since, until))
    packed_images = write_packed(packed, id, rows)
    return packed_images, list(archive.problems)


class _PackCamera(beam.DoFn):
    def __init__(self, archive: Archive, packed: str, **period: Any) -> None:
        self._archive = archive
        self._packed = packed
        self._period = period

    def process(self, element: str) -> Iterator[Problem]:
        images, problems = pack_camera(element, self._archive, self._packed, **self._period)
        count("images.packed", images)
        yield from problems


class Pack(beam.PTransform):
    """Writes the images of an archive as `PACKED/<id>.parquet`.

    If there are files that can't be read, `PACKED/problems.jsonl` lists them; see
    :mod:`transforms.storage.packed`.

    Output: `PCollection[None]`, when all files are written.

    Args:
      archive: The archive with the images.
      packed: The folder to write to.
      ids: The cameras.
      since: The start of the period; None for all.
      until: The end of the period, exclusive; None for all.
    """

    def __init__(
        self,
        archive: Archive,
        packed: str,
        *,
        ids: tuple[str, ...],
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        super().__init__()
        self._ids = ids
        self._packed = packed
        self._pack = _PackCamera(archive, packed, since=since, until=until)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[None]:
        problems = (
            begin
            | "Cameras" >> beam.Create(self._ids)
            | "ShareOut" >> beam.Reshuffle()
            | "Pack" >> beam.ParDo(self._pack)
        )
        return (
            begin
            | "Once" >> beam.Create([stores.join(self._packed, PROBLEMS)])
            | "WriteProblems" >> beam.Map(_write_problems, beam.pvalue.AsList(problems))
        )


def _write_problems(uri: str, problems: list[Problem]) -> None:
    if not problems:
        stores.delete(uri)  # Of an earlier attempt.
        return
    lines = [stores.json_bytes({"uri": uri, "why": problem}) for uri, problem in sorted(problems)]
    stores.write_bytes(uri, b"".join(lines))


def read_problems(packed: str) -> list[Problem]:
    """Reads the list of files that could not be packed; there is none if all could.

    Raises:
      OSError: The list can't be read.
    """
    lines = (stores.read_if_there(stores.join(packed, PROBLEMS)) or b"").splitlines()
    return [(entry["uri"], entry["why"]) for entry in map(orjson.loads, lines)]
