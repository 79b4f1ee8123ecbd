"""Objects are written, read and listed as local files are, in every store."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from beam_pipeline.sources import buckets
from beam_pipeline.sources.listing import list_images, match_remote
from beam_pipeline.sources.parts import parts_of
from beam_pipeline.sources.watching import KnownFiles, Watcher
from tests.stores.bucket import Bucket
from tests.stores.servers import Proxy, Server
from transforms.storage import stores
from transforms.storage.object_stores import list_some, object_store

Use = Callable[[Server], None]
StandBefore = Callable[[Server], Proxy]


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b not really packed", os.urandom(100_000), os.urandom(9 << 20)],
    ids=["empty", "like gzip", "small", "larger than one request"],
)
def test_what_is_written_is_read_back(bucket: Bucket, use: Use, data: bytes) -> None:
    use(bucket.server)
    uri, copy = bucket.uri("a folder/+ü%20.jpg"), bucket.uri("copies/é.jpg.gz")
    stores.write_bytes(uri, data)
    assert stores.read_bytes(uri) == data
    assert stores.read_bytes(uri, at_most=3) == data[:3]
    assert stores.copy(uri, copy)[1] == len(data)
    assert stores.read_bytes(copy) == data
    stores.delete(uri)
    stores.delete(uri)
    assert bucket.tree("a folder") == {}
    assert bucket.tree("copies") == {"é.jpg.gz": data}
    assert bucket.unfinished_uploads() == []


@pytest.fixture
def no_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store has refused to copy yet."""
    monkeypatch.setattr(stores, "_refused_copies", stores._RefusedCopies())


def test_an_image_is_copied_by_its_store_and_not_uploaded(
    bucket: Bucket, use: Use, proxy: StandBefore, no_refusals: None
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    source, target, data = bucket.uri("in/+ü%20.jpg"), bucket.uri("out/é.jpg"), os.urandom(99_000)
    bucket.put("in/+ü%20.jpg", data)
    for _ in range(2):  # The second one replaces the first.
        stores.write_copy(target, data, source)
    assert bucket.tree("out") == {"é.jpg": data}
    assert before.received < 9_000


@pytest.mark.parametrize("there", [None, b"other bytes"], ids=["gone", "changed"])
def test_the_bytes_that_were_read_are_written_whatever_the_source_is_now(
    bucket: Bucket, use: Use, proxy: StandBefore, no_refusals: None, there: bytes | None
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    if there is not None:
        bucket.put("in/a.jpg", there)
    data = os.urandom(99_000)
    for number in range(5):
        stores.write_copy(bucket.uri(f"out/{number}.jpg"), data, bucket.uri("in/a.jpg"))
    assert bucket.tree("out") == {f"{number}.jpg": data for number in range(5)}
    # After three refusals in a row, the store is not asked again.
    assert before.received >= 5 * 99_000
    uploads = [path for _, path in before.requests if "in/a.jpg" not in path and "4.jpg" in path]
    assert len(uploads) == 1


def test_an_image_from_another_store_is_written(bucket: Bucket, use: Use, tmp_path: Path) -> None:
    use(bucket.server)
    (tmp_path / "a.jpg").write_bytes(b"an image")
    stores.write_copy(bucket.uri("out/a.jpg"), b"an image", str(tmp_path / "a.jpg"))
    stores.write_copy(str(tmp_path / "b.jpg"), b"an image", bucket.uri("out/a.jpg"))
    assert bucket.tree("out") == {"a.jpg": b"an image"}
    assert (tmp_path / "b.jpg").read_bytes() == b"an image"


SIZES = pytest.mark.parametrize("size", [0, 100, 9 << 20], ids=["empty", "small", "large"])


@SIZES
def test_a_new_object_is_written(bucket: Bucket, use: Use, size: int) -> None:
    use(bucket.server)
    uri, data = bucket.uri("a folder/+ü%20.jpg"), os.urandom(size)
    assert stores.write_if_new(uri, data)
    assert stores.read_bytes(uri) == data


@SIZES
def test_an_object_in_s3_is_written_only_if_it_is_new(
    moto_bucket: Bucket, use: Use, size: int
) -> None:
    """s3proxy ignores the condition."""
    bucket = moto_bucket
    use(bucket.server)
    uri, data = bucket.uri("a folder/+ü%20.jpg"), os.urandom(size)
    assert stores.write_if_new(uri, data)
    for other in (b"other", data):
        assert not stores.write_if_new(uri, other)
        assert stores.read_bytes(uri) == data
    stores.delete(uri)
    assert stores.write_if_new(uri, b"other")
    assert bucket.tree("a folder") == {"+ü%20.jpg": b"other"}


@SIZES
def test_gcs_is_asked_to_write_an_object_only_if_it_is_new(
    gcs_server: Server, tmp_path: Path, use: Use, proxy: StandBefore, size: int
) -> None:
    """The emulator ignores the condition, so that the proxy answers in its place."""
    before = proxy(gcs_server)
    use(before.server)
    uri = Bucket.make(gcs_server, tmp_path.name).uri("one.jpg")
    stores.write_bytes(uri, b"first")
    before.decide = lambda method, path: 412 if "ifGenerationMatch=0" in path else None
    assert not stores.write_if_new(uri, os.urandom(size))
    assert stores.read_bytes(uri) == b"first"


def test_writers_of_one_new_object_do_not_disturb_each_other(bucket: Bucket, use: Use) -> None:
    use(bucket.server)
    uri = bucket.uri("shared.jpg")
    contents = [str(number).encode() * 1000 for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        is_new = list(pool.map(lambda data: stores.write_if_new(uri, data), contents))
    assert stores.read_bytes(uri) in itertools.compress(contents, is_new)


@pytest.mark.parametrize(
    ("status", "is_written"), [(409, False), (412, False), (501, True)], ids=str
)
def test_what_a_store_of_s3s_protocol_says_of_the_condition(
    moto_bucket: Bucket, use: Use, proxy: StandBefore, status: int, is_written: bool
) -> None:
    """Of two writers at once, one is told of a conflict; some stores know no conditions."""
    before = proxy(moto_bucket.server)
    use(before.server)
    asked = itertools.count()
    before.decide = lambda method, path: status if next(asked) == 0 else None
    uri = moto_bucket.uri("one.jpg")
    assert stores.write_if_new(uri, b"x") == is_written
    assert stores.read_if_there(uri) == (b"x" if is_written else None)


def test_a_new_object_that_can_not_be_written_is_an_error(
    bucket: Bucket, use: Use, proxy: StandBefore
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        stores.write_if_new(f"{bucket.server.scheme}://no-such-bucket-here/x", b"x")
    before.decide = lambda method, path: 403
    with pytest.raises(PermissionError, match="the store refuses access"):
        stores.write_if_new(bucket.uri("one.jpg"), b"")


def test_names_are_found_by_what_they_begin_with(bucket: Bucket, use: Use) -> None:
    use(bucket.server)
    for name in ("hall_2026-01-31T10:00:00Z.json", "hall_2026.json", "hall_2025.json"):
        stores.write_bytes(bucket.uri(f"final/hall/{name}"), b"")
    stores.write_bytes(bucket.uri("final/hall/hall_2026/deeper.json"), b"")
    found = stores.names_with_prefix(bucket.uri("final/hall"), ["hall_2026", "hall_1"])
    assert found == ["hall_2026-01-31T10:00:00Z.json", "hall_2026.json"]
    assert stores.names_with_prefix(bucket.uri("final/hall"), ["gate"]) == []


def test_a_listing_has_many_pages(bucket: Bucket, use: Use) -> None:
    use(bucket.server)
    # S3 gives a thousand names a page; the emulator of GCS is slow to take so many.
    count = 1010 if bucket.server.scheme == "s3" else 110
    names = [f"cameras/{number:04}_20260131T235959Z.jpg" for number in range(count)]
    store = object_store(bucket.uri())
    assert store is not None
    with ThreadPoolExecutor(8) as pool:
        for name in (*names, "cameras-of-others/1_20260131T235959Z.jpg"):
            pool.submit(store.write, bucket.uri(name), b"x", "image/jpeg")
    found = list(list_images(bucket.uri("cameras")))
    assert [file.uri for file in found] == [bucket.uri(name) for name in names]
    assert {file.size_bytes for file in found} == {1}
    (file,) = list_images(bucket.uri(names[7]))
    assert file.uri == bucket.uri(names[7])
    assert len(list(list_images(bucket.uri("cameras/00?[13579]_*")))) == 50
    assert len(list(list_images(bucket.uri()))) == count + 1
    assert list(list_images(bucket.uri("camera"))) == []


def test_a_watched_object_is_handed_on_once_in_each_version(bucket: Bucket, use: Use) -> None:
    use(bucket.server)
    known = KnownFiles()
    for number in range(4):  # Of one size, and in the same second, which is all that S3 tells.
        stores.write_bytes(bucket.uri("cameras/1.jpg"), str(number).encode())
        for expected in ([bucket.uri("cameras/1.jpg")], []):
            look = Watcher(bucket.uri("cameras")).poll(known)
            assert [file.uri for file in look.ready] == expected
            known = look.known
    stores.write_bytes(bucket.uri("cameras/2.jpg"), b"")
    assert [file.uri for file in Watcher(bucket.uri("cameras")).poll(known).ready] == [
        bucket.uri("cameras/2.jpg")
    ]


def test_old_names_are_listed_again_only_by_a_full_listing(
    bucket: Bucket, use: Use, proxy: StandBefore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    monkeypatch.setattr(buckets, "SKIPPED_NAMES", 3)
    written = datetime.now(timezone.utc)

    def put(camera: str, second: float, end: str = "é.jpg") -> str:
        uri = bucket.uri(f"in/{camera}_{written + timedelta(seconds=second):%Y%m%dT%H%M%SZ}{end}")
        stores.write_bytes(uri, b"x")
        return uri

    there = {put(camera, second) for camera in ("gate", "hall") for second in range(4)}
    now = written.timestamp() + 7200
    watcher = Watcher(bucket.uri("in"), clock=lambda: now)
    look = watcher.poll(KnownFiles())
    assert {file.uri for file in look.ready} == there
    assert watcher.poll(look.known).ready == []
    new = [put("gate", 60), put("hall", 60)]
    before.requests.clear()
    look = watcher.poll(look.known)
    assert [file.uri for file in look.ready] == new
    if bucket.server.scheme == "s3":  # The emulator of GCS does not list from a name on.
        assert len(before.requests) == 3
    late = put("gate", 2, "-late.jpg")
    assert watcher.poll(look.known).ready == [] or bucket.server.scheme == "gs"
    now += 600
    assert late in [file.uri for file in watcher.poll(look.known).ready]


NAMES = [
    *("a-b/1", "a/1", "a/2", "a/deep/er/3", "b/1", "b/x y+é%20.jpg", "c", "d.jpg", "é/1"),
    "+ü%20.jpg",
]


def test_the_parts_of_an_input_are_all_of_it_and_each_object_is_in_one(
    bucket: Bucket, use: Use
) -> None:
    use(bucket.server)
    for name in (*NAMES, "others/1"):
        bucket.put(f"in/{name}" if name in NAMES else name, b"")
    for source in ("in", "in/", "in/*/**", "in/[ab]*/*", "in/c", "in/a"):
        whole = [file.path for file in match_remote(bucket.uri(source))]
        assert whole
        for number in (2, 3):
            parts = [
                [file.path for file in match_remote(bucket.uri(source), part)]
                for part in parts_of(number)
            ]
            assert all(part == sorted(part) for part in parts)
            assert sorted(itertools.chain(*parts)) == whole


def test_some_names_are_listed_from_an_address_on(moto_bucket: Bucket, use: Use) -> None:
    """The emulator of GCS does not list from a name on."""
    bucket = moto_bucket
    use(bucket.server)
    for name in NAMES:
        bucket.put(f"in/{name}", b"")
    store, base = object_store(bucket.uri()), bucket.uri("in/")
    assert store is not None
    there = sorted(base + name for name in NAMES)
    for after in (*there, *(address + "!" for address in there), base, base + "a/"):
        found = [file.path for file in list_some(store, base, lambda name: name != "c", after)]
        assert found == [one for one in there if one > after and one != base + "c"], after


def test_what_is_not_there_and_what_is_refused_are_told_apart(
    bucket: Bucket, use: Use, proxy: StandBefore
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    uri = bucket.uri("one.jpg")
    with pytest.raises(FileNotFoundError, match=r"one\.jpg: not there"):
        stores.read_bytes(uri)
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        stores.write_bytes(f"{bucket.server.scheme}://no-such-bucket-here/x", b"x")
    before.decide = lambda method, path: 403
    for attempt in (
        lambda: stores.read_bytes(uri),
        lambda: stores.write_bytes(uri, b""),
        lambda: stores.list_beneath(bucket.uri()),
    ):
        with pytest.raises(PermissionError, match="the store refuses access"):
            attempt()


def test_a_store_that_is_too_busy_at_times_is_asked_again(
    bucket: Bucket, use: Use, proxy: StandBefore
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    asked = itertools.count(1)
    before.decide = lambda method, path: 503 if next(asked) % 3 == 0 else None
    for number in range(6):
        stores.write_bytes(bucket.uri(f"{number}.json"), b"x" * number)
        assert stores.read_bytes(bucket.uri(f"{number}.json")) == b"x" * number
    assert len(stores.list_beneath(bucket.uri())) == 6
    assert before.refused >= 4
