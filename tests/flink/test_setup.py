"""A Flink that is not as it should be is told in one line, before the job starts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.flink import joined, stream_arguments
from tests.transforms.web_service import WebService, status


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """What stands for a job server: it is not started."""
    file = tmp_path / "job-server.jar"
    file.write_bytes(b"")
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
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert len(told.err.splitlines()) == 1, told.err
    return told.err


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
        ({"slots-available": "many"}, (), "is no Flink JobManager's REST address"),
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
    assert "is no Flink JobManager's REST address" in line


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
    assert joined(given) == [
        *("--savepoint_path=file:/s", "--object_reuse", "--runner", "FlinkRunner", "x")
    ]


@pytest.mark.parametrize("option", ["--checkpointing_intervall=5", "--savepointpath=x"])
def test_a_misspelt_option_of_flink_is_refused(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert "no such option" in refused(capsys, option)
