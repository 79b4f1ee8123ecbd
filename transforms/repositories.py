"""The repositories of results: images as received, object data, verdicts and invalid files.

Every name follows from ids, timestamps and file names, and every content from the input, so that
a retried bundle or a second run writes the same bytes to the same address.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import apache_beam as beam
import msgspec

import rules
from transforms.judge_threats import PARTS, JudgedParts
from transforms.records import reasons
from transforms.records.images import (
    DetectedImage,
    InvalidImage,
    JudgedImage,
    ModelInfo,
    ValidImage,
    detection_from_json,
    detection_to_json,
    stem_of,
)
from transforms.records.text import printable
from transforms.runtime.counters import count
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores
from transforms.storage.packed_rows import PackedRow

T = TypeVar("T")
_THREADS = 8
_MAX_WAITING = 64


class WriteFiles(ReadAheadDoFn):
    """Writes a file for each element, several at once; the bundle ends when all are written."""

    def __init__(self, to_file: Callable[[Any], tuple[str, bytes]]) -> None:
        super().__init__(threads=_THREADS, max_waiting=_MAX_WAITING)
        self._to_file = to_file

    def work(self, element: Any) -> Any:
        stores.write_bytes(*self._to_file(element))


class _WriteValidated(WriteFiles):
    """Writes valid images.

    Args:
      output: The job's output.
      streaming: Whether files keep arriving, so that the image of another file, or of an earlier
        version of this one, may have the same name. It may win, and its file may be gone.
    """

    def __init__(self, output: str, *, streaming: bool = False) -> None:
        super().__init__(self._to_validated)
        self._output = output
        self._streaming = streaming

    def weight(self, element: tuple[ValidImage, DetectedImage]) -> int:
        image = element[0]
        return len(image.data) + (0 if image.pixels is None else image.pixels.nbytes)

    def work(self, element: tuple[ValidImage, DetectedImage]) -> DetectedImage:
        image, detected = element
        if self._streaming:
            self._write_beside_others(image)
        else:
            stores.write_copy(*self._to_validated(image), image.named.file.uri)
        return detected

    def outputs(self, result: DetectedImage) -> Iterable[DetectedImage]:
        yield result

    def _to_validated(self, image: ValidImage) -> tuple[str, bytes]:
        named = image.named
        return stores.validated_uri(self._output, named.id, named.stored_name), image.data

    def _write_beside_others(self, image: ValidImage) -> None:
        """Writes an image; keeps spare copies of it and of another one that it overwrites.

        Which of them wins is decided later (:mod:`transforms.resolve_versions`). The image gets a
        spare copy too, as another thread may be about to overwrite it.
        """
        uri, data = self._to_validated(image)
        if stores.write_if_new(uri, data):
            return
        there = stores.read_if_there(uri)
        if there == data:
            return
        named = image.named
        for spared in (there, data):
            if spared is not None:
                sha256 = hashlib.sha256(spared).hexdigest()
                spare = stores.spare_uri(self._output, named.id, named.timestamp, sha256)
                stores.write_bytes(spare, spared)
        stores.write_bytes(uri, data)


class StoreValidated(beam.PTransform):
    """Stores valid images, byte for byte, in `validated/<id>/`.

    Input: `PCollection[tuple[ValidImage, DetectedImage]]`. Output: `PCollection[DetectedImage]`,
    each after its image was stored.

    Args:
      output: The job's output.
      streaming: Whether files keep arriving: then an image that another one overwrites is kept
        until it is decided which of them wins.
    """

    def __init__(self, output: str, *, streaming: bool = False) -> None:
        super().__init__()
        self._write = _WriteValidated(output, streaming=streaming)

    def expand(
        self, images: beam.PCollection[tuple[ValidImage, DetectedImage]]
    ) -> beam.PCollection[DetectedImage]:
        return images | "Write" >> beam.ParDo(self._write).with_output_types(DetectedImage)


class StoreDetections(beam.PTransform):
    """Stores the object data of uncontested images in `detections/<id>/`.

    Input: `PCollection[DetectedImage]`.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self._output = output

    def expand(self, images: beam.PCollection[DetectedImage]) -> beam.PCollection[Any]:
        def to_file(image: DetectedImage) -> tuple[str, bytes]:
            uri = stores.detections_uri(self._output, image.id, image.stem)
            return uri, stores.json_bytes(image.to_json())

        uncontested = images | "Alone" >> beam.Filter(lambda image: not image.is_contested)
        return uncontested | "Write" >> beam.ParDo(WriteFiles(to_file))


class StoreFinal(beam.PTransform):
    """Stores the verdicts of uncontested images in `final/<id>/`, the final data repository.

    :class:`transforms.resolve_versions.ResolveVersions` stores those of the other images.

    Input: `JudgedParts`.

    Args:
      output: The job's output.
      has_file: Which images have a file of their own; None for all.
    """

    def __init__(
        self, output: str, *, has_file: Callable[[JudgedImage], bool] | None = None
    ) -> None:
        super().__init__()
        self._output = output
        self._has_file = has_file

    def expand(self, parts: JudgedParts) -> tuple[Any, ...]:
        def to_file(judged: JudgedImage) -> tuple[str, bytes]:
            uri = stores.final_uri(self._output, judged.image.id, judged.image.stem)
            return uri, stores.json_bytes(judged.to_json())

        has_file = self._has_file

        def is_written(judged: JudgedImage) -> bool:
            return not judged.image.is_contested and (has_file is None or has_file(judged))

        return tuple(
            part
            | f"Alone{label}" >> beam.Filter(is_written)
            | f"Write{label}" >> beam.ParDo(WriteFiles(to_file))
            for label, part in zip(PARTS, parts, strict=False)
        )


class InvalidRepository:
    """The records in `invalid/` and the copies of the files, by reason. Thread-safe.

    Args:
      output: The job's output.
      max_copied_bytes: See :class:`StoreInvalid`.
      top: See :class:`StoreInvalid`.
    """

    def __init__(
        self, output: str, max_copied_bytes: int | None = None, top: str | None = None
    ) -> None:
        self._output = output
        self._max_copied_bytes = max_copied_bytes
        self._top = top

    def store(
        self, image: InvalidImage, *, is_shared: bool, elsewhere: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Writes a file as it was received, and its record.

        The results of the file from when it was valid are deleted, unless its bytes are unknown
        now: a file that can't be read, or is gone, keeps its verdict. A file that is gone or has
        other bytes by now keeps its record and its copy.

        Args:
          image: The image.
          is_shared: Whether another file has the same name, so that this one needs a hash of its
            address.
          elsewhere: Addresses that may have the same bytes, if the file no longer has them.

        Returns:
          The record.

        Raises:
          OSError: The file or its record can't be written.
        """
        uri = self.copy_uri(image, is_shared=is_shared)
        sha256, size = image.sha256, image.size_bytes
        copied = None
        if image.data is not None:
            stores.write_copy(uri, image.data, image.file.uri)
        elif image.reason != reasons.FILE_TOO_LARGE:
            others = elsewhere if sha256 is not None else ()
            copied = self._copy(uri, (image.file.uri, *others), sha256)
            if copied is not None:
                sha256, size = copied
        if image.camera is not None and image.reason != reasons.READ_FAILED:
            forget_valid(self._output, image.camera, image.file.uri, image.stored_name)
        if image.data is None and copied is None and sha256 is not None:
            stored = _read_record(uri)
            if stored is not None and (stored["uri"], stored.get("sha256")) == (
                printable(image.file.uri),
                sha256,
            ):
                return stored
        record: dict[str, Any] = {
            "file": printable(image.file.name),
            "uri": printable(image.file.uri),
            "reason": image.reason,
            "detail": image.detail,
            "size_bytes": size,
            "width": image.width,
            "height": image.height,
            "sha256": sha256,
        }
        if image.detections is not None:
            record["detections"] = [detection_to_json(detection) for detection in image.detections]
        stores.write_bytes(f"{uri}.json", stores.json_bytes(record))
        return record

    def _copy(self, target: str, sources: Sequence[str], sha256: str | None) -> Any:
        """Copies the first source that has the bytes; see :func:`_copy`."""
        for source in sources:
            copied = _copy(source, target, self._max_copied_bytes, sha256)
            if copied is not None:
                return copied
        self.check_top()
        return None

    def check_top(self) -> None:
        """Checks that the input exists when a file is gone.

        Raises:
          stores.StoreLostError: The folder of all files is missing.
        """
        if self._top is not None:
            stores.check_folder(self._top, was_read=True)

    def records_named(self, uri: str, file: str, reason: str) -> list[dict[str, Any]]:
        """Returns the records at the addresses that a file's record may have.

        Each is of this file or of another file with the same name.
        """
        records = map(_read_record, self.copy_uris(uri, file, reason))
        return [record for record in records if record is not None]

    def retract(self, uri: str, file: str, reason: str) -> None:
        """Deletes the record and the copy of a file, and a copy without a record.

        An interrupted write leaves a copy without a record.

        Args:
          uri: The file's address.
          file: Its name.
          reason: The reason of the record.

        Raises:
          OSError: They can't be deleted.
        """
        for copy_uri in self.copy_uris(uri, file, reason):
            self.retract_at(copy_uri, uri)

    def retract_at(self, copy_uri: str, uri: str) -> None:
        """Does what :meth:`retract` does for one address of the copy."""
        record = _read_record(copy_uri)
        if record is None or record["uri"] == printable(uri):
            stores.delete(copy_uri)
        if record is not None and record["uri"] == printable(uri):
            stores.delete(f"{copy_uri}.json")

    def needs_hash(self, image: InvalidImage) -> bool:
        """Returns whether the image is or must be stored under a name with a hash.

        It must be if a file at another address is stored under the plain name.
        """
        plain, hashed = map(
            _read_record, self.copy_uris(image.file.uri, image.stored_name, image.reason)
        )
        uri = printable(image.file.uri)
        if hashed is not None and hashed["uri"] == uri:
            return True
        return plain is not None and plain["uri"] != uri

    def copy_uri(self, image: InvalidImage, *, is_shared: bool) -> str:
        """Returns the address that :meth:`store` copies a file to."""
        return self._copy_uri(image.file.uri, image.stored_name, image.reason, is_shared=is_shared)

    def copy_uris(self, uri: str, file: str, reason: str) -> tuple[str, ...]:
        """Returns the possible addresses of a file's copy: its own name, and one with a hash."""
        return tuple(
            self._copy_uri(uri, file, reason, is_shared=is_shared) for is_shared in (False, True)
        )

    def _copy_uri(self, uri: str, file: str, reason: str, *, is_shared: bool) -> str:
        name = stores.name_in_store(file, uri, shared=is_shared)
        return stores.invalid_uri(self._output, reason, name)


_listing_lock = threading.Lock()


@functools.lru_cache(maxsize=16)
def _list_once(folder: str, step: str) -> frozenset[str]:
    return frozenset(file.path for file in stores.list_beneath(folder))


@functools.lru_cache(maxsize=4)
def _by_capture_time(listed: frozenset[str]) -> dict[str, list[str]]:
    """Groups addresses by what is before the last underscore: the camera and the capture time."""
    groups: dict[str, list[str]] = {}
    for uri in sorted(listed):
        groups.setdefault(uri.rpartition("_")[0], []).append(uri)
    return groups


class _EarlierFiles:
    """The files that earlier runs have left in a folder.

    A process lists the folder once for each step, at the first use, as a runner may make many
    instances of a step. Files that this run writes are not in that list. Thread-safe, and picklable
    if it is made with the step.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._step = uuid.uuid4().hex

    def listed(self) -> frozenset[str]:
        """Returns their addresses.

        Raises:
          OSError: The folder can't be listed.
        """
        with _listing_lock:
            return _list_once(self._folder, self._step)


class EarlierLateFiles:
    """What an earlier stream has stored of images that were too late for their windows.

    A stream that begins without the state of the earlier one counts all images of its input in
    their windows.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        self._files = _EarlierFiles(stores.late_folder(output))

    def delete(self, uri: str) -> None:
        """Deletes a file of `late/`, if the earlier stream has left it.

        Raises:
          OSError: The files can't be listed, or this one can't be deleted.
        """
        if uri in self._files.listed():
            stores.delete(uri)


class EarlierShadowAlerts:
    """What earlier runs have stored of images of which these or the shadow rules have an alert.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._files = _EarlierFiles(stores.shadow_alerts_folder(output))

    def at(self, camera: str, timestamp: str) -> list[str]:
        """Returns the addresses of those of a camera and canonical capture time.

        Raises:
          OSError: The folder can't be listed.
        """
        uri = stores.shadow_alert_uri(self._output, camera, timestamp, "")
        return _by_capture_time(self._files.listed()).get(uri.rpartition("_")[0], [])


class EarlierRecords:
    """The records in `invalid/` of earlier runs, which are retracted if this run says otherwise.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        self._files = _EarlierFiles(stores.invalid_folder(output))
        self._repository = InvalidRepository(output)

    def retract(self, uri: str, file: str, *, current: str | None = None) -> None:
        """Deletes the records of earlier runs of a file.

        Args:
          uri: The file's address.
          file: The name under which it is stored. It had another one if its names were read in
            another way.
          current: The address of the copy in this run, which is not deleted; None if the file is
            valid, or the same image as another file.

        Raises:
          OSError: The records can't be listed or deleted.
        """
        listed = self._files.listed()
        if not listed:
            return
        received = uri.rsplit("/", 1)[-1]
        for name, reason in itertools.product({file, received}, reasons.ALL):
            for copy_uri in self._repository.copy_uris(uri, name, reason):
                if copy_uri != current and not listed.isdisjoint((copy_uri, f"{copy_uri}.json")):
                    self._repository.retract_at(copy_uri, uri)


def read_final(uri: str) -> JudgedImage | None:
    """Reads an image with its verdict from a file in `final/`.

    Returns:
      The image; None if there is no such file, or the job has not written it.

    Raises:
      OSError: The file exists and can't be read.
    """
    try:
        data = json.loads(stores.read_if_there(uri) or b"")
        image = DetectedImage(
            **{name: data[name] for name in ("id", "timestamp", "file", "uri", "sha256")},
            width=data["width"],
            height=data["height"],
            model=ModelInfo.from_json(data["model"]),
            detections=tuple(map(detection_from_json, data["detections"])),
            brightness=data["brightness"],
            sharpness=data["sharpness"],
        )
        return JudgedImage(image, verdict_from_json(data["threat"]))
    except (ValueError, KeyError, TypeError):
        return None


def verdict_from_json(threat: Mapping[str, Any]) -> rules.Verdict:
    """Returns the verdict of a `threat` object.

    Raises:
      ValueError, KeyError, TypeError: The job has not written it.
    """
    trace = [
        {
            **entry,
            "checks": [[check[name] for name in rules.Check._fields] for check in entry["checks"]],
        }
        for entry in threat.get("trace", ())
    ]
    return msgspec.convert({**threat, "trace": trace}, rules.Verdict)


def judged_in(row: PackedRow) -> JudgedImage | None:
    """Returns the image of a packed row with its verdict; None if the row has none, or none that
    the job has written."""
    if row.is_retracted or row.threat is None:
        return None
    try:
        return JudgedImage(row.image, verdict_from_json(row.threat))
    except (ValueError, KeyError, TypeError):
        return None


def forget_valid(output: str, camera: str, uri: str, file: str) -> None:
    """Deletes the results of a file from when it stood for its capture time.

    Args:
      output: The job's output.
      camera: The camera's id.
      uri: The file's address.
      file: Its name.

    Raises:
      OSError: They can't be deleted.
    """
    stem = stem_of(file)
    result_uris = (
        stores.final_uri(output, camera, stem),
        stores.detections_uri(output, camera, stem),
    )
    contents = {
        result_uri: data
        for result_uri in result_uris
        if (data := stores.read_if_there(result_uri)) is not None
    }
    owners = {_uri_in(data) for data in contents.values()} - {None}
    if owners <= {printable(uri)}:  # An interrupted write may have left some of them.
        for result_uri in (stores.late_uri(output, camera, stem), *contents):
            stores.delete(result_uri)
        if owners:
            stores.delete(stores.validated_uri(output, camera, file))


def _uri_in(data: bytes) -> str | None:
    """Returns the image's address in a JSON file; None if the job has not written the file."""
    try:
        uri = json.loads(data)["uri"]
    except (ValueError, KeyError, TypeError):
        return None
    return uri if isinstance(uri, str) else None


class _StoreInvalid(ReadAheadDoFn):
    def __init__(
        self, output: str, streaming: bool, max_copied_bytes: int | None, top: str | None = None
    ) -> None:
        # A stream checks which names are taken before it writes a file: in one thread.
        super().__init__(threads=1 if streaming else _THREADS, max_waiting=_MAX_WAITING)
        self._repository = InvalidRepository(output, max_copied_bytes, top)
        self._earlier = EarlierRecords(output)
        self._streaming = streaming

    def weight(self, element: InvalidImage) -> int:
        return len(element.data or b"")

    def work(self, element: InvalidImage) -> dict[str, Any]:
        is_shared = element.shares_name or (
            self._streaming
            and (element.stored_name.endswith(".json") or self._repository.needs_hash(element))
        )
        record = self._repository.store(element, is_shared=is_shared)
        if element.camera is not None:
            current = self._repository.copy_uri(element, is_shared=is_shared)
            self._earlier.retract(element.file.uri, element.stored_name, current=current)
        return record

    def outputs(self, result: dict[str, Any]) -> Iterable[dict[str, Any]]:
        count(f"images.invalid.{result['reason']}")
        yield result


class _NotCopiedError(Exception):
    """The file can't be read, has other bytes by now, or is too large to be copied."""


def _copy(
    source: str, target: str, max_bytes: int | None, expected_sha256: str | None
) -> tuple[str, int] | None:
    """Copies a file.

    Args:
      source: The file.
      target: The copy.
      max_bytes: The size of the largest file that is copied; None for no limit.
      expected_sha256: The sha256 that the file must have; None for any.

    Returns:
      The sha256 and the number of bytes; None if the file was not copied.

    Raises:
      OSError: The copy can't be written.
    """
    digest, size = hashlib.sha256(), 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        try:
            for chunk in stores.read_chunks(source):
                digest.update(chunk)
                size += len(chunk)
                if max_bytes is not None and size > max_bytes:
                    raise _NotCopiedError
                yield chunk
        except OSError as error:
            raise _NotCopiedError from error
        if expected_sha256 not in (None, digest.hexdigest()):
            raise _NotCopiedError

    try:
        stores.write_chunks(target, chunks())
    except _NotCopiedError:
        return None
    return digest.hexdigest(), size


def _read_record(copy_uri: str) -> dict[str, Any] | None:
    """Reads the record of a copy; returns None if there is none that the job has written."""
    try:
        record = json.loads(stores.read_if_there(f"{copy_uri}.json") or b"")
        return record if isinstance(record["uri"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


class StoreInvalid(beam.PTransform):
    """Stores invalid images as received, with a record, in `invalid/<reason>/`.

    Input: `PCollection[InvalidImage]`. Output: `PCollection[dict[str, Any]]`, the records.

    Args:
      output: The job's output.
      streaming: Whether the input is unbounded: then another file may be stored under the same
        name already.
      max_copied_bytes: The size of the largest file that is copied, whatever its reason; None for
        no limit. A `file_too_large` is never copied.
      top: The local folder of all files. If it is missing, the job fails, as then the files in it
        are not gone.
    """

    def __init__(
        self,
        output: str,
        *,
        streaming: bool = False,
        max_copied_bytes: int | None = None,
        top: str | None = None,
    ) -> None:
        super().__init__()
        self._store = _StoreInvalid(output, streaming, max_copied_bytes, top)

    def expand(self, invalid: beam.PCollection[InvalidImage]) -> beam.PCollection[dict[str, Any]]:
        return invalid | "Write" >> beam.ParDo(self._store)
