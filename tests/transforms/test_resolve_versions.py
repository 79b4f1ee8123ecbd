"""Searches for arrivals, crashes and replays after which not exactly one image wins.

A model derives from the final files what the repositories must hold. The stream sees the files
arrive one by one, in any order, repeatedly, and with bundles that fail half-way.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet
import pytest
from apache_beam.coders import Coder
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import rules
from tests.search import search
from tests.transforms.results import judged
from transforms.count_threats import event_time
from transforms.known_periods import period_of
from transforms.known_versions import known_from_output
from transforms.packed_decisions import (
    WRITTEN,
    Decision,
    LateVersion,
    PackedWindows,
    late_version,
)
from transforms.packed_row_writer import RowWriter
from transforms.records.images import (
    ImageFile,
    InvalidImage,
    JudgedImage,
    NamedFile,
    ValidImage,
)
from transforms.records.precedence import (
    CaptureTime,
    Version,
    add_version,
    key_of,
    settle,
)
from transforms.repositories import _StoreInvalid, _WriteValidated, read_final
from transforms.resolve_versions import (
    COUNTED,
    DECISIONS,
    PLANS,
    _ResolveInBatch,
    _ResolveInStream,
    _ResolveLate,
    _RetractEarlier,
)
from transforms.storage import stores
from transforms.storage.packed_output import merge_by_day, read_output, write_file
from transforms.storage.packed_rows import PackedRow, Rows
from transforms.store_packed_stream import _Pack
from transforms.store_plans import Plan, StoreLatePlans, StorePlan

CAMERA, TIME = "hall", "2026-01-31T10:00:00Z"
PERIOD = f"{CAMERA}\n{event_time(TIME).micros // 900_000_000}"
ON_TIME, TOO_LATE = "2026-01-31T10:00:10Z", "2026-01-31T12:00:00Z"
NAMES = (
    *("hall_20260131T100000Z.jpg", "hall_1769853600.jpg", "hall_20260131T100000Z.jpeg"),
    # As cameras name them, read by presets: stored under one canonical name.
    *("Hall_00_20260131110000.jpg", "110000.jpg"),
)
CONTENTS = {
    b"person 1": [("person", "alert")],
    b"person 2": [("person", "alert")],
    b"dog": [("dog", "detection")],
    b"nothing 1": [],
    b"nothing 2": [],
    b"half": "corrupt_jpeg",
    b"": "empty_file",
}


def stored(name: str) -> str:
    """The name under which a file of the capture time is stored."""
    return name if name.startswith("hall_") else NAMES[0]


def version_of(path: Path, changed: float, stream_time: str, data: bytes) -> Version:
    """Returns the result of reading, detecting and judging a file's bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    shows = CONTENTS[data]
    file = ImageFile(str(path), len(data), stream_time, changed)
    if isinstance(shows, str):
        invalid = InvalidImage(file, shows, "detail", len(data), sha256=sha256)
        return Version(invalid=replace(invalid, camera=CAMERA, timestamp=TIME))
    image_and_verdict = judged(CAMERA, TIME, shows, file=path.name)
    image = replace(image_and_verdict.image, uri=str(path), sha256=sha256)
    image = replace(image, stream_time=stream_time, changed=changed, is_contested=True)
    return Version(judged=replace(image_and_verdict, image=image))


class State:
    """A bag of a runner's state."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def read(self) -> list[bytes]:
        return list(self.entries)

    def add(self, entry: bytes) -> None:
        assert type(entry) is bytes
        self.entries = [*self.entries, entry]

    def clear(self) -> None:
        self.entries = []


class CodedState(State):
    """A bag whose entries a runner encodes."""

    def __init__(self, coder: Coder) -> None:
        super().__init__()
        self._coder = coder

    def read(self) -> list[Any]:
        return list(map(self._coder.decode, self.entries))

    def add(self, entry: Any) -> None:
        self.entries = [*self.entries, self._coder.encode(entry)]


class Cell(State):
    """One value of a runner's state."""

    def read(self) -> Any:
        return self.entries[0] if self.entries else None

    def write(self, value: Any) -> None:
        self.entries = [value]


class Timer:
    """The timer of a key; it fires at once if its time has passed."""

    def __init__(self) -> None:
        self.at: str | None = None

    def set(self, timestamp) -> None:
        self.at = timestamp.to_rfc3339()


class CrashError(Exception):
    pass


@contextmanager
def crashing_writes(crash_after: int | None) -> Iterator[None]:
    """Fails after some writes of files."""
    writes = 0

    def crashing(do: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any) -> Any:
            nonlocal writes
            if writes == crash_after:
                raise CrashError
            writes += 1
            return do(*args)

        return write

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_chunks", "write_if_new"):
            patch.setattr(stores, name, crashing(getattr(stores, name)))
        yield


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def valid_of(version: Version, data: bytes) -> ValidImage:
    """The valid image of a version, before it was judged."""
    assert version.judged is not None
    image = version.judged.image
    named = NamedFile(image.as_file(), CAMERA, TIME)
    return ValidImage(named, image.sha256, 400, 300, data, None, 0.5, 0.03)


class Stream:
    """The stream's steps on a real folder, with a simulated runner.

    Attributes:
      counts: What has been added to the counts of the window.
      emitted: The sha256 of each image that was emitted as the winner.
    """

    def __init__(self, top: Path) -> None:
        self.input, self.output = top / "in", top / "out"
        self.state, self.former = State(), State()
        self.forget, self.timer = Timer(), Timer()
        self.counts: Counter[str] = Counter()
        self.emitted: list[str] = []
        self.clock = 1000.0
        self.resolve = _ResolveInStream(str(self.output), 300, 3600)
        self.resolve.setup()
        self.resolve.start_bundle()
        self.write = _WriteValidated(str(self.output), streaming=True)
        self.start_worker()

    def start_worker(self) -> None:
        self.store = StorePlan(str(self.output), window_seconds=300, streaming=True)
        self.store.setup()

    def put(self, folder: str, name: str, data: bytes) -> Path:
        path = self.input / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.clock += 1
        return path

    def look(self, path: Path, changed: float, late: bool, crash_after: int | None = None) -> bool:
        """Reads, judges and stores a file, unless the bundle fails after some writes.

        Returns:
          Whether the bundle succeeded.
        """
        stream_time = TOO_LATE if late else ON_TIME
        if path.exists():
            data = path.read_bytes()
            version = version_of(path, changed, stream_time, data)
        else:
            unreadable = InvalidImage(
                ImageFile(str(path), 8, stream_time, changed), "read_failed", "gone"
            )
            version = Version(invalid=replace(unreadable, camera=CAMERA, timestamp=TIME))

        def arrives() -> Iterator[Any]:
            if version.judged is not None:
                self.write.work((valid_of(version, data), version.judged.image))
            yield from self._process(version)

        return self._bundle(arrives(), crash_after)

    def look_at_both(self, paths: Iterable[Path], changed: float, crash_after: int) -> bool:
        """Handles the arrival of files in one bundle; the results are stored at its end."""
        versions = [version_of(path, changed, ON_TIME, path.read_bytes()) for path in paths]

        def arrive() -> Iterator[Any]:
            for version in versions:
                if version.judged is not None:
                    data = Path(version.uri).read_bytes()
                    self.write.work((valid_of(version, data), version.judged.image))
            yield from [output for version in versions for output in self._process(version)]

        return self._bundle(arrive(), crash_after)

    def plans_of(self, path: Path, changed: float) -> list[Plan]:
        """Returns the plans for the arrival of a file whose image is stored already."""
        data = path.read_bytes()
        version = version_of(path, changed, ON_TIME, data)
        self.write.work((valid_of(version, data), version.judged.image))
        outputs = self._process(version)
        return [output.value for output in outputs if getattr(output, "tag", "") == PLANS]

    def _process(self, version: Version) -> Iterator[Any]:
        element = period_of(version), version
        return self.resolve.process(element, self.state, self.forget, self.timer)

    def timer_comes(self, crash_after: int | None = None) -> bool:
        """Advances event time beyond the allowed lateness; one timer fires, the earlier first."""
        if self.timer.at is not None:
            fires, outputs = self.timer, self.resolve.resolve_waiting(self.state)
        else:
            fires = self.forget
            outputs = self.resolve.forget(self.state, self.forget, self.former, PERIOD)
        at, fires.at = fires.at, None
        if self._bundle(outputs, crash_after):
            return True
        fires.at = at
        return False

    def timers_come(self) -> None:
        """Fires timers until none is set."""
        while self.timer.at is not None or self.forget.at is not None:
            self.timer_comes()

    def comes(self, path: Path, changed: float, late: bool) -> None:
        """Handles the arrival of a file; if it is late, event time advances afterwards."""
        self.look(path, changed, late)
        if late:
            self.timers_come()

    @contextmanager
    def lost(self) -> Iterator[None]:
        """Restores an earlier checkpoint afterwards; the output keeps what was written."""
        restore = self.checkpoint()
        timers = self.timer.at, self.forget.at
        yield
        self.timer.at, self.forget.at = timers
        restore()

    def states(self) -> list[State]:
        return [self.state]

    def checkpoint(self) -> Callable[[], None]:
        """Returns what restores the state as it is now, on another worker."""
        states = [(state, state.entries) for state in self.states()]
        counts, emitted = self.counts.copy(), list(self.emitted)

        def restore() -> None:
            for state, entries in states:
                state.entries = entries
            self.counts, self.emitted = counts.copy(), list(emitted)
            self.start_worker()

        return restore

    def _bundle(self, outputs: Iterable[Any], crash_after: int | None) -> bool:
        restore = self.checkpoint()
        self.start_bundle()
        with crashing_writes(crash_after):
            try:
                for output in outputs:
                    self._take(output)
                self.end_bundle()
            except CrashError:
                restore()
                return False
        return True

    def start_bundle(self) -> None:
        self.resolve.start_bundle()

    def end_bundle(self) -> None:
        """Hands on what the bundle has left for later steps."""

    def _take(self, output: Any) -> None:
        if isinstance(output, JudgedImage):
            self.emitted.append(output.image.sha256)
        elif output.tag == COUNTED:
            self.counts.update({k: v for k, v in output.value.tally.items() if k != "by_label"})
        elif output.tag == PLANS:
            self.store.work(output.value)


class PackedStream(Stream):
    """The same with packed repositories: verdicts wait until they are written.

    Attributes:
      reorders: Whether the runner hands on the decisions of a bundle in another order.
      edits_between_steps: Whether the rules are edited before each plan is carried out.
      recorded: The severities of images that have a record in `alerts/`, by the rules of now.
      records: For the sha256 of each image that has won: whether it had one then. There are two
        answers if the rules were edited before it has won again.
    """

    def __init__(self, top: Path, *, reorders: bool = False) -> None:
        self.edits_between_steps = False
        self.recorded = frozenset({"alert"})
        self.records: dict[str, set[bool]] = {}
        super().__init__(top)
        has_file = self.is_recorded
        self.resolve = _ResolveInStream(
            str(self.output), 300, 3600, has_file=has_file, windows=WINDOWS, passes_on=True
        )
        self.resolve_late = _ResolveLate(
            str(self.output), 300, 3600, has_file=has_file, windows=WINDOWS
        )
        for resolve in (self.resolve, self.resolve_late):
            resolve.setup()
            resolve.start_bundle()
        self.reorders = reorders
        self.late_state, self.late_forget, self.late_timer = State(), Timer(), Timer()
        self.waiting, self.written = CodedState(DECISION_CODER), CodedState(WRITTEN)
        self.number, self.noted = Cell(), Cell()
        self.close, self.forget_window = Timer(), Timer()
        self._decided: list[Decision] = []

    def start_worker(self) -> None:
        self._decided = []
        self.store, self.store_late = (
            step(
                str(self.output),
                window_seconds=300,
                streaming=True,
                is_packed=True,
                windows=WINDOWS,
            )
            for step in (StorePlan, StoreLatePlans)
        )
        self.pack = _Pack(str(self.output), WINDOWS, 3600, clock=lambda: 0.0)
        for step in (self.store, self.store_late, self.pack):
            step.setup()
        self.store_late.start_bundle()
        self.pack.start_bundle()

    def states(self) -> list[State]:
        late = [self.late_state, self.waiting, self.written, self.number, self.noted]
        return [self.state, *late]

    def is_recorded(self, image: JudgedImage) -> bool:
        is_recorded = image.verdict.severity in self.recorded
        self.records.setdefault(image.image.sha256, set()).add(is_recorded)
        return is_recorded

    def edit_rules(self) -> None:
        """Gives images of severity `detection` a target, or takes it away."""
        self.recorded ^= {"detection"}

    def write_what_waits(self, crash_after: int | None = None) -> bool:
        def writes() -> Iterator[Any]:
            self.pack.write_in_time(self.waiting, self.number, self.written, self.noted)
            yield from ()

        return self._bundle(writes(), crash_after)

    def timer_comes(self, crash_after: int | None = None) -> bool:
        """Fires a timer of the step that resolves late files first, then one of the others."""
        if self.late_timer.at is not None:
            fires, outputs = self.late_timer, self.resolve_late.resolve_waiting(self.late_state)
        elif self.timer.at is None and self.forget.at is None and self.late_forget.at is not None:
            fires = self.late_forget
            outputs = self.resolve_late.forget(
                self.late_state, self.late_forget, self.former, PERIOD
            )
        else:
            return super().timer_comes(crash_after)
        at, fires.at = fires.at, None
        if self._bundle(map(_of_late, outputs), crash_after):
            return True
        fires.at = at
        return False

    def timers_come(self) -> None:
        timers = self.timer, self.forget, self.late_timer, self.late_forget
        while any(timer.at is not None for timer in timers):
            self.timer_comes()

    def forget_window_comes(self) -> None:
        cells = self.waiting, self.number, self.written, self.noted
        self.pack.forget(WINDOWS.name_of(CAMERA, TIME), *cells)

    def start_bundle(self) -> None:
        super().start_bundle()
        self.resolve_late.start_bundle()
        self.pack.start_bundle()

    def _take(self, output: Any) -> None:
        is_late = isinstance(output, _OfLate)
        output = output.output if is_late else output
        if self.edits_between_steps and getattr(output, "tag", None) == PLANS:
            self.edit_rules()
        if getattr(output, "tag", None) == DECISIONS:
            assert not is_late
            self._decided.append(output.value)
        elif is_late and getattr(output, "tag", None) == PLANS:
            assert not list(self.store_late.process(output.value, MIN_TIMESTAMP, None))
        else:
            super()._take(output)

    def end_bundle(self) -> None:
        decided, self._decided = self._decided, []
        for decision in reversed(decided) if self.reorders else decided:
            timers = Timer(), self.close, self.forget_window
            cells = self.waiting, self.number, self.written, self.noted
            element = WINDOWS.name_of(CAMERA, TIME), decision
            for version in self.pack.process(element, *cells, *timers):
                late = period_of(version.version), version
                states = self.late_state, self.late_forget, self.late_timer
                for output in self.resolve_late.process(late, *states):
                    self._take(_OfLate(output))
        list(self.store_late.finish_bundle())


@dataclass(frozen=True)
class _OfLate:
    """What the step that resolves late files yields."""

    output: Any


def _of_late(output: Any) -> _OfLate:
    return _OfLate(output)


WINDOWS = PackedWindows(300)
DECISION_CODER = beam.coders.registry.get_coder(Decision)


def is_alert(data: bytes) -> bool:
    return ("person", "alert") in CONTENTS[data]


def best_of(contents: Iterable[bytes]) -> bytes | None:
    """Returns the bytes that win, by the model's own rule."""

    def rank(data: bytes) -> tuple[int, float, str]:
        severity = {severity for _, severity in CONTENTS[data]}
        of = 2 if "alert" in severity else 1 if severity else 0
        return -of, -0.9 if severity else 0.0, hashlib.sha256(data).hexdigest()

    valid = (data for data in contents if not isinstance(CONTENTS[data], str))
    return min(valid, key=rank, default=None)


def check_repositories(stream: Stream | Batch, files: dict[Path, bytes]) -> None:
    """Asserts that the repositories hold what the model derives from the files.

    Args:
      stream: The stream or batch that has written them.
      files: The newest bytes of each file.
    """
    valid = {path: data for path, data in files.items() if not isinstance(CONTENTS[data], str)}

    output = tree(Path(stream.output))
    final = {name: json.loads(data) for name, data in output.items() if name.startswith("final/")}
    if isinstance(stream, PackedStream):
        recorded, final = final, rows_as_files(stream)
        assert recorded == {
            name: record
            for name, record in final.items()
            if stream.records[record["sha256"]] == {True}
            or (name in recorded and True in stream.records[record["sha256"]])
        }
        assert not any(name.startswith("detections/") for name in output)
        output |= {
            name.replace("final/", "detections/"): json.dumps(
                {key: value for key, value in record.items() if key != "threat"}
            ).encode()
            for name, record in final.items()
        }
    best = best_of(valid.values())
    assert [record["sha256"] for record in final.values()] == (
        [hashlib.sha256(best).hexdigest()] if best is not None else []
    )
    for name, record in final.items():
        assert files[Path(record["uri"])] == best
        assert name == f"final/{CAMERA}/{Path(stored(record['file'])).stem}.json"
        without = {key: value for key, value in record.items() if key != "threat"}
        assert json.loads(output[f"detections/{CAMERA}/{Path(name).name}"]) == without
    validated = {name: data for name, data in output.items() if name.startswith("validated/")}
    assert validated == {
        f"validated/{CAMERA}/{stored(record['file'])}": best for record in final.values()
    }
    assert sum(name.startswith("detections/") for name in output) == len(final)
    wanted = {("duplicate", data) for data in valid.values() if data != best}
    wanted |= {
        (CONTENTS[data], data, stored(path.name))
        for path, data in files.items()
        if path not in valid
    }
    records = [
        json.loads(data)
        for name, data in output.items()
        if name.startswith("invalid/") and name.endswith(".json")
    ]
    shown = []
    for record in records:
        data = files[Path(record["uri"])]
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        is_duplicate = record["reason"] == "duplicate"
        shown.append(
            ("duplicate", data)
            if is_duplicate
            else (record["reason"], data, stored(record["file"]))
        )
        labels = [detection["label"] for detection in record.get("detections", [])]
        assert labels == ([label for label, _ in CONTENTS[data]] if is_duplicate else [])
    assert sorted(shown, key=repr) == sorted(wanted, key=repr)
    copies = Counter(
        data
        for name, data in output.items()
        if name.startswith("invalid/") and not name.endswith(".json")
    )
    assert copies == Counter(content[1] for content in wanted)


def rows_as_files(stream: PackedStream | LateStream) -> dict[str, Any]:
    """What a packed output says, as the files that other outputs have."""
    problems: list[Any] = []
    rows = [row for row in read_output(str(stream.output), problems) if not row.is_retracted]
    assert problems == []
    return {
        f"final/{row.image.id}/{row.image.stem}.json": json.loads(
            stores.json_bytes({**row.image.to_json(), "threat": row.threat})
        )
        for row in rows
    }


CRASHES = st.lists(st.integers(0, 9), max_size=2)
LOCATIONS = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(NAMES))
ANY_CONTENT = st.sampled_from(sorted(CONTENTS))


class Arrivals(RuleBasedStateMachine):
    """Files of one capture time arrive, change, move and arrive again, before and after their
    window is closed; workers crash at any write."""

    @initialize(late=st.booleans(), form=st.sampled_from(("plain", "packed", "reordered")))
    def begin(self, late: bool, form: str) -> None:
        self.top = Path(tempfile.mkdtemp())
        self.stream = (
            Stream(self.top)
            if form == "plain"
            else PackedStream(self.top, reorders=form == "reordered")
        )
        self.is_late = late
        self.counted_alerts: int | None = None
        self.files: dict[Path, bytes] = {}
        self.changed: dict[Path, float] = {}
        self.deleted: set[Path] = set()

    def teardown(self) -> None:
        if hasattr(self, "top"):
            try:
                self.what_waits_is_written([])
                self.the_repositories_hold_what_the_files_show()
            finally:
                self.stream.resolve.teardown()
                shutil.rmtree(self.top)

    @rule(crashes=CRASHES)
    def what_waits_is_written(self, crashes) -> None:
        if isinstance(self.stream, PackedStream):
            for after in crashes:
                self.stream.write_what_waits(after)
            self.stream.write_what_waits()

    @rule(between_steps=st.booleans())
    def the_rules_are_edited(self, between_steps: bool) -> None:
        if isinstance(self.stream, PackedStream):
            self.stream.edit_rules()
            self.stream.edits_between_steps = between_steps

    @rule()
    def the_files_of_a_day_are_merged(self) -> None:
        merge_by_day(str(self.stream.output))

    def _hand_on(self, path: Path, crashes: Iterable[int] = ()) -> None:
        for after in crashes:
            if self.stream.look(path, self.changed[path], self.is_late, after) and self.is_late:
                self.stream.timer_comes(after)
        self.stream.look(path, self.changed[path], self.is_late)
        self._let_timers_come()

    def _let_timers_come(self) -> None:
        if self.is_late:
            self.stream.timers_come()

    def _put(self, location: tuple[str, str], data: bytes) -> Path:
        path = self.stream.put(*location, data)
        self._is_there(path, data)
        return path

    def _is_there(self, path: Path, data: bytes) -> None:
        self.files[path], self.changed[path] = data, self.stream.clock
        self.deleted.discard(path)

    @rule(location=LOCATIONS, data=ANY_CONTENT, crashes=CRASHES)
    def a_file_comes_or_changes(self, location, data, crashes) -> None:
        self._hand_on(self._put(location, data), crashes)

    @rule(location=LOCATIONS, before=ANY_CONTENT, data=ANY_CONTENT, after=st.integers(0, 9))
    def a_bundle_fails_and_finds_the_file_changed(self, location, before, data, after) -> None:
        path = self.stream.put(*location, before)
        if self.stream.look(path, self.stream.clock, self.is_late, after):
            self._is_there(path, before)
            self._let_timers_come()
        self._hand_on(self._put(location, data))

    @rule(
        first_location=LOCATIONS,
        second_location=LOCATIONS,
        first_data=ANY_CONTENT,
        second_data=ANY_CONTENT,
    )
    def two_files_come_at_once(
        self, first_location, second_location, first_data, second_data
    ) -> None:
        for location, data in ((first_location, first_data), (second_location, second_data)):
            path = self._put(location, data)
            self.stream.look(path, self.changed[path], self.is_late)
        self._let_timers_come()

    @rule(
        first_location=LOCATIONS,
        second_location=LOCATIONS,
        first_data=ANY_CONTENT,
        second_data=ANY_CONTENT,
        after=st.integers(0, 20),
    )
    def two_files_come_in_one_bundle(
        self, first_location, second_location, first_data, second_data, after
    ) -> None:
        if self.is_late or first_location == second_location:
            return
        files = ((first_location, first_data), (second_location, second_data))
        paths = [self._put(location, data) for location, data in files]
        if not self.stream.look_at_both(paths, self.stream.clock, after):
            self.stream.look_at_both(paths, self.stream.clock, 1000)

    @rule(data=st.data(), crashes=CRASHES)
    def a_file_is_handed_on_again(self, data, crashes) -> None:
        if here := sorted(self.files.keys() - self.deleted):
            emitted = list(self.stream.emitted)
            self._hand_on(data.draw(st.sampled_from(here)), crashes)
            emitted_again = self.stream.emitted[len(emitted) :]
            assert set(emitted_again) <= (set(emitted[-1:]) if self.is_late else set())

    @rule(location=LOCATIONS, data=ANY_CONTENT)
    def a_checkpoint_is_restored(self, location, data) -> None:
        """A file is handled completely, and then again: its counts and winners are lost."""
        path = self._put(location, data)
        with self.stream.lost():
            self._hand_on(path)
        self._hand_on(path)

    @rule(location=LOCATIONS, before=ANY_CONTENT, data=ANY_CONTENT, is_written=st.booleans())
    def a_checkpoint_is_restored_and_a_file_has_changed(
        self, location, before, data, is_written
    ) -> None:
        if self.is_late:  # The stream knows from the output what it has lost.
            return
        path = self.stream.put(*location, before)
        with self.stream.lost():
            self.stream.look(path, self.stream.clock, late=False)
            if is_written:
                self.what_waits_is_written([])
        self._hand_on(self._put(location, data))

    @rule(data=st.data(), content=ANY_CONTENT, crashes=CRASHES)
    def a_replaced_file_is_lost_and_then_moves(self, data, content, crashes) -> None:
        """A file is replaced and handled, the workers lose that, and it moves before it is seen.

        So the stream finds the older version under the old address and the newer one under the new
        one, as if it had looked only now.
        """
        here = sorted(self.files.keys() - self.deleted)
        if self.is_late or not here:  # Late, the stream knows from the output what it has lost.
            return
        path = data.draw(st.sampled_from(here))
        path.write_bytes(content)
        with self.stream.lost():
            self.stream.look(path, self.stream.clock, late=False)
        path.unlink()
        self.deleted.add(path)
        self._hand_on(self._put(("moved", path.name), content), crashes)

    @rule(data=st.data(), crashes=CRASHES)
    def a_file_cannot_be_read_once(self, data, crashes) -> None:
        if here := sorted(self.files.keys() - self.deleted):
            path = data.draw(st.sampled_from(here))
            away = path.rename(path.with_suffix(".away"))
            self._hand_on(path, crashes)
            away.rename(path)

    @rule(data=st.data(), crashes=CRASHES)
    def a_file_moves(self, data, crashes) -> None:
        """The file moves to another folder."""
        if here := sorted(self.files.keys() - self.deleted):
            path = data.draw(st.sampled_from(here))
            path.unlink()
            self.deleted.add(path)
            self._hand_on(self._put(("moved", path.name), self.files[path]), crashes)

    @rule(data=st.data())
    def a_file_is_deleted(self, data) -> None:
        if here := sorted(self.files.keys() - self.deleted):
            path = data.draw(st.sampled_from(here))
            path.unlink()
            self.deleted.add(path)

    @rule()
    def the_window_is_closed(self) -> None:
        if not self.is_late:
            self.is_late = True
            self.counted_alerts = self.stream.counts["alerts"]
            self._let_timers_come()

    @rule()
    def another_worker_takes_over(self) -> None:
        self.stream.start_worker()

    @invariant()
    def the_repositories_hold_what_the_files_show(self) -> None:
        if not getattr(self, "files", None):
            return
        if isinstance(self.stream, PackedStream) and self.stream.waiting.entries:
            return
        check_repositories(self.stream, self.files)

    @invariant()
    def the_winner_is_counted_once_and_emitted(self) -> None:
        if not getattr(self, "files", None):
            return
        best = best_of(self.files.values())
        number, alerts = int(best is not None), int(best is not None and is_alert(best))
        rows = [json.loads(path.read_text()) for path in self.stream.output.glob("late/*/*.json")]
        late = [(row["images"], row["alerts"]) for row in rows]
        counted = (self.stream.counts["images"], self.stream.counts["alerts"])
        if not self.is_late:
            assert (counted, late) == ((number, alerts), [])
        elif counted[0]:
            assert (counted, late) == ((1, self.counted_alerts), [])
        else:
            assert (counted, late) == ((0, 0), [(1, alerts)] * number)
        if best is not None:
            assert self.stream.emitted[-1] == hashlib.sha256(best).hexdigest()


Arrivals.TestCase.settings = search(150, stateful_step_count=8)
TestTheRepositoriesHoldWhatTheFilesShow = pytest.mark.search(Arrivals.TestCase)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
@pytest.mark.parametrize("written_after", [1, 2, 3])
def test_of_decisions_that_come_in_any_order_the_newest_counts(tmp_path, order, written_after):
    stream = PackedStream(tmp_path)
    contents = dict(enumerate((b"nothing 1", b"dog", b"nothing 2"), 1))
    cells = stream.waiting, stream.number, stream.written, stream.noted
    for at, number in enumerate(order, 1):
        path = stream.put("a", NAMES[0], contents[number])
        winner = version_of(path, float(number), ON_TIME, contents[number]).judged
        decision = WINDOWS.name_of(CAMERA, TIME), Decision(CAMERA, TIME, number, winner)
        assert not list(stream.pack.process(decision, *cells, Timer(), Timer(), Timer()))
        if at == written_after:
            stream.pack.write_in_time(*cells)
    stream.pack.write_in_time(*cells)
    assert [row["sha256"] for row in rows_as_files(stream).values()] == [sha256_of(b"nothing 2")]
    files = list((stream.output / "packed").iterdir())
    stream.start_worker()
    stream.pack.write_in_time(*cells)
    stream.forget_window_comes()
    assert list((stream.output / "packed").iterdir()) == files


@pytest.mark.parametrize("is_written", [False, True])
def test_the_file_of_an_alert_that_the_stream_has_lost_is_deleted(tmp_path, is_written):
    stream = PackedStream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    with stream.lost():
        stream.look(path, 1.0, late=False)
        if is_written:
            stream.write_what_waits()
    assert [name for name in tree(stream.output) if name.startswith("final/")]
    path.write_bytes(b"nothing 1")
    stream.look(path, 2.0, late=False)
    stream.write_what_waits()
    check_repositories(stream, {path: b"nothing 1"})


def test_the_file_of_an_alert_outlives_what_was_decided_before_it(tmp_path):
    """Other workers may write what waits at any time."""
    stream = PackedStream(tmp_path)
    path = stream.put("a", NAMES[0], b"nothing 1")
    stream.look(path, 1.0, late=False)
    stream.end_bundle = lambda: None
    path.write_bytes(b"person 1")
    stream.look(path, 2.0, late=False)
    stream.write_what_waits()
    del stream.end_bundle
    stream.end_bundle()
    stream.write_what_waits()
    check_repositories(stream, {path: b"person 1"})


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("had_target", [False, True])
def test_an_edit_of_the_rules_between_two_steps_neither_leaves_nor_takes_a_file(
    tmp_path, late, had_target
):
    """All steps go by what was decided when the image won, also when it is handed on again."""
    stream = PackedStream(tmp_path)
    stream.recorded |= {"detection"} if had_target else set()
    stream.edits_between_steps = True
    path = stream.put("a", NAMES[0], b"dog")
    stream.comes(path, 1.0, late)
    stream.write_what_waits()

    def has_file() -> bool:
        return (stream.output / "final" / CAMERA / f"{Path(NAMES[0]).stem}.json").exists()

    assert has_file() == had_target
    stream.comes(path, 2.0, late)  # The rules say otherwise by now.
    stream.write_what_waits()
    # A late image is emitted once more, and may have a record from then on.
    assert has_file() == (had_target or late)
    check_repositories(stream, {path: b"dog"})


@pytest.mark.parametrize("is_known", [False, True])
def test_an_alert_of_which_nothing_is_noted_any_more_is_replaced_or_retracted(tmp_path, is_known):
    for turn, data in enumerate((b"nothing 1", b"half")):
        stream = PackedStream(tmp_path / f"{turn}")
        path = stream.put("a", NAMES[0], b"person 1")
        stream.look(path, 1.0, late=False)
        stream.forget_window_comes()
        if not is_known:  # Another run begins, on Prism without the state of the one before it.
            stream.state.clear()
            stream.start_worker()
        path.write_bytes(data)
        stream.look(path, 2.0, late=False)
        if is_known:  # This does not wait.
            assert not [name for name in tree(stream.output) if name.startswith("final/")]
        stream.write_what_waits()
        check_repositories(stream, {path: data})


@pytest.mark.parametrize("is_written", [False, True])
def test_a_late_file_is_compared_with_what_waits_to_be_written(tmp_path, is_written):
    stream = PackedStream(tmp_path)
    first = stream.put("a", NAMES[0], b"dog")
    stream.look(first, 1.0, late=False)
    if is_written:
        stream.write_what_waits()
    stream.timers_come()
    assert not stream.state.entries
    late = stream.put("a", NAMES[1], b"nothing 1")
    stream.comes(late, 2.0, late=True)
    check_repositories(stream, {first: b"dog", late: b"nothing 1"})
    late.write_bytes(b"person 1")
    stream.comes(late, 3.0, late=True)
    check_repositories(stream, {first: b"dog", late: b"person 1"})


def counted_reads(monkeypatch) -> Counter[str]:
    """Counts how often each packed file is read from now on."""
    reads: Counter[str] = Counter()
    opened = pyarrow.parquet.ParquetFile

    def counting(path, **options):
        reads[path] += 1
        return opened(path, **options)

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", counting)
    return reads


def test_a_late_file_costs_the_same_however_many_came_before_it(tmp_path, monkeypatch):
    """Each has a packed file of its own, which a step reads once."""
    stream, reads = PackedStream(tmp_path), counted_reads(monkeypatch)
    path = stream.put("a", NAMES[0], b"dog")
    version = version_of(path, 1.0, TOO_LATE, b"dog")
    for number in range(6):
        image = replace(version.judged.image, id=f"{number}", file=f"{number}_20260131T100000Z.jpg")
        for output in stream._process(Version(judged=replace(version.judged, image=image))):
            stream._take(output)
        stream.end_bundle()
        stream.timers_come()
        stream.state.clear()
        stream.late_state.clear()
    assert len(rows_as_files(stream)) == 6
    assert sorted(reads.values()) == [1, 2, 2, 2, 2, 2]  # Once by the search, and at the end.


def test_a_late_file_is_compared_with_what_was_written_before_it_was_handed_on(tmp_path):
    """A step lists a day once for late files between which nothing was written."""
    stream = PackedStream(tmp_path)
    first = version_of(stream.put("a", NAMES[0], b"dog"), 1.0, ON_TIME, b"dog")
    late = version_of(stream.put("b", NAMES[0], b"nothing 1"), 2.0, TOO_LATE, b"nothing 1")
    cells = stream.waiting, stream.number, stream.written, stream.noted
    reader = RowWriter(str(stream.output), WINDOWS)

    def found(decision: Decision) -> list[PackedRow | None]:
        element = WINDOWS.name_of(CAMERA, TIME), decision
        handed_on = stream.pack.process(element, *cells, Timer(), Timer(), Timer())
        return [reader.find(CAMERA, TIME, after=one.after) for one in handed_on]

    assert found(late_version(late)) == found(late_version(late)) == [None]
    assert found(Decision(CAMERA, TIME, 1, first.judged)) == []
    (row,) = found(late_version(late))
    assert row is not None
    assert row.image.sha256 == sha256_of(b"dog")


def test_files_of_a_window_with_more_rows_than_are_kept_are_read_again_only_for_their_images(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("transforms.packed_row_writer._KEPT_ROWS", 1)
    reads = counted_reads(monkeypatch)
    image = version_of(tmp_path / NAMES[0], 1.0, ON_TIME, b"dog").judged
    decisions = [
        Decision(id, TIME, 1, replace(image, image=replace(image.image, id=id)))
        for id in ("a", "b", "c", "d")
    ]
    writer = RowWriter(str(tmp_path), WINDOWS)
    for decision in decisions:
        writer.write([decision])
    assert not reads
    other = version_of(tmp_path / NAMES[0], 2.0, ON_TIME, b"nothing 1").judged
    assert other is not None
    replaced = replace(decisions[0], winner=replace(other, image=replace(other.image, id="a")))
    writer.write([replaced])
    assert list(reads.values()) == [1]
    rows = read_output(str(tmp_path), [])
    assert [row.generation for row in map(rows.get, "abcd", [TIME] * 4)] == [1, 0, 0, 0]


@pytest.mark.search
@search(15)
@given(
    bundles=st.lists(
        st.dictionaries(
            st.tuples(st.sampled_from("ab"), st.integers(0, 5)),
            st.sampled_from([b"dog", b"nothing 1"]),
            min_size=1,
        ),
        min_size=1,
        max_size=4,
    ),
    few_rows=st.sampled_from([0, 3, 2048]),
    kept=st.sampled_from([0, 2, 4_000_000]),
)
@example(
    bundles=[{("a", 0): b"dog", ("a", 5): b"dog"}, {("a", 1): b"dog", ("a", 4): b"dog"}],
    few_rows=2048,
    kept=4_000_000,
)
def test_the_rows_of_files_of_many_windows_are_found_and_each_file_is_read_once(
    bundles, few_rows, kept
):
    """Cameras that come back send images of many windows, which share their files."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, limit in (("FEW_ROWS", few_rows), ("KEPT_ROWS", kept), ("KEPT_HASHES", kept)):
            patch.setattr(f"transforms.packed_row_writer._{name}", limit)
        reads = counted_reads(patch)
        writer, reader = RowWriter(folder, WINDOWS), RowWriter(folder, WINDOWS)
        for number, bundle in enumerate(bundles):
            decisions = []
            for (camera, window), data in bundle.items():
                winner = version_of(Path(folder, NAMES[0]), number, ON_TIME, data).judged
                time = f"2026-01-31T10:{window * 5:02}:00Z"
                image = replace(winner.image, id=camera, timestamp=time)
                decisions.append(Decision(camera, time, 1, replace(winner, image=image)))
            writer.write(decisions)
            if few_rows == 2048 and kept == 4_000_000:
                assert not reads, "a writer knows its own files"
            for decision in decisions:
                row = reader.find(*decision.key)
                assert row is not None
                assert row.image.sha256 == decision.winner.image.sha256
            reads.clear()
            if few_rows == 2048 and kept == 4_000_000:
                for camera in "xy":
                    for window in range(6):
                        assert reader.find(camera, f"2026-01-31T10:{window * 5:02}:01Z") is None
                assert not reads
        for row in read_output(folder, []):
            found = reader.find(row.image.id, row.image.timestamp)
            assert found is not None
            assert found.image.sha256 == row.image.sha256


@pytest.mark.parametrize("late", [False, True])
def test_a_row_that_another_program_has_written_stops_no_stream(tmp_path, late):
    """A file that is gone is looked up in the output, as is a late one."""
    stream = PackedStream(tmp_path)
    path = stream.put("a", NAMES[0], b"dog")
    image = version_of(path, 1.0, ON_TIME, b"dog").judged.image
    folder = stores.packed_folder(str(stream.output))
    rows = Rows()
    rows.add([PackedRow(image, {"is_threat": True})])
    write_file(folder, WINDOWS.name_of(CAMERA, TIME), rows)
    if late:
        stream.comes(path, 2.0, late=True)
        check_repositories(stream, {path: b"dog"})
    else:
        path.unlink()
        stream.look(path, 1.0, late=False)
        stream.write_what_waits()
        assert list(tree(stream.output / "invalid"))


def test_files_that_are_late_by_one_partition_only_are_compared(tmp_path):
    stream = PackedStream(tmp_path)
    late, on_time = stream.put("a", NAMES[0], b"dog"), stream.put("b", NAMES[1], b"person 1")
    stream.look(late, 1.0, late=True)
    stream.look(on_time, 2.0, late=False)
    stream.write_what_waits()
    stream.timers_come()
    check_repositories(stream, {late: b"dog", on_time: b"person 1"})


def test_a_file_that_is_gone_has_the_verdict_of_its_row(tmp_path):
    """The stream has lost its state since."""
    stream = PackedStream(tmp_path)
    path = stream.put("a", NAMES[0], b"dog")
    stream.look(path, 1.0, late=False)
    stream.write_what_waits()
    stream.state.clear()
    stream.start_worker()
    path.unlink()
    stream.look(path, 1.0, late=False)
    stream.write_what_waits()
    check_repositories(stream, {path: b"dog"})
    assert stream.counts["images"] == 2


@pytest.mark.parametrize("is_noted_late", [False, True])
def test_a_stream_that_forgets_a_window_leaves_no_note(tmp_path, monkeypatch, is_noted_late):
    stream, plans = PackedStream(tmp_path), []
    with monkeypatch.context() as patch:
        patch.setattr(stream.store, "work", plans.append)
        stream.look(stream.put("a", NAMES[0], b"person 1"), 1.0, late=False)
    if is_noted_late:
        stream.write_what_waits()
    for plan in plans:
        stream.store.work(plan)
    names = [path.name for path in (stream.output / "packed").iterdir()]
    note = "20260131T100000Z_20260131T100500Z_hall_20260131T100000Z.recorded"
    assert [name for name in names if not name.endswith(".parquet")] == [note]
    stream.forget_window_comes()
    (name,) = (path.name for path in (stream.output / "packed").iterdir())
    assert name.endswith(".parquet")
    assert not any(state.entries for state in stream.states()[2:])


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_is_gone_keeps_the_verdict_that_it_has(tmp_path, late):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.comes(path, 1.0, late)
    stored = tree(stream.output)
    path.unlink()
    stream.comes(path, 2.0, late)
    assert tree(stream.output) == stored
    assert len(set(stream.emitted)) == 1
    assert stream.counts["images"] == (0 if late else 1)


def test_a_file_that_is_gone_when_its_bundle_is_retried_is_counted_and_emitted(tmp_path):
    """The bundle had stored the verdict; its counts and winners were lost with its state."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, False)
    stored = tree(stream.output)
    stream.state.clear()
    stream.counts.clear()
    stream.emitted.clear()
    stream.start_worker()
    path.unlink()
    stream.look(path, 1.0, False)
    assert tree(stream.output) == stored
    assert stream.counts["images"] == stream.counts["alerts"] == 1
    assert stream.emitted == [hashlib.sha256(b"person 1").hexdigest()]


def test_a_file_that_is_gone_before_it_was_judged_is_recorded(tmp_path):
    stream = Stream(tmp_path)
    stream.look(stream.input / "a" / NAMES[0], 1.0, False)
    assert list(tree(stream.output)) == [f"invalid/read_failed/{NAMES[0]}.json"]


def test_a_model_that_fails_on_the_same_bytes_retracts_no_verdict(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, False)
    known = settle([version_of(path, 1.0, ON_TIME, b"person 1")])
    sha256 = hashlib.sha256(b"person 1").hexdigest()
    file = ImageFile(str(path), 8, ON_TIME, 1.0)
    failed = InvalidImage(file, "inference_failed", "out of memory", sha256=sha256)
    failed = replace(failed, camera=CAMERA, timestamp=TIME)
    assert add_version(known, Version(invalid=failed)) == (known, None)
    first, _ = add_version(CaptureTime(), Version(invalid=failed))
    after, change = add_version(first, known.versions[str(path)])
    assert after.winner_uri == str(path)
    assert [reason for _, reason in change.retracted] == ["inference_failed"]


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def finals(stream: Stream) -> dict[str, str]:
    """Returns the sha256 of each verdict, by the file's name."""
    records = (json.loads(path.read_text()) for path in stream.output.glob("final/*/*.json"))
    return {record["file"]: record["sha256"] for record in records}


@pytest.mark.parametrize("counted", [False, True])
def test_a_late_copy_under_another_name_is_the_image_that_is_there(tmp_path, counted):
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"person 1"), 1.0, late=not counted)
    stream.timers_come()
    for name in (NAMES[1], NAMES[1], NAMES[2]):
        stream.comes(stream.put("b", name, b"person 1"), stream.clock, late=True)
    assert finals(stream) == {NAMES[0]: sha256_of(b"person 1")}
    assert set(stream.emitted) == {sha256_of(b"person 1")}
    assert stream.counts["images"] == counted
    assert len(list(stream.output.glob("late/*/*.json"))) == (not counted)


def test_of_late_files_under_several_names_the_most_severe_wins_and_then_the_next(
    tmp_path,
):
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"dog"), 1.0, late=True)
    stream.comes(stream.put("a", NAMES[1], b"person 1"), 2.0, late=True)
    assert finals(stream) == {NAMES[1]: sha256_of(b"person 1")}
    stream.comes(stream.put("a", NAMES[1], b"nothing 1"), 3.0, late=True)
    assert finals(stream) == {NAMES[0]: sha256_of(b"dog")}
    (row,) = stream.output.glob("late/*/*.json")
    assert json.loads(row.read_text())["by_label"] == {"dog": 1}
    (record,) = stream.output.glob("invalid/duplicate/*.json")
    assert json.loads(record.read_text())["sha256"] == sha256_of(b"nothing 1")


def test_the_copy_of_an_image_is_kept_if_the_output_can_t_be_read_for_a_moment(
    tmp_path, monkeypatch
):
    stream = Stream(tmp_path)
    gone = stream.put("a", NAMES[0], b"person 1")
    stream.comes(gone, 1.0, False)
    gone.unlink()
    (plan,) = stream.plans_of(stream.put("a", NAMES[1], b"dog"), 2.0)
    copy = stream.output / "validated" / CAMERA / NAMES[0]
    read = stores.read_bytes

    def fail(uri, at_most=-1):
        if uri == str(copy):
            raise OSError(errno.EIO, "Input/output error", uri)
        return read(uri, at_most)

    monkeypatch.setattr(stores, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output"):
        stream.store.work(plan)
    assert copy.exists()
    monkeypatch.undo()
    stream.store.work(plan)
    assert copy.read_bytes() == b"person 1"


def images(stream: Stream) -> list[bytes]:
    """The bytes of the images in `validated/`."""
    return [path.read_bytes() for path in stream.output.glob("validated/*/*")]


def spares(stream: Stream) -> set[bytes]:
    """The bytes of the spare copies."""
    return {path.read_bytes() for path in stream.output.glob("late/_known/*/*.jpg")}


@pytest.mark.parametrize("late", [False, True])
def test_the_image_of_an_alert_outlives_its_file_and_others_of_its_name(tmp_path, late):
    stream = Stream(tmp_path)
    gone = stream.put("a", NAMES[0], b"person 1")
    stream.comes(gone, 1.0, late)
    gone.unlink()
    for turn in range(3):
        for data in (b"dog", b"nothing 1"):
            stream.comes(stream.put("b", NAMES[0], data), 2.0 + turn, late)
            assert finals(stream) == {NAMES[0]: sha256_of(b"person 1")}
            assert images(stream) == [b"person 1"]
    stream.timers_come()
    assert spares(stream) == {b"person 1"}


@pytest.mark.parametrize("replaced", ["the loser's record", "the winner"])
@pytest.mark.parametrize("folders", ["bc", "cb"])
def test_the_bytes_of_a_file_that_is_gone_are_taken_from_the_record_of_its_copy(
    tmp_path, replaced, folders
):
    stream = Stream(tmp_path)
    winner = stream.put("a", NAMES[0], b"person 1")
    recorded = stream.put(folders[0], NAMES[1], b"dog")
    same = stream.put(folders[1], NAMES[2], b"dog")
    for turn, path in enumerate((winner, recorded, same)):
        stream.comes(path, float(turn), late=False)
    files = {winner: b"person 1", recorded: b"dog", same: b"dog"}
    same.unlink()
    if replaced == "the winner":
        recorded.unlink()
        files[winner] = b"nothing 1"
    else:
        files[recorded] = b"nothing 1"
    newer = winner if replaced == "the winner" else recorded
    newer.write_bytes(files[newer])
    stream.comes(newer, 9.0, late=False)
    check_repositories(stream, files)


@pytest.mark.parametrize("store_validated", [True, False])
def test_a_file_that_is_replaced_often_leaves_one_spare_copy(
    tmp_path, monkeypatch, store_validated
):
    """While its window is open, the 16 versions before the newest have one too."""
    stream = Stream(tmp_path)
    stream.store._store_validated = store_validated
    for turn in range(40):
        data = b"version %d" % turn
        monkeypatch.setitem(CONTENTS, data, [("person", "alert")] if turn % 2 else [])
        stream.comes(stream.put("a", NAMES[0], data), float(turn), late=False)
        before = {b"version %d" % one for one in range(max(0, turn - 16), turn)}
        assert before <= spares(stream) <= {data, *before}
    stream.timers_come()
    assert spares(stream) <= {data}


def test_what_another_run_has_left_under_the_name_of_an_image_is_overwritten(tmp_path):
    stream = Stream(tmp_path)
    copy = stream.output / "validated" / CAMERA / NAMES[0]
    stores.write_bytes(str(copy), b"dog")
    stream.comes(stream.put("a", NAMES[0], b"person 1"), 1.0, late=False)
    assert images(stream) == [b"person 1"]


def test_a_store_that_ignores_whether_an_object_is_new_keeps_the_image_of_files_seen_together(
    tmp_path, monkeypatch
):
    stream = Stream(tmp_path)
    ignoring = lambda uri, data: (stores.write_bytes(uri, data), True)[1]  # noqa: E731
    monkeypatch.setattr(stores, "write_if_new", ignoring)
    winner = stream.put("a", NAMES[0], b"person 1")
    stream.comes(winner, 1.0, late=False)
    stream.comes(stream.put("b", NAMES[0], b"dog"), 2.0, late=False)
    winner.unlink()
    stream.comes(stream.put("c", NAMES[0], b"nothing 1"), 3.0, late=False)
    assert images(stream) == [b"person 1"]


def test_an_image_that_another_thread_is_about_to_overwrite_has_a_spare_copy(tmp_path, monkeypatch):
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"nothing 1"), 1.0, late=False)
    best, other = (
        (valid_of(version, data), version.judged.image)
        for folder, data in (("b", b"person 1"), ("c", b"dog"))
        for version in [version_of(stream.put(folder, NAMES[0], data), 2.0, ON_TIME, data)]
    )
    read = stores.read_if_there

    def read_and_be_overtaken(uri):
        data = read(uri)
        monkeypatch.undo()
        stream.write.work(best)
        return data

    monkeypatch.setattr(stores, "read_if_there", read_and_be_overtaken)
    stream.write.work(other)
    assert spares(stream) == {b"nothing 1", b"person 1", b"dog"}


def test_an_image_is_found_though_others_of_its_name_were_written_at_the_same_time(tmp_path):
    """The files are gone before it is decided which of them wins."""
    stream = Stream(tmp_path)
    contents = (b"person 1", b"person 2", b"dog", b"nothing 1", b"nothing 2")
    versions = [
        version_of(stream.put(str(number), NAMES[0], data), 1.0, ON_TIME, data)
        for number, data in enumerate(contents)
    ]
    shutil.rmtree(stream.input)
    elements = [
        (valid_of(version, data), version.judged.image)
        for version, data in zip(versions, contents, strict=True)
    ]
    with ThreadPoolExecutor(len(elements)) as pool:
        for _ in range(20):
            assert list(pool.map(stream.write.work, elements)) == [
                version.judged.image for version in versions
            ]
    for version in versions:
        for output in stream._process(version):
            if getattr(output, "tag", "") == PLANS:
                stream.store.work(output.value)
    assert images(stream) == [best_of(contents)]
    copies = {path.read_bytes() for path in stream.output.glob("invalid/duplicate/*.jpg")}
    assert copies == set(contents) - {best_of(contents)}


def test_a_file_in_the_place_of_an_image_is_read_only_up_to_the_limit(tmp_path, monkeypatch):
    stream = Stream(tmp_path)
    stream.store._max_copied_bytes = 10
    image = stream.put("a", NAMES[0], b"person 1")
    stream.comes(image, 1.0, False)
    (plan,) = stream.plans_of(stream.put("b", NAMES[0], b"dog"), 2.0)
    image.write_bytes(b"large" * 1000)
    read, sizes = stores.read_bytes, []

    def measure(uri, at_most=-1):
        data = read(uri, at_most)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(stores, "read_bytes", measure)
    stream.store._restore_validated(plan)
    assert max(sizes) == 11


def test_a_file_that_is_on_time_and_waits_with_a_late_one_is_counted_once(tmp_path):
    """Each partition of a topic has its own event time; the window follows the slowest."""
    stream = Stream(tmp_path)
    stream.look(stream.put("a", NAMES[0], b"dog"), 1.0, True)
    stream.look(stream.put("b", NAMES[1], b"person 1"), 2.0, False)
    stream.timers_come()
    (row,) = (json.loads(path.read_text()) for path in stream.output.glob("late/*/*.json"))
    assert (stream.counts["images"], row["alerts"]) == (0, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_an_image_whose_alert_is_sent_wins_over_one_in_a_cooldown(order):
    """Otherwise the alert would cover later images, and nobody would have received it."""
    sent = judged(CAMERA, TIME, [("person", "alert")], file=NAMES[0])
    covered = judged(CAMERA, TIME, [("car", "alert")], file=NAMES[1], suppressed_by="an alert")
    (threat,) = covered.verdict.threats
    verdict = replace(covered.verdict, threats=(replace(threat, conf=0.99),))
    covered = replace(covered, image=replace(covered.image, sha256="0" * 64), verdict=verdict)
    for severities, winner in ((("alert", "alert"), sent), (("detection", "alert"), covered)):
        versions = [
            Version(judged=replace(one, verdict=replace(one.verdict, severity=severity)))
            for one, severity in zip((sent, covered), severities, strict=True)
        ]
        known = settle(versions[::order])
        assert known.winner is not None
        assert known.winner.image == winner.image


def test_two_verdicts_that_an_earlier_release_left_become_one(tmp_path):
    stream = Stream(tmp_path)
    for name in NAMES[:2]:
        stream.comes(stream.put("a", name, b"dog"), 1.0, late=True)
        shutil.rmtree(stream.output / "late" / "_known", ignore_errors=True)
        path = stream.output / "final" / CAMERA / f"{Path(name).stem}.json"
        data = version_of(stream.input / "a" / name, 1.0, TOO_LATE, b"dog").judged.to_json()
        path.write_bytes(stores.json_bytes(data))
    assert len(finals(stream)) == 2
    stream.comes(stream.input / "a" / NAMES[1], 2.0, late=True)
    assert finals(stream) == {NAMES[1]: sha256_of(b"dog")}


def test_a_copy_that_a_crash_left_without_its_record_is_deleted(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"")
    assert not stream.look(path, 1.0, late=False, crash_after=1)
    assert list(tree(stream.output)) == [f"invalid/empty_file/{NAMES[0]}"]
    stream.look(stream.put("a", NAMES[0], b"dog"), 2.0, late=False)
    check_repositories(stream, {path: b"dog"})


def test_what_a_crash_left_of_a_file_with_the_same_bytes_as_another_is_deleted(tmp_path):
    stream = Stream(tmp_path)
    first = stream.put("a", NAMES[0], b"dog")
    stream.look(first, 1.0, late=False)
    second = stream.put("b", NAMES[1], b"half")
    assert not stream.look(second, 2.0, late=False, crash_after=3)
    stream.look(stream.put("b", NAMES[1], b"dog"), 3.0, late=False)
    check_repositories(stream, {first: b"dog", second: b"dog"})


@pytest.mark.parametrize("other_files", [(), ((NAMES[0], b"dog"), (NAMES[2], b"person 1"))])
def test_late_invalid_files_with_the_same_name_and_bytes_are_recorded_once(tmp_path, other_files):
    stream = Stream(tmp_path)
    files = {}
    for folder, name, data in (
        ("a", NAMES[1], b"half"),
        *(("a", *other_file) for other_file in other_files),
        ("b", NAMES[1], b"half"),
    ):
        path = stream.put(folder, name, data)
        files[path] = data
        stream.comes(path, stream.clock, late=True)
    check_repositories(stream, files)


def test_a_newer_version_deletes_the_older_record_though_another_file_arrived_between(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"half")
    stream.comes(path, 1.0, late=True)
    second = stream.put("a", NAMES[1], b"dog")
    stream.look(second, 2.0, late=True)
    stream.comes(stream.put("a", NAMES[0], b"person 1"), 3.0, late=True)
    check_repositories(stream, {path: b"person 1", second: b"dog"})


@pytest.mark.parametrize("crash_after", range(9))
def test_a_late_alert_is_emitted_though_its_bundle_has_failed(tmp_path, crash_after):
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"dog"), 1.0, late=True)
    path = stream.put("b", NAMES[1], b"person 1")
    stream.look(path, 2.0, late=True, crash_after=crash_after)
    stream.look(path, 2.0, late=True)
    stream.timer_comes(crash_after)
    stream.timers_come()
    assert list(dict.fromkeys(stream.emitted)) == [sha256_of(b"dog"), sha256_of(b"person 1")]


def test_a_file_that_was_moved_is_restored_from_where_it_is_now(tmp_path):
    """Another file of the same name has overwritten the winner's copy."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    path.unlink()
    moved = stream.put("moved", NAMES[0], b"person 1")
    stream.look(moved, 2.0, late=False)
    third = stream.put("b", NAMES[0], b"nothing 1")
    stream.look(third, 3.0, late=False)
    check_repositories(stream, {path: b"person 1", moved: b"person 1", third: b"nothing 1"})


def test_files_of_an_unreachable_input_are_not_treated_as_deleted(tmp_path):
    """The copies in `validated/` and `invalid/` are written once the input is back."""
    stream = Stream(tmp_path)
    first, second = (stream.put(folder, NAMES[0], b"dog") for folder in "ab")
    second.write_bytes(b"person 1")
    stream.look(first, 1.0, late=False)
    plans = stream.plans_of(second, 2.0)
    shutil.rmtree(stream.output / "late")  # A store that ignores conditions has no spare copies.
    away = stream.input.rename(tmp_path / "away")
    store = StorePlan(str(stream.output), window_seconds=300, streaming=True, top=str(stream.input))
    with pytest.raises(stores.StoreLostError):
        list(map(store.work, plans))
    away.rename(stream.input)
    list(map(store.work, plans))
    check_repositories(stream, {first: b"dog", second: b"person 1"})


def test_a_verdict_is_read_back_as_it_was(tmp_path):
    uri = str(tmp_path / "x.json")
    checks = (rules.Check("min_score", 0.9, 0.5, True), rules.Check("mask", "street", ["a"], False))
    verdict = replace(
        judged(threats=[("person", "alert")]).verdict,
        rejected=(rules.Rejected(1, "car", "defaults.objects.car", "min_score"),),
        trace=(rules.Trace(0, checks),),
        suppressed_by="0" * 32,
        incident_number=7,
    )
    judged_image = JudgedImage(judged().image, verdict)
    stores.write_bytes(uri, stores.json_bytes(judged_image.to_json()))
    read = read_final(uri)
    assert read is not None
    assert read.to_json() == judged_image.to_json()
    assert read == judged_image


def test_an_alert_is_emitted_again_after_a_checkpoint_was_restored(tmp_path):
    """Its verdict is in the output, but the alert may have reached only one of its targets."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    with stream.lost():
        stream.comes(path, 1.0, late=True)
    stream.comes(path, 1.0, late=True)
    assert stream.emitted == [sha256_of(b"person 1")]
    check_repositories(stream, {path: b"person 1"})


@pytest.mark.parametrize("late", [False, True])
def test_a_touch_does_not_overwrite_the_image_of_a_deleted_file(tmp_path, late):
    stream = Stream(tmp_path)
    first = stream.put("a", NAMES[0], b"nothing 1")
    stream.comes(first, 1.0, late)
    second = stream.put("b", NAMES[0], b"dog")
    stream.comes(second, 2.0, late)
    second.unlink()
    stream.comes(first, 3.0, late)
    check_repositories(stream, {first: b"nothing 1", second: b"dog"})


class LateStream:
    """The steps for late files, which come in bundles, in one form.

    Each bundle of files is followed by one in which timers fire. A bundle that fails is tried
    again, by another worker.
    """

    def __init__(self, output: Path, *, packed: bool) -> None:
        self.output = output
        self._packed = packed
        self._states: dict[str, tuple[State, Timer, Timer]] = {}
        self._start_worker()

    def _start_worker(self) -> None:
        out = str(self.output)
        options: dict[str, Any] = {"windows": WINDOWS} if self._packed else {}
        if self._packed:
            self._resolve: Any = _ResolveLate(out, 300, 3600, has_file=_is_alert, **options)
            self._store: Any = StoreLatePlans(
                out, window_seconds=300, streaming=True, is_packed=True, **options
            )
        else:
            self._resolve = _ResolveInStream(out, 300, 3600)
            self._store = StorePlan(out, window_seconds=300, streaming=True)
        for step in (self._resolve, self._store):
            step.setup()

    def stop(self) -> None:
        for step in (self._resolve, self._store):
            step.teardown()

    def come(self, versions: Sequence[Version], crashes: Sequence[int]) -> None:
        """Handles files that come in one bundle, then lets timers fire until none is set.

        Args:
          versions: The files.
          crashes: After how many writes attempts fail.
        """

        self.arrive(versions, crashes)
        while any(one.at for _, *timers in self._states.values() for one in timers):
            self._bundle(self._fire, crashes)

    def arrive(self, versions: Sequence[Version], crashes: Sequence[int] = ()) -> None:
        """Handles files that come in one bundle, and lets no timer fire."""
        self._bundle(lambda: self._process(versions), crashes)

    def come_after_timers(self, versions: Sequence[Version]) -> None:
        """Handles files that come in the bundle in which each timer fires that was set before, and
        whose plans are carried out at its end."""

        def process() -> Iterator[Any]:
            yield from [*self._fire(), *self._fire(), *self._process(versions)]

        self._bundle(process, ())

    def _process(self, versions: Sequence[Version]) -> Iterator[Any]:
        for version in versions:
            period = period_of(version)
            states = self._states.setdefault(period, (State(), Timer(), Timer()))
            element = LateVersion(version, "here") if self._packed else version
            yield from self._resolve.process((period, element), *states)

    def _fire(self) -> Iterator[Any]:
        for period, (state, forget, timer) in self._states.items():
            if timer.at is not None:
                timer.at = None
                yield from self._resolve.resolve_waiting(state)
            elif forget.at is not None:
                forget.at = None
                yield from self._resolve.forget(state, forget, State(), period)

    def _bundle(self, outputs: Callable[[], Iterator[Any]], crashes: Sequence[int]) -> None:
        for crash_after in (*crashes, None):
            before = {
                period: (state.entries, [timer.at for timer in timers])
                for period, (state, *timers) in self._states.items()
            }
            with crashing_writes(crash_after):
                try:
                    self._resolve.start_bundle()
                    self._store.start_bundle()
                    for output in outputs():
                        if getattr(output, "tag", None) == PLANS:
                            list(self._store.process(output.value, MIN_TIMESTAMP, None) or ())
                    list(self._store.finish_bundle())
                    return
                except CrashError:
                    self.stop()
                    self._start_worker()
            for period, (state, *timers) in self._states.items():
                state.entries, times = before.get(period, ([], [None, None]))
                for timer, at in zip(timers, times, strict=True):
                    timer.at = at

    def verdicts(self) -> dict[str, Any]:
        if self._packed:
            return rows_as_files(self)
        output = tree(self.output)
        return {name: json.loads(data) for name, data in output.items() if "final/" in name}

    def others(self) -> dict[str, bytes]:
        """The files that both forms have, with all that they hold."""
        output = tree(self.output)
        folders = ("invalid/", "late/hall/", "late/gate/")
        return {name: data for name, data in output.items() if name.startswith(folders)}


def _is_alert(image: JudgedImage) -> bool:
    return image.verdict.severity == "alert"


HALL = "hall", "2026-01-31T10:00:00Z"
LATER = "hall", "2026-01-31T10:05:00Z"
GATE = "gate", "2026-01-31T10:00:00Z"
NEXT_DAY = "gate", "2026-02-01T00:00:00Z"
LATE_FILES = st.builds(
    lambda key, folder: (*key, folder),
    st.sampled_from([HALL, LATER, GATE, NEXT_DAY]),
    st.sampled_from("ab"),
)


@pytest.mark.search
@search(15)
@given(
    looks=st.lists(
        st.tuples(
            st.lists(st.tuples(LATE_FILES, ANY_CONTENT), min_size=1, max_size=6),
            st.lists(st.integers(0, 5), max_size=2),
        ),
        min_size=1,
        max_size=4,
    ),
    at_once=st.sampled_from([1, 2, 512]),
)
@example(
    looks=[
        ([((*HALL, "a"), b"dog"), ((*LATER, "a"), b"dog")], []),
        ([((*LATER, "b"), b"nothing 1")], []),
    ],
    at_once=512,
)
def test_late_files_whose_rows_are_written_together_leave_what_files_of_their_own_say(
    looks, at_once
):
    """Each image is there once, whatever comes together and is tried again."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.store_plans._LATE_AT_ONCE", at_once)
        top = Path(folder)
        plain = LateStream(top / "plain", packed=False)
        packed = LateStream(top / "packed", packed=True)
        for changed, (files, crashes) in enumerate(looks, 1):
            versions = [
                late_version_of(top / "in", *file, float(changed), data) for file, data in files
            ]
            plain.come(versions, ())
            packed.come(versions, crashes)
        assert packed.verdicts() == plain.verdicts()
        assert packed.others() == plain.others()
        recorded = {name for name in tree(packed.output) if name.startswith("final/")}
        assert recorded == {
            name
            for name, record in packed.verdicts().items()
            if record["threat"]["severity"] == "alert"
        }
        for stream in (plain, packed):
            stream.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_a_late_file_is_compared_with_one_that_is_resolved_in_the_same_bundle(tmp_path, packed):
    """The timers that resolve the first file and end its state are due together."""
    stream = LateStream(tmp_path / "out", packed=packed)
    threat, other = (
        late_version_of(tmp_path / "in", *HALL, folder, 1.0, data)
        for folder, data in (("a", b"person 1"), ("b", b"nothing 1"))
    )
    stream.arrive([threat])
    stream.come_after_timers([other])
    stream.come([], ())
    (verdict,) = stream.verdicts().values()
    assert verdict["uri"] == threat.uri
    assert any("invalid/duplicate/" in name for name in stream.others())
    stream.stop()


def late_version_of(
    top: Path, camera: str, timestamp: str, folder: str, changed: float, data: bytes
) -> Version:
    """A version of a file, which is there."""
    name = f"{camera}_{timestamp.replace('-', '').replace(':', '')}.jpg"
    path = top / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    version = version_of(path, changed, "2026-02-01T12:00:00Z", data)
    if version.judged is not None:
        image = replace(version.judged.image, id=camera, timestamp=timestamp)
        return replace(version, judged=replace(version.judged, image=image))
    invalid = replace(version.invalid, camera=camera, timestamp=timestamp)
    return replace(version, invalid=invalid)


class Batch:
    """The batch's steps on a real folder, for one run."""

    def __init__(self, output: Path) -> None:
        self.output = str(output)
        self.store = StorePlan(self.output, window_seconds=300)
        self.store.setup()
        self.store_invalid = _StoreInvalid(self.output, streaming=False, max_copied_bytes=None)
        self.retract = _RetractEarlier(self.output)
        self.counted: list[str] = []

    def run(self, files: dict[Path, bytes]) -> None:
        versions = [version_of(path, 1.0, None, data) for path, data in sorted(files.items())]
        for path, version in zip(sorted(files), versions, strict=True):
            if version.judged is not None:
                uri = stores.validated_uri(self.output, CAMERA, stored(path.name))
                stores.write_bytes(uri, files[path])
        if len(versions) > 1:
            self._contested(versions)
        elif versions[0].judged is not None:
            self._alone(versions[0].judged)
        else:
            self.store_invalid.work(versions[0].invalid)

    def _contested(self, versions: list[Version]) -> None:
        for output in _ResolveInBatch().process((key_of(versions[0]), versions)):
            if isinstance(output, JudgedImage):
                self.counted.append(output.image.sha256)
            else:
                self.store.work(output.value)

    def _alone(self, judged: JudgedImage) -> None:
        names = self.output, CAMERA, judged.image.stem
        stores.write_bytes(stores.final_uri(*names), stores.json_bytes(judged.to_json()))
        data = stores.json_bytes(judged.image.to_json())
        stores.write_bytes(stores.detections_uri(*names), data)
        self.counted += [retracted.image.sha256 for retracted in self.retract.process(judged)]


STATES = st.lists(st.sampled_from(sorted(CONTENTS)), min_size=2, max_size=3)


@pytest.mark.search
@search(300)
@given(files=st.dictionaries(LOCATIONS, STATES, min_size=1, max_size=4))
def test_a_repeated_run_leaves_the_same_output_as_a_first_run(files):
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for turn in range(3):
            files_now = {}
            for (folder_name, name), contents in files.items():
                path = top / "in" / folder_name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                files_now[path] = contents[min(turn, len(contents) - 1)]
                path.write_bytes(files_now[path])
            rerun, fresh = Batch(top / "out"), Batch(top / f"fresh-{turn}")
            for batch in (rerun, fresh):
                batch.run(files_now)
            assert tree(top / "out") == tree(top / f"fresh-{turn}")
            assert rerun.counted == fresh.counted
            check_repositories(fresh, files_now)


def test_for_a_late_file_with_a_verdict_invalid_is_not_read(tmp_path, monkeypatch):
    """The state of its window has ended, and each read costs a request to a store."""
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"person 1"), 1.0, True)
    read: list[str] = []
    look = stores.read_if_there
    monkeypatch.setattr(stores, "read_if_there", lambda uri: (read.append(uri), look(uri))[1])
    with ThreadPoolExecutor(1) as pool:
        for folder, folders in (("a", {"final", "late"}), ("b", {"final", "late", "invalid"})):
            path = stream.put(folder, NAMES[0], b"person 1")
            read.clear()
            known_from_output(
                str(stream.output), version_of(path, 2.0, TOO_LATE, b"person 1"), pool
            )
            assert {Path(uri).relative_to(stream.output).parts[0] for uri in read} == folders


def test_an_image_keeps_its_copy_if_its_replacement_is_lost_and_moves(tmp_path):
    """The stream knows the older version under the old address; only a spare copy has its bytes."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    path.write_bytes(b"dog")
    with stream.lost():
        stream.look(path, 2.0, late=False)
    path.unlink()
    moved = stream.put("moved", NAMES[0], b"dog")
    stream.look(moved, 2.0, late=False)
    check_repositories(stream, {path: b"person 1", moved: b"dog"})
    stream.timers_come()
    assert spares(stream) == {b"person 1"}


def test_the_counts_are_corrected_though_a_failed_bundle_has_judged_by_other_rules(
    tmp_path, monkeypatch
):
    """The state says what was counted; the verdict in the output is of a bundle that was lost."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    with stream.lost():
        path.write_bytes(b"dog")
        stream.look(path, 2.0, late=False)
        path.write_bytes(b"person 1")
        monkeypatch.setitem(CONTENTS, b"person 1", [("person", "detection")])
        stream.look(path, 3.0, late=False)
    (late,) = (stream.output / "late").rglob("*.verdict")
    late.unlink()
    stream.look(stream.put("a", NAMES[0], b"nothing 1"), 4.0, late=False)
    assert (stream.counts["images"], stream.counts["alerts"]) == (1, 0)
    assert finals(stream) == {NAMES[0]: sha256_of(b"nothing 1")}


@pytest.mark.parametrize("data", [b"person 2", b"half", b"person 1"])
def test_an_image_whose_verdict_was_deleted_by_somebody_is_counted_no_longer_or_once(
    tmp_path, data
):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    shutil.rmtree(stream.output / "final")
    path.write_bytes(data)
    stream.look(path, 2.0, late=False)
    number = int(data != b"half")
    assert (stream.counts["images"], stream.counts["alerts"]) == (number, number)
    check_repositories(stream, {path: data})


def test_an_image_whose_verdict_and_file_were_deleted_stays_counted(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    shutil.rmtree(stream.output / "final")
    path.unlink()
    stream.look(path, 2.0, late=False)
    assert stream.counts["images"] == 1


def test_a_repeated_image_leaves_nothing_beside_its_results_and_its_state_stays_small(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    entries, stored = stream.state.entries, tree(stream.output)
    for turn in range(3):
        stream.look(path, 2.0 + turn, late=False)
    assert (stream.state.entries, tree(stream.output)) == (entries, stored)
    assert len(entries) == 1
    assert len(entries[0]) < 60


def test_the_state_ends_with_the_windows_of_its_period(tmp_path):
    """Windows of 300 s take images for an hour; the period of 15 minutes begins with the image."""
    stream = Stream(tmp_path)
    stream.look(stream.put("a", NAMES[0], b"person 1"), 1.0, late=False)
    assert (stream.forget.at, stream.timer.at) == ("2026-01-31T11:20:00Z", None)
    stream.look(stream.put("b", NAMES[1], b"dog"), 2.0, late=True)
    assert stream.timer.at == "2026-01-31T11:05:00Z"
    stream.former.add(b"of an earlier release")
    stream.timers_come()
    assert (stream.state.entries, stream.former.entries) == ([], [])
