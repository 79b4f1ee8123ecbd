"""Pack: an archive as Parquet, a file a camera, for reading it again and again at speed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apache_beam as beam
import orjson

from transforms import stores
from transforms.archive import Archive, Problem
from transforms.counters import count
from transforms.packed import PROBLEMS, write_packed


def pack_camera(
    id: str,
    archive: Archive,
    packed: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[int, list[Problem]]:
    """Packs the pictures of one camera; how many, and what could not be read.

    Raises:
      OSError: A store can't be reached any more, or not be written.
    """
    archive.problems.clear()
    pictures = ((one.image, one.threat) for one in archive.images(id, since, until))
    packed_images = write_packed(packed, id, pictures)
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
    """Writes an archive's pictures as `PACKED/<id>.parquet`, and what could not be read as
    `PACKED/problems.jsonl`; see :mod:`transforms.packed`.

    Output: `PCollection[None]`, once all is written.

    Args:
      archive: The pictures.
      packed: The folder to write to.
      ids: The cameras.
      since: The first moment; None for all.
      until: The first moment that is not asked for any more.
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
    lines = [stores.json_bytes({"uri": uri, "why": why}) for uri, why in sorted(problems)]
    stores.write_bytes(uri, b"".join(lines))


def read_problems(packed: str) -> list[Problem]:
    """What could not be packed, as the pipeline has written it.

    Raises:
      OSError: It can't be read.
    """
    lines = stores.read_bytes(stores.join(packed, PROBLEMS)).splitlines()
    return [(entry["uri"], entry["why"]) for entry in map(orjson.loads, lines)]
