"""Which names of a bucket are left out of a listing, and when what is new there is found.

A state machine keeps a bucket in memory and looks at it as the stream does: every version is
emitted exactly once in what the runner keeps, within ten minutes, and at the next look if it is a
picture of the last hour, however a fleet writes its names, and whether the bucket is watched as a
whole or in parts. No look at a whole takes more requests than a full listing.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from beam_pipeline.sources import buckets
from beam_pipeline.sources.buckets import QuietRange, quiet_ranges
from beam_pipeline.sources.listed_files import ListedFile, ListedFiles
from beam_pipeline.sources.parts import WHOLE, Part, parts_of
from beam_pipeline.sources.watching import KNOWN_FILES_CODER, KnownFiles, Watcher
from tests.beam_pipeline.simulated_bucket import BUCKET as TOP
from tests.beam_pipeline.simulated_bucket import SimulatedBucket, use_bucket
from tests.search import search
from transforms.storage.object_stores import ObjectMetadata


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> SimulatedBucket:
    simulated = SimulatedBucket()
    use_bucket(simulated, monkeypatch)
    return simulated


class Stream:
    """A worker that looks at a bucket, and the state that its runner keeps."""

    def __init__(self, bucket: SimulatedBucket) -> None:
        self.bucket = bucket
        self.known: KnownFiles = KnownFiles()
        self.watcher = Watcher(TOP, clock=lambda: bucket.now)

    def look(self, after: float = 5.0) -> list[str]:
        """The names that are emitted after a while until nothing is left."""
        self.bucket.now += after
        self.bucket.requests = 0
        found, more = [], True
        while more:
            result = self.watcher.poll(self.known)
            self.known, more = result.known, result.has_more
            found += [file.uri.removeprefix(f"{TOP}/") for file in result.ready]
        return found


def ranges_of(objects: list[ObjectMetadata], now: float) -> list[QuietRange]:
    files = ListedFiles()
    for one in objects:
        file = ListedFile(one.path, one.size_in_bytes, one.last_updated_in_seconds, b"12345678")
        files.append(file)
    return quiet_ranges(files, f"{TOP}/", now)


def picture(camera: str, at: float) -> str:
    return f"{camera}_{datetime.fromtimestamp(at, timezone.utc):%Y%m%dT%H%M%SZ}.jpg"


def fill_days(bucket: SimulatedBucket, days: int, each: int) -> None:
    """Days up to today with pictures of one camera a few seconds apart, as they were written."""
    for day in range(days, -1, -1):
        for number in range(each):
            age = day * 86400.0 + 7200 - number
            at = datetime.fromtimestamp(bucket.now - age, timezone.utc)
            bucket.put(f"{at:%Y/%m/%d}/{picture('hall', bucket.now - age)}", age)


def test_days_that_are_over_are_not_listed_again(bucket: SimulatedBucket) -> None:
    fill_days(bucket, days=20, each=400)
    stream = Stream(bucket)
    assert len(stream.look()) == 8400
    assert stream.look() == []
    assert bucket.requests == 10  # One to see whether there is an object of that name.
    for _ in range(50):
        assert stream.look() == []
        assert bucket.requests == 2
    bucket.put(name := "2026/01/31/" + picture("gate", bucket.now))
    assert stream.look() == [name]
    assert bucket.requests == 2


def test_pictures_of_an_hour_ago_are_not_listed_again_in_a_flat_bucket(
    bucket: SimulatedBucket,
) -> None:
    for camera in ("gate", "hall", "yard"):
        for number in range(5000):
            age = 3700.0 + number
            bucket.put(picture(camera, bucket.now - age), age)
    stream = Stream(bucket)
    assert len(stream.look()) == 15_000
    assert stream.look() == []
    for _ in range(3):
        assert stream.look() == []
        assert bucket.requests == 4
    for camera in ("aisle", "gate", "garage", "hall", "yard", "zoo"):
        bucket.put(name := picture(camera, bucket.now))
        assert stream.look() == [name]


@pytest.mark.parametrize("source", [f"{TOP}/a", f"{TOP}/[a]*", f"{TOP}/*.jpg", TOP])
def test_parts_find_what_the_whole_finds_of_an_object_with_the_name_of_a_folder(
    source: str, bucket: SimulatedBucket
) -> None:
    for name in ("a", "a/1.jpg", "b.jpg", "[a]*/2.jpg"):
        bucket.put(name)
    whole = [file.uri for file in Watcher(source).poll(KnownFiles()).ready]
    looks = [Watcher(source, part=part).poll(KnownFiles()) for part in parts_of(5)]
    assert sorted(file.uri for look in looks for file in look.ready) == sorted(whole)


def test_an_object_that_comes_late_is_found_within_ten_minutes(bucket: SimulatedBucket) -> None:
    fill_days(bucket, days=10, each=400)
    stream = Stream(bucket)
    stream.look()
    stream.look()
    name = "2026/01/25/late.jpg"
    bucket.put(name)
    overwritten = sorted(bucket.objects)[7].removeprefix(f"{TOP}/")
    bucket.put(overwritten)
    assert stream.look() == []
    assert stream.look(after=590) == []
    assert sorted(stream.look(after=10)) == [overwritten, name]
    assert stream.look() == []


def test_a_worker_that_remembers_more_than_the_state_lists_all(bucket: SimulatedBucket) -> None:
    fill_days(bucket, days=10, each=400)
    stream = Stream(bucket)
    empty = stream.known
    assert len(stream.look()) == 4400
    assert stream.look() == []
    assert stream.look() == []
    stream.known = empty
    assert len(stream.look()) == 4400


def test_a_store_that_does_not_list_from_a_name_on_is_listed_wholly(
    bucket: SimulatedBucket,
) -> None:
    bucket.lists_after = False
    fill_days(bucket, days=10, each=400)
    stream = Stream(bucket)
    assert len(stream.look()) == 4400
    stream.look()
    for _ in range(3):
        bucket.put(name := "2026/01/25/" + picture("late", bucket.now))
        assert stream.look() == [name]
    assert bucket.requests == 6


@pytest.mark.parametrize(
    "names",
    [
        # A day that is no day of the year, and digits that are no day.
        [f"2026/02/31/{number:04}.jpg" for number in range(3000)],
        [f"cam{number:04}/0.jpg" for number in range(3000)],
        # A day that is not over everywhere.
        [f"2026/01/30/{number:04}.jpg" for number in range(3000)],
        # Cameras with numbers like days, whose pictures say no time.
        [f"cam-20200101/{number:04}.jpg" for number in range(3000)],
        # A picture that is to be taken in an hour.
        [f"hall_20260131T13{number // 60:02}{number % 60:02}Z.jpg" for number in range(3000)],
    ],
)
def test_names_that_tell_no_order_are_listed_each_time(
    names: list[str], bucket: SimulatedBucket
) -> None:
    files = [bucket.put(name, age=20_000) for name in names]
    assert ranges_of(files, bucket.now) == []


@pytest.mark.parametrize(
    "form",
    [
        "2026/01/{}/{:04}.jpg",
        "year=2026/month=01/day={}/{:04}.jpg",
        "hall/2026-01-{}/{:04}.jpg",
        "hall/202601{}/{:04}.jpg",
        "hall_202601{}_no{:04}.jpg",
    ],
)
def test_days_are_read_in_many_forms(form: str, bucket: SimulatedBucket) -> None:
    files = [
        bucket.put(form.format(day, number), age=(31 - day) * 86400.0)
        for day in range(20, 32)
        for number in range(150)
    ]
    assert ranges_of(files, bucket.now) == [
        QuietRange(f"{TOP}/{form.format(20, 0)}", f"{TOP}/{form.format(29, 149)}")
    ]


def test_days_to_which_old_pictures_are_copied_are_listed_each_time(
    bucket: SimulatedBucket,
) -> None:
    files = [bucket.put(f"2026/01/02/{number:04}.jpg", age=28 * 86400) for number in range(2000)]
    assert len(ranges_of(files, bucket.now)) == 1
    files.append(bucket.put("2026/01/02/9999.jpg", age=60))
    assert ranges_of(files, bucket.now) == []
    files[-1] = bucket.put("2026/01/02/9999.jpg", age=7200)
    assert ranges_of(files, bucket.now) == []


_CAMERAS = st.sampled_from(["a", "b", "c20200102", "20200103"])
_PICK = st.integers(0, 1000)
_HASTY = {"SKIPPED_NAMES": 2}
_USUAL = {name: getattr(buckets, name) for name in _HASTY}
_FORMS = (
    "{camera}_{time:%Y%m%dT%H%M%SZ}-{number}.jpg",
    "{time:%Y/%m/%d}/{camera}_{time:%Y%m%dT%H%M%SZ}-{number}.jpg",
    "{time:%Y/%m/%d}/{camera}/{time:%H%M}-{number}.jpg",
    "{time:%Y/%m/%d/%H}/{mixed}-{camera}.jpg",
    "{camera}/{time:%Y-%m-%d}/{mixed}.jpg",
    "{camera}/{time:%Y-%m-%d_%H-%M-%S}-{mixed}.jpg",
    "year={time:%Y}/month={time:%m}/day={time:%d}/{camera}-{mixed}.jpg",
    "{time:%Y%m%d%H%M%S}_{camera}-{mixed}.jpg",
    "{camera}/{mixed}.jpg",
)


class Watched(RuleBasedStateMachine):
    """A bucket as a whole or in parts, their workers, and a runner that keeps their states."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.bucket = SimulatedBucket(page=3)
        use_bucket(self.bucket, self.patch)
        for name, value in _HASTY.items():
            self.patch.setattr(buckets, name, value)
        self.parts = [WHOLE]
        self.kept: list[tuple[dict[Part, bytes], list[str]]] = []
        self.number = 0
        self.in_time: set[str] = set()
        self.form = _FORMS[0]
        self.hours = 0
        self.new_worker()

    @initialize(
        form=st.sampled_from(_FORMS),
        hours=st.sampled_from([-11, 0, 14]),
        parts=st.sampled_from([1, 1, 2, 3]),
    )
    def begin(self, form: str, hours: int, parts: int) -> None:
        self.form, self.hours = form, hours
        self.parts = parts_of(parts)
        self.kept = [(dict.fromkeys(self.parts, KNOWN_FILES_CODER.encode(KnownFiles())), [])]
        self.new_worker()

    # The worker and its runner.

    @rule()
    def new_worker(self) -> None:
        self.watchers = {
            part: Watcher(TOP, part=part, max_files=3, clock=lambda: self.bucket.now)
            for part in self.parts
        }

    @rule(pick=_PICK, same_worker=st.booleans())
    def crash(self, pick: int, same_worker: bool) -> None:
        del self.kept[pick % len(self.kept) + 1 :]
        if not same_worker:
            self.new_worker()

    @rule()
    def look(self) -> None:
        for part, watcher in self.watchers.items():
            more = True
            while more:
                encoded, emitted = self.kept[-1]
                known = KNOWN_FILES_CODER.decode(encoded[part])
                assert known is not None
                self.bucket.requests = 0
                result = watcher.poll(known)
                if part == WHOLE:
                    assert self.bucket.requests <= 1 + max(1, -(-len(self.bucket.objects) // 3))
                tags = {file.path: file.tag for file in self.bucket.objects.values()}
                emitted = [*emitted, *(tags[file.uri] for file in result.ready)]
                self.kept.append(
                    ({**encoded, part: KNOWN_FILES_CODER.encode(result.known)}, emitted)
                )
                more = result.has_more
        emitted = self.kept[-1][1]
        twice = {tag for tag, times in Counter(emitted).items() if times > 1}
        assert not twice, f"emitted twice: {twice}"
        for file in self.bucket.objects.values():
            if file.tag not in emitted:
                assert file.tag not in self.in_time, f"not found at once: {file.path}"
                written_ago = self.bucket.now - file.last_updated_in_seconds
                assert written_ago < 600, f"not found for {written_ago} s: {file.path}"

    @rule(seconds=st.sampled_from([5.0, 65.0, 595.0, 601.0, 3700.0, 40_000.0, 90_000.0, 300_000.0]))
    def pass_time(self, seconds: float) -> None:
        self.bucket.now += seconds

    # What happens to objects.

    def _put(self, camera: str, age: float) -> ObjectMetadata:
        self.number += 1
        clock = datetime.fromtimestamp(self.bucket.now - age, timezone.utc)
        return self.bucket.put(
            self.form.format(
                camera=camera,
                time=clock + timedelta(hours=self.hours),
                number=f"{self.number:04}",
                mixed=f"{self.number * 7919 % 1000:03}",
            )
        )

    @rule(camera=_CAMERAS, age=st.sampled_from([0.0, 1.0, 600.0, 3500.0]), number=st.integers(1, 4))
    def take_pictures(self, camera: str, age: float, number: int) -> None:
        """Pictures of the last hour, by cameras whose clocks are right."""
        for _ in range(number):
            self.in_time.add(self._put(camera, age).tag)

    @rule(
        camera=_CAMERAS,
        age=st.sampled_from([-90_000.0, -7200.0, 7200.0, 90_000.0, 400_000.0, 10**9]),
        number=st.integers(1, 4),
    )
    def upload_others(self, camera: str, age: float, number: int) -> None:
        """Pictures that come late, or of cameras whose clocks are wrong."""
        for _ in range(number):
            self._put(camera, age)

    @rule(name=st.text("a/_2016.\u00e9\U0001f600", min_size=1, max_size=12))
    def put_anything(self, name: str) -> None:
        if not name.endswith("/"):
            self.bucket.put(name)

    @precondition(lambda self: self.bucket.objects)
    @rule(pick=_PICK)
    def overwrite(self, pick: int) -> None:
        uri = sorted(self.bucket.objects)[pick % len(self.bucket.objects)]
        self.bucket.put(uri.removeprefix(f"{TOP}/"))

    @precondition(lambda self: self.bucket.objects)
    @rule(pick=_PICK, number=st.integers(1, 5))
    def delete(self, pick: int, number: int) -> None:
        uris = sorted(self.bucket.objects)
        start = pick % len(uris)
        for uri in uris[start : start + number]:
            del self.bucket.objects[uri]

    def teardown(self) -> None:
        self.patch.undo()


Watched.TestCase.settings = search(1000, stateful_step_count=40)
TestEachObjectIsFoundOnceAndInTime = pytest.mark.search(Watched.TestCase)
