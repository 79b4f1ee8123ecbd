"""Where results are kept: images as they were received, object data, verdicts, invalid files.

Every name follows from ids, timestamps and file names, and every content from the input, so that
a retried bundle or a second run writes the same bytes to the same place.
"""

from __future__ import annotations

import json
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

    def work(self, element: Any) -> Any:
        stores.write_bytes(*self._to_file(element))


class _WriteValidated(_Write):
    def weight(self, element: tuple[ValidImage, DetectedImage]) -> int:
        image = element[0]
        return len(image.data) + (0 if image.pixels is None else image.pixels.nbytes)

    def work(self, element: tuple[ValidImage, DetectedImage]) -> DetectedImage:
        image, detected = element
        super().work(image)
        return detected

    def outputs(self, result: DetectedImage) -> Iterable[DetectedImage]:
        yield result


class StoreValidated(beam.PTransform):
    """Keeps valid images, byte for byte, in `validated/<id>/`.

    Input: `PCollection[tuple[ValidImage, DetectedImage]]`. Output: `PCollection[DetectedImage]`,
    each after its image was stored.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(
        self, images: beam.PCollection[tuple[ValidImage, DetectedImage]]
    ) -> beam.PCollection[DetectedImage]:
        def to_file(image: ValidImage) -> tuple[str, bytes]:
            uri = stores.validated_uri(self._output, image.named.id, image.named.file.name)
            return uri, image.data

        return images | "Write" >> beam.ParDo(_WriteValidated(to_file)).with_output_types(
            DetectedImage
        )


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
    def __init__(self, output: str, streaming: bool) -> None:
        # A stream's files come one by one, and look for each other's names: in one thread.
        super().__init__(threads=1 if streaming else _THREADS, max_waiting=_MAX_WAITING)
        self._output = output
        self._streaming = streaming

    def weight(self, element: InvalidImage) -> int:
        return len(element.data or b"")

    def work(self, element: InvalidImage) -> dict[str, Any]:
        a_records = self._streaming and element.file.name.endswith(".json")
        uri = self._place(element, shared=element.shares_name or a_records)
        if self._streaming and _is_taken(uri, printable(element.file.uri)):
            uri = self._place(element, shared=True)
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

    def _place(self, element: InvalidImage, *, shared: bool) -> str:
        name = stores.name_in_store(element.file.name, element.file.uri, shared=shared)
        return stores.invalid_uri(self._output, element.reason, name)

    def outputs(self, result: dict[str, Any]) -> Iterable[dict[str, Any]]:
        count(f"images.invalid.{result['reason']}")
        yield result


def _is_taken(uri: str, by_other_than: str) -> bool:
    """Whether an invalid image of another address is kept at `uri` already."""
    try:
        return bool(json.loads(stores.read_bytes(f"{uri}.json"))["uri"] != by_other_than)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # Nothing is there, or nothing of ours.


class StoreInvalid(beam.PTransform):
    """Keeps invalid images as they were received, and why, in `invalid/<reason>/`.

    Input: `PCollection[InvalidImage]`. Output: `PCollection[dict[str, Any]]`, the records.

    Args:
      output: The job's output.
      streaming: Files keep coming, so that one that is to have the same name may be there already.
    """

    def __init__(self, output: str, *, streaming: bool = False) -> None:
        super().__init__()
        self._store = _StoreInvalid(output, streaming)

    def expand(self, invalid: beam.PCollection[InvalidImage]) -> beam.PCollection[dict[str, Any]]:
        return invalid | "Write" >> beam.ParDo(self._store)
