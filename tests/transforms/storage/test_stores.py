import errno
import hashlib
import json
import multiprocessing
import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms import memory_store
from transforms.records.text import printable
from transforms.storage import stores

URI = "/in/a.jpg"


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("data", [b"", b"bytes", bytes(3 << 20)], ids=["empty", "few", "many"])
def test_written_bytes_are_read_back(tmp_path, memory, data):
    for uri in (str(tmp_path / "a" / "b" / "file"), "memory://out/a/b/file"):
        stores.write_bytes(uri, data)
        assert stores.read_bytes(uri) == data
        stores.write_bytes(uri, b"other")
        assert stores.read_bytes(uri) == b"other"
    assert files_in(tmp_path) == ["a", "a/b", "a/b/file"]
    assert list(memory) == ["memory://out/a/b/file"]


@pytest.mark.parametrize("at_most", [0, 3, 5, 9])
def test_no_more_is_read_than_the_limit(tmp_path, memory, at_most):
    for uri in (str(tmp_path / "file"), "memory://out/file"):
        stores.write_bytes(uri, b"bytes")
        assert stores.read_bytes(uri, at_most) == b"bytes"[:at_most]


@pytest.mark.parametrize("name", ["file.gz", "file.bz2", "file.zst"])
def test_bytes_are_never_compressed_or_unpacked_by_a_name(tmp_path, name):
    uri = str(tmp_path / name)
    stores.write_bytes(uri, b"plain")
    assert (tmp_path / name).read_bytes() == b"plain"
    assert stores.read_bytes(uri) == b"plain"


def chunks_that_fail():
    yield b"the first part"
    raise OSError("no more")


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_local_file_appears_whole_or_not_at_all(tmp_path, before):
    target = tmp_path / "out" / "file"
    if before is not None:
        stores.write_bytes(str(target), before)
    with pytest.raises(OSError, match="no more"):
        stores.write_chunks(str(target), chunks_that_fail())
    assert files_in(tmp_path / "out") == ([] if before is None else ["file"])
    assert before is None or target.read_bytes() == before


def test_while_a_local_file_is_written_the_old_one_is_there(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    contents = []

    def chunks():
        yield b"new"
        contents.append(target.read_bytes())

    stores.write_chunks(str(target), chunks())
    assert contents == [b"old"]
    assert target.read_bytes() == b"new"


def test_leftovers_of_a_killed_run_are_overwritten(tmp_path):
    (tmp_path / ".file.partial").write_bytes(b"left behind by a run that was killed")
    stores.write_bytes(str(tmp_path / "file"), b"new")
    assert files_in(tmp_path) == ["file"]


def test_a_target_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):  # noqa: PT011  # Which of them depends on the system.
        stores.write_bytes(str(tmp_path / "folder"), b"x")
    with pytest.raises(OSError):  # noqa: PT011
        stores.write_bytes(str(tmp_path / "file" / "below"), b"x")
    assert files_in(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 7])
def test_a_copy_returns_the_hash_and_size(tmp_path, memory, size):
    data = random.Random(size).randbytes(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    expected = (hashlib.sha256(data).hexdigest(), size)
    assert stores.copy(str(source), "memory://out/copy") == expected
    assert stores.copy("memory://out/copy", str(tmp_path / "copy")) == expected
    assert memory["memory://out/copy"] == (tmp_path / "copy").read_bytes() == data


@pytest.mark.parametrize("target", ["out/copy", "memory://out/copy"])
@pytest.mark.parametrize("broken", ["missing", "unreadable"])
def test_a_copy_that_fails_leaves_nothing(tmp_path, memory, target, broken):
    if broken == "unreadable":
        memory["memory://in/source"] = b"the first part"
        memory_store.UNREADABLE.add("memory://in/source")
    uri = target if "://" in target else str(tmp_path / target)
    with pytest.raises(OSError, match="StoreError"):
        stores.copy("memory://in/source", uri)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert "memory://out/copy" not in memory


@pytest.mark.parametrize(
    ("uri", "number", "kind"),
    [
        ("memory://in/missing", errno.ENOENT, FileNotFoundError),
        ("memory://in/broken", errno.EIO, OSError),
        ("no-such-store://in/file", errno.EINVAL, OSError),
    ],
)
def test_an_error_of_a_store_of_beam_is_an_os_error_with_its_errno(memory, uri, number, kind):
    memory["memory://in/broken"] = b"the first part"
    memory_store.UNREADABLE.add("memory://in/broken")
    with pytest.raises(kind) as raised:
        list(stores.read_chunks(uri))
    assert raised.value.errno == number
    assert str(raised.value).startswith(f"{uri}: ")


@pytest.mark.parametrize(
    ("uri", "local"),
    [("/a/b", True), ("a b", True), ("gs://b/a", False), ("s3://b/a", False), ("a:/b", True)],
)
def test_local_paths_are_recognized(uri, local):
    assert stores.is_local(uri) is local


@pytest.mark.parametrize("output", ["/out", "/out/", "gs://bucket/out", "gs://bucket/out/"])
def test_the_layout_of_the_output(output):
    base = output.rstrip("/")
    window = "20260131T235500Z_20260201T000000Z"
    assert stores.detections_uri(output, "hall", "hall_1") == f"{base}/detections/hall/hall_1.json"
    assert stores.final_uri(output, "hall", "hall_1") == f"{base}/final/hall/hall_1.json"
    assert stores.validated_uri(output, "hall", "x.jpg") == f"{base}/validated/hall/x.jpg"
    assert stores.invalid_uri(output, "bad_name", "x") == f"{base}/invalid/bad_name/x"
    assert stores.alert_uri(output, "hall", "0af") == f"{base}/alerts/hall/0af.json"
    assert stores.counts_uri(output, window, 0, 1) == f"{base}/counts/{window}.jsonl"
    assert stores.counts_uri(output, window, 2, 8) == f"{base}/counts/{window}-2-of-8.jsonl"


def digits(uri):
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:8]


@pytest.mark.parametrize(
    ("name", "stored_name"),
    [
        ("a.jpg", "a.jpg"),
        ("a b_%41.JPG", "a b_%41.JPG"),
        ("häuser\N{SNOWMAN}.png", "häuser\N{SNOWMAN}.png"),
        ("no extension", "no extension"),
        (".hidden", ".hidden"),
        ("a" * 176 + ".jpg", "a" * 176 + ".jpg"),
        ("a\nb.jpg", "a%0Ab-{}.jpg"),
        ("a\x00\x1f\x7f.jpg", "a%00%1F%7F-{}.jpg"),
        ("a\udcff\udc80.jpg", "a%FF%80-{}.jpg"),
        ("a\ud800.jpg", "a%00-{}.jpg"),
        ("\n", "%0A-{}"),
        ("a" * 177 + ".jpg", "a" * 162 + "-{}.jpg"),
        ("a" * 255, "a" * 162 + "-{}"),
        ("é" * 127, "é" * 81 + "-{}"),
        ("a." + "b" * 250, "a." + "b" * 160 + "-{}"),
        (".", "-{}."),
        ("..", ".-{}."),
        (".x.jpg.partial", ".x.jpg-{}.partial"),
    ],
)
def test_a_file_of_any_name_can_be_kept(tmp_path, name, stored_name):
    uri = f"/in/{name}"
    in_store = stores.name_in_store(name, uri, shared=False)
    assert in_store == stored_name.format(digits(uri))
    stores.write_bytes(str(tmp_path / in_store), b"x")
    stores.write_bytes(str(tmp_path / f"{in_store}.json"), b"y")
    assert files_in(tmp_path) == sorted([in_store, f"{in_store}.json"])


@pytest.mark.parametrize(
    ("name", "stored_name"),
    [("a.jpg", "a-{}.jpg"), ("a", "a-{}"), ("a.b.c", "a.b-{}.c"), ("x.jpg.json", "x.jpg-{}.json")],
)
def test_a_shared_name_gets_a_hash_of_the_address(name, stored_name):
    first, second = f"/in/1/{name}", f"/in/2/{name}"
    assert stores.name_in_store(name, first, shared=True) == stored_name.format(digits(first))
    assert stores.name_in_store(name, second, shared=True) == stored_name.format(digits(second))


@given(st.text(st.characters(exclude_characters="/", exclude_categories=()), min_size=1))
def test_a_name_in_the_store_is_short_printable_and_no_folder(name):
    stored_name = stores.name_in_store(name, f"/in/{name}", shared=False)
    assert 0 < len(f".{stored_name}.json.partial".encode()) <= 255
    assert printable(stored_name) == stored_name
    assert "/" not in stored_name
    assert stored_name.strip(".")
    assert os.path.normpath(f"/out/{stored_name}") == f"/out/{stored_name}"


def test_json_is_one_line_with_keys_in_order_and_in_plain_utf_8():
    data = stores.json_bytes({"z": [1, 0.5], "a": {"ü": None}})
    assert data == '{"z":[1,0.5],"a":{"ü":null}}\n'.encode()
    assert list(json.loads(data)) == ["z", "a"]


def test_a_bare_name_is_a_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores.write_bytes("chart.png", b"picture")
    assert (tmp_path / "chart.png").read_bytes() == b"picture"


def test_names_are_listed_by_prefix(tmp_path, memory):
    for folder in (str(tmp_path / "final" / "hall"), "memory://out/final/hall"):
        assert stores.names_with_prefix(folder, ["hall_2026"]) == []
        for name in ("hall_2026.json", "hall_20261.json", "hall_2025.json", "x", "in/hall_2026"):
            stores.write_bytes(stores.join(folder, name), b"")
        assert stores.names_with_prefix(folder, ["hall_2026", "x"]) == [
            "hall_2026.json",
            "hall_20261.json",
            "x",
        ]


def test_deleting_a_missing_file_is_no_error(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    stores.delete(str(tmp_path / "a"))
    stores.delete(str(tmp_path / "a"))
    assert not list(tmp_path.iterdir())


def _write_often(folder, letter):
    for _ in range(300):
        stores.write_bytes(f"{folder}/deep/shared", letter * 50_000)


def test_writers_of_one_file_in_threads_and_processes_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_write_often, args=(tmp_path, letter)) for letter in (b"a", b"b")
    ]
    threads = [
        threading.Thread(target=_write_often, args=(tmp_path, letter)) for letter in (b"c", b"d")
    ]
    for writer in (*processes, *threads):
        writer.start()
    for writer in (*processes, *threads):
        writer.join()
    assert [process.exitcode for process in processes] == [0, 0]
    written = (tmp_path / "deep" / "shared").read_bytes()
    assert len(written) == 50_000
    assert len(set(written)) == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["shared"]


def test_a_file_is_written_only_if_it_is_new(tmp_path, memory):
    for folder in (str(tmp_path / "out"), "memory://out"):
        uri = f"{folder}/deep/hall.jpg"
        assert stores.write_if_new(uri, b"first")
        for data in (b"second", b"first", b""):
            assert not stores.write_if_new(uri, data)
            assert stores.read_bytes(uri) == b"first"
        stores.delete(uri)
        assert stores.write_if_new(uri, b"second")
        assert stores.read_bytes(uri) == b"second"
    assert files_in(tmp_path) == ["out", "out/deep", "out/deep/hall.jpg"]
    assert list(memory) == ["memory://out/deep/hall.jpg"]


def test_a_new_file_that_can_not_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError, match="file"):
        stores.write_if_new(str(tmp_path / "file" / "below"), b"x")


def _write_each_if_new(folder, letter):
    written = [stores.write_if_new(f"{folder}/{number}", letter * 50_000) for number in range(200)]
    stores.write_bytes(
        f"{folder}/written by {letter.decode()}",
        " ".join(str(number) for number, is_new in enumerate(written) if is_new).encode(),
    )


def test_of_several_writers_in_threads_and_processes_one_makes_a_new_file(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_write_each_if_new, args=(tmp_path, letter))
        for letter in (b"a", b"b")
    ]
    threads = [
        threading.Thread(target=_write_each_if_new, args=(tmp_path, letter))
        for letter in (b"c", b"d")
    ]
    for writer in (*processes, *threads):
        writer.start()
    for writer in (*processes, *threads):
        writer.join()
    assert [process.exitcode for process in processes] == [0, 0]
    makers = {}
    for letter in "abcd":
        for number in (tmp_path / f"written by {letter}").read_text().split():
            assert makers.setdefault(number, letter) == letter
    assert len(makers) == 200
    for number, letter in makers.items():
        assert (tmp_path / number).read_text() == letter * 50_000
    assert not list(tmp_path.glob(".*"))


def test_leftovers_of_a_killed_writer_are_overwritten(tmp_path):
    (tmp_path / ".a.partial").write_bytes(b"half of something longer")
    stores.write_bytes(str(tmp_path / "a"), b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"whole"}


@pytest.mark.timeout(20)
def test_a_temporary_file_that_is_a_link_to_nowhere_is_an_error_and_not_opened_forever(tmp_path):
    (tmp_path / ".a.partial").symlink_to(tmp_path / "gone" / "a")
    with pytest.raises(FileNotFoundError):
        stores.write_bytes(str(tmp_path / "a"), b"whole")


@pytest.mark.parametrize(
    "read", [stores.read_bytes, lambda path: b"".join(stores.read_chunks(path))]
)
def test_a_named_pipe_in_a_files_place_is_an_error_and_is_not_waited_for(tmp_path, read):
    pipe = tmp_path / "hall_20260131T120000Z.jpg"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is no regular file"):
        read(str(pipe))
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "nowhere"))


def test_files_one_folder_deep_are_listed_with_size_and_time(tmp_path, memory):
    for base in (str(tmp_path / "out"), "memory://out"):
        assert list(stores.list_one_deep(base)) == []
        for name in ("b/2.json", "b/10.json", "a/1.json", "top.json", "a/deep/3.json"):
            stores.write_bytes(f"{base}/{name}", b"four")
        stores.write_bytes(f"{base}/a/.1.json.partial", b"x")
        found = list(stores.list_one_deep(f"{base}/"))
        assert sorted(file.path for file in found) == [
            f"{base}/{name}" for name in ("a/1.json", "b/10.json", "b/2.json")
        ]
        assert {file.size_in_bytes for file in found} == {4}
    os.utime(tmp_path / "out" / "a" / "1.json", (1000, 1000))
    (file, *_) = stores.list_one_deep(str(tmp_path / "out"))
    assert file.last_updated_in_seconds == 1000


def test_a_local_folder_that_can_not_be_listed_is_an_error(tmp_path, monkeypatch):
    stores.write_bytes(str(tmp_path / "a" / "1.json"), b"x")
    stores.write_bytes(str(tmp_path / "b" / "2.json"), b"x")
    really = os.scandir

    def scandir(path):
        if path == str(tmp_path / "b"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        list(stores.list_one_deep(str(tmp_path)))


@pytest.mark.parametrize("pattern", ["nothing", "[ab]*"])
def test_an_address_without_a_folder_matches_what_is_there(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stores.match(pattern) == []
