"""ResolveVersions: decides which image wins for each camera and capture time.

Most capture times have one file: a batch stores its results right after it was judged. A batch
groups the results of all files that claim one capture time. A stream can't wait for all of them: it
keeps what it knows of each capture time as state until the allowed lateness of its window is over
(:mod:`transforms.known_periods`). The state of a first image is small: its verdict is read back
from the output if another file claims its capture time. Once the state has ended, the stream reads
from the output what it needs. :mod:`transforms.records.precedence` has the rules that decide which
image wins.

The result for the repositories is a :class:`Plan`: all writes and deletes for one capture time, in
order. The plans of one capture time are carried out one after the other, so the last one prevails.
Carrying out a plan twice leaves the same files as once.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.count_threats import CountedImage, event_time, is_too_late, late_row, window_of
from transforms.judge_threats import PARTS, JudgedParts
from transforms.known_periods import (
    FirstImage,
    KnownPeriod,
    PassedOn,
    end_of_period,
    period_of,
)
from transforms.known_versions import MAX_REQUESTS, is_complete, known_from_output, write_known
from transforms.records import reasons
from transforms.records.codecs import keep_plain, pack_fields, register_record, unpack_fields
from transforms.records.images import InvalidImage, JudgedImage, stem_of
from transforms.records.precedence import (
    CAPTURE_TIMES,
    CaptureTime,
    Change,
    Version,
    add_version,
    key_of,
    pack_capture_time,
    record_of,
    settle,
    unpack_capture_time,
)
from transforms.records.times import canonical_time
from transforms.repositories import (
    EarlierLateFiles,
    EarlierRecords,
    InvalidRepository,
    forget_valid,
    judged_in,
    read_final,
)
from transforms.runtime.counters import count
from transforms.runtime.read_ahead import ReadAheadDoFn
from transforms.storage import stores
from transforms.storage.packed_rows import PackedRow
from transforms.store_packed_stream import (
    Decision,
    LateVersion,
    PackedWindows,
    RowWriter,
    StorePackedStream,
    decision_on,
    late_version,
)

WINNERS = "winners"
COUNTED = "counted"
CONTESTED = "contested"
PLANS = "plans"
DECISIONS = "decisions"

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


def _last_plan(known: CaptureTime) -> Plan:
    """Returns the plan that deletes the spare copies of replaced versions."""
    camera, timestamp = key_of(next(iter(known.versions.values()))).split("\n")
    spared = sorted(set(known.replaced) - {_winner_sha256(known)})
    return Plan(camera, timestamp, spared=tuple(spared))


class _ResolveInBatch(beam.DoFn):
    """Resolves all files of a capture time together.

    Args:
      has_file: See :class:`ResolveVersions`.
    """

    def __init__(self, has_file: Callable[[JudgedImage], bool] | None = None) -> None:
        self._has_file = has_file

    def process(self, element: tuple[str, Iterable[Version]]) -> Iterator[Any]:
        key, group = element
        versions = list(group)
        known = settle(versions)
        distinct = len(known.records) + (known.winner_uri is not None)
        count("images.repeated", len(versions) - distinct)
        camera, timestamp = key.split("\n")
        recorded = [record_of(known.versions[uri]) for uri in known.records]
        by_name = Counter((image.reason, image.stored_name) for image in recorded)
        copies = tuple(
            (version.uri, version.name)
            for uri, version in known.versions.items()
            if uri != known.winner_uri and uri not in known.records
        )
        plan = Plan(
            *(camera, timestamp, known.winner),
            written=known.winner is not None,
            losers=copies,
            copies=copies,
            recorded=tuple(
                replace(image, shares_name=by_name[image.reason, image.stored_name] > 1)
                for image in recorded
            ),
            arrived=tuple(version.name for version in versions),
            restored=True,
            is_recorded=self._has_file is not None
            and known.winner is not None
            and self._has_file(known.winner),
        )
        yield _tagged(PLANS, plan)
        if known.winner is not None:
            _count(known.winner, 1)
            yield known.winner


class _ResolveInStream(beam.DoFn):
    """Resolves each file of a capture time when it arrives.

    Files are keyed by camera and period. If a bundle fails, the output may show what it has stored,
    while the state is that of a checkpoint before it. So a first image whose verdict is in the
    output only must be found there whatever failed bundles have written: before its verdict is
    changed, it gets a spare copy.

    Args:
      output: The job's output.
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
      keeps_verdicts: See :class:`ResolveVersions`.
      has_file: See :class:`ResolveVersions`. If it is given, the repositories are packed.
      windows: See :class:`ResolveVersions`.
      passes_on: Whether decisions on verdicts are handed on, and versions that come too late for
        the state of their capture time, too: what was decided may not be in the output yet.
    """

    _KNOWN = BagStateSpec("known", BytesCoder())
    _FORGET = TimerSpec("forget", TimeDomain.WATERMARK)
    _RESOLVE = TimerSpec("resolve", TimeDomain.WATERMARK)
    _FORMER = ReadModifyWriteStateSpec("versions", CAPTURE_TIMES)

    def __init__(
        self,
        output: str,
        window_seconds: int,
        allowed_lateness_seconds: int,
        *,
        keeps_verdicts: bool = False,
        has_file: Callable[[JudgedImage], bool] | None = None,
        windows: PackedWindows | None = None,
        passes_on: bool = False,
    ) -> None:
        self._output = output
        self._window_seconds = window_seconds
        self._lateness_seconds = allowed_lateness_seconds
        self._keeps_verdicts = keeps_verdicts or has_file is not None
        self._has_file = has_file
        self._windows = windows
        self._rows: RowWriter | None = None
        self._passes_on = passes_on
        self._verdicts = beam.coders.registry.get_coder(JudgedImage)

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="read")
        if self._windows is not None:
            self._rows = RowWriter(self._output, self._windows)

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start_bundle(self) -> None:
        self._of_bundle: dict[str, JudgedImage] = {}
        """The first images of this bundle, whose verdicts may not be stored yet."""

    def process(
        self,
        element: tuple[str, Version],
        bag: Any = beam.DoFn.StateParam(_KNOWN),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
        resolve: Any = beam.DoFn.TimerParam(_RESOLVE),
    ) -> Iterator[Any]:
        period, version = element
        key = key_of(version)
        _, timestamp = key.split("\n")
        states = KnownPeriod(bag, keeps_verdicts=self._keeps_verdicts)
        known, first = states.get(timestamp), None
        if isinstance(known, PassedOn) or (
            self._passes_on and known is None and self._is_late(version)
        ):
            states.pass_on(timestamp)
            forget.set(self._forget_period_at(period))
            yield _tagged(DECISIONS, late_version(version))
            return
        if isinstance(known, FirstImage):
            first = known
            known = self._read_first(key, first)
        if self._is_late(version) and (known is None or not is_complete(known, version)):
            find_row = None if self._rows is None else self._find_row
            known = known_from_output(self._output, version, self._pool, known, find_row=find_row)
            known = replace(known, waiting=(*known.waiting, version))
            resolve.set(self._forget_at(key))
        elif known is not None and known.waiting:
            known = replace(known, waiting=(*known.waiting, version))
        elif known is None and first is not None and version.reason == reasons.READ_FAILED:
            return  # Somebody has deleted the verdict: the image stays counted.
        else:
            known = yield from self._resolve(key, known or CaptureTime(), version, first=first)
        states.put(timestamp, known)
        forget.set(self._forget_period_at(period))

    @on_timer(_RESOLVE)
    def resolve_waiting(
        self,
        bag: Any = beam.DoFn.StateParam(_KNOWN),
    ) -> Iterator[Any]:
        """Resolves the files that have arrived after the state of their capture time had ended.

        From then on, what is known is read from the output. Files that arrive later are first put
        into the state, together with what was read. They are resolved here: if this bundle fails,
        the state is unchanged, whatever the bundle has written.

        A runner that returns to an earlier checkpoint finds its own results in the output, but has
        lost the winners that it emitted. So the winner is emitted again; an alert that is recorded
        as delivered is not sent twice.
        """
        yield from self._resolve_waiting(bag)

    @on_timer(_FORGET)
    def forget(
        self,
        bag: Any = beam.DoFn.StateParam(_KNOWN),
        forget: Any = beam.DoFn.TimerParam(_FORGET),
        former: Any = beam.DoFn.StateParam(_FORMER),
    ) -> Iterator[Any]:
        """Ends the state of a period whose windows take no more images.

        If files are waiting, the state is cleared one timer later, when their results can be read
        from the output.
        """
        if (period := (yield from self._resolve_waiting(bag))) is not None:
            forget.set(self._forget_period_at(period))
            return
        for known in KnownPeriod(bag).complete():
            if known.replaced:
                yield _tagged(PLANS, _last_plan(known))
        bag.clear()
        former.clear()

    def _resolve_waiting(self, bag: Any) -> Generator[Any, None, str | None]:
        """Resolves the files that are waiting, and returns the key of their period."""
        states, period = KnownPeriod(bag, keeps_verdicts=self._keeps_verdicts), None
        for known in states.complete():
            waiting, known = known.waiting, replace(known, waiting=())
            for version in waiting:
                period, key = period_of(version), key_of(version)
                known = yield from self._resolve(key, known, version, emits_again=True)
                states.put(key.split("\n")[1], known)
        return period

    def _read_first(self, key: str, first: FirstImage) -> CaptureTime | None:
        """Reads back what is known of a capture time with one image; None if that was deleted.

        Raises:
          OSError: The verdict can't be read.
        """
        judged = self._verdict_of(first, *key.split("\n"))
        if judged is None:
            return None
        version = Version(judged=judged)
        return replace(settle([version]), counted=True)

    def _verdict_of(self, first: FirstImage, camera: str, timestamp: str) -> JudgedImage | None:
        """Finds the verdict of a first image; None if somebody has deleted it.

        A failed bundle may have stored a verdict of the same bytes by other rules.
        """

        def spare_copy() -> JudgedImage | None:
            spare = stores.read_if_there(first.spare_uri(self._output, camera, timestamp))
            return None if spare is None else self._verdicts.decode(spare)

        others = []
        for find in (
            lambda: self._of_bundle.get(f"{camera}\n{timestamp}"),
            lambda: first.found_in(self._output, camera, timestamp),
            spare_copy,
        ):
            judged = find()
            if judged is not None and FirstImage.of(judged) == first:
                return judged
            others.append(judged)
        return next((judged for judged in others if first.is_of(judged)), None)

    def _resolve(
        self,
        key: str,
        before: CaptureTime,
        version: Version,
        *,
        emits_again: bool = False,
        first: FirstImage | None = None,
    ) -> Generator[Any, None, CaptureTime]:
        # A file that is on time by its own partition may have waited with a late one of another. By
        # now, the window takes no more images.
        late, is_replay = emits_again or self._is_late(version), False
        if not late and not before.versions and version.reason == reasons.READ_FAILED:
            version, is_replay = self._as_stored(version)
        known, change = add_version(before, version)
        is_lost = first is not None and not before.versions  # Somebody has deleted the verdict.
        if change is None:
            count("images.repeated")
        elif change.is_new or is_lost:
            counted = None if first is None else first.counted(*key.split("\n"))
            known = yield from self._count(change, known, late=late, counted=counted)
        must_store = len(known.versions) > 1 or (known.counted and known.winner is None)
        known = replace(known, is_kept=known.is_kept or must_store)
        is_new = change is not None and change.is_new
        known, decision = self._decide(known, change)
        if decision is not None:
            yield _tagged(DECISIONS, decision)
        plan = plan_of(key, version, before, known, change)
        if is_replay:
            plan = replace(plan, written=False, arrived=())
        if change is not None and first is not None and key not in self._of_bundle:
            plan = replace(plan, first=before.winner)
        has_row = late and not known.counted and known.winner is not None
        yield _tagged(PLANS, replace(plan, late=has_row))
        if known.winner is not None and (is_new or emits_again):
            yield known.winner
        if not before.versions and known.winner is not None:
            self._of_bundle[key] = known.winner
        return known

    def _decide(
        self, known: CaptureTime, change: Change | None
    ) -> tuple[CaptureTime, Decision | None]:
        """Returns what is known with what is decided for packed repositories, and the decision that
        is handed on, if there is one."""
        if self._has_file is None:
            return known, None
        is_new = change is not None and change.is_new
        if is_new or known.is_recorded is None:
            is_recorded = known.winner is not None and self._has_file(known.winner)
            known = replace(known, is_recorded=is_recorded)
        if not self._passes_on or not (is_new or (change is not None and known.winner is None)):
            return known, None
        number = known.decisions + 1
        decision = decision_on(known, number, is_recorded=bool(known.is_recorded))
        return (known if decision is None else replace(known, decisions=number)), decision

    def _find_row(self, camera: str, timestamp: str) -> PackedRow | None:
        assert self._rows is not None
        return self._rows.find(camera, timestamp)

    def _is_late(self, version: Version) -> bool:
        _, timestamp = key_of(version).split("\n")
        return is_too_late(
            timestamp, version.stream_time, self._window_seconds, self._lateness_seconds
        )

    def _as_stored(self, version: Version) -> tuple[Version, bool]:
        """Returns what the output holds of a file that can't be read, and whether it holds any.

        A bundle that failed may have stored a verdict, and the file may have been deleted since.
        The verdict is there, but it was neither counted nor emitted, as the bundle's other results
        are lost.
        """
        camera, timestamp = key_of(version).split("\n")
        row = None
        if self._rows is not None:
            row = self._find_row(camera, timestamp)
        if row is not None:
            stored = judged_in(row)
        else:
            stored = read_final(stores.final_uri(self._output, camera, stem_of(version.name)))
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
        self, change: Change, known: CaptureTime, *, late: bool, counted: CountedImage | None
    ) -> Generator[Any, None, CaptureTime]:
        """Corrects the counts of the window, unless it is closed.

        A closed window keeps its counts; an image that it has not counted gets a separate row.

        Args:
          change: What an arrival changes.
          known: What is known now.
          late: Whether the window is closed.
          counted: What the first image has added to the counts, if the state has only its hash.
        """
        if change.before is not None:
            _count(change.before, -1)
        if change.after is not None:
            _count(change.after, 1)
        if late:
            if change.before is None and not known.counted:
                count("images.late")
            return known
        if counted is None and known.counted and change.before is not None:
            counted = CountedImage.of(change.before)
        if counted is not None:
            yield _tagged(COUNTED, counted.retraction())
        if change.after is not None:
            yield _tagged(COUNTED, CountedImage.of(change.after))
        return replace(known, counted=change.after is not None)

    def _forget_at(self, key: str) -> Timestamp:
        _, timestamp = key.split("\n")
        end = event_time(canonical_time(window_of(timestamp, self._window_seconds)[1]))
        return end + Duration(self._lateness_seconds)

    def _forget_period_at(self, period: str) -> Timestamp:
        longest = Duration(self._window_seconds + self._lateness_seconds)
        return end_of_period(period) + longest


class _ResolveLate(_ResolveInStream):
    """Resolves files that another step has handed on, as they are late for it.

    Most of them are late for their windows, and are compared with rows of the output.
    """

    def start_bundle(self) -> None:
        super().start_bundle()
        assert self._rows is not None
        self._rows.start_bundle()

    def process(  # type: ignore[override]
        self,
        element: tuple[str, LateVersion],
        bag: Any = beam.DoFn.StateParam(_ResolveInStream._KNOWN),
        forget: Any = beam.DoFn.TimerParam(_ResolveInStream._FORGET),
        resolve: Any = beam.DoFn.TimerParam(_ResolveInStream._RESOLVE),
    ) -> Iterator[Any]:
        period, late = element
        self._after = late.after
        yield from super().process((period, late.version), bag, forget, resolve)

    def _find_row(self, camera: str, timestamp: str) -> PackedRow | None:
        assert self._rows is not None
        return self._rows.find(camera, timestamp, after=self._after)


def _tagged(tag: str, value: Any) -> beam.pvalue.TaggedOutput:
    return beam.pvalue.TaggedOutput(tag, value)


def _count(judged: JudgedImage, increment: int) -> None:
    count("images.valid", increment)
    if judged.verdict.is_threat:
        count("images.with_threat", increment)
    for threat in judged.verdict.threats:
        count(f"threats.{threat.severity}.{threat.label}", increment)


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


class _StorePlan(ReadAheadDoFn):
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
        key = f"{element.camera}\n{element.timestamp}"
        return self._lanes.submit(key, self.work, element)

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


class _StoreLatePlans(_StorePlan):
    """Carries out the plans of late files in a packed stream: their rows are written together.

    The rows of a bundle are one file for each day, of up to `_LATE_AT_ONCE` plans. Several plans of
    one capture time are carried out one after the other, and have a file each.
    """

    def setup(self) -> None:
        super().setup()
        self._pool = ThreadPoolExecutor(_LANES, thread_name_prefix="late")

    def teardown(self) -> None:
        super().teardown()
        self._pool.shutdown(wait=False, cancel_futures=True)

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
        futures = [self._pool.submit(do, plan) for plan in plans]
        wait(futures)
        return [future.result() for future in futures]


class _RetractEarlier(beam.DoFn):
    """Deletes the records of earlier runs for images that are valid now, and counts the images."""

    def __init__(self, output: str) -> None:
        self._earlier = EarlierRecords(output)

    def process(self, element: JudgedImage) -> Iterator[JudgedImage]:
        self._earlier.retract(element.image.uri, element.image.stored_name)
        # Counting after the flatten would be wrong: Flink would run that step in two stages, and
        # show the counters of only one of them.
        _count(element, 1)
        yield element


def _of_judged(judged: JudgedImage) -> Version:
    return Version(judged=judged)


def _of_invalid(invalid: InvalidImage) -> Version:
    return Version(invalid=replace(invalid, data=None))


class _Split(beam.DoFn):
    """Separates contested images from those that have their capture time to themselves."""

    def process(self, element: JudgedImage) -> Iterator[Any]:
        if element.image.is_contested:
            yield _tagged(CONTESTED, element)
        else:
            yield element


@dataclass(frozen=True)
class Resolved:
    """The output of :class:`ResolveVersions`.

    Attributes:
      winners: The images that win, for alerts. In a stream, an image that replaces another one
        follows it.
      counted: The images that are added to the counts or subtracted from them.
      records: The records of all other images, after they were stored.
    """

    winners: beam.PCollection[JudgedImage]
    counted: beam.PCollection[JudgedImage | CountedImage]
    records: beam.PCollection[dict[str, Any]]


class ResolveVersions(beam.PTransform):
    """Decides which image wins for each camera and capture time, and stores the results.

    Input: `JudgedParts`. Output: :class:`Resolved`.

    Args:
      contested: Invalid images of files that claim a capture time with others.
      output: The job's output.
      streaming: Whether files keep arriving; each is then resolved on arrival.
      window_seconds: Length of a window.
      allowed_lateness_seconds: How long a window takes images after its end.
      store_validated: Whether valid images are kept.
      max_copied_bytes: See :class:`transforms.repositories.StoreInvalid`.
      top: See :class:`transforms.repositories.StoreInvalid`.
      has_file: Which winners have a file in `final/`, if the repositories are packed: they have
        none in `detections/` then. None if all have one in both.
      windows: Which windows the rows of a stream belong to, if the repositories are packed.
      keeps_verdicts: Whether the state of a stream holds the verdict of each image, as on Prism,
        where a file may be resolved before the results of the one before it are in the output.
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
        has_file: Callable[[JudgedImage], bool] | None = None,
        windows: PackedWindows | None = None,
        keeps_verdicts: bool = False,
    ) -> None:
        super().__init__()
        self._contested = contested
        self._output = output
        self._streaming = streaming
        self._lateness_seconds = allowed_lateness_seconds
        self._windows = windows
        self._has_file = has_file
        self._resolving: dict[str, Any] = {
            "output": output,
            "window_seconds": window_seconds,
            "allowed_lateness_seconds": allowed_lateness_seconds,
            "keeps_verdicts": keeps_verdicts,
            "has_file": has_file,
            "windows": windows,
        }
        self._storing: dict[str, Any] = {
            "output": output,
            "window_seconds": window_seconds,
            "store_validated": store_validated,
            "max_copied_bytes": max_copied_bytes,
            "top": top,
            "streaming": streaming,
            "is_packed": has_file is not None,
            "windows": windows,
        }

    def expand(self, parts: JudgedParts) -> Resolved:
        split = beam.ParDo(_Split()).with_outputs(CONTESTED, main=WINNERS)
        splits = [
            (label, part | f"Split{label}" >> split)
            for label, part in zip(PARTS, parts, strict=False)
        ]
        contested = (
            *(
                part[CONTESTED]
                | f"Judged{label}" >> beam.Map(_of_judged).with_output_types(Version)
                for label, part in splits
            ),
            self._contested | "Invalid" >> beam.Map(_of_invalid).with_output_types(Version),
        ) | "Contested" >> beam.Flatten()
        keyed = tuple[str, Version]
        if self._streaming and self._windows is not None:
            return self._packed_stream(contested, self._windows)
        if self._streaming:
            resolve = _ResolveInStream(**self._resolving)
            resolved = self._as_they_come(contested, period_of, resolve)
            winners, counted = resolved[WINNERS], resolved[COUNTED]
        else:
            together = _ResolveInBatch(self._has_file)
            resolved = (
                contested
                | "ByCaptureTime" >> beam.WithKeys(key_of).with_output_types(keyed)
                | "GroupByCaptureTime" >> beam.GroupByKey()
                | "Together" >> beam.ParDo(together).with_outputs(PLANS, main=WINNERS)
            )
            retract = beam.ParDo(_RetractEarlier(self._output)).with_output_types(JudgedImage)
            alone = (part[WINNERS] | f"RetractEarlier{label}" >> retract for label, part in splits)
            counted = winners = (*alone, resolved[WINNERS]) | "Stand" >> beam.Flatten()
        records = resolved[PLANS] | "Store" >> beam.ParDo(_StorePlan(**self._storing))
        return Resolved(winners, counted, records)

    def _as_they_come(
        self, versions: beam.PCollection[Any], key: Callable[[Any], str], resolve: beam.DoFn
    ) -> Any:
        of_late = "Late" if isinstance(resolve, _ResolveLate) else ""
        return (
            versions
            | f"{of_late}ByPeriod"
            >> beam.WithKeys(key).with_output_types(tuple[str, versions.element_type])
            | f"{of_late}AsTheyCome"
            >> beam.ParDo(resolve).with_outputs(PLANS, COUNTED, DECISIONS, main=WINNERS)
        )

    def _packed_stream(
        self, contested: beam.PCollection[Version], windows: PackedWindows
    ) -> Resolved:
        """Resolves the files of a stream whose verdicts wait until they are written.

        The state of a capture time may end while its verdict waits. So files that come later pass
        the step in which it waits, and are resolved once it is in the output.
        """
        resolve = _ResolveInStream(**self._resolving, passes_on=True)
        first = self._as_they_come(contested, period_of, resolve)
        late = first[DECISIONS] | "StorePacked" >> StorePackedStream(
            self._output, windows, allowed_lateness_seconds=self._lateness_seconds
        )
        second = self._as_they_come(late, _period_of_late, _ResolveLate(**self._resolving))
        return Resolved(
            (first[WINNERS], second[WINNERS]) | "Winners" >> beam.Flatten(),
            (first[COUNTED], second[COUNTED]) | "Counted" >> beam.Flatten(),
            (
                first[PLANS] | "Store" >> beam.ParDo(_StorePlan(**self._storing)),
                second[PLANS] | "StoreLate" >> beam.ParDo(_StoreLatePlans(**self._storing)),
            )
            | "Records" >> beam.Flatten(),
        )


def _period_of_late(late: LateVersion) -> str:
    return period_of(late.version)
