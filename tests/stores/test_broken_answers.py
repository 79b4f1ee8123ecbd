"""Stores whose answers break off or are damaged, and settings without a client: `OSError`s."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.auth.exceptions import DefaultCredentialsError, TransportError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.beam_pipeline.conftest import refused
from tests.stores.servers import KEY_ID, SECRET, Server
from transforms.alerting import signed_links
from transforms.alerting.signed_links import signed_link
from transforms.storage.object_stores import GcsStore, ObjectStore, S3Settings, S3Store

LENGTH = 3 << 20
CONTENT = hashlib.shake_256(b"a picture").digest(LENGTH)


class _Handler(BaseHTTPRequestHandler):
    server: BreakingStore

    def do_GET(self) -> None:
        store = self.server
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        data = CONTENT[begin : int(asked[2]) + 1 if asked and asked[2] else None]
        store.ranges.append(self.headers.get("Range"))
        if self.headers.get("If-Match", store.tag) != store.tag:
            self.send_response(412)
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {begin}-{begin + len(data) - 1}/{LENGTH}")
        self.send_header("ETag", store.tag)
        for name, value in store.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if store.breaks:
            sent = store.breaks.pop(0)
            self.wfile.write(data[:sent])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            store.tag = store.next_tag
            return
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class BreakingStore(ThreadingHTTPServer):
    """A store with one object.

    Attributes:
      breaks: After how many bytes each next answer breaks off; those beyond are whole.
      headers: Further ones of each answer.
      tag: The object's.
      next_tag: The tag once an answer has broken off.
      ranges: What each request asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.begin([])

    def begin(self, breaks: list[int]) -> None:
        self.breaks = breaks
        self.headers: dict[str, str] = {}
        self.tag = self.next_tag = '"1"'
        self.ranges: list[str | None] = []

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def s3(self) -> S3Store:
        return S3Store(
            S3Settings(self.url, "us-east-1", access_key_id=KEY_ID, secret_access_key=SECRET),
            patient=False,
        )


@pytest.fixture(scope="module")
def store() -> Iterator[BreakingStore]:
    with BreakingStore() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def whole(store: ObjectStore, uri: str) -> bytes:
    return b"".join(store.chunks(uri))


# Amazon's.


@settings(max_examples=30, deadline=None)
@given(breaks=st.lists(st.integers(0, LENGTH - 1), max_size=2))
def test_chunks_from_s3_are_the_object_though_two_answers_break_off(
    store: BreakingStore, breaks: list[int]
) -> None:
    store.begin(breaks)
    assert whole(store.s3, "s3://b/x") == CONTENT
    # An answer that goes on may be whole before it would break off.
    assert len(store.ranges) <= 3


def test_chunks_from_s3_go_on_where_the_answer_broke_off(store: BreakingStore) -> None:
    store.begin([LENGTH // 2])
    assert whole(store.s3, "s3://b/x") == CONTENT
    first, second = store.ranges
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= 1 << 20


@pytest.mark.parametrize("read", [whole, lambda store, uri: store.read(uri)])
def test_an_object_of_s3_whose_answers_all_break_off_is_a_connection_error(
    store: BreakingStore, read: Callable[[ObjectStore, str], bytes]
) -> None:
    store.begin([5] * 100)
    with pytest.raises(ConnectionError, match="s3://b/x: no answer from S3"):
        read(store.s3, "s3://b/x")


def test_chunks_from_s3_are_never_those_of_two_objects(store: BreakingStore) -> None:
    store.begin([LENGTH // 2])
    store.next_tag = '"2"'
    with pytest.raises(OSError, match="s3://b/x: the store failed"):
        whole(store.s3, "s3://b/x")


# Google's.


@pytest.fixture
def gcs(store: BreakingStore, monkeypatch: pytest.MonkeyPatch) -> GcsStore:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
    return GcsStore(PipelineOptions(["--project=camera-tests"]), patient=False)


@pytest.mark.parametrize("read", [whole, lambda store, uri: store.read(uri)])
@pytest.mark.parametrize("sent", [0, 1, LENGTH - 1])
def test_an_answer_of_gcs_that_breaks_off_is_a_connection_error(
    store: BreakingStore, gcs: GcsStore, read: Callable[[ObjectStore, str], bytes], sent: int
) -> None:
    store.begin([sent] * 100)
    with pytest.raises(ConnectionError, match="gs://b/x: no answer from the store"):
        read(gcs, "gs://b/x")


def test_an_object_of_gcs_that_came_damaged_is_an_error_of_the_store(
    store: BreakingStore, gcs: GcsStore
) -> None:
    store.begin([])
    store.headers = {"x-goog-hash": "crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA=="}
    with pytest.raises(OSError, match=r"gs://b/x: the store failed \(its checksum does not match"):
        gcs.read("gs://b/x")


@pytest.mark.parametrize("error", [DefaultCredentialsError("away"), TransportError("away")])
def test_without_a_client_for_gcs_there_is_no_link_and_no_exception(
    gcs: GcsStore, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_no_client(store: GcsStore) -> Any:
        raise error

    monkeypatch.setattr(signed_links, "_logged", set())
    monkeypatch.setattr(GcsStore, "_make_client", make_no_client)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")  # No client is kept for it.
    with pytest.raises(PermissionError, match=f"gs://b/x: .* do not work .{type(error).__name__}"):
        gcs.link("gs://b/x", 60)
    assert signed_link("gs://b/x", 1) is None


# Settings with which there is no client.


@pytest.mark.parametrize(
    ("environment", "options", "says"),
    [
        ({"AWS_PROFILE": "mistyped"}, [], "The config profile (mistyped) could not be found"),
        ({"AWS_CONFIG_FILE": "{folder}/config"}, [], "Unable to parse config file: "),
        ({}, ["--s3_endpoint_url", "http://:se cret@[store"], "the endpoint is malformed"),
        ({}, ["--s3_region_name", "no region"], "Provided region_name 'no region'"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["run", "--model", "bundled", "--input"],
        ["alerts", "list", "--output"],
        ["chart", "--output"],
    ],
)
def test_settings_of_s3_that_can_not_be_used_are_told_in_one_line(
    command: list[str],
    environment: dict[str, str],
    options: list[str],
    says: str,
    use: Callable[[Server], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "config").write_text("[profile\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    # A region of its own: a client that was made is kept for the same options.
    options = ["--s3_region_name", f"unused-{len(says)}", *options]
    use(Server("", "s3", {k: v.format(folder=tmp_path) for k, v in environment.items()}))
    if command[0] == "run":
        options = [*options, "--output", str(tmp_path / "out")]
    line = refused(capsys, *command, "s3://camera-tests-bucket/in", *options)
    assert (
        f"{command[-1]} s3://camera-tests-bucket/in: S3 can't be used with these settings" in line
    )
    assert says in line
    assert "se cret" not in line
