"""One image stands for each camera and capture time: searched for by arrivals, crashes and replays.

The twin looks at the files that are there in the end, and says what the repositories must hold. The
stream sees them come one by one, in any order, again and again, with bundles that fail half-way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import rules
from tests.search import search
from tests.transforms.results import judged
from transforms.known_versions import known_from_output
from transforms.records.images import ImageFile, InvalidImage, JudgedImage
from transforms.records.precedence import CAPTURE_TIMES, CaptureTime, Version, add_version, key_of
from transforms.repositories import _StoreInvalid, read_final
from transforms.resolve_versions import (
    COUNTED,
    PLANS,
    Plan,
    _ResolveInBatch,
    _ResolveInStream,
    _RetractEarlier,
    _StorePlan,
)
from transforms.storage import stores

CAMERA, TIME = "hall", "2026-01-31T10:00:00Z"
ON_TIME, TOO_LATE = "2026-01-31T10:00:10Z", "2026-01-31T12:00:00Z"
NAMES = ("hall_20260131T100000Z.jpg", "hall_1769853600.jpg", "hall_20260131T100000Z.jpeg")
CONTENTS = {
    b"person 1": [("person", "alert")],
    b"person 2": [("person", "alert")],
    b"dog": [("dog", "detection")],
    b"nothing 1": [],
    b"nothing 2": [],
    b"half": "corrupt_jpeg",
    b"": "empty_file",
}


def version_of(path: Path, changed: float, stream_time: str, data: bytes) -> Version:
    """What reading, detecting and judging make of a file's bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    shows = CONTENTS[data]
    file = ImageFile(str(path), len(data), stream_time, changed)
    if isinstance(shows, str):
        invalid = InvalidImage(file, shows, "detail", len(data), sha256=sha256)
        return Version(invalid=replace(invalid, camera=CAMERA, timestamp=TIME))
    one = judged(CAMERA, TIME, shows, file=path.name)
    image = replace(one.image, uri=str(path), sha256=sha256)
    image = replace(image, stream_time=stream_time, changed=changed, is_contested=True)
    return Version(judged=replace(one, image=image))


class State:
    """A cell of a runner's state, in the bytes that it keeps."""

    def __init__(self) -> None:
        self.kept: bytes | None = None

    def read(self):
        return None if self.kept is None else CAPTURE_TIMES.decode(self.kept)

    def write(self, value) -> None:
        self.kept = CAPTURE_TIMES.encode(value)

    def clear(self) -> None:
        self.kept = None


class Timer:
    """The timer of a key, which comes at once where its moment has passed."""

    def __init__(self) -> None:
        self.at: str | None = None

    def set(self, timestamp) -> None:
        self.at = timestamp.to_rfc3339()


class CrashError(Exception):
    pass


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Stream:
    """The stream's steps over a real folder, and what a runner does around them.

    Attributes:
      counts: What the window of the capture time has been given.
      told: The sha256 of each image that was handed on as the one that stands.
    """

    def __init__(self, top: Path) -> None:
        self.input, self.output = top / "in", top / "out"
        self.state, self.timer = State(), Timer()
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self.clock = 1000.0
        self.resolve = _ResolveInStream(str(self.output), 300, 3600)
        self.resolve.setup()
        self.start_worker()

    def start_worker(self) -> None:
        self.store = _StorePlan(str(self.output), window_seconds=300, streaming=True)
        self.store.setup()

    def put(self, folder: str, name: str, data: bytes) -> Path:
        path = self.input / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.clock += 1
        return path

    def look(self, path: Path, changed: float, late: bool, crash_after: int | None = None) -> bool:
        """The file is handed on: read, judged, stored; or the bundle fails after some writes.

        Returns:
          Whether the bundle was whole.
        """
        stream_time = TOO_LATE if late else ON_TIME
        if path.exists():
            data = path.read_bytes()
            version = version_of(path, changed, stream_time, data)
        else:
            gone = InvalidImage(
                ImageFile(str(path), 8, stream_time, changed), "read_failed", "gone"
            )
            version = Version(invalid=replace(gone, camera=CAMERA, timestamp=TIME))

        def arrives() -> Iterator[Any]:
            if version.judged is not None:
                stores.write_bytes(stores.validated_uri(str(self.output), CAMERA, path.name), data)
            yield from self.resolve.process((key_of(version), version), self.state, self.timer)

        return self._bundle(arrives(), crash_after)

    def plans_of(self, path: Path, changed: float) -> list[Plan]:
        """What is to be done when a file comes, with its image stored already."""
        data = path.read_bytes()
        stores.write_bytes(stores.validated_uri(str(self.output), CAMERA, path.name), data)
        version = version_of(path, changed, ON_TIME, data)
        outputs = self.resolve.process((key_of(version), version), self.state, self.timer)
        return [one.value for one in outputs if getattr(one, "tag", "") == PLANS]

    def timer_comes(self, crash_after: int | None = None) -> bool:
        """Event time goes on, beyond the allowed lateness."""
        self.timer.at = None
        if self._bundle(self.resolve.forget(self.state, self.timer) or (), crash_after):
            return True
        self.timer.at = TIME
        return False

    def timers_come(self) -> None:
        """As long as there are any."""
        while self.timer.at is not None:
            self.timer_comes()

    def comes(self, path: Path, changed: float, late: bool) -> None:
        """The file is handed on, and event time goes on."""
        self.look(path, changed, late)
        if late:
            self.timers_come()

    @contextmanager
    def lost(self) -> Iterator[None]:
        """What is done meanwhile is lost, but for what it writes."""
        before = self.state.kept, self.timer.at, self.counts.copy(), list(self.told)
        yield
        self.state.kept, self.timer.at, self.counts, self.told = before
        self.start_worker()

    def _bundle(self, outputs: Iterable[Any], crash_after: int | None) -> bool:
        before, counts, told = self.state.kept, self.counts.copy(), list(self.told)
        writes = 0

        def write(uri, *args, do=stores.write_chunks):
            nonlocal writes
            if writes == crash_after:
                raise CrashError
            writes += 1
            do(uri, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stores, "write_chunks", write)
            try:
                for one in outputs:
                    self._take(one)
            except CrashError:
                self.state.kept, self.counts, self.told = before, counts, told
                self.start_worker()
                return False
        return True

    def _take(self, one: Any) -> None:
        if isinstance(one, JudgedImage):
            self.told.append(one.image.sha256)
        elif one.tag == COUNTED:
            self.counts.update({k: v for k, v in one.value.tally.items() if k != "by_label"})
        elif one.tag == PLANS:
            self.store.work(one.value)


def is_alert(data: bytes) -> bool:
    return ("person", "alert") in CONTENTS[data]


def best_of(contents: Iterable[bytes]) -> bytes | None:
    """The twin's rule of who stands."""

    def rank(data: bytes) -> tuple[int, float, str]:
        severity = {severity for _, severity in CONTENTS[data]}
        of = 2 if "alert" in severity else 1 if severity else 0
        return -of, -0.9 if severity else 0.0, hashlib.sha256(data).hexdigest()

    valid = (data for data in contents if not isinstance(CONTENTS[data], str))
    return min(valid, key=rank, default=None)


def check_repositories(
    stream: Stream | Batch, files: dict[Path, bytes], taken: Collection[bytes] = ()
) -> None:
    """The twin: what the repositories must hold for these files.

    Args:
      stream: What has stored.
      files: The newest bytes of each file.
      taken: Bytes of files that are gone, while other bytes have come under their name: they may
        be kept nowhere any more.
    """
    valid = {path: data for path, data in files.items() if not isinstance(CONTENTS[data], str)}

    output = tree(Path(stream.output))
    final = {name: json.loads(data) for name, data in output.items() if name.startswith("final/")}
    best = best_of(valid.values())
    assert [record["sha256"] for record in final.values()] == (
        [hashlib.sha256(best).hexdigest()] if best is not None else []
    )
    for name, record in final.items():
        assert files[Path(record["uri"])] == best
        assert name == f"final/{CAMERA}/{Path(record['file']).stem}.json"
        without = {key: value for key, value in record.items() if key != "threat"}
        assert json.loads(output[f"detections/{CAMERA}/{Path(name).name}"]) == without
    kept = {name: data for name, data in output.items() if name.startswith("validated/")}
    if kept or best not in taken:
        assert kept == {f"validated/{CAMERA}/{record['file']}": best for record in final.values()}
    assert sum(name.startswith("detections/") for name in output) == len(final)
    wanted = {("duplicate", data) for data in valid.values() if data != best}
    wanted |= {
        (CONTENTS[data], data, path.name) for path, data in files.items() if path not in valid
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
            ("duplicate", data) if is_duplicate else (record["reason"], data, record["file"])
        )
        labels = [one["label"] for one in record.get("detections", [])]
        assert labels == ([label for label, _ in CONTENTS[data]] if is_duplicate else [])
    assert sorted(shown, key=repr) == sorted(wanted, key=repr)
    copies = Counter(
        data
        for name, data in output.items()
        if name.startswith("invalid/") and not name.endswith(".json")
    )
    due = Counter(one[1] for one in wanted)
    assert copies <= due
    assert due - copies <= Counter({data: due[data] for data in taken})


CRASHES = st.lists(st.integers(0, 9), max_size=2)
PLACES = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(NAMES))
ANY_CONTENT = st.sampled_from(sorted(CONTENTS))


class Arrivals(RuleBasedStateMachine):
    """Files of one capture time come, change, move, come again, before their window is closed and
    after it; workers die at any write."""

    @initialize(late=st.booleans())
    def begin(self, late: bool) -> None:
        self.top = Path(tempfile.mkdtemp())
        self.stream = Stream(self.top)
        self.is_late = late
        self.counted_alerts: int | None = None
        self.files: dict[Path, bytes] = {}
        self.changed: dict[Path, float] = {}
        self.gone: set[Path] = set()
        self.overwritten: set[bytes] = set()

    def teardown(self) -> None:
        if hasattr(self, "top"):
            self.stream.resolve.teardown()
            shutil.rmtree(self.top)

    def _hand_on(self, path: Path, crashes: Iterable[int] = ()) -> None:
        for after in crashes:
            if self.stream.look(path, self.changed[path], self.is_late, after) and self.is_late:
                self.stream.timer_comes(after)
        self.stream.look(path, self.changed[path], self.is_late)
        self._let_timers_come()

    def _let_timers_come(self) -> None:
        if self.is_late:
            self.stream.timers_come()

    def _put(self, place: tuple[str, str], data: bytes) -> Path:
        path = self.stream.put(*place, data)
        self._is_there(path, data)
        return path

    def _is_there(self, path: Path, data: bytes) -> None:
        self.overwritten |= {
            old for one, old in self.files.items() if one.name == path.name and old != data
        }
        self.files[path], self.changed[path] = data, self.stream.clock
        self.gone.discard(path)

    @rule(place=PLACES, data=ANY_CONTENT, crashes=CRASHES)
    def a_file_comes_or_changes(self, place, data, crashes) -> None:
        self._hand_on(self._put(place, data), crashes)

    @rule(place=PLACES, before=ANY_CONTENT, data=ANY_CONTENT, after=st.integers(0, 9))
    def a_bundle_fails_and_finds_the_file_changed(self, place, before, data, after) -> None:
        path = self.stream.put(*place, before)
        if self.stream.look(path, self.stream.clock, self.is_late, after):
            self._is_there(path, before)
            self._let_timers_come()
        self._hand_on(self._put(place, data))

    @rule(first=PLACES, second=PLACES, one=ANY_CONTENT, other=ANY_CONTENT)
    def two_files_come_at_once(self, first, second, one, other) -> None:
        for place, data in ((first, one), (second, other)):
            path = self._put(place, data)
            self.stream.look(path, self.changed[path], self.is_late)
        self._let_timers_come()

    @rule(data=st.data(), crashes=CRASHES)
    def a_file_is_handed_on_again(self, data, crashes) -> None:
        if here := sorted(self.files.keys() - self.gone):
            told = list(self.stream.told)
            self._hand_on(data.draw(st.sampled_from(here)), crashes)
            again = self.stream.told[len(told) :]
            assert set(again) <= (set(told[-1:]) if self.is_late else set())

    @rule(place=PLACES, data=ANY_CONTENT)
    def a_checkpoint_is_gone_back_to(self, place, data) -> None:
        """All was done of a file, and is done again: what was counted and told is lost."""
        path = self._put(place, data)
        with self.stream.lost():
            self._hand_on(path)
        self._hand_on(path)

    @rule(data=st.data(), crashes=CRASHES)
    def a_file_cannot_be_read_for_once(self, data, crashes) -> None:
        if here := sorted(self.files.keys() - self.gone):
            path = data.draw(st.sampled_from(here))
            away = path.rename(path.with_suffix(".away"))
            self._hand_on(path, crashes)
            away.rename(path)

    @rule(data=st.data(), crashes=CRASHES)
    def a_file_moves(self, data, crashes) -> None:
        """To another folder, with the folder that it is in."""
        if here := sorted(self.files.keys() - self.gone):
            path = data.draw(st.sampled_from(here))
            path.unlink()
            self.gone.add(path)
            self._hand_on(self._put(("moved", path.name), self.files[path]), crashes)

    @rule(data=st.data())
    def a_file_is_deleted(self, data) -> None:
        if here := sorted(self.files.keys() - self.gone):
            path = data.draw(st.sampled_from(here))
            path.unlink()
            self.gone.add(path)

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
        here = {data for path, data in self.files.items() if path not in self.gone}
        taken = self.overwritten - here
        check_repositories(self.stream, self.files, taken)

    @invariant()
    def the_image_that_stands_is_counted_once_and_told_of(self) -> None:
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
            assert self.stream.told[-1] == hashlib.sha256(best).hexdigest()


Arrivals.TestCase.settings = search(150, stateful_step_count=8)
TestTheRepositoriesHoldWhatTheFilesShow = pytest.mark.search(Arrivals.TestCase)


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_is_gone_keeps_the_verdict_that_it_has(tmp_path, late):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.comes(path, 1.0, late)
    stored = tree(stream.output)
    path.unlink()
    stream.comes(path, 2.0, late)
    assert tree(stream.output) == stored
    assert len(set(stream.told)) == 1
    assert stream.counts["images"] == (0 if late else 1)


def test_a_file_that_is_gone_when_its_bundle_is_tried_again_is_counted_and_told_of(tmp_path):
    """The bundle had stored the verdict; what it had counted and told was lost with its state."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, False)
    stored = tree(stream.output)
    stream.state.clear()
    stream.counts.clear()
    stream.told.clear()
    stream.start_worker()
    path.unlink()
    stream.look(path, 1.0, False)
    assert tree(stream.output) == stored
    assert stream.counts["images"] == stream.counts["alerts"] == 1
    assert stream.told == [hashlib.sha256(b"person 1").hexdigest()]


def test_a_file_that_is_gone_before_it_was_judged_is_recorded(tmp_path):
    stream = Stream(tmp_path)
    stream.look(stream.input / "a" / NAMES[0], 1.0, False)
    assert list(tree(stream.output)) == [f"invalid/read_failed/{NAMES[0]}.json"]


def test_a_model_that_fails_on_the_same_bytes_takes_back_no_verdict(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, False)
    known = stream.state.read()
    sha256 = hashlib.sha256(b"person 1").hexdigest()
    file = ImageFile(str(path), 8, ON_TIME, 1.0)
    failed = InvalidImage(file, "inference_failed", "out of memory", sha256=sha256)
    failed = replace(failed, camera=CAMERA, timestamp=TIME)
    assert add_version(known, Version(invalid=failed)) == (known, None)
    first, _ = add_version(CaptureTime(), Version(invalid=failed))
    then, change = add_version(first, known.versions[str(path)])
    assert then.stands == str(path)
    assert [reason for _, reason in change.retracted] == ["inference_failed"]


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def finals(stream: Stream) -> dict[str, str]:
    """The sha256 of each verdict, by the file's name."""
    found = (json.loads(path.read_text()) for path in stream.output.glob("final/*/*.json"))
    return {one["file"]: one["sha256"] for one in found}


@pytest.mark.parametrize("counted", [False, True])
def test_a_late_copy_under_another_name_is_the_image_that_is_there(tmp_path, counted):
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"person 1"), 1.0, late=not counted)
    stream.timers_come()
    for name in (NAMES[1], NAMES[1], NAMES[2]):
        stream.comes(stream.put("b", name, b"person 1"), stream.clock, late=True)
    assert finals(stream) == {NAMES[0]: sha256_of(b"person 1")}
    assert set(stream.told) == {sha256_of(b"person 1")}
    assert stream.counts["images"] == counted
    assert len(list(stream.output.glob("late/*/*.json"))) == (not counted)


def test_of_late_files_under_several_names_the_most_severe_stands_and_the_next_one_after_it(
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


def test_the_copy_of_a_record_that_a_crash_left_without_it_is_deleted(tmp_path):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"")
    assert not stream.look(path, 1.0, late=False, crash_after=1)
    assert list(tree(stream.output)) == [f"invalid/empty_file/{NAMES[0]}"]
    stream.look(stream.put("a", NAMES[0], b"dog"), 2.0, late=False)
    check_repositories(stream, {path: b"dog"})


def test_what_a_crash_left_of_a_file_that_repeats_another_is_deleted(tmp_path):
    stream = Stream(tmp_path)
    first = stream.put("a", NAMES[0], b"dog")
    stream.look(first, 1.0, late=False)
    second = stream.put("b", NAMES[1], b"half")
    assert not stream.look(second, 2.0, late=False, crash_after=3)
    stream.look(stream.put("b", NAMES[1], b"dog"), 3.0, late=False)
    check_repositories(stream, {first: b"dog", second: b"dog"})


@pytest.mark.parametrize("others", [(), ((NAMES[0], b"dog"), (NAMES[2], b"person 1"))])
def test_a_late_invalid_file_is_recorded_once_for_all_of_its_name_and_bytes(tmp_path, others):
    stream = Stream(tmp_path)
    files = {}
    for folder, name, data in (
        ("a", NAMES[1], b"half"),
        *(("a", *one) for one in others),
        ("b", NAMES[1], b"half"),
    ):
        path = stream.put(folder, name, data)
        files[path] = data
        stream.comes(path, stream.clock, late=True)
    check_repositories(stream, files)


def test_a_file_that_comes_in_the_wake_of_another_one_has_no_record_of_its_older_version_left(
    tmp_path,
):
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"half")
    stream.comes(path, 1.0, late=True)
    other = stream.put("a", NAMES[1], b"dog")
    stream.look(other, 2.0, late=True)
    stream.comes(stream.put("a", NAMES[0], b"person 1"), 3.0, late=True)
    check_repositories(stream, {path: b"person 1", other: b"dog"})


@pytest.mark.parametrize("crash_after", range(9))
def test_a_late_alert_is_told_of_though_its_bundle_has_failed(tmp_path, crash_after):
    stream = Stream(tmp_path)
    stream.comes(stream.put("a", NAMES[0], b"dog"), 1.0, late=True)
    path = stream.put("b", NAMES[1], b"person 1")
    stream.look(path, 2.0, late=True, crash_after=crash_after)
    stream.look(path, 2.0, late=True)
    stream.timer_comes(crash_after)
    stream.timers_come()
    assert list(dict.fromkeys(stream.told)) == [sha256_of(b"dog"), sha256_of(b"person 1")]


def test_a_file_that_was_moved_is_restored_from_where_it_is_now(tmp_path):
    """Another file of its name was written over the copy of the one that stands."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    stream.look(path, 1.0, late=False)
    path.unlink()
    moved = stream.put("moved", NAMES[0], b"person 1")
    stream.look(moved, 2.0, late=False)
    other = stream.put("b", NAMES[0], b"nothing 1")
    stream.look(other, 3.0, late=False)
    check_repositories(stream, {path: b"person 1", moved: b"person 1", other: b"nothing 1"})


def test_an_input_that_is_away_is_not_taken_for_files_that_are_gone(tmp_path):
    """The copies in `validated/` and `invalid/` are made when it is there again."""
    stream = Stream(tmp_path)
    first, second = (stream.put(folder, NAMES[0], b"dog") for folder in "ab")
    second.write_bytes(b"person 1")
    stream.look(first, 1.0, late=False)
    plans = stream.plans_of(second, 2.0)
    away = stream.input.rename(tmp_path / "away")
    store = _StorePlan(
        str(stream.output), window_seconds=300, streaming=True, top=str(stream.input)
    )
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
    one = JudgedImage(judged().image, verdict)
    stores.write_bytes(uri, stores.json_bytes(one.to_json()))
    read = read_final(uri)
    assert read is not None
    assert read.to_json() == one.to_json()
    assert read == one


def test_an_alert_is_told_of_after_a_checkpoint_was_gone_back_to(tmp_path):
    """Its verdict is in the output, and the alert may have reached one of its targets only."""
    stream = Stream(tmp_path)
    path = stream.put("a", NAMES[0], b"person 1")
    with stream.lost():
        stream.comes(path, 1.0, late=True)
    stream.comes(path, 1.0, late=True)
    assert stream.told == [sha256_of(b"person 1")]
    check_repositories(stream, {path: b"person 1"})


@pytest.mark.parametrize("late", [False, True])
def test_a_touch_writes_nothing_over_the_image_of_a_file_that_is_gone(tmp_path, late):
    stream = Stream(tmp_path)
    first = stream.put("a", NAMES[0], b"nothing 1")
    stream.comes(first, 1.0, late)
    second = stream.put("b", NAMES[0], b"dog")
    stream.comes(second, 2.0, late)
    second.unlink()
    stream.comes(first, 3.0, late)
    check_repositories(stream, {first: b"nothing 1", second: b"dog"})


class Batch:
    """A batch's steps over a real folder: one run."""

    def __init__(self, output: Path) -> None:
        self.output = str(output)
        self.store = _StorePlan(self.output, window_seconds=300)
        self.store.setup()
        self.store_invalid = _StoreInvalid(self.output, streaming=False, max_copied_bytes=None)
        self.retract = _RetractEarlier(self.output)
        self.counted: list[str] = []

    def run(self, files: dict[Path, bytes]) -> None:
        versions = [version_of(path, 1.0, None, data) for path, data in sorted(files.items())]
        for path, version in zip(sorted(files), versions, strict=True):
            if version.judged is not None:
                place = stores.validated_uri(self.output, CAMERA, path.name)
                stores.write_bytes(place, files[path])
        if len(versions) > 1:
            self._contested(versions)
        elif versions[0].judged is not None:
            self._alone(versions[0].judged)
        else:
            self.store_invalid.work(versions[0].invalid)

    def _contested(self, versions: list[Version]) -> None:
        for one in _ResolveInBatch().process((key_of(versions[0]), versions)):
            if isinstance(one, JudgedImage):
                self.counted.append(one.image.sha256)
            else:
                self.store.work(one.value)

    def _alone(self, judged: JudgedImage) -> None:
        names = self.output, CAMERA, judged.image.stem
        stores.write_bytes(stores.final_uri(*names), stores.json_bytes(judged.to_json()))
        data = stores.json_bytes(judged.image.to_json())
        stores.write_bytes(stores.detections_uri(*names), data)
        self.counted += [one.image.sha256 for one in self.retract.process(judged)]


STATES = st.lists(st.sampled_from(sorted(CONTENTS)), min_size=2, max_size=3)


@pytest.mark.search
@search(300)
@given(files=st.dictionaries(PLACES, STATES, min_size=1, max_size=4))
def test_a_further_run_ends_with_the_tree_of_a_first_one(files):
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for turn in range(3):
            found = {}
            for (place, name), contents in files.items():
                path = top / "in" / place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                found[path] = contents[min(turn, len(contents) - 1)]
                path.write_bytes(found[path])
            again, fresh = Batch(top / "out"), Batch(top / f"fresh-{turn}")
            for batch in (again, fresh):
                batch.run(found)
            assert tree(top / "out") == tree(top / f"fresh-{turn}")
            assert again.counted == fresh.counted
            check_repositories(fresh, found)


def test_a_late_file_that_has_a_verdict_is_not_looked_for_among_invalid_ones(tmp_path, monkeypatch):
    """Its window is forgotten: what is looked up of it costs a request to a store each."""
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
