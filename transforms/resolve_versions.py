"""ResolveVersions: decides which image wins for each camera and capture time.

Most capture times have one file: a batch stores its results right after it was judged. A batch
groups the results of all files that claim one capture time. A stream can't wait for all of them: it
keeps what it knows of each capture time as state until the allowed lateness of its window is over
(:mod:`transforms.known_periods`). The state of a first image is small: its verdict is read back
from the output if another file claims its capture time. Once the state has ended, the stream reads
from the output what it needs. :mod:`transforms.records.precedence` has the rules that decide which
image wins.

The result for the repositories is a :class:`transforms.store_plans.Plan`: all writes and deletes
for one capture time, in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.count_threats import CountedImage, event_time, is_too_late, window_of
from transforms.judge_threats import PARTS, JudgedParts
from transforms.known_periods import (
    FirstImage,
    KnownPeriod,
    PassedOn,
    end_of_period,
    period_of,
)
from transforms.known_versions import MAX_REQUESTS, is_complete, known_from_output
from transforms.packed_decisions import (
    Decision,
    LateVersion,
    PackedWindows,
    decision_on,
    late_version,
)
from transforms.packed_row_writer import RowWriter
from transforms.records import reasons
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
    judged_in,
    read_final,
)
from transforms.runtime.counters import count
from transforms.storage import stores
from transforms.storage.packed_rows import PackedRow
from transforms.store_packed_stream import StorePackedStream
from transforms.store_plans import Plan, StoreLatePlans, StorePlan, last_plan, plan_of

WINNERS = "winners"
COUNTED = "counted"
CONTESTED = "contested"
PLANS = "plans"
DECISIONS = "decisions"


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
        self._planned: set[str] = set()
        """The periods with plans of this bundle, which may not be carried out yet."""

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
        period: Any = beam.DoFn.KeyParam,
    ) -> Iterator[Any]:
        """Ends the state of a period whose windows take no more images.

        If files are waiting, or were resolved in this bundle, the state is cleared one timer later,
        when their results can be read from the output: a runner fires all timers that are due in
        one bundle, and another file may follow in it.
        """
        yield from self._resolve_waiting(bag)
        if period in self._planned:
            forget.set(self._forget_period_at(period))
            return
        for known in KnownPeriod(bag).complete():
            if known.replaced:
                yield _tagged(PLANS, last_plan(known))
        bag.clear()
        former.clear()

    def _resolve_waiting(self, bag: Any) -> Iterator[Any]:
        """Resolves the files that are waiting."""
        states = KnownPeriod(bag, keeps_verdicts=self._keeps_verdicts)
        for known in states.complete():
            waiting, known = known.waiting, replace(known, waiting=())
            for version in waiting:
                key = key_of(version)
                known = yield from self._resolve(key, known, version, emits_again=True)
                states.put(key.split("\n")[1], known)

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
        self._planned.add(period_of(version))
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
        records = resolved[PLANS] | "Store" >> beam.ParDo(StorePlan(**self._storing))
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
                first[PLANS] | "Store" >> beam.ParDo(StorePlan(**self._storing)),
                second[PLANS] | "StoreLate" >> beam.ParDo(StoreLatePlans(**self._storing)),
            )
            | "Records" >> beam.Flatten(),
        )


def _period_of_late(late: LateVersion) -> str:
    return period_of(late.version)
