"""Plans: what is written and deleted for one capture time, and the steps that carry them out.

The plans of one capture time are carried out one after the other, so the last one prevails.
Carrying out a plan twice leaves the same files as once.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow

from transforms.count_threats import late_row
from transforms.known_periods import (
    FirstImage,
)
from transforms.known_versions import write_known
from transforms.packed_decisions import (
    PackedWindows,
    decision_on,
)
from transforms.packed_row_writer import RowWriter
from transforms.records import reasons
from transforms.records.codecs import keep_plain, pack_fields, register_record, unpack_fields
from transforms.records.images import InvalidImage, JudgedImage
from transforms.records.precedence import (
    CaptureTime,
    Change,
    Version,
    key_of,
    pack_capture_time,
    record_of,
    unpack_capture_time,
)
from transforms.repositories import (
    EarlierLateFiles,
    EarlierRecords,
    InvalidRepository,
    forget_valid,
)
from transforms.runtime.counters import count
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores

_LANES = 8
_MAX_WAITING = 64
_LATE_AT_ONCE = 512


@dataclass(frozen=True)
class Plan:
    """The changes in the repositories for one camera and capture time.

    Attributes:
      camera: The camera's id.
      timestamp: The capture time, canonical.
      winner: The image that wins; None if no image is valid.
      written: Whether the winner's object data and verdict are written.
      losers: The addresses and names of files whose object data and verdicts are deleted.
      retracted: The addresses, names and reasons of records in `invalid/` that are deleted.
      recorded: The records that are written.
      arrived: The names of the files that have arrived: their copies in `validated/` are deleted,
        except the winner's.
      restored: Whether the winner's copy in `validated/` is written again, as another file of the
        same name may have overwritten it.
      late: Whether the winner gets its own count row.
      searched: The addresses and names of files, each with the reason of its current record:
        records under all other reasons are deleted.
      copies: The addresses and names of files with the same bytes as another file, which have no
        record of their own: their records from earlier runs are deleted.
      recorded_before: Records that exist already and are written again, unchanged.
      spared: The sha256s of images whose spare copies are deleted: they have a copy in `invalid/`,
        or they were replaced and the stream forgets the capture time.
      known: What the stream knows of the capture time after this plan.
      first: The image whose verdict gets a spare copy before anything is changed: the stream's
        state has only its hash.
      is_recorded: If the repositories are packed: whether the winner has a record in `alerts/`, and
        so a file in `final/`. Rules can change before the plan is carried out, and this stays.
    """

    camera: str
    timestamp: str
    winner: JudgedImage | None = None
    written: bool = False
    losers: tuple[tuple[str, str], ...] = ()
    retracted: tuple[tuple[str, str, str], ...] = ()
    recorded: tuple[InvalidImage, ...] = ()
    arrived: tuple[str, ...] = ()
    restored: bool = False
    late: bool = False
    searched: tuple[tuple[str, str, str | None], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    recorded_before: tuple[InvalidImage, ...] = ()
    spared: tuple[str, ...] = ()
    known: CaptureTime = field(default_factory=CaptureTime)
    first: JudgedImage | None = None
    is_recorded: bool = False


_ENCODED_NAMES = {"winner": "stands", "losers": "forgotten", "copies": "repeated"}


def _pack_plan(plan: Plan) -> dict[str, Any]:
    return {**pack_fields(plan, _ENCODED_NAMES), "known": pack_capture_time(plan.known)}


def _unpack_plan(plain: dict[str, Any]) -> Plan:
    known = unpack_capture_time(plain.pop("known", {}))
    return replace(unpack_fields(plain, Plan, _ENCODED_NAMES), known=known)


def _keep_any_file(plain: dict[str, Any]) -> dict[str, Any]:
    """Upgrades a plan that does not say whether the winner has a record: it has one if it shows a
    threat. So no record is left without its file."""
    verdict = (plain.get("stands") or {}).get("verdict", {})
    return {**plain, "is_recorded": verdict.get("severity") is not None}


register_record(
    Plan,
    version=9,
    upgrades={**dict.fromkeys(range(1, 8), keep_plain), 8: _keep_any_file},
    pack=_pack_plan,
    unpack=_unpack_plan,
)


def plan_of(
    key: str, version: Version, before: CaptureTime, known: CaptureTime, change: Change | None
) -> Plan:
    """Returns the plan for the arrival of one file.

    The first file of a capture time is just stored. Later on, a bundle that failed may have read
    other bytes of a file, and stored results of those bytes. So the plan lists all that the
    repositories must hold for the capture time, and all that they must not hold.

    Args:
      key: The camera and capture time.
      version: The version that arrived.
      before: What was known before.
      known: What is known now.
      change: What the arrival changes; None if nothing.
    """
    camera, timestamp = key.split("\n")
    winner = known.winner
    others = [other for other in known.versions.values() if other.uri != known.winner_uri]
    is_first = not before.versions
    # What arrived comes last: it may overwrite a copy of bytes that another file is recorded with.
    new = () if change is None else sorted(change.recorded, key=lambda one: one.uri == version.uri)
    return Plan(
        *(camera, timestamp, winner),
        written=winner is not None,
        losers=() if is_first else tuple((other.uri, other.name) for other in others),
        retracted=()
        if change is None
        else tuple((other.uri, other.name, reason) for other, reason in change.retracted),
        recorded=tuple(map(record_of, new)),
        recorded_before=tuple(
            record_of(known.versions[uri])
            for uri in known.records
            if known.versions[uri] not in new
        ),
        arrived=tuple({other.name: None for other in (version, *known.versions.values())}),
        restored=not is_first,
        searched=()
        if change is not None
        else tuple(
            (other.uri, other.name, known.records.get(other.uri))
            for other in known.versions.values()
        ),
        copies=tuple((other.uri, other.name) for other in others if other.uri not in known.records),
        spared=_spared(version, before, known),
        known=known,
        is_recorded=bool(known.is_recorded),
    )


def _spared(version: Version, before: CaptureTime, known: CaptureTime) -> tuple[str, ...]:
    """Returns the sha256s of images that may have a spare copy and no longer need it.

    An image has one if it was written over another one, or another one over it. The winner's is
    kept, as a further file may be about to overwrite the winner, and so are those of replaced
    versions, until the stream forgets the capture time.
    """
    same_name = [other for other in known.versions.values() if other.name == version.name]
    if version.uri not in before.versions and len(same_name) < 2:
        return ()
    pushed_out = set(before.replaced) - set(known.replaced)
    valid = {other.judged.image.sha256 for other in same_name if other.judged is not None}
    kept = {_winner_sha256(known), *known.replaced}
    return tuple(sorted(sha256 for sha256 in valid | pushed_out if sha256 not in kept))


def _winner_sha256(known: CaptureTime) -> str | None:
    return None if known.winner is None else known.winner.image.sha256


def last_plan(known: CaptureTime) -> Plan:
    """Returns the plan that deletes the spare copies of replaced versions."""
    camera, timestamp = key_of(next(iter(known.versions.values()))).split("\n")
    spared = sorted(set(known.replaced) - {_winner_sha256(known)})
    return Plan(camera, timestamp, spared=tuple(spared))


class _Lanes:
    """Threads, each of which does the work for its keys in order."""

    def __init__(self, lanes: int) -> None:
        self._pools = [ThreadPoolExecutor(1, thread_name_prefix="store") for _ in range(lanes)]

    def submit(self, key: str, work: Callable[[Any], Any], element: Any) -> Future[Any]:
        lane = zlib.crc32(key.encode()) % len(self._pools)
        return self._pools[lane].submit(work, element)

    def shutdown(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)


class StorePlan(ReadAheadDoFn):
    """Carries plans out: those of one capture time in order, others concurrently.

    Args:
      output: The job's output.
      window_seconds: Length of a window, for count rows of late images.
      store_validated: Whether valid images are kept.
      max_copied_bytes: See :class:`transforms.repositories.StoreInvalid`.
      top: See :class:`transforms.repositories.StoreInvalid`.
      streaming: Whether files keep arriving, so that another file may already use the name of a
        record. A batch knows all files of a name.
      is_packed: Whether the repositories are packed.
      windows: Those of the rows, if a stream has packed repositories. Another step writes them.
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
        is_packed: bool = False,
        windows: PackedWindows | None = None,
    ) -> None:
        super().__init__(threads=_LANES, max_waiting=_MAX_WAITING)
        self._output = output
        self._window_seconds = window_seconds
        self._streaming = streaming
        self._is_packed = is_packed
        self._windows = windows
        self._rows: RowWriter | None = None
        self._store_validated = store_validated
        self._max_copied_bytes = max_copied_bytes
        self._invalid = InvalidRepository(output, max_copied_bytes, top)
        self._earlier = EarlierRecords(output)
        self._earlier_late_files = EarlierLateFiles(output)

    def setup(self) -> None:
        self._lanes = _Lanes(_LANES)
        if self._windows is not None:
            self._rows = RowWriter(self._output, self._windows)

    def teardown(self) -> None:
        self._lanes.shutdown()

    def submit(self, element: Plan) -> Future[Any]:
        return self._in_lane(self.work, element)

    def _in_lane(self, do: Callable[[Plan], Any], plan: Plan) -> Future[Any]:
        """Does something for a plan in the thread of its capture time."""
        return self._lanes.submit(f"{plan.camera}\n{plan.timestamp}", do, plan)

    def work(self, element: Plan) -> list[dict[str, Any]]:
        records = self._prepare(element)
        self._note(element)
        self._complete(element)
        return records

    def _prepare(self, plan: Plan) -> list[dict[str, Any]]:
        """Does what comes before the verdict changes; returns the records."""
        if plan.first is not None:
            self._spare_verdict(plan, plan.first)
        if plan.known.is_kept:
            write_known(self._output, plan.known)
        if plan.known.counted:
            self._forget_lateness(plan)
        self._spare_replaced(plan)
        records = [self._record(image, plan) for image in plan.recorded]
        for image in plan.recorded_before:
            self._record(image, plan)
        for uri, file in plan.losers:
            forget_valid(self._output, plan.camera, uri, file)
        return records

    def _note(self, plan: Plan) -> None:
        """Notes the file in `final/` that the winner gets before its row is written."""
        if self._rows is not None and plan.winner is not None and plan.written and plan.is_recorded:
            self._rows.note(plan.winner)

    def _complete(self, plan: Plan) -> None:
        """Does what comes after the row of the verdict is written or noted."""
        if plan.winner is not None:
            self._store_winner(plan, plan.winner)
        if self._store_validated:  # First, as it may need a copy that is deleted below.
            self._restore_validated(plan)
        for sha256 in plan.spared:
            stores.delete(self._spare_uri(plan, sha256))
        self._retract(plan)

    def _spare_verdict(self, plan: Plan, judged: JudgedImage) -> None:
        """Writes the spare copy of a verdict that the stream's state refers to."""
        uri = FirstImage.of(judged).spare_uri(self._output, plan.camera, plan.timestamp)
        stores.write_bytes(uri, beam.coders.registry.get_coder(JudgedImage).encode(judged))

    def _forget_lateness(self, plan: Plan) -> None:
        """Deletes what an earlier stream has stored of an image that is counted in its window."""
        if plan.winner is not None:
            self._earlier_late_files.delete(stores.late_uri(*self._names(plan.winner)))
        if not plan.known.is_kept:
            self._earlier_late_files.delete(
                stores.known_uri(self._output, plan.camera, plan.timestamp)
            )

    def _retract(self, plan: Plan) -> None:
        for uri, file, reason in plan.retracted:
            self._invalid.retract(uri, file, reason)
        for uri, file, current in plan.searched:
            for reason in set(reasons.OF_CONTENT) - {current}:
                self._invalid.retract(uri, file, reason)
        if plan.winner is not None:
            self._earlier.retract(plan.winner.image.uri, plan.winner.image.stored_name)
        for uri, file in plan.copies:
            self._earlier.retract(uri, file)

    def _spare_replaced(self, plan: Plan) -> None:
        """Makes a spare copy of the version that was replaced last, unless there is one.

        This plan deletes its copy in `validated/` or `invalid/`, and the file has other bytes now.
        """
        for sha256 in plan.known.replaced[-1:]:
            spare = self._spare_uri(plan, sha256)
            validated = (
                stores.validated_uri(self._output, plan.camera, name) for name in plan.arrived
            )
            for uri in (spare, *self._retracted_copies(plan), *validated):
                data = stores.read_if_there(uri)
                if data is not None and hashlib.sha256(data).hexdigest() == sha256:
                    if uri != spare:
                        stores.write_bytes(spare, data)
                    return

    def _spare_uri(self, plan: Plan, sha256: str) -> str:
        return stores.spare_uri(self._output, plan.camera, plan.timestamp, sha256)

    def _retracted_copies(self, plan: Plan) -> tuple[str, ...]:
        """Returns where files have copies until their records are deleted or overwritten.

        A file that had the same bytes as another, but no record, may now win or get a record.
        """
        overwritten = ((one.file.uri, one.stored_name, one.reason) for one in plan.recorded)
        return tuple(
            copy_uri
            for record in (*plan.retracted, *overwritten)
            for copy_uri in self._invalid.copy_uris(*record)
        )

    def _record(self, image: InvalidImage, plan: Plan) -> dict[str, Any]:
        is_shared = image.shares_name or (self._streaming and self._invalid.needs_hash(image))
        record = self._invalid.store(
            image,
            is_shared=is_shared,
            elsewhere=(
                *plan.known.addresses_of(image.sha256),
                stores.validated_uri(self._output, plan.camera, image.stored_name),
                *(() if image.sha256 is None else (self._spare_uri(plan, image.sha256),)),
                *self._retracted_copies(plan),
            ),
        )
        current = self._invalid.copy_uri(image, is_shared=is_shared)
        self._earlier.retract(image.file.uri, image.stored_name, current=current)
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
        if not self._is_packed:
            self._write_json(stores.detections_uri(*self._names(judged)), judged.image.to_json())
        elif not plan.is_recorded:
            if self._rows is not None and plan.restored:
                stores.delete(stores.final_uri(*self._names(judged)))
            return
        self._write_json(stores.final_uri(*self._names(judged)), judged.to_json())

    def _restore_validated(self, plan: Plan) -> None:
        image = None if plan.winner is None else plan.winner.image
        for name in plan.arrived:
            if image is None or name != image.stored_name:
                stores.delete(stores.validated_uri(self._output, plan.camera, name))
        if image is None or not plan.restored:
            return
        validated = stores.validated_uri(self._output, image.id, image.stored_name)
        spare = self._spare_uri(plan, image.sha256)
        shares_name = any(
            version.name == image.stored_name and version.uri != image.uri
            for version in plan.known.versions.values()
        )
        copies = self._invalid.copy_uris(image.uri, image.stored_name, reasons.DUPLICATE)
        inputs = (image.uri, *plan.known.addresses_of(image.sha256))
        elsewhere = self._retracted_copies(plan)
        for uri in dict.fromkeys((*inputs, *copies, validated, spare, *elsewhere)):
            data = self._read_input(uri) if uri in inputs else stores.read_if_there(uri)
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() == image.sha256:
                # A file of the same name may arrive after this one has disappeared, and overwrite
                # its copy where a store ignores whether an object is new.
                targets = (validated, spare) if shares_name else (validated,)
                for target in targets:
                    if target != uri:
                        stores.write_bytes(target, data)
                return
        self._invalid.check_top()
        stores.delete(validated)  # Another file of that name has overwritten it.

    def _read_input(self, uri: str) -> bytes | None:
        """Reads a file of the input, or None if it can't be read, for whatever reason.

        By now, it may be another file, of any size.
        """
        at_most = -1 if self._max_copied_bytes is None else self._max_copied_bytes + 1
        try:
            return stores.read_bytes(uri, at_most)
        except Exception:  # Each store has its own kinds of error.
            return None

    def outputs(self, result: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        for record in result:
            count(f"images.invalid.{record['reason']}")
            yield record


class StoreLatePlans(StorePlan):
    """Carries out the plans of late files in a packed stream: their rows are written together.

    The rows of a bundle are one file for each day, of up to `_LATE_AT_ONCE` plans. Several plans of
    one capture time are carried out one after the other, and have a file each.
    """

    def start_bundle(self) -> None:
        self._plans: list[tuple[Plan, Any, Any]] = []

    def process(
        self,
        element: Plan,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        self._plans.append((element, timestamp, (window or GlobalWindow(),)))
        if len(self._plans) >= _LATE_AT_ONCE:
            yield from self._store()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._store()

    def _store(self) -> Iterator[Any]:
        plans, self._plans = self._plans, []
        while plans:
            turn, later = dict[tuple[str, str], tuple[Plan, Any, Any]](), []
            for one in plans:
                key = one[0].camera, one[0].timestamp
                if turn.setdefault(key, one) is not one:
                    later.append(one)
            of_turn = list(turn.values())
            results = self._store_together([plan for plan, *_ in of_turn])
            for result, (_, timestamp, windows) in zip(results, of_turn, strict=True):
                for output in self.outputs(result):
                    yield self._windowed(output, timestamp, windows)
            plans = later

    def _store_together(self, plans: Sequence[Plan]) -> list[list[dict[str, Any]]]:
        """Carries out plans of different capture times; returns the records of each."""
        assert self._rows is not None
        records = self._each(self._prepare, plans)
        decisions = (decision_on(plan.known, 1, is_recorded=plan.is_recorded) for plan in plans)
        self._rows.write(decision for decision in decisions if decision is not None)
        self._each(self._complete, plans)
        return records

    def _each(self, do: Callable[[Plan], Any], plans: Iterable[Plan]) -> list[Any]:
        """Does something for each plan, several at once. All have ended before it returns or
        raises, as the runner tries a bundle again that has failed."""
        futures = [self._in_lane(do, plan) for plan in plans]
        wait(futures)
        return [future.result() for future in futures]
