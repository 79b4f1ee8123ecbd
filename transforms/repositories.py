"""Where results are kept: images as they were received, object data, verdicts, invalid files.

Every name follows from ids, timestamps and file names, and every content from the input, so that
a retried bundle or a second run writes the same bytes to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import apache_beam as beam

from transforms import stores
from transforms.counters import count
from transforms.read_ahead import ReadAheadDoFn
from transforms.records import DetectedImage, InvalidImage, JudgedImage, ValidImage
from transforms.text import printable

T = TypeVar("T")
_THREADS = 8
_MAX_WAITING = 64


class _Write(ReadAheadDoFn):
    """Writes one file an element, several at once; the bundle ends when all are written."""

    def __init__(self, to_file: Callable[[Any], tuple[str, bytes]]) -> None:
        super().__init__(threads=_THREADS, max_waiting=_MAX_WAITING)
        self._to_file = to_file

    def weight(self, element: Any) -> int:
        if not isinstance(element, ValidImage):
            return 0
        return len(element.data) + (0 if element.pixels is None else element.pixels.nbytes)

    def work(self, element: Any) -> None:
        stores.write_bytes(*self._to_file(element))


class StoreValidated(beam.PTransform):
    """Keeps valid images, byte for byte, in `validated/<id>/`.

    Input: `PCollection[ValidImage]`.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, images: beam.PCollection[ValidImage]) -> beam.PCollection[Any]:
        def to_file(image: ValidImage) -> tuple[str, bytes]:
            uri = stores.validated_uri(self._output, image.named.id, image.named.file.name)
            return uri, image.data

        return images | "Write" >> beam.ParDo(_Write(to_file))


class StoreDetections(beam.PTransform):
    """Keeps the object data in `detections/<id>/`.

    Input: `PCollection[DetectedImage]`.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, images: beam.PCollection[DetectedImage]) -> beam.PCollection[Any]:
        def to_file(image: DetectedImage) -> tuple[str, bytes]:
            uri = stores.detections_uri(self._output, image.id, image.stem)
            return uri, stores.json_bytes(image.to_json())

        return images | "Write" >> beam.ParDo(_Write(to_file))


class StoreFinal(beam.PTransform):
    """Keeps the verdicts in `final/<id>/`: the final data repository.

    Input: `PCollection[JudgedImage]`.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, judged: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        def to_file(one: JudgedImage) -> tuple[str, bytes]:
            uri = stores.final_uri(self._output, one.image.id, one.image.stem)
            return uri, stores.json_bytes(one.to_json())

        return judged | "Write" >> beam.ParDo(_Write(to_file))


class _StoreInvalid(ReadAheadDoFn):
    def __init__(self, output: str) -> None:
        super().__init__(threads=_THREADS, max_waiting=_MAX_WAITING)
        self._output = output

    def weight(self, element: InvalidImage) -> int:
        return len(element.data or b"")

    def work(self, element: InvalidImage) -> dict[str, Any]:
        name = stores.name_in_store(element.file.name, element.file.uri, shared=element.shares_name)
        uri = stores.invalid_uri(self._output, element.reason, name)
        sha256, size = element.sha256, element.size_bytes
        if element.data is not None:
            stores.write_bytes(uri, element.data)
        else:
            try:
                sha256, size = stores.copy(element.file.uri, uri)
            except Exception:  # Each store's client has its own kinds of error.
                # Nothing to keep of a file that can't be read. Where the output is at fault, the
                # record below fails too, and the job with it.
                pass
        record = {
            "file": printable(element.file.name),
            "uri": printable(element.file.uri),
            "reason": element.reason,
            "detail": element.detail,
            "size_bytes": size,
            "width": element.width,
            "height": element.height,
            "sha256": sha256,
        }
        stores.write_bytes(f"{uri}.json", stores.json_bytes(record))
        return record

    def outputs(self, result: dict[str, Any]) -> Iterable[dict[str, Any]]:
        count(f"images.invalid.{result['reason']}")
        yield result


class StoreInvalid(beam.PTransform):
    """Keeps invalid images as they were received, and why, in `invalid/<reason>/`.

    Input: `PCollection[InvalidImage]`. Output: `PCollection[dict[str, Any]]`, the records.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, invalid: beam.PCollection[InvalidImage]) -> beam.PCollection[dict[str, Any]]:
        return invalid | "Write" >> beam.ParDo(_StoreInvalid(self._output))
