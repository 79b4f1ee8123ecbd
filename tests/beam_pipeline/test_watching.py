"""What the watching source takes for new, for whole, and for seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import watching
from beam_pipeline.endless import EndlessTracker
from beam_pipeline.watching import Listed, Seen, _LocalFolders, _SeenCoder, choose

NOW = 1_770_000_000.0


def look(
    seen: Seen,
    listed: Iterable[Listed],
    *,
    now: float = NOW,
    settle: float = 1.0,
    overlap: float = 120.0,
    most: int = 2000,
) -> tuple[list[str], Seen, bool]:
    ready, after, more = choose(seen, listed, now=now, settle=settle, overlap=overlap, most=most)
    return [one.uri for one in ready], after, more


def file(name: str, *, age: float, size: int = 1, now: float = NOW) -> Listed:
    return Listed(f"/in/{name}", size, now - age)


def test_a_file_is_handed_on_once() -> None:
    files = [file("a", age=50), file("b", age=5)]
    first, seen, _ = look(Seen(), files)
    assert first == ["/in/a", "/in/b"]
    assert look(seen, files)[0] == []


def test_what_was_there_before_the_job_is_handed_on_however_old() -> None:
    assert look(Seen(), [file("a", age=10 * 365 * 86400), file("b", age=5)])[0] == [
        *("/in/a", "/in/b")
    ]


def test_a_file_that_is_being_written_is_left_until_it_rests() -> None:
    ready, seen, _ = look(Seen(), [file("a", age=0.2, size=10)])
    assert ready == []
    grown = Listed("/in/a", 20, NOW + 0.5)
    ready, seen, _ = look(seen, [grown], now=NOW + 0.8)
    assert ready == []
    ready, seen, _ = look(seen, [grown], now=NOW + 1.6)
    assert ready == ["/in/a"]


def test_a_file_that_rests_long_while_it_is_written_is_not_lost() -> None:
    """It is handed on half, and again when the rest has come."""
    half = file("a", age=2, size=10)
    ready, seen, _ = look(Seen(), [half])
    assert ready == ["/in/a"]
    whole = Listed("/in/a", 20, NOW + 3)
    assert look(seen, [whole], now=NOW + 5)[0] == ["/in/a"]


@pytest.mark.parametrize("name", [".a.jpg.x7", "a.jpg.part", "a.jpg.TMP", "a.jpg~"])
def test_a_name_of_an_unfinished_file_is_left_for_an_hour(name: str) -> None:
    written = file(name, age=60)
    ready, seen, _ = look(Seen(), [written])
    assert ready == []
    moved = Listed("/in/a.jpg", 1, NOW + 1)  # A rename moves the time of change on.
    assert look(seen, [moved], now=NOW + 3)[0] == ["/in/a.jpg"]
    handed_on = []
    for at in range(1, 3800, 10):
        other = Listed(f"/in/{at}", 1, NOW + at)
        ready, seen, _ = look(seen, [written, other], now=other.changed + 2)
        handed_on += [at for uri in ready if uri == f"/in/{name}"]
    assert handed_on == [3541]


def test_a_clock_of_a_file_server_that_runs_ahead_hides_nothing() -> None:
    ahead = Listed("/in/ahead", 1, NOW + 500)
    ready, seen, _ = look(Seen(), [ahead])
    assert ready == []  # Whether it rests shows at the next look only.
    ready, seen, _ = look(seen, [ahead, file("b", age=3)], now=NOW + 1)
    assert ready == ["/in/b", "/in/ahead"]
    assert look(seen, [ahead, Listed("/in/c", 1, NOW - 30)], now=NOW + 2)[0] == ["/in/c"]


def test_a_file_that_shows_late_within_the_overlap_is_news() -> None:
    _, seen, _ = look(Seen(), [file("a", age=2)])
    assert look(seen, [file("late", age=100)])[0] == ["/in/late"]


def test_many_are_handed_on_in_parts_and_none_is_lost() -> None:
    files = [file(str(at), age=3 + at // 7) for at in range(1000)]
    seen, found, more, looks = Seen(), [], True, 0
    while more:
        ready, seen, more = look(seen, files, most=64)
        found += ready
        looks += 1
    assert sorted(found) == sorted(one.uri for one in files)
    assert looks == 16


def test_what_is_remembered_follows_the_rate_and_not_the_history() -> None:
    def size_after(pictures: int) -> int:
        seen = Seen()
        for at in range(pictures):
            one = Listed(f"/in/{at}", 1, NOW + at)
            ready, seen, _ = look(seen, [one], now=NOW + at + 2)
            assert ready == [one.uri]
        return len(_SeenCoder().encode(seen))

    assert size_after(5000) <= 1.05 * size_after(500)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100, allow_nan=False), st.floats(0, 30), st.floats(0, 5), st.booleans()
        ),
        max_size=40,
    )
)
def test_every_version_that_rests_is_handed_on_exactly_once(
    plan: list[tuple[float, float, float, bool]],
) -> None:
    """Files that appear at any time, seen up to 30 s late, are each handed on once."""
    files = [
        (Listed(f"/in/{at}", 1, NOW + appears), appears + shown_after)
        for at, (appears, shown_after, _, _) in enumerate(plan)
    ]
    seen = Seen()
    found: list[str] = []
    for second in range(0, 200, 2):
        shown = [one for one, at in files if at <= second]
        ready, seen, _ = look(seen, shown, now=NOW + second)
        found += ready
    assert sorted(found) == sorted(one.uri for one, _ in files)


def names(folders: _LocalFolders, now: float) -> set[str]:
    return {Path(one.uri).name for one in folders.list(now)}


def test_a_folder_is_watched_with_all_beneath_it(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a.jpg").write_bytes(b"1")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    folders = _LocalFolders(str(tmp_path))
    (found,) = folders.list(NOW)
    assert (found.uri, found.size_bytes) == (str(tmp_path / "day" / "a.jpg"), 1)
    (tmp_path / "b.jpg").write_bytes(b"")
    assert names(folders, NOW) == {"a.jpg", "b.jpg"}


def test_a_folder_that_is_moved_in_brings_its_old_files(tmp_path: Path) -> None:
    source, outside = tmp_path / "in", tmp_path / "outside"
    for folder in (source, outside / "deep"):
        folder.mkdir(parents=True)
    (source / "first.jpg").write_bytes(b"")
    (outside / "deep" / "old.jpg").write_bytes(b"")
    folders = _LocalFolders(str(source))
    now = os.stat(source / "first.jpg").st_ctime + 1000  # As if all were that old.
    ready, seen, _ = look(Seen(newest=now), folders.list(now), now=now)
    assert ready == []
    outside.rename(source / "day")
    moved = str(source / "day" / "deep" / "old.jpg")
    ready, seen, _ = look(seen, folders.list(now + 5), now=now + 5)
    assert ready == []
    ready, seen, _ = look(seen, folders.list(now + 7), now=now + 7)
    assert ready == [moved]
    assert look(seen, folders.list(now + 9), now=now + 9)[0] == []


def test_a_link_to_a_folder_is_not_followed_round_and_round(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "round").symlink_to(tmp_path)
    assert [one.uri for one in _LocalFolders(str(tmp_path)).list(NOW)] == [str(tmp_path / "a.jpg")]


def test_a_folder_that_may_not_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        """As root may read all, this stands for the kernel."""
        if path == str(tmp_path / "locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(watching.os, "scandir", refuse)
    folders = _LocalFolders(str(tmp_path))
    assert [names(folders, NOW) for _ in range(2)] == [{"a.jpg"}] * 2
    assert [one.getMessage() for one in caplog.records] == [
        f"{tmp_path / 'locked'} can't be listed: Permission denied"
    ]


def test_a_glob_chooses_and_an_input_that_goes_comes_back(tmp_path: Path) -> None:
    folders = _LocalFolders(str(tmp_path / "in" / "*.jpg"))
    assert names(folders, NOW) == set()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"")
    (tmp_path / "in" / "a.txt").write_bytes(b"")
    assert names(folders, NOW) == {"a.jpg"}


def test_folders_long_unchanged_are_passed_over_but_not_what_is_new_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / f"{folder.name}.jpg").write_bytes(b"")
    folders = _LocalFolders(str(tmp_path))
    now = os.stat(old).st_mtime
    assert names(folders, now) == {"old.jpg", "new.jpg"}
    os.utime(old, (now - 7200, now - 7200))
    assert names(folders, now) == {"old.jpg", "new.jpg"}  # Its time is another one: looked into.
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(
        watching.os, "scandir", lambda path: (scanned.append(path), scandir(path))[1]
    )
    assert names(folders, now) == {"new.jpg"}
    assert str(old) not in scanned
    (old / "more.jpg").write_bytes(b"")
    assert names(folders, now) == {"old.jpg", "more.jpg", "new.jpg"}


@pytest.mark.parametrize(
    "seen",
    [
        None,
        Seen(),
        Seen(NOW + 1 / 3, ((NOW, b"12345678"), (0.1, b"\0" * 8)), (("/in/a", b"x", NOW),)),
    ],
)
def test_what_is_remembered_survives_a_checkpoint(seen: Seen | None) -> None:
    coder = _SeenCoder()
    assert coder.decode(coder.encode(seen)) == seen


def test_a_file_takes_sixteen_bytes_of_a_checkpoint() -> None:
    lately = tuple((NOW + at, b"12345678") for at in range(1000))
    assert len(_SeenCoder().encode(Seen(NOW, lately))) < 1000 * 16 + 200


def test_a_claim_after_the_runner_has_split_is_refused() -> None:
    tracker = EndlessTracker(Seen())
    later = Seen(newest=5.0)
    assert tracker.try_split(0.5) is None
    assert tracker.try_claim(later)
    assert tracker.try_split(0) == (None, later)
    assert not tracker.try_claim(Seen(newest=6.0))
    tracker.check_done()
    assert not tracker.is_bounded()
