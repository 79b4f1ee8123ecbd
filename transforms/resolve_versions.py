"""ResolveVersions: one image stands for each camera and capture time.

Most capture times have one file: in a batch its results are stored where it was judged. A batch
groups what was judged of files that claim one capture time; a stream can't wait, and keeps what it
knows of each capture time as state until its window is beyond the allowed lateness. After that the
output is what it knows. The rules of who stands are in :mod:`transforms.records.precedence`.

What follows for the repositories is a :class:`Plan`: all writes and deletes of one capture time, in
order. Plans of one capture time are carried out one after the other, so that the last one stands.
Each leaves the same files whether it is carried out once or twice.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.count_threats import CountedImage, event_time, is_too_late, late_row, window_of
from transforms.known_versions import MAX_REQUESTS, is_complete, known_from_output, write_known
from transforms.records import reasons
from transforms.records.codecs import register_record
from transforms.records.images import InvalidImage, JudgedImage, stem_of
from transforms.records.precedence import (
    CAPTURE_TIMES,
    CaptureTime,
    Change,
    Version,
    add_version,
    key_of,
    record_of,
    settle,
)
from transforms.records.times import canonical_time
from transforms.repositories import (
    EarlierRecords,
    InvalidRepository,
    forget_valid,
    read_final,
)
from transforms.runtime.counters import count
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores

STANDS = "stands"
COUNTED = "counted"
CONTESTED = "contested"
PLANS = "plans"

_LANES = 8
_MAX_WAITING = 64


@dataclass(frozen=True)
class Plan:
    """What is to be done in the repositories for one camera and capture time, in this order.

    Attributes:
      camera: The camera's id.
      timestamp: The capture time, canonical.
      stands: The image that stands; None: none does.
      written: Whether its object data and verdict are written.
      forgotten: Addresses and names of files whose results are deleted, as they stood before.
      retracted: Addresses, names and reasons of records in `invalid/` that are deleted.
      recorded: Records that are written.
      arrived: Names of files that have come: a copy in `validated/` is deleted that is not of what
        stands.
      restored: Whether the copy of what stands is written anew, as another file may have taken its
        name.
      late: Whether what stands gets a count row of its own.
      searched: Addresses and names of files, and the reason of each one's record: under every other
        reason a record is looked for, and deleted.
      repeated: Addresses and names of files whose bytes are kept for another one: what earlier
        runs have said of them is deleted.
      recorded_before: Records that are written once more, as the first time.
      known: What a stream then knows.
    """

    camera: str
    timestamp: str
    stands: JudgedImage | None = None
    written: bool = False
    forgotten: tuple[tuple[str, str], ...] = ()
    retracted: tuple[tuple[str, str, str], ...] = ()
    recorded: tuple[InvalidImage, ...] = ()
    arrived: tuple[str, ...] = ()
    restored: bool = False
    late: bool = False
    searched: tuple[tuple[str, str, str | None], ...] = ()
    repeated: tuple[tuple[str, str], ...] = ()
    recorded_before: tuple[InvalidImage, ...] = ()
    known: CaptureTime = field(default_factory=CaptureTime)


register_record(Plan, version=2, upgrades={1: lambda plain: plain})


def plan_of(
    key: str, version: Version, before: CaptureTime, known: CaptureTime, change: Change | None
) -> Plan:
    """Returns the plan of one arrival.

    The first file of a capture time is stored, and that is all. After that, a bundle that has
    failed may have read other bytes of a file, and left what follows from those: so the plan says
    all that the repositories are to hold of the capture time, and what they must not hold.

    Args:
      key: The camera and capture time.
      version: What came.
      before: What was known before.
      known: What is known now.
      change: What it changes; None: nothing.
    """
    camera, timestamp = key.split("\n")
    winner = known.winner
    others = [one for one in known.versions.values() if one.uri != known.stands]
    is_first = not before.versions
    new = () if change is None else change.recorded
    return Plan(
        *(camera, timestamp, winner),
        written=winner is not None,
        forgotten=() if is_first else tuple((one.uri, one.file) for one in others),
        retracted=()
        if change is None
        else tuple((one.uri, one.file, reason) for one, reason in change.retracted),
        recorded=tuple(map(record_of, new)),
        recorded_before=tuple(
            record_of(known.versions[uri])
            for uri in known.records
            if known.versions[uri] not in new
        ),
        arrived=tuple({one.file: None for one in (version, *known.versions.values())}),
        restored=not is_first,
        searched=()
        if change is not None
        else tuple(
            (one.uri, one.file, known.records.get(one.uri)) for one in known.versions.values()
        ),
        repeated=tuple((one.uri, one.file) for one in others if one.uri not in known.records),
        known=known,
    )


class _ResolveInBatch(beam.DoFn):
    """Resolves all files of a capture time at once."""

    def process(self, element: tuple[str, Iterable[Version]]) -> Iterator[Any]:
        key, group = element
        versions = list(group)
        known = settle(versions)
        distinct = len(known.records) + (known.stands is not None)
        count("images.repeated", len(versions) - distinct)
        camera, timestamp = key.split("\n")
        recorded = [record_of(known.versions[uri]) for uri in known.records]
        by_name = Counter((image.reason, image.file.name) for image in recorded)
        repeated = tuple(
            (version.uri, version.file)
            for uri, version in known.versions.items()
            if uri != known.stands and uri not in known.records
        )
        plan = Plan(
            *(camera, timestamp, known.winner),
            written=known.winner is not None,
            forgotten=repeated,
            repeated=repeated,
            recorded=tuple(
                replace(image, shares_name=by_name[image.reason, image.file.name] > 1)
                for image in recorded
            ),
            arrived=tuple(version.file for version in versions),
            restored=True,
        )
        yield _tagged(PLANS, plan)
        if known.winner is not None:
            _count(known.winner, 1)
            yield known.winner


class _ResolveInStream(beam.DoFn):
    """Resolves each file of a capture time when it arrives."""

    _KNOWN = ReadModifyWriteStateSpec("versions", CAPTURE_TIMES)
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)

    def __init__(self, output: str, window_seconds: int, allowed_lateness_seconds: int) -> None:
        self._output = output
        self._window_seconds = window_seconds
        self._lateness_seconds = allowed_lateness_seconds

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="read")

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def process(
        self,
        element: tuple[str, Version],
        state: Any = beam.DoFn.StateParam(_KNOWN),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[Any]:
        key, version = element
        known: CaptureTime | None = state.read()
        if self._is_late(version) and (known is None or not is_complete(known, version)):
            known = known_from_output(self._output, version, self._pool, known)
            known = replace(known, waiting=(*known.waiting, version))
        elif known is not None and known.waiting:
            known = replace(known, waiting=(*known.waiting, version))
        else:
            known = yield from self._resolve(key, known or CaptureTime(), version)
        state.write(known)
        forget.set(self._forget_at(key))

    @on_timer(_FORGET)
    def forget(
        self,
        state: Any = beam.DoFn.StateParam(_KNOWN),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
    ) -> Iterator[Any]:
        """The window takes no more images. From now on the output is what is known.

        What came after that was only put into the state, beside what the output said. It is taken
        up here: a bundle that fails finds the state as it was, whatever it has written. The state
        is cleared one timer later, when what was written is there to be read.

        A runner that goes back to a checkpoint from before finds its own results in the output, and
        has lost what it had told of them. So the image that stands is told of once more: what an
        alert's record says already is not sent again.
        """
        known: CaptureTime | None = state.read()
        if known is None or not known.waiting:
            state.clear()
            return
        waiting, known = known.waiting, replace(known, waiting=())
        key = key_of(waiting[0])
        for version in waiting:
            known = yield from self._resolve(key, known, version, tells_again=True)
        state.write(known)
        forget.set(self._forget_at(key))

    def _resolve(
        self, key: str, before: CaptureTime, version: Version, *, tells_again: bool = False
    ) -> Generator[Any, None, CaptureTime]:
        late, is_replay = self._is_late(version), False
        if not late and not before.versions and version.reason == reasons.READ_FAILED:
            version, is_replay = self._as_stored(version)
        known, change = add_version(before, version)
        if change is None:
            count("images.repeated")
        elif change.is_new:
            known = yield from self._count(change, known, late=late)
        must_store = len(known.versions) > 1 or (known.counted and known.stands is None)
        known = replace(known, is_kept=known.is_kept or must_store)
        plan = plan_of(key, version, before, known, change)
        if is_replay:
            plan = replace(plan, written=False, arrived=())
        has_row = late and not known.counted and known.stands is not None
        yield _tagged(PLANS, replace(plan, late=has_row))
        is_new = change is not None and change.is_new
        if known.winner is not None and (is_new or tells_again):
            yield known.winner
        return known

    def _is_late(self, version: Version) -> bool:
        _, timestamp = key_of(version).split("\n")
        return is_too_late(
            timestamp, version.stream_time, self._window_seconds, self._lateness_seconds
        )

    def _as_stored(self, version: Version) -> tuple[Version, bool]:
        """What the output holds of a file that can't be read, and whether it holds anything.

        A bundle that has failed may have stored a verdict, and the file may have been deleted
        since. The verdict is there, but neither counted nor told of, as the bundle's other results
        are lost.
        """
        camera, _ = key_of(version).split("\n")
        stored = read_final(stores.final_uri(self._output, camera, stem_of(version.file)))
        if stored is None or stored.image.uri != version.uri:
            return version, False
        image = replace(
            stored.image,
            stream_time=version.stream_time,
            changed=version.changed,
            is_contested=True,
        )
        return Version(judged=replace(stored, image=image)), True

    def _count(
        self, change: Change, known: CaptureTime, *, late: bool
    ) -> Generator[Any, None, CaptureTime]:
        """Puts the counts of the window right, unless it is closed: then it keeps what was counted,
        and an image that was not has a row apart."""
        if change.before is not None:
            _count(change.before, -1)
        if change.after is not None:
            _count(change.after, 1)
        if late:
            if change.before is None and not known.counted:
                count("images.late")
            return known
        if known.counted and change.before is not None:
            yield _tagged(COUNTED, CountedImage.of(change.before).retraction())
        if change.after is not None:
            yield _tagged(COUNTED, CountedImage.of(change.after))
        return replace(known, counted=change.after is not None)

    def _forget_at(self, key: str) -> Timestamp:
        _, timestamp = key.split("\n")
        end = event_time(canonical_time(window_of(timestamp, self._window_seconds)[1]))
        return end + Duration(self._lateness_seconds)


def _tagged(tag: str, value: Any) -> beam.pvalue.TaggedOutput:
    return beam.pvalue.TaggedOutput(tag, value)


def _count(judged: JudgedImage, by: int) -> None:
    count("images.valid", by)
    if judged.verdict.is_threat:
        count("images.with_threat", by)
    for threat in judged.verdict.threats:
        count(f"threats.{threat.severity}.{threat.label}", by)


class _Lanes:
    """Threads, each of which does the work of its keys in order."""

    def __init__(self, lanes: int) -> None:
        self._pools = [ThreadPoolExecutor(1, thread_name_prefix="store") for _ in range(lanes)]

    def submit(self, key: str, work: Callable[[Any], Any], element: Any) -> Future[Any]:
        lane = zlib.crc32(key.encode()) % len(self._pools)
        return self._pools[lane].submit(work, element)

    def shutdown(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)


class _StorePlan(ReadAheadDoFn):
    """Carries plans out: those of one capture time in order, others concurrently.

    Args:
      output: The job's output.
      window_seconds: Length of a window, for count rows of late images.
      store_validated: Whether valid images are kept.
      max_copied_bytes: See :class:`transforms.repositories.StoreInvalid`.
      top: See :class:`transforms.repositories.StoreInvalid`.
      streaming: Files keep coming, so that the name of a record may be another file's already. A
        batch knows all files of a name.
    """

    def __init__(
        self,
        output: str,
        *,
        window_seconds: int,
        store_validated: bool = True,
        max_copied_bytes: int | None = None,
        top: str | None = None,
        streaming: bool = False,
    ) -> None:
        super().__init__(threads=_LANES, max_waiting=_MAX_WAITING)
        self._output = output
        self._window_seconds = window_seconds
        self._streaming = streaming
        self._store_validated = store_validated
        self._invalid = InvalidRepository(output, max_copied_bytes, top)
        self._earlier = EarlierRecords(output)

    def setup(self) -> None:
        self._lanes = _Lanes(_LANES)

    def teardown(self) -> None:
        self._lanes.shutdown()

    def submit(self, element: Plan) -> Future[Any]:
        key = f"{element.camera}\n{element.timestamp}"
        return self._lanes.submit(key, self.work, element)

    def work(self, element: Plan) -> list[dict[str, Any]]:
        plan = element
        if plan.known.is_kept:
            write_known(self._output, plan.known)
        records = [self._record(image, plan) for image in plan.recorded]
        for image in plan.recorded_before:
            self._record(image, plan)
        for uri, file in plan.forgotten:
            forget_valid(self._output, plan.camera, uri, file)
        if plan.stands is not None:
            self._store_winner(plan, plan.stands)
        if self._store_validated:  # Before a copy that may be needed for it is deleted.
            self._restore_validated(plan)
        self._retract(plan)
        return records

    def _retract(self, plan: Plan) -> None:
        for uri, file, reason in plan.retracted:
            self._invalid.retract(uri, file, reason)
        for uri, file, current in plan.searched:
            for reason in set(reasons.OF_CONTENT) - {current}:
                self._invalid.retract(uri, file, reason)
        if plan.stands is not None:
            self._earlier.retract(plan.stands.image.uri, plan.stands.image.file)
        for uri, file in plan.repeated:
            self._earlier.retract(uri, file)

    def _record(self, image: InvalidImage, plan: Plan) -> dict[str, Any]:
        is_shared = image.shares_name or (self._streaming and self._invalid.needs_hash(image))
        record = self._invalid.store(
            image,
            is_shared=is_shared,
            elsewhere=(
                *plan.known.addresses_of(image.sha256),
                stores.validated_uri(self._output, plan.camera, image.file.name),
            ),
        )
        current = self._invalid.copy_uri(image, is_shared=is_shared)
        self._earlier.retract(image.file.uri, image.file.name, current=current)
        return record

    def _names(self, judged: JudgedImage) -> tuple[str, str, str]:
        return self._output, judged.image.id, judged.image.stem

    def _write_json(self, uri: str, value: Mapping[str, Any]) -> None:
        stores.write_bytes(uri, stores.json_bytes(value))

    def _store_winner(self, plan: Plan, judged: JudgedImage) -> None:
        if plan.late:
            self._write_json(
                stores.late_uri(*self._names(judged)), late_row(judged, self._window_seconds)
            )
        if not plan.written:
            return
        self._write_json(stores.detections_uri(*self._names(judged)), judged.image.to_json())
        self._write_json(stores.final_uri(*self._names(judged)), judged.to_json())

    def _restore_validated(self, plan: Plan) -> None:
        image = None if plan.stands is None else plan.stands.image
        for name in plan.arrived:
            if image is None or name != image.file:
                stores.delete(stores.validated_uri(self._output, plan.camera, name))
        if image is None or not plan.restored:
            return
        validated = stores.validated_uri(self._output, image.id, image.file)
        spare = stores.spare_uri(self._output, image.id, image.timestamp)
        shares_name = any(
            version.file == image.file and version.uri != image.uri
            for version in plan.known.versions.values()
        )
        copies = self._invalid.copy_uris(image.uri, image.file, reasons.DUPLICATE)
        others = plan.known.addresses_of(image.sha256)
        for uri in dict.fromkeys((image.uri, *others, *copies, validated, spare)):
            try:
                data = stores.read_bytes(uri)
            except Exception:  # It is gone, or never existed.
                continue
            if hashlib.sha256(data).hexdigest() == image.sha256:
                # A file of the same name may arrive when this one is gone.
                targets = (validated, spare) if shares_name else (validated,)
                for target in targets:
                    if target != uri:
                        stores.write_bytes(target, data)
                return
        self._invalid.check_top()
        stores.delete(validated)  # Another file of that name has overwritten it.

    def outputs(self, result: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        for record in result:
            count(f"images.invalid.{record['reason']}")
            yield record


class _RetractEarlier(beam.DoFn):
    """Deletes what earlier runs have said of images that are valid now, and counts these."""

    def __init__(self, output: str) -> None:
        self._earlier = EarlierRecords(output)

    def process(self, element: JudgedImage) -> Iterator[JudgedImage]:
        self._earlier.retract(element.image.uri, element.image.file)
        # Not after both kinds are one collection: Flink then runs the step in two stages, and shows
        # what one of them has counted.
        _count(element, 1)
        yield element


def _key_judged(judged: JudgedImage) -> tuple[str, Version]:
    version = Version(judged=judged)
    return key_of(version), version


def _key_invalid(invalid: InvalidImage) -> tuple[str, Version]:
    version = Version(invalid=replace(invalid, data=None))
    return key_of(version), version


class _Split(beam.DoFn):
    """Separates contested images from those that are alone with their capture time."""

    def process(self, element: JudgedImage) -> Iterator[Any]:
        if element.image.is_contested:
            yield _tagged(CONTESTED, element)
        else:
            yield element


@dataclass(frozen=True)
class Resolved:
    """What :class:`ResolveVersions` gives.

    Attributes:
      stands: The images that stand, to be told of. In a stream an image that takes another one's
        place comes after it.
      counted: What is added to the counts or taken from them.
      records: The records of those that do not stand, after they were stored.
    """

    stands: beam.PCollection[JudgedImage]
    counted: beam.PCollection[JudgedImage | CountedImage]
    records: beam.PCollection[dict[str, Any]]


class ResolveVersions(beam.PTransform):
    """Lets one image stand for each camera and capture time, and stores what follows from it.

    Input: `PCollection[JudgedImage]`. Output: :class:`Resolved`.

    Args:
      contested: Invalid images of files that claim a capture time with others.
      output: The job's output.
      streaming: Files keep coming: each is resolved as it comes.
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
      store_validated: Whether valid images are kept.
      max_copied_bytes: See :class:`transforms.repositories.StoreInvalid`.
      top: See :class:`transforms.repositories.StoreInvalid`.
    """

    def __init__(
        self,
        contested: beam.PCollection[InvalidImage],
        output: str,
        *,
        streaming: bool,
        window_seconds: int,
        allowed_lateness_seconds: int,
        store_validated: bool = True,
        max_copied_bytes: int | None = None,
        top: str | None = None,
    ) -> None:
        super().__init__()
        self._contested = contested
        self._output = output
        self._streaming = streaming
        self._resolve_in_stream = _ResolveInStream(output, window_seconds, allowed_lateness_seconds)
        self._store = _StorePlan(
            output,
            window_seconds=window_seconds,
            store_validated=store_validated,
            max_copied_bytes=max_copied_bytes,
            top=top,
            streaming=streaming,
        )

    def expand(self, judged: beam.PCollection[JudgedImage]) -> Resolved:
        keyed = tuple[str, Version]
        split = judged | "Split" >> beam.ParDo(_Split()).with_outputs(CONTESTED, main=STANDS)
        contested = (
            split[CONTESTED] | "Judged" >> beam.Map(_key_judged).with_output_types(keyed),
            self._contested | "Invalid" >> beam.Map(_key_invalid).with_output_types(keyed),
        ) | "Contested" >> beam.Flatten()
        if self._streaming:
            resolved = contested | "AsTheyCome" >> beam.ParDo(self._resolve_in_stream).with_outputs(
                PLANS, COUNTED, main=STANDS
            )
            stands, counted = resolved[STANDS], resolved[COUNTED]
        else:
            resolved = (
                contested
                | "GroupByCaptureTime" >> beam.GroupByKey()
                | "Together" >> beam.ParDo(_ResolveInBatch()).with_outputs(PLANS, main=STANDS)
            )
            alone = split[STANDS] | "RetractEarlier" >> beam.ParDo(
                _RetractEarlier(self._output)
            ).with_output_types(JudgedImage)
            counted = stands = (alone, resolved[STANDS]) | "Stand" >> beam.Flatten()
        records = resolved[PLANS] | "Store" >> beam.ParDo(self._store)
        return Resolved(stands, counted, records)
