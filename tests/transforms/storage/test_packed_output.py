"""Packed outputs: which rows stand, and files that are torn, merged or renamed meanwhile."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from tests.transforms.results import MODEL, judged
from transforms.records.images import ImageFile, ModelInfo, NamedFile
from transforms.storage import packed_output, stores
from transforms.storage.packed import KeptCopies, write_packed
from transforms.storage.packed_output import (
    EarlierRows,
    TornFileError,
    find_image,
    is_packed,
    list_files,
    merge_by_day,
    newest_image,
    period_name,
    read_file,
    read_output,
    write_file,
)
from transforms.storage.packed_rows import PackedRow, Rows
from transforms.validate_image import EarlierRun

TEN = datetime(2026, 1, 31, 10, tzinfo=timezone.utc)
WINDOW = timedelta(minutes=5)


def row_at(minute: int, camera: str = "hall", severity: str | None = None, **others: object):
    threats = [("person", severity)] if severity else []
    found = judged(camera, f"2026-01-31T10:{minute:02}:00Z", threats)  # type: ignore[arg-type]
    threat = found.to_json()["threat"]
    row = PackedRow(found.image, {**threat, "threats": list(threat["threats"])})
    return replace(row, **others)  # type: ignore[arg-type]


def put(output: Path, minute: int, *rows: PackedRow) -> str:
    start = TEN + minute // 5 * WINDOW
    period = period_name(start, start + WINDOW)
    uri = write_file(stores.packed_folder(str(output)), period, rows)
    assert uri is not None
    return uri


ROWS = [
    row_at(minute, severity=severity, generation=generation, is_retracted=is_retracted)
    for minute in (0, 1)
    for severity in (None, "detection", "alert")
    for generation in (0, 1)
    for is_retracted in (False, True)
]
ROWS += [
    replace(row, image=replace(row.image, sha256=letter * 64, uri=f"/elsewhere/{letter}"))
    for row in ROWS
    for letter in "0f"
]


HALL = [
    row_at(minute, severity=severity, generation=generation, is_retracted=is_retracted)
    for minute in (1, 6)
    for severity, generation, is_retracted in (
        (None, 0, False),
        ("alert", 0, False),
        (None, 1, True),
        (None, 2, False),
    )
]


@pytest.mark.search
@search(200)
@given(st.lists(st.sampled_from(ROWS), max_size=12), st.randoms(use_true_random=False))
def test_the_same_rows_stand_in_whatever_groups_they_are_merged(
    rows: list[PackedRow], random
) -> None:
    def standing(*groups: list[PackedRow]) -> list[PackedRow]:
        merged = Rows()
        for group in groups:
            merged.add(group)
        return list(merged)

    expected = standing(rows)
    again = rows + random.choices(rows, k=len(rows)) if rows else []
    random.shuffle(again)
    cut = random.randint(0, len(again))
    parts = standing(again[:cut]), standing(again[cut:])
    assert standing(*parts) == expected
    assert {(row.image.id, row.image.timestamp) for row in rows} == {
        (row.image.id, row.image.timestamp) for row in expected
    }


@pytest.mark.parametrize(
    ("stands", "falls"),
    [
        (row_at(0, generation=1), row_at(0, severity="alert")),
        (row_at(0, generation=10), row_at(0, generation=9)),
        (row_at(0, generation=1, is_retracted=True), row_at(0, severity="alert")),
        (row_at(0), row_at(0, severity="alert", is_retracted=True)),
        (row_at(0, severity="alert"), row_at(0, severity="detection")),
        (row_at(0, severity="detection"), row_at(0)),
    ],
)
def test_which_of_two_rows_stands(stands: PackedRow, falls: PackedRow) -> None:
    for order in ([stands, falls], [falls, stands]):
        rows = Rows()
        rows.add(order)
        assert list(rows) == [stands]
        assert rows.get("hall", "2026-01-31T10:00:00Z") == stands
    assert rows.get("gate", "2026-01-31T10:00:00Z") is None


def test_one_that_no_cooldown_suppresses_stands_then_the_score_then_the_smaller_sha256() -> None:
    sent = row_at(0, severity="alert")
    assert sent.threat is not None
    suppressed = replace(sent, threat={**sent.threat, "suppressed_by": "0" * 32})
    (threat,) = sent.threat["threats"]
    surer = replace(sent, threat={**sent.threat, "threats": [{**threat, "conf": 0.95}]})
    other = replace(sent, image=replace(sent.image, sha256="4" * 64))
    for stands, falls in ((sent, suppressed), (surer, other), (other, sent)):
        for order in ([stands, falls], [falls, stands]):
            rows = Rows()
            rows.add(order)
            assert list(rows) == [stands]


def test_rows_are_read_as_they_were_written_by_camera_and_time(tmp_path: Path) -> None:
    rows = [row_at(1, "gate"), row_at(0), row_at(1, severity="alert", generation=3),
            row_at(2, is_retracted=True)]  # fmt: skip
    uri = put(tmp_path, 0, *rows)
    assert list(read_file(uri)) == rows
    assert put(tmp_path, 0, *rows) == uri
    assert put(tmp_path, 0, *rows[1:]) != uri
    assert write_file(str(tmp_path), None, []) is None
    file = list_files(str(tmp_path))[0]
    assert (file.start, file.end) == (TEN, TEN + WINDOW)
    read = read_output(str(tmp_path), [])
    assert [row.image.timestamp for row in read.of_camera("hall")] == [
        f"2026-01-31T10:0{minute}:00Z" for minute in (0, 1, 2)
    ]
    later = read.of_camera("hall", TEN + timedelta(minutes=1), TEN + timedelta(minutes=2))
    assert list(later) == [rows[2]]


def test_the_rows_of_one_camera_are_read_without_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_output, "ROWS_A_GROUP", 3)
    rows = [row_at(minute, camera) for camera in ("a", "b", "hall") for minute in range(4)]
    uri = put(tmp_path, 0, *rows)
    for at, camera in enumerate(("a", "b", "hall")):
        assert list(read_file(uri, camera)) == rows[4 * at : 4 * at + 4]
    for camera in ("A", "gate", "z"):
        assert list(read_file(uri, camera)) == []
    assert list(read_output(str(tmp_path), [], id="b")) == rows[4:8]


def test_many_rows_are_in_the_order_of_time(tmp_path: Path) -> None:
    minutes = [(minute * 7) % 60 for minute in range(60)]
    rows = Rows()
    for camera in ("a", "b", "c", "d", "e", "f", "g"):
        rows.add(row_at(minute, camera) for minute in minutes)
    uri = write_file(str(tmp_path), None, rows)
    assert uri is not None
    found = [(row.image.id, row.image.timestamp) for row in read_file(uri)]
    assert len(found) == 7 * 60
    assert found == sorted(found)


def test_a_file_that_is_merged_while_others_are_read_is_read_where_its_rows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in (0, 5, 10):
        put(tmp_path, minute, row_at(minute))
    read = packed_output.read_file
    uris: list[str] = []

    def merging(uri: str, *how: object):
        uris.append(uri)
        if len(uris) == 2:
            with monkeypatch.context() as patch:
                patch.setattr(packed_output, "read_file", read)
                merge_by_day(str(tmp_path))
        yield from read(uri, *how)

    monkeypatch.setattr(packed_output, "read_file", merging)
    problems: list[tuple[str, str]] = []
    rows = read_output(str(tmp_path), problems)
    assert [row.image.timestamp[14:16] for row in rows] == ["00", "05", "10"]
    assert problems == []
    assert len(list_files(str(tmp_path))) == 1


def test_files_that_are_torn_or_of_others_are_named(tmp_path: Path) -> None:
    uri = put(tmp_path, 0, row_at(0))
    data = Path(uri).read_bytes()
    put(tmp_path, 5, row_at(5))
    folder = tmp_path / "packed"
    for name, content in (("half", data[: len(data) // 2]), ("empty", b""), ("text", b"{}\n" * 99)):
        (folder / f"{name}.parquet").write_bytes(content)
    write_packed(str(folder), "hall", [(row_at(7).image, None)])
    (folder / "notes.txt").write_bytes(b"")
    problems: list[tuple[str, str]] = []
    rows = read_output(str(tmp_path), problems)
    assert len(list(rows)) == 2
    assert sorted(Path(uri).stem for uri, _ in problems) == ["empty", "half", "hall", "text"]
    assert all(len(why.splitlines()) == 1 for _, why in problems)
    with pytest.raises(TornFileError, match="not written by this program"):
        list(read_file(str(folder / "hall.parquet")))
    before = {path.name for path in folder.iterdir()}
    merged = merge_by_day(str(tmp_path))
    assert before - {path.name for path in folder.iterdir()} == {
        Path(uri).name, next(name for name in before if "T100500Z_20260131T101000Z" in name),
    }  # fmt: skip
    assert (merged.files, merged.left) == (6, 5)


def test_a_renamed_file_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    uri = Path(put(tmp_path, 0, row_at(0)))
    uri.rename(uri.with_name("copy.parquet"))
    put(tmp_path, 5, row_at(5))
    assert len(list(read_output(str(tmp_path), [], since=TEN, until=TEN + WINDOW))) == 1
    merge_by_day(str(tmp_path))
    assert uri.with_name("copy.parquet").exists()


@pytest.mark.search
@search(60)
@given(st.lists(st.lists(st.sampled_from(range(len(HALL))), max_size=4), max_size=4))
def test_the_newest_image_is_that_of_all_rows_that_stand(files: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch)
        for numbers in files:
            by_window: dict[int, Rows] = {}
            for row in (HALL[number] for number in numbers):
                window = int(row.image.timestamp[14:16]) // 5
                by_window.setdefault(window, Rows()).add([row])
            for window, rows in by_window.items():
                put(output, window * 5, *rows)
        shown = [row for row in read_output(scratch, []).of_camera("hall") if not row.is_retracted]
        assert newest_image(scratch, "hall") == (shown[-1] if shown else None)


earlier_files = st.tuples(
    st.sampled_from((0, 5, 50)),
    st.sampled_from((None, "alert")),
    st.integers(0, 1),
    st.sampled_from((5, 60, 60 * 24 * 40)),
)


@pytest.mark.search
@search(60)
@given(
    st.lists(earlier_files, min_size=2, max_size=6),
    st.lists(st.sampled_from((0, 5, 50, "merge")), min_size=2, max_size=6),
)
def test_the_rows_of_earlier_runs_are_those_that_stand_whatever_is_merged_meanwhile(
    files: list[tuple[int, str | None, int, int]], steps: list[Any]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for minute, severity, generation, minutes in files:
            start = TEN + timedelta(minutes=minute)
            row = row_at(minute, severity=severity, generation=generation)
            period = period_name(start, start + timedelta(minutes=minutes))
            write_file(stores.packed_folder(scratch), period, [row])
        everything = read_output(scratch, [])
        earlier = EarlierRows(scratch)
        for step in steps:
            if step == "merge":
                merge_by_day(scratch)
            else:
                timestamp = f"2026-01-31T10:{step:02}:00Z"
                assert earlier.get("hall", timestamp) == everything.get("hall", timestamp)


def test_only_the_files_of_a_period_are_read_for_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [put(tmp_path, minute, row_at(minute)) for minute in (0, 5, 50)]
    read = packed_output.read_file
    seen: list[str] = []

    def noting(uri: str, id: str | None = None):
        seen.append(uri)
        yield from read(uri, id)

    monkeypatch.setattr(packed_output, "read_file", noting)
    earlier = EarlierRows(str(tmp_path))
    for minute, files in ((5, [1]), (6, [1]), (30, [1]), (0, [1, 0]), (5, [1, 0])):
        row = earlier.get("hall", f"2026-01-31T10:{minute:02}:00Z")
        assert row == (row_at(minute) if minute in (0, 5) else None)
        assert seen == [uris[at] for at in files]


OTHER_MODEL = replace(MODEL, version="ba9876543210")


def seen_by(model: ModelInfo, sha256: str, row: PackedRow) -> PackedRow:
    return replace(row, image=replace(row.image, model=model, sha256=sha256))


def resumes(output: Path, sha256: str) -> bool:
    """Whether `--resume` knows what the model sees in an image with this hash."""
    earlier = EarlierRun(str(output), MODEL, EarlierRows(str(output)))
    file = ImageFile("hall_2026-01-31T10-00-00Z.jpg", 9)
    return earlier.find_result(NamedFile(file, "hall", "2026-01-31T10:00:00Z"), sha256) is not None


@pytest.mark.search
@search(100)
@given(
    st.lists(
        st.builds(
            seen_by,
            st.sampled_from((MODEL, OTHER_MODEL)),
            st.sampled_from(("5" * 64, "6" * 64)),
            st.sampled_from([row for row in ROWS if row.image.timestamp[14:16] == "00"]),
        ),
        max_size=5,
    ),
    st.integers(0, 5),
)
def test_resume_finds_all_that_killed_runs_have_left(rows: list[PackedRow], judged: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch)
        for row in rows[:judged]:
            put(output, 0, row)
        found = [replace(row, threat=None, generation=0, is_retracted=False)
                 for row in rows[judged:]]  # fmt: skip
        for row in found:
            write_file(stores.packed_detections_folder(scratch), None, [row])
        stands = read_output(scratch, []).get("hall", "2026-01-31T10:00:00Z")
        if stands is not None and not stands.is_retracted:
            found.append(stands)
        for sha256 in ("5" * 64, "6" * 64):
            known = any(row.image.model == MODEL and row.image.sha256 == sha256 for row in found)
            assert resumes(output, sha256) == known


def test_a_verdict_of_another_model_does_not_hide_what_a_killed_run_has_found(
    tmp_path: Path,
) -> None:
    put(tmp_path, 0, seen_by(OTHER_MODEL, "5" * 64, row_at(0, severity="alert", generation=1)))
    folder = stores.packed_detections_folder(str(tmp_path))
    write_file(folder, None, [seen_by(MODEL, "5" * 64, row_at(0, threat=None))])
    assert resumes(tmp_path, "5" * 64)


def test_a_day_of_which_a_file_is_deleted_while_it_is_merged_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [
        put(tmp_path, 0, row_at(0, severity="alert")),
        put(tmp_path, 5, row_at(5)),
        put(tmp_path, 10, row_at(0, generation=1)),
    ]
    read = packed_output.read_file

    def pruning(uri: str, id: str | None = None):
        if uri == uris[1]:
            Path(uris[2]).unlink()
        yield from read(uri, id)

    monkeypatch.setattr(packed_output, "read_file", pruning)
    merge_by_day(str(tmp_path))
    assert [file.uri for file in list_files(str(tmp_path))] == uris[:2]


def test_a_merged_file_is_on_the_disk_before_those_in_it_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {put(tmp_path, minute, row_at(minute)) for minute in (0, 5)}
    synced: list[int] = []
    deleted: dict[str, set[int]] = {}
    fsync, delete = os.fsync, stores.delete

    def noting_sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def noting_delete(uri: str) -> None:
        deleted[uri] = set(synced)
        delete(uri)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(stores, "delete", noting_delete)
    merge_by_day(str(tmp_path))
    (merged,) = list_files(str(tmp_path))
    needed = {os.stat(merged.uri).st_ino, os.stat(tmp_path / "packed").st_ino}
    assert deleted == dict.fromkeys(parts, needed)


@pytest.mark.parametrize("severity", [None, "detection", "alert"])
@pytest.mark.parametrize("minute", range(5))
def test_the_newest_image_is_none_that_was_retracted(
    tmp_path: Path, minute: int, severity: str | None
) -> None:
    put(tmp_path, 0, row_at(minute, severity=severity))
    put(tmp_path, 0, row_at(minute, generation=1, is_retracted=True))
    assert newest_image(str(tmp_path), "hall") is None


def test_one_image_is_found_by_its_name_and_the_newest_of_a_camera(tmp_path: Path) -> None:
    assert not is_packed(str(tmp_path))
    assert newest_image(str(tmp_path), "hall") is None
    put(tmp_path, 0, row_at(0), row_at(1, "gate"))
    put(tmp_path, 5, row_at(5), row_at(6))
    put(tmp_path, 5, row_at(6, generation=1, is_retracted=True))
    put(tmp_path, 10, row_at(10, "gate"))
    assert is_packed(str(tmp_path))
    newest = newest_image(str(tmp_path), "hall")
    assert newest is not None
    assert newest.image.timestamp == "2026-01-31T10:05:00Z"
    found = find_image(str(tmp_path), "hall", "hall_2026-01-31T10-00-00Z")
    assert found == row_at(0)
    for stem in ("hall_20260131T100000Z", "hall_2026-01-31T10-06-00Z", "hall_1", "notes"):
        assert find_image(str(tmp_path), "hall", stem) is None
    torn = tmp_path / "packed" / "20260131T100000Z_20260131T100500Z_0123456789abcdef.parquet"
    torn.write_bytes(b"")
    assert find_image(str(tmp_path), "hall", "hall_2026-01-31T10-00-00Z") == row_at(0)
    with pytest.raises(OSError, match=f"{torn.name}: can't be read"):
        find_image(str(tmp_path), "hall", "hall_2026-01-31T10-02-00Z")


# Copies of files in a store


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes local files for those of a store; the names of those that are copied."""
    names: list[str] = []
    plainly = stores.copy

    def copy(source: str, target: str) -> tuple[str, int]:
        names.append(source.rpartition("/")[2])
        return plainly(source, target)

    monkeypatch.setattr(stores, "is_local", lambda uri: not uri.endswith(".parquet"))
    monkeypatch.setattr(stores, "copy", copy)
    return names


def file_of(folder: Path, digit: str, size: int = 100) -> str:
    path = folder / f"{digit * 16}.parquet"
    path.write_bytes(digit.encode() * size)
    return str(path)


@pytest.mark.search
@search(60)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=12))
def test_copies_are_those_of_their_files_and_never_more_than_are_kept(
    tmp_path_factory: pytest.TempPathFactory, uses: list[tuple[str, bool, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    copied: list[str] = []
    uris = {digit: file_of(folder, digit) for digit in "abcd"}
    plainly = stores.copy

    def copy(source: str, target: str) -> tuple[str, int]:
        copied.append(source)
        return plainly(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "is_local", lambda uri: uri not in uris.values())
        patch.setattr(stores, "copy", copy)
        copies = KeptCopies(250)
        kept: list[str] = []  # The slow twin: those used last, of which two fit.
        for digit, nested, fails in uses:
            before = len(copied)
            with suppress(ValueError), copies(uris[digit]) as path:
                assert Path(path).read_bytes() == digit.encode() * 100
                if nested:
                    with copies(uris[digit]) as again:
                        assert again == path
                if fails:
                    raise ValueError("damaged")
            assert (len(copied) > before) == (digit not in kept)
            others = [one for one in kept if one != digit]
            kept = others[-1:] if nested or not fails else others
            kept += [] if fails else [digit]
            there = [*Path(path).parent.iterdir()]
            assert len(there) == len(kept)
        copies.delete()
        assert not uses or not Path(path).parent.exists()


def test_one_copy_is_made_for_all_who_ask_at_once_and_only_of_files_that_never_change(
    tmp_path: Path, copied: list[str]
) -> None:
    copies = KeptCopies(1000)
    uri = file_of(tmp_path, "a")

    def use(_: int) -> bytes:
        with copies(uri) as path:
            return Path(path).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, range(40))) == {b"a" * 100}
    assert copied == ["a" * 16 + ".parquet"]
    other = tmp_path / "by-hand.parquet"
    for text in ("one", "two"):
        other.write_text(text)
        with copies(str(other)) as path:
            assert Path(path).read_text() == text
    # A file that was damaged is read again; one that is gone leaves nothing.
    with pytest.raises(FileNotFoundError), copies(str(tmp_path / f"{'e' * 16}.parquet")):
        pass
    assert len(copies._copies) == 1
    copies.delete()
