"""A Flink that is not as it should be is told in one line, before the job starts."""

from __future__ import annotations

import json
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from beam_pipeline import cli
from beam_pipeline.runners.beam_options import beam_options
from beam_pipeline.runners.flink import (
    check_flink,
    join_java_options,
    shared_paths,
    stream_arguments,
)
from tests.transforms.web_service import WebService, status


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """What stands for a job server: it is not started."""
    file = tmp_path / "job-server.jar"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Main-Class: org.example.Main\n")
    return file


@pytest.fixture
def flink() -> Iterator[WebService]:
    with WebService() as service:
        yield service


def overview(service: WebService, **said: Any) -> None:
    body = json.dumps({"flink-version": "1.20.5", "slots-available": 2, **said}).encode()
    service.answers = [status(200, body)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = cli.main(["--runner", "FlinkRunner", *map(str, arguments)])
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1, printed.err
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "version"),
    [([], "1.20"), (["--flink_version", "1.19"], "1.19"), (["--flink_version=1.19"], "1.19")],
)
def test_the_version_of_flink_is_that_of_the_shipped_job_server_whatever_beams_default_is(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], version: str
) -> None:
    newer = ["1.19", "1.20", "2.0", "2.1", "2.2"]  # Those of Beam 2.77.
    monkeypatch.setattr(FlinkRunnerOptions, "PUBLISHED_FLINK_VERSIONS", newer)
    for streaming in (False, True):
        options = beam_options(["--runner", "FlinkRunner", *arguments], streaming=streaming)
        assert options.view_as(FlinkRunnerOptions).flink_version == version


def test_a_flink_that_is_not_there(capsys: pytest.CaptureFixture[str], jar: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{free.getsockname()[1]}"
    line = refused(capsys, "--flink_master", master, "--flink_job_server_jar", jar)
    assert f"--flink_master {master}: no Flink answers there (ConnectionError)" in line
    assert "make flink-up" in line


@pytest.mark.parametrize(
    ("said", "arguments", "says"),
    [
        ({"flink-version": "2.0.1"}, (), "runs Flink 2.0.1, and the job server is for Flink 1.20"),
        ({"flink-version": "1.2.0"}, (), "runs Flink 1.2.0"),
        ({"slots-available": 0}, (), "has 0 free task slots, and the job needs 1"),
        ({}, ("--parallelism", "3"), "has 2 free task slots, and the job needs 3"),
        ({"flink-version": None}, (), "runs Flink None"),
        ({"slots-available": "many"}, (), "is not that of a Flink JobManager's REST service"),
    ],
)
def test_a_cluster_that_does_not_fit(
    capsys: pytest.CaptureFixture[str],
    flink: WebService,
    jar: Path,
    said: dict[str, Any],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    overview(flink, **said)
    line = refused(capsys, "--flink_master", flink.url, "--flink_job_server_jar", jar, *arguments)
    assert says in line


def test_an_address_where_something_else_answers(
    capsys: pytest.CaptureFixture[str], flink: WebService, jar: Path
) -> None:
    flink.answers = [status(200, b"<html>hello</html>")]
    line = refused(capsys, "--flink_master", flink.url, "--flink_job_server_jar", jar)
    assert "is not that of a Flink JobManager's REST service" in line


def test_a_job_server_that_is_missing(
    capsys: pytest.CaptureFixture[str], flink: WebService, tmp_path: Path
) -> None:
    line = refused(
        capsys, "--flink_master", flink.url, "--flink_job_server_jar", tmp_path / "none.jar"
    )
    assert "none.jar: no such file" in line


def test_no_java(
    capsys: pytest.CaptureFixture[str], jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    line = refused(capsys, "--flink_job_server_jar", jar)
    assert "there is no java; install Java 11 or later" in line


def test_a_java_that_is_too_old(
    capsys: pytest.CaptureFixture[str], jar: Path, tmp_path: Path
) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    line = refused(capsys, "--flink_job_server_jar", jar, "--job_server_java_launcher", old)
    assert "is Java 8; it needs 11 or later" in line


def test_a_stream_is_checkpointed_unless_it_is_told_otherwise() -> None:
    assert stream_arguments([]) == [
        *("--checkpointing_interval=10000", "--max_bundle_time_mills=200"),
        "--finish_bundle_before_checkpointing",
    ]
    given = ["--checkpointing_interval", "500", "--max_bundle_time_mills=1000"]
    given += ["--finish_bundle_before_checkpointing"]
    assert stream_arguments(given) == []


def test_a_value_of_flinks_own_options_may_stand_in_a_word_of_its_own() -> None:
    given = ["--savepoint_path", "file:/s", "--object_reuse", "--runner", "FlinkRunner", "x"]
    assert join_java_options(given) == [
        *("--savepoint_path=file:/s", "--object_reuse", "--runner", "FlinkRunner", "x")
    ]


@pytest.mark.parametrize("option", ["--checkpointing_intervall=5", "--savepointpath=x"])
def test_a_misspelt_option_of_flink_is_refused(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert "no such option" in refused(capsys, option)


@pytest.mark.parametrize("words", [["=2"], ["", "3"]])
def test_concurrent_checkpoints_are_refused_with_notifications(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    option, *value = words
    line = refused(
        capsys,
        *("--streaming", "--input", "s3://bucket/in", "--output", tmp_path / "out"),
        *("--notifications", "kafka://127.0.0.1:1/topic"),
        *(f"--num_concurrent_checkpoints{option}", *value),
    )
    assert "with --notifications, messages could be lost" in line


@pytest.mark.parametrize("kind", ["empty", "text", "no program"])
def test_a_jar_that_is_no_job_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    wrong = tmp_path / "wrong.jar"
    wrong.write_bytes(b"not found\n" if kind == "text" else b"")
    if kind == "no program":
        with zipfile.ZipFile(wrong, "w") as archive:
            archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    line = refused(capsys, "--flink_master", "[local]", "--flink_job_server_jar", wrong)
    assert f"--flink_job_server_jar {wrong}: is not an executable jar" in line


def test_no_jar_and_none_to_be_fetched(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    line = refused(capsys, "--flink_master", "[local]", "--jar_cache_dir", tmp_path)
    assert "--flink_job_server_jar is missing, and Beam's own job server can't be fetched" in line
    assert "make flink-up" in line


@pytest.mark.parametrize("form", ["file://{}", "file:{}", "{}", "{}/_metadata"])
def test_a_savepoint_that_is_not_there(
    capsys: pytest.CaptureFixture[str], jar: Path, tmp_path: Path, form: str
) -> None:
    given = form.format(tmp_path / "savepoint-1")
    line = refused(
        capsys,
        *("--flink_master", "[local]", "--flink_job_server_jar", jar),
        *("--savepoint_path", given, "--streaming", "--input", tmp_path, "--model", "bundled"),
    )
    assert f"--savepoint_path {given}: no savepoint is there" in line


def test_a_savepoint_that_is_there_passes(jar: Path, tmp_path: Path) -> None:
    (tmp_path / "savepoint 1").mkdir()
    (tmp_path / "savepoint 1" / "_metadata").write_bytes(b"")
    for given in ((tmp_path / "savepoint 1").as_uri(), tmp_path / "savepoint 1", "s3://b/s"):
        check_flink(
            beam_options(
                [
                    *("--runner", "FlinkRunner", "--flink_master", "[local]"),
                    *("--flink_job_server_jar", str(jar), "--savepoint_path", str(given)),
                ]
            )
        )


@pytest.mark.parametrize("runner", ["PortableRunner", "FlinkRunner"])
@pytest.mark.parametrize("listens", [False, True])
def test_a_job_endpoint_where_no_job_service_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runner: str, listens: bool
) -> None:
    started = time.monotonic()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listens:  # As another service does, or one that hangs.
            other.listen()
        endpoint = f"127.0.0.1:{other.getsockname()[1]}"
        code = cli.main(
            ["--runner", runner, "--job_endpoint", endpoint, "--output", str(tmp_path / "out")]
        )
    printed = capsys.readouterr().err
    assert (code, len(printed.splitlines())) == (2, 1), printed
    assert f"--job_endpoint {endpoint}: no Beam job service answers there" in printed
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("master", "local"),
    [
        ("[local]", True),
        ("localhost:8081", True),
        ("http://127.0.0.1:8081", True),
        ("flink.example.com:8081", False),
        ("https://10.0.0.7:8081", False),
    ],
)
def test_paths_of_this_machine_for_another_ones_workers_are_told(master: str, local: bool) -> None:
    options = PipelineOptions(["--runner", "FlinkRunner", "--flink_master", master])
    printed = shared_paths(options, {"input": "/in", "output": "s3://b/out", "model": "/m"})
    assert (printed is None) is local
    if printed is not None:
        assert printed.startswith(f"--flink_master {master} is another machine: ")
        assert "--input /in, --model /m must be one shared mount" in printed
