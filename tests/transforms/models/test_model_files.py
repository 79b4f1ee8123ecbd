import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms import memory_store
from tests.transforms.onnx_models import save_with_external_data, save_yolox
from tests.transforms.web_service import status
from transforms.models import model_files
from transforms.models.model_files import (
    ZOO,
    ModelError,
    cache_directory,
    fetch_model,
    model_version,
)

FILES = {
    "saved_model.pb": b"the graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"values" * 1000,
    "assets/é.txt": b"",
}
TFLITE = b"\x1c\0\0\0TFL3 and so on"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "models"
    monkeypatch.setenv("MODEL_CACHE", str(folder))
    return folder


def laid(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def archive(files, mode="w:gz"):
    """The bytes of a `.tar.gz` of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as opened:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return out.getvalue()


def in_folder(folder, files):
    return {f"{folder}/{name}": data for name, data in files.items()}


def sha256sum_of(folder):
    """The version by the tools of a shell."""
    command = (
        "find . -type f | sed 's|^./||' | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum "
        "| sha256sum | cut -c 1-12"
    )
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def version(tmp_path):
    return sha256sum_of(laid(tmp_path / "by_hand", FILES))


def test_a_model_of_a_package_is_found_on_this_machine(tmp_path, monkeypatch, version):
    package = laid(tmp_path / "site-packages" / "of_a_worker", {"__init__.py": b""})
    laid(package / "detector", FILES)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    files = fetch_model("package:of_a_worker/detector", expected_version=version)
    assert files.path == str(package / "detector")
    assert files.info.name == "of_a_worker"


@pytest.mark.parametrize(
    ("layout", "model", "name", "path"),
    [
        pytest.param(FILES, "net", "net", "net", id="a SavedModel"),
        pytest.param(FILES, "net/", "net", "net", id="a slash at the end"),
        pytest.param(in_folder("saved_model", FILES), "net", "net", "net/saved_model", id="zoo"),
        pytest.param(
            in_folder("saved_model", FILES),
            "net/saved_model",
            "net",
            "net/saved_model",
            id="zoo, inner",
        ),
        pytest.param(in_folder("export/1", FILES), "net", "net", "net/export/1", id="deep"),
        pytest.param(
            {**in_folder("saved_model", FILES), "x.tflite": TFLITE},
            "net",
            "net",
            "net/saved_model",
            id="a .tflite beside",
        ),
    ],
)
def test_a_saved_model_is_found_at_or_beneath_a_path(tmp_path, version, layout, model, name, path):
    laid(tmp_path / "net", layout)
    files = fetch_model(str(tmp_path / model) + ("/" if model.endswith("/") else ""))
    assert files.path == str(tmp_path / path)
    assert (files.info.name, files.info.version) == (name, version)


@pytest.mark.parametrize(
    ("file", "model", "name"),
    [
        ("fast.tflite", "fast.tflite", "fast"),
        ("net/fast.tflite", "net", "net"),
        ("net/detect.tflite", "net/detect.tflite", "net"),
        ("net/v2/model.tflite", "net", "net"),
    ],
)
def test_a_tflite_file_is_found_at_or_beneath_a_path(tmp_path, file, model, name):
    laid(tmp_path, {file: TFLITE})
    files = fetch_model(str(tmp_path / model))
    assert files.path == str(tmp_path / file)
    line = f"{hashlib.sha256(TFLITE).hexdigest()}  {os.path.basename(file)}\n"
    assert files.info.name == name
    assert files.info.version == hashlib.sha256(line.encode()).hexdigest()[:12]


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz"])
@pytest.mark.parametrize("folder", ["net/saved_model", "other", "."])
def test_an_archive_is_the_same_model_as_its_files(tmp_path, cache, version, ending, folder):
    packed = tmp_path / f"net{ending}"
    packed.write_bytes(archive(in_folder(folder, FILES)))
    files = fetch_model(str(packed))
    assert (files.info.name, files.info.version) == ("net", version)
    assert model_version(files.path) == version
    assert [path.name for path in cache.iterdir()] == [version]
    assert fetch_model(str(packed)) == files


def test_an_archive_of_a_tflite_file(tmp_path, cache):
    laid(tmp_path, {"plain/net.tflite": TFLITE})
    (tmp_path / "net.tar.gz").write_bytes(archive({"inner/net.tflite": TFLITE}))
    packed, plain = fetch_model(str(tmp_path / "net.tar.gz")), fetch_model(str(tmp_path / "plain"))
    assert packed.info.version == plain.info.version
    assert packed.path == str(cache / packed.info.version / "inner" / "net.tflite")


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_another_file_is_another_version(tmp_path, version, change):
    files = dict(FILES)
    if change == "content":
        files["variables/variables.index"] = b"indeX"
    elif change == "name":
        files["assets/e.txt"] = files.pop("assets/é.txt")
    elif change == "more":
        files["fingerprint.pb"] = b""
    else:
        del files["assets/é.txt"]
    assert model_version(str(laid(tmp_path / "changed", files))) != version


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.md": b""}, "no model in it"),
        ({"a/saved_model.pb": b"", "b/saved_model.pb": b""}, "2 models in it (a, b ...)"),
        ({"a.tflite": b"", "b/c.tflite": b""}, "2 models in it (a.tflite, b/c.tflite ...)"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_none_or_several_models_are_refused(tmp_path, cache, files, message, packed):
    model = laid(tmp_path / "net", files)
    if packed:
        model = tmp_path / "net.tar.gz"
        model.write_bytes(archive(files))
    assert_refused(str(model), message)
    assert_nothing_left(cache)


@pytest.mark.parametrize("model", ["nowhere", "no_such_zoo_model", "gone.tflite", "gone.tar.gz"])
def test_a_model_that_is_nowhere_is_refused(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    assert_refused(
        model, "no such file or directory", "give --model", "efficientdet_d0_coco17_tpu-32"
    )


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "net.h5").write_bytes(b"HDF")
    assert_refused(str(tmp_path / "net.h5"), "no model in it")


def damaged(data):
    return data[:40] + bytes([data[40] ^ 0xFF, data[41] ^ 0xFF]) + data[42:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a text", id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(archive({"saved_model.pb": os.urandom(50_000)})[:20_000], id="cut"),
        pytest.param(damaged(archive({"saved_model.pb": bytes(range(256)) * 99})), id="damaged"),
        pytest.param(
            archive({"saved_model.pb": b"x" * 4000})[:-12] + b"123456789012", id="checksum"
        ),
        pytest.param(archive({"../saved_model.pb": b"x"}), id="parent"),
        pytest.param(archive({"a/../../saved_model.pb": b"x"}), id="parent within"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_refused(tmp_path, cache, data):
    (tmp_path / "net.tar.gz").write_bytes(data)
    assert_refused(str(tmp_path / "net.tar.gz"), "not a .tar.gz that can be unpacked")
    assert_nothing_left(cache)
    assert not (cache.parent / "saved_model.pb").exists()


def test_an_absolute_path_in_an_archive_stays_in_the_cache(tmp_path, cache):
    outside = tmp_path / "outside"
    data = archive({f"{outside}/saved_model.pb": b"x"})
    (tmp_path / "net.tar.gz").write_bytes(data)
    assert fetch_model(str(tmp_path / "net.tar.gz")).path.startswith(str(cache))
    assert not outside.exists()


def test_a_link_out_of_an_archive_is_refused(tmp_path, cache):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as opened:
        link = tarfile.TarInfo("saved_model.pb")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    (tmp_path / "net.tar.gz").write_bytes(out.getvalue())
    assert_refused(str(tmp_path / "net.tar.gz"), "not a .tar.gz that can be unpacked")
    assert_nothing_left(cache)


def assert_refused(model, *messages, **options):
    with pytest.raises(ModelError) as refused:
        fetch_model(model, **options)
    text = str(refused.value)
    assert "\n" not in text
    for message in messages:
        assert message in text, text


def assert_nothing_left(cache):
    assert not cache.exists() or not [path for path in cache.rglob("*") if path.is_file()]


def hostile(*members):
    """An archive of a model, and of members that are written as they are given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as opened:
        for member in members:
            opened.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return out.getvalue()


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    created = tarfile.TarInfo(name)
    created.type, created.linkname, created.size = kind, link, size
    return created


LONG, LINKS = "d" * 247, "/".join("abcdefghijklmnop")
CHAIN = [  # CVE-2025-4517: the path of a link's target is too long to be resolved.
    entry
    for depth, letter in enumerate("abcdefghijklmnop")
    for entry in (
        member("/".join([LONG] * depth + [LONG]), tarfile.DIRTYPE),
        member("/".join([LONG] * depth + [letter]), tarfile.SYMTYPE, LONG),
    )
]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        pytest.param(
            [*CHAIN, member(f"{LINKS}/{254 * 'l'}", tarfile.SYMTYPE, "../" * 16)],
            "is neither a file nor a folder",
            id="chain of links",
        ),
        pytest.param(
            [member("out", tarfile.SYMTYPE, ".."), member("out/victim", size=1)],
            "'out' in it is neither a file nor a folder",
            id="link, then a file through it",
        ),
        pytest.param([member("a", tarfile.LNKTYPE, "../victim")], "neither a file", id="hard link"),
        pytest.param([member("a", tarfile.CHRTYPE)], "neither a file nor a folder", id="device"),
        pytest.param([member("a", tarfile.FIFOTYPE)], "neither a file nor a folder", id="pipe"),
        pytest.param([member("a", size=1), member("a", size=1)], "File exists", id="twice"),
        pytest.param([member("a/../../victim", size=1)], "outside the model", id="parent"),
        pytest.param(
            [member(f"{at}") for at in range(10_001)], "more than 10000 files", id="files"
        ),
    ],
)  # fmt: skip
def test_an_archive_writes_nothing_but_files_of_bounded_size(tmp_path, cache, members, problem):
    cache.parent.mkdir()
    (cache.parent / "victim").write_text("before")
    (tmp_path / "net.tar.gz").write_bytes(hostile(*members))
    assert_refused(str(tmp_path / "net.tar.gz"), "not a .tar.gz that can be unpacked", problem)
    assert_nothing_left(cache)
    assert (cache.parent / "victim").read_text() == "before"


def test_an_archive_that_would_fill_the_disk_is_refused_before_it_does(
    tmp_path, cache, monkeypatch
):
    assert model_files.MAX_MODEL_BYTES == 2_147_483_648
    monkeypatch.setattr(model_files, "MAX_MODEL_BYTES", 2 << 20)
    (tmp_path / "net.tar.gz").write_bytes(
        hostile(*(member(name, size=900 << 10) for name in ("saved_model.pb", "b", "c")))
    )
    written = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(
        shutil, "copyfileobj", lambda *args: (copy(*args), written.append(args[1].tell()))
    )
    assert_refused(str(tmp_path / "net.tar.gz"), "more than 10000 files or 2 MiB in it")
    assert written == [921_600, 921_600]
    assert_nothing_left(cache)


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path, cache):
    header = member("a", tarfile.XHDTYPE, size=3 << 30).tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "net.tar.gz").write_bytes(gzip.compress(header + bytes(1 << 20)))
    assert_refused(str(tmp_path / "net.tar.gz"), "a header in it has 3221225472 bytes")
    assert_nothing_left(cache)


_NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "saved_model.pb", "victim", "\\", "c\0d"]),
    min_size=1,
    max_size=4,
).map("/".join)
_KINDS = st.sampled_from(
    [tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
)


@given(st.lists(st.builds(member, _NAMES, _KINDS, _NAMES, st.integers(0, 3)), max_size=6))
def test_no_archive_changes_anything_outside_the_cache(tmp_path_factory, members):
    top = tmp_path_factory.mktemp("archives")
    (top / "victim").write_text("before")
    (top / "net.tar.gz").write_bytes(hostile(*members))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_CACHE", str(top / "cache"))
        try:
            fetch_model(str(top / "net.tar.gz"))
        except ModelError:
            pass
    assert sorted(path.name for path in top.iterdir()) in (
        ["cache", "net.tar.gz", "victim"],
        ["net.tar.gz", "victim"],
    )
    assert (top / "victim").read_text() == "before"
    assert not [path for path in top.rglob("*") if path.is_symlink()]


# From the zoo.

ZOO_MODEL = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
ARCHIVE = archive(in_folder(f"{ZOO_MODEL}/saved_model", FILES))


@pytest.fixture
def zoo(web, monkeypatch):
    """A server of the zoo's archives."""
    monkeypatch.setenv("MODEL_ZOO_ADDRESS", f"{web.url}/tf2/")
    web.answers = [status(200, ARCHIVE)]
    return web


def test_the_zoo_is_requested_by_https():
    assert model_files.ZOO_ADDRESS == "https://download.tensorflow.org/models/object_detection/tf2"


def test_the_first_download_says_that_its_digest_is_recorded(zoo, capsys):
    fetch_model(ZOO_MODEL)
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    text = f"{ZOO_MODEL}: downloaded; its sha256 is {digest}, recorded now, as none is"
    assert text in capsys.readouterr().err
    fetch_model(ZOO_MODEL)
    assert "sha256" not in capsys.readouterr().err


def test_a_pinned_digest_holds_for_the_first_download(zoo, cache, capsys, monkeypatch):
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    monkeypatch.setattr(model_files, "DIGESTS", {ZOO_MODEL: "0" * 64})
    assert_refused(ZOO_MODEL, f"its sha256 is {digest}, and should be 000", "do not use it")
    assert_nothing_left(cache)
    monkeypatch.setattr(model_files, "DIGESTS", {ZOO_MODEL: digest})
    fetch_model(ZOO_MODEL)
    assert f"its sha256 is {digest}, as pinned in this release" in capsys.readouterr().err


def test_the_zoo_names_each_model_under_its_release():
    assert ZOO[ZOO_MODEL] == "20200711"
    assert ZOO["centernet_hg104_512x512_coco17_tpu-8"] == "20200713"
    assert ZOO["centernet_mobilenetv2fpn_512x512_coco17_od"] == "20210210"
    assert set(ZOO.values()) == {"20200711", "20200713", "20210210"}


def test_the_zoo_is_where_tensorflow_keeps_it(web, cache, monkeypatch):
    """By HTTPS, which this proxy does not carry: nothing leaves this machine."""
    monkeypatch.delenv("MODEL_ZOO_ADDRESS", raising=False)
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, web.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = (
        "https://download.tensorflow.org/models/object_detection/tf2/20200711/"
        "ssd_mobilenet_v2_320x320_coco17_tpu-8.tar.gz"
    )
    with pytest.raises(
        ModelError, match=re.escape(f"{address}: can't be downloaded (OSError: Tunnel")
    ):
        fetch_model("ssd_mobilenet_v2_320x320_coco17_tpu-8")


def test_a_model_of_the_zoo_is_downloaded_once(zoo, cache, version):
    files = fetch_model(ZOO_MODEL)
    assert (files.info.name, files.info.version) == (ZOO_MODEL, version)
    assert files.path.endswith("/saved_model")
    assert [request.path for request in zoo.requests] == [f"/tf2/20200711/{ZOO_MODEL}.tar.gz"]
    recorded = (cache / "zoo" / f"{ZOO_MODEL}.tar.gz.sha256").read_text()
    assert recorded == f"{hashlib.sha256(ARCHIVE).hexdigest()}  {ZOO_MODEL}.tar.gz\n"
    assert fetch_model(ZOO_MODEL) == files
    assert fetch_model(ZOO_MODEL, expected_version=version) == files
    assert len(zoo.requests) == 1


@pytest.mark.parametrize("change", ["archive", "record", "empty record"])
def test_an_archive_that_changed_in_the_cache_is_noticed(zoo, cache, change):
    fetch_model(ZOO_MODEL)
    path = cache / "zoo" / f"{ZOO_MODEL}.tar.gz"
    if change == "archive":
        path.write_bytes(archive(in_folder("saved_model", {**FILES, "added": b""})))
    else:
        path.with_name(f"{path.name}.sha256").write_text("0" * 64 if change == "record" else "")
    assert_refused(ZOO_MODEL, str(path), "is not what was downloaded", "delete both")
    assert len(zoo.requests) == 1


@pytest.mark.parametrize("missing", ["", ".sha256"])
def test_a_download_that_was_not_completed_is_made_again(zoo, cache, missing):
    files = fetch_model(ZOO_MODEL)
    (cache / "zoo" / f"{ZOO_MODEL}.tar.gz{missing}").unlink()
    assert fetch_model(ZOO_MODEL) == files
    assert len(zoo.requests) == 2


def cut_short(handler, request):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(ARCHIVE)))
    handler.end_headers()
    handler.wfile.write(ARCHIVE[: len(ARCHIVE) // 2])
    handler.close_connection = True


def not_at_all(handler, request):
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(status(404), "404", id="404"),
        pytest.param(status(500), "500", id="500"),
        pytest.param(cut_short, "IncompleteRead", id="cut short"),
        pytest.param(not_at_all, "RemoteDisconnected", id="closed"),
    ],
)
def test_a_failed_download_is_one_clear_line_and_leaves_nothing(zoo, cache, answer, message):
    zoo.answers = [answer]
    address = f"{zoo.url}/tf2/20200711/{ZOO_MODEL}.tar.gz"
    assert_refused(ZOO_MODEL, address, "can't be downloaded", message, "give --model")
    assert_nothing_left(cache)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"<html>log in first</html>", id="page"),
        pytest.param(gzip.compress(b"<html>log in first</html>"), id="compressed page"),
        pytest.param(ARCHIVE[:-20], id="without its end"),
        pytest.param(archive({"readme.txt": b"x"}), id="archive without a model"),
    ],
)
def test_a_page_in_place_of_an_archive_is_refused_and_not_kept(zoo, cache, page):
    zoo.answers = [status(200, page), status(200, ARCHIVE)]
    assert_refused(ZOO_MODEL, f"{zoo.url}/tf2/20200711/{ZOO_MODEL}.tar.gz: ")
    assert_nothing_left(cache)
    assert fetch_model(ZOO_MODEL).info.name == ZOO_MODEL


def test_a_refused_connection_is_one_clear_line_and_leaves_nothing(zoo, cache):
    zoo.stop()
    assert_refused(ZOO_MODEL, zoo.url, "can't be downloaded", "refused", "give --model")
    assert_nothing_left(cache)


def test_an_archive_that_a_server_would_unpack_is_requested_unchanged(zoo):
    fetch_model(ZOO_MODEL)
    assert zoo.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_cache_without_permission_is_refused(zoo, cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # To root everything is permitted.
    assert_refused(ZOO_MODEL, str(cache), "can't be written", "MODEL_CACHE")
    assert zoo.requests == []


def test_a_cache_that_is_a_file_is_refused(zoo, cache, tmp_path):
    cache.parent.mkdir()
    cache.write_text("")
    assert_refused(ZOO_MODEL, str(cache), "can't be written", "MODEL_CACHE")
    (tmp_path / "net.tar.gz").write_bytes(archive(FILES))
    assert_refused(str(tmp_path / "net.tar.gz"), str(cache), "can't be written", "MODEL_CACHE")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"MODEL_CACHE": "/m"}, "/m"),
        ({"MODEL_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/beam_pipeline/models"),
        (
            {"MODEL_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"},
            "/h/.cache/beam_pipeline/models",
        ),
    ],
)
def test_where_the_cache_is(monkeypatch, environment, folder):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache_directory()) == folder


# As another machine has seen it.


def test_a_model_of_another_version_than_expected_is_refused(tmp_path, version):
    model = str(laid(tmp_path / "net", FILES))
    assert fetch_model(model, expected_version=version).info.version == version
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"another graph")
    assert_refused(model, "have changed since the job was started", expected_version=version)


def test_the_expected_version_is_read_from_the_cache_if_its_source_is_deleted(tmp_path, version):
    packed = tmp_path / "net.tar.gz"
    packed.write_bytes(archive(FILES))
    files = fetch_model(str(packed))
    packed.unlink()
    assert fetch_model(str(packed), expected_version=version) == files


@pytest.mark.parametrize("again", ["same machine", "expected"])
def test_a_model_that_changed_in_the_cache_is_noticed(tmp_path, cache, version, again):
    packed = tmp_path / "net.tar.gz"
    packed.write_bytes(archive(FILES))
    files = fetch_model(str(packed))
    os.unlink(os.path.join(files.path, "variables", "variables.index"))
    expected = version if again == "expected" else None
    assert_refused(
        str(packed), str(cache / version), "not those that were kept", expected_version=expected
    )


def test_of_two_processes_that_keep_a_model_at_once_both_have_it(tmp_path, cache, monkeypatch):
    packed = tmp_path / "net.tar.gz"
    packed.write_bytes(archive(FILES))
    move = model_files._move_into_cache

    def other_first(scratch, source):
        kept = cache / model_files._find_model(scratch, source).info.version
        monkeypatch.setattr(model_files.Path, "is_dir", is_dir_once(kept, model_files.Path.is_dir))
        shutil.copytree(scratch, kept)
        return move(scratch, source)

    def is_dir_once(kept, is_dir):
        answered = []

        def answer(self):
            if self == kept and not answered:
                answered.append(self)
                return False
            return is_dir(self)

        return answer

    monkeypatch.setattr(model_files, "_move_into_cache", other_first)
    assert fetch_model(str(packed)).path.startswith(str(cache))
    assert not list(cache.glob(".fetching-*"))


# YOLOX, in ONNX.


@pytest.fixture
def yolox(web, monkeypatch, tmp_path):
    """A server of YOLOX's release, which like GitHub's sends to another address, and its file."""
    data = save_yolox(tmp_path / "made.onnx", {}).read_bytes()
    monkeypatch.setenv("MODEL_YOLOX_ADDRESS", f"{web.url}/0.1.1rc0/")
    web.answers = [status(302, location=f"{web.url}/assets/1"), status(200, data)]
    return data


def test_yolox_is_requested_from_its_makers_release():
    assert model_files.YOLOX_ADDRESS == (
        "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
    )
    names = "yolox_nano yolox_tiny yolox_s yolox_m yolox_l yolox_x yolox_darknet"
    assert sorted(model_files.YOLOX) == sorted(names.split())


@pytest.mark.parametrize("name", ["yolox_nano", "yolox_s", "yolox_darknet"])
def test_a_model_of_yolox_is_downloaded_once(web, yolox, cache, capsys, name):
    digest = hashlib.sha256(yolox).hexdigest()
    files = fetch_model(name)
    assert (files.info.name, files.path) == (name, str(cache / "yolox" / f"{name}.onnx"))
    assert (cache / "yolox" / f"{name}.onnx").read_bytes() == yolox
    text = f"{name}: downloaded; its sha256 is {digest}, recorded now, as none is published"
    assert text in capsys.readouterr().err
    assert [request.path for request in web.requests] == [f"/0.1.1rc0/{name}.onnx", "/assets/1"]
    recorded = (cache / "yolox" / f"{name}.onnx.sha256").read_text()
    assert recorded == f"{digest}  {name}.onnx\n"
    assert fetch_model(name) == files
    assert fetch_model(name, expected_version=files.info.version) == files
    assert len(web.requests) == 2
    assert_refused(name, "have changed since the job was started", expected_version="0" * 12)


def test_a_model_of_yolox_that_changed_in_the_cache_is_noticed(web, yolox, cache):
    fetch_model("yolox_s")
    path = cache / "yolox" / "yolox_s.onnx"
    save_yolox(path, {0: [1, 1, 1, 1, 1]})
    assert_refused("yolox_s", str(path), "is not what was downloaded", "delete both")
    assert len(web.requests) == 2


def test_a_model_of_yolox_with_another_digest_than_the_pinned_one_is_refused(
    web, yolox, cache, monkeypatch
):
    monkeypatch.setattr(model_files, "DIGESTS", {"yolox_s": "0" * 64})
    digest = hashlib.sha256(yolox).hexdigest()
    assert_refused("yolox_s", f"its sha256 is {digest}, and should be 000", "do not use it")
    assert_nothing_left(cache)


def test_a_page_in_place_of_the_model_is_refused_and_not_kept(web, yolox, cache):
    web.answers = [status(200, b"<html>log in first</html>"), status(200, yolox)]
    address = f"{web.url}/0.1.1rc0/yolox_s.onnx"
    assert_refused("yolox_s", f"{address}: not an ONNX file, or a damaged one")
    assert_nothing_left(cache)
    assert fetch_model("yolox_s").info.name == "yolox_s"


# ONNX files of the user.


@pytest.mark.parametrize(
    ("file", "model", "name"),
    [
        ("net.onnx", "net.onnx", "net"),
        ("fast/net.onnx", "fast", "fast"),
        ("fast/model.onnx", "fast/model.onnx", "fast"),
    ],
)
def test_an_onnx_file_is_found_at_or_beneath_a_path(tmp_path, file, model, name):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    data = save_yolox(tmp_path / file, {}).read_bytes()
    files = fetch_model(str(tmp_path / model))
    line = f"{hashlib.sha256(data).hexdigest()}  {os.path.basename(file)}\n"
    assert files.path == str(tmp_path / file)
    assert files.info.name == name
    assert files.info.version == hashlib.sha256(line.encode()).hexdigest()[:12]


def test_a_tflite_and_an_onnx_file_are_two_models(tmp_path):
    laid(tmp_path / "net", {"a.tflite": TFLITE})
    save_yolox(tmp_path / "net" / "b.onnx", {})
    assert_refused(str(tmp_path / "net"), "2 models in it (a.tflite, b.onnx ...)")


@pytest.fixture
def split_model(tmp_path):
    """The folder of an ONNX file whose weights are in another file."""
    (tmp_path / "split").mkdir()
    return save_with_external_data(tmp_path / "split" / "net.onnx", "net.onnx.data").parent


def test_weights_in_another_file_are_part_of_the_version(split_model):
    version = sha256sum_of(split_model)
    assert fetch_model(str(split_model)).info.version == version
    assert fetch_model(str(split_model / "net.onnx")).info.version == version
    with (split_model / "net.onnx.data").open("r+b") as weights:
        weights.write(b"\x01")
    assert fetch_model(str(split_model)).info.version != version


def test_weights_that_are_missing_are_named(split_model):
    (split_model / "net.onnx.data").unlink()
    path = str(split_model / "net.onnx")
    assert_refused(path, "its weights are in the file 'net.onnx.data', which is missing; put it")


def test_a_damaged_onnx_file_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"a text")
    assert_refused(str(tmp_path / "net.onnx"), "net.onnx: not an ONNX file, or a damaged one")


# On one of Beam's filesystems.


@pytest.mark.parametrize("model", ["memory://models/net", "memory://models/net/"])
def test_a_remote_model_is_copied_once(memory, cache, version, model):
    memory.update(in_folder("memory://models/net/saved_model", FILES))
    files = fetch_model(model)
    assert (files.info.name, files.info.version) == ("net", version)
    assert files.path == str(cache / version / "saved_model")
    memory.clear()
    assert fetch_model(model, expected_version=version) == files


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("memory://models/net.tar.gz", archive(FILES)),
        ("memory://models/net.tgz", archive(in_folder("saved_model", FILES))),
    ],
)
def test_a_remote_archive_is_unpacked_into_the_cache(memory, cache, version, model, data):
    memory[model] = data
    files = fetch_model(model)
    assert (files.info.name, files.info.version) == ("net", version)
    assert sorted(path.name for path in cache.iterdir()) == [version]


def test_a_remote_tflite_file_is_copied(memory, tmp_path):
    memory["memory://models/net.tflite"] = TFLITE
    laid(tmp_path, {"net.tflite": TFLITE})
    local, remote = (
        fetch_model(str(tmp_path / "net.tflite")),
        fetch_model("memory://models/net.tflite"),
    )
    assert remote.info == local.info


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("memory://models/nothing", "no model in it"),
        ("memory://models/nothing.tflite", "can't be read (StoreError: 404"),
        ("memory://models/net", "can't be read (StoreError: 403"),
        ("nosuchstore://models/net", "can't be read"),
    ],
)
def test_a_remote_model_that_cannot_be_had_is_refused(memory, cache, model, message):
    memory.update(in_folder("memory://models/net", FILES))
    memory_store.UNREADABLE.add("memory://models/net/saved_model.pb")
    assert_refused(model, model, message)
    assert_nothing_left(cache)


def test_a_remote_name_that_leads_out_of_the_model_is_refused(memory, cache):
    memory["memory://models/net/../../saved_model.pb"] = b"x"
    assert_refused("memory://models/net", "would lie outside the model")
    assert_nothing_left(cache)


@pytest.mark.parametrize("model", ["memory://models/split/net.onnx", "memory://models/split"])
def test_a_remote_onnx_file_is_copied_with_its_weights(memory, cache, split_model, model):
    for path in split_model.iterdir():
        memory[f"memory://models/split/{path.name}"] = path.read_bytes()
    files = fetch_model(model)
    assert files.info.version == sha256sum_of(split_model)
    assert files.path == str(cache / files.info.version / "net.onnx")
    assert sorted(path.name for path in (cache / files.info.version).iterdir()) == [
        "net.onnx",
        "net.onnx.data",
    ]


def test_a_remote_onnx_file_without_its_weights_is_refused(memory, cache, split_model):
    model = "memory://models/split/net.onnx"
    memory[model] = (split_model / "net.onnx").read_bytes()
    assert_refused(model, "can't be read (StoreError: 404")
    assert_nothing_left(cache)
