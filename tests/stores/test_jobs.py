"""The whole job with everything in a store, and stores that fail it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.bundled import BUNDLED_MODEL, BUNDLED_RULES, BUNDLED_SAMPLES
from tests.beam_pipeline.conftest import tree
from tests.conftest import Command
from tests.stores.bucket import Bucket, s3_client
from tests.stores.servers import SECRET, Proxy, Server, free_port
from transforms.models.model_files import ModelError, fetch_model

Use = Callable[[Server], None]
StandBefore = Callable[[Server], Proxy]


def without_addresses(files: dict[str, bytes]) -> dict[str, Any]:
    """A job's results, but for what names the store: two runs on two stores are then equal."""
    results: dict[str, Any] = {}
    for name, data in files.items():
        kind = name.split("/")[0]
        if name.endswith(".json") and kind != "validated":
            document = json.loads(data)
            data = json.dumps({k: v for k, v in document.items() if not k.endswith("uri")}).encode()
        if kind == "invalid":  # Files of one name get a hash of their address in their names.
            name = f"{re.sub('-[0-9a-f]{8}(?=[.])', '', name)} {data!r}"
        results[name] = data
    return results


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which a job ends before it starts."""
    code = cli.main(arguments)
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, ""), printed
    assert len(printed.err.splitlines()) == 1, printed.err
    assert SECRET not in printed.err
    return printed.err


CAMERAS = ("hall", "car-park", "broken")
LABELS = b"1 person\n2 bicycle\n3 car\n18 dog\n"


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the samples, and beside them the results of the job on the local disk."""
    folder = tmp_path_factory.mktemp("local")
    for camera in CAMERAS:
        shutil.copytree(BUNDLED_SAMPLES / camera, folder / "pictures" / camera)
    (folder / "labels.txt").write_bytes(LABELS)
    arguments = ["--input", str(folder / "pictures"), "--output", str(folder / "results")]
    arguments += ["--labels", str(folder / "labels.txt")]
    assert cli.main([*arguments, "--model", "bundled", "--rules", str(BUNDLED_RULES)]) == 0
    return folder


def test_the_samples_give_the_same_results_as_on_a_local_disk(
    bucket: Bucket, command: Command, use: Use, local_run: Path
) -> None:
    """Pictures, model, rules, labels and results in one bucket."""
    use(bucket.server)
    bucket.put_tree(local_run / "pictures", "pictures")
    bucket.put_tree(BUNDLED_MODEL, "models/bundled")
    bucket.put("rules.yaml", BUNDLED_RULES.read_bytes())
    bucket.put("labels.txt", LABELS)
    done = command(
        *("--runner", "DirectRunner", *bucket.server.options),
        *("--input", bucket.uri("pictures"), "--output", bucket.uri("results")),
        *("--model", bucket.uri("models/bundled"), "--rules", bucket.uri("rules.yaml")),
        *("--labels", bucket.uri("labels.txt")),
    )
    assert done.code == 0, done.err
    found = without_addresses(bucket.tree("results"))
    wanted = without_addresses(tree(local_run / "results"))
    assert found.pop("chart/threats.png").startswith(b"\x89PNG")
    del wanted["chart/threats.png"]
    assert found == wanted
    assert bucket.unfinished_uploads() == []


def test_counts_and_chart_of_a_bucket(
    bucket: Bucket, command: Command, use: Use, local_run: Path
) -> None:
    use(bucket.server)
    bucket.put_tree(local_run / "results" / "counts", "results/counts")
    options = (*bucket.server.options, "--output", bucket.uri("results"))
    table = command("counts", *options, "--by", "id")
    wanted = command("counts", "--output", local_run / "results", "--by", "id")
    assert (table.code, table.out) == (0, wanted.out), table.err
    drawn = command("chart", *options)
    assert drawn.code == 0, drawn.err
    assert bucket.tree("results")["chart/threats.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--input", "--output", "--model", "--rules", "--labels"])
def test_a_permission_that_is_missing_is_told_before_the_job_starts(
    bucket: Bucket,
    use: Use,
    proxy: StandBefore,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    option: str,
) -> None:
    before = proxy(bucket.server)
    use(before.server)
    locations = {
        "--input": str(BUNDLED_SAMPLES / "hall"),
        "--output": bucket.uri("out"),
        "--model": "bundled",
        option: bucket.uri("forbidden/x.tflite"),
    }
    before.decide = lambda method, path: 403 if "forbidden" in path or "iam" in path else None
    if option != "--output":
        locations["--output"] = str(tmp_path / "never-made")
    given = [word for pair in locations.items() for word in pair]
    line = refused(capsys, *before.server.options, *given)
    assert f"{option} {locations[option]}" in line
    assert "the store refuses access" in line or "the account lacks" in line
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there(
    server: Server, use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    use(server)
    uri = f"{server.scheme}://no-such-bucket-here/pictures"
    line = refused(capsys, *server.options, "--input", uri)
    assert re.search(rf"--input {uri}/?: not there \(.*\); is the name right\?", line)
    line = refused(capsys, *server.options, "--input", str(BUNDLED_SAMPLES), "--output", uri)
    assert f"--output {uri}" in line


@pytest.mark.parametrize(
    "options", [(), ("--s3_endpoint_url", f"http://127.0.0.1:{free_port()}")], ids=["keys", "store"]
)
def test_a_store_that_does_not_answer_and_keys_that_are_missing(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    if options:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    says = "no answer from S3" if options else "there are no credentials for S3"
    line = refused(capsys, *options, "--input", "s3://camera-pictures/in")
    assert f"--input s3://camera-pictures/in: {says}" in line


def test_keys_that_a_store_does_not_know(
    s3proxy_server: Server,
    use: Use,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(s3proxy_server)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    # Clients are kept by their settings: another region stands for a process of its own.
    options = (*s3proxy_server.options[:2], "--s3_region_name", "eu-west-1")
    line = refused(capsys, *options, "--input", "s3://camera-pictures/in")
    assert "the store refuses access (SignatureDoesNotMatch, HTTP status 403)" in line


def test_a_google_account_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    line = refused(capsys, "--input", "gs://camera-pictures/in")
    assert "--input gs://camera-pictures/in: there are no credentials for Google Cloud" in line


def test_a_store_that_is_slow_and_busy_holds_the_job_up_and_no_more(
    bucket: Bucket, command: Command, use: Use, proxy: StandBefore, local_run: Path
) -> None:
    """Every tenth request is refused with 503, and each takes 50 ms."""
    images = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[:14]
    for image in images:
        bucket.put(f"pictures/{image.name}", image.read_bytes())
    before = proxy(bucket.server)
    use(before.server)
    before.delay = 0.05
    asked = itertools.count(1)
    before.decide = lambda method, path: 503 if next(asked) % 10 == 0 else None
    done = command(
        *(*before.server.options, "--input", bucket.uri("pictures"), "--model", "bundled"),
        *("--output", bucket.uri("results"), "--rules", BUNDLED_RULES),
        *("--labels", local_run / "labels.txt"),
    )
    assert done.code == 0, done.err
    assert before.refused > 5
    found = without_addresses(bucket.tree("results"))
    wanted = without_addresses(tree(local_run / "results"))
    for image in images:
        for kind in ("final", "detections"):
            name = f"{kind}/hall/{image.stem}.json"
            assert found[name] == wanted[name]
        assert found[f"validated/hall/{image.name}"] == image.read_bytes()
    assert sum(name.startswith("final/") for name in found) == len(images)


@pytest.mark.parametrize("lost", ["GET", "PUT"])
def test_a_permission_lost_in_mid_run_ends_the_job_and_resume_goes_on(
    moto_bucket: Bucket,
    command: Command,
    use: Use,
    proxy: StandBefore,
    tmp_path: Path,
    lost: str,
) -> None:
    moto_bucket.put_tree(BUNDLED_SAMPLES / "office", "pictures/office")
    before = proxy(moto_bucket.server)
    use(before.server)
    passed = itertools.count()

    def decide(method: str, path: str) -> int | None:
        return 403 if method == lost and ".jpg" in path and next(passed) > 12 else None

    before.decide = decide
    arguments = [
        *(*before.server.options, "--model", "bundled", "--rules", str(BUNDLED_RULES)),
        *("--input", moto_bucket.uri("pictures"), "--output", moto_bucket.uri("results")),
    ]
    failed = command(*arguments)
    assert (failed.code, failed.out) == (1, ""), failed.err
    # A busy machine takes longer, and progress is shown then.
    lines = [line for line in failed.err.splitlines() if " images done, " not in line]
    assert len(lines) == 1, failed.err
    line = lines[0]
    assert line.startswith("the job failed: ")
    assert "the store refuses access (AccessDenied, HTTP status 403)" in line
    assert line.endswith("run the same command with --resume to continue")

    before.decide = lambda method, path: None
    resumed = command(*arguments, "--resume")
    assert resumed.code == 0, resumed.err
    undisturbed = moto_bucket.uri("undisturbed")
    again = [undisturbed if word == moto_bucket.uri("results") else word for word in arguments]
    assert command(*again).code == 0
    assert without_addresses(moto_bucket.tree("results")) == without_addresses(
        moto_bucket.tree("undisturbed")
    )


def test_a_model_that_changes_under_the_job_is_noticed(
    moto_bucket: Bucket, use: Use, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker that comes later brings the model itself, and must find the same one."""
    use(moto_bucket.server)
    moto_bucket.put_tree(BUNDLED_MODEL, "models/detector")
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "of the machine that started the job"))
    started = fetch_model(moto_bucket.uri("models/detector"))
    key = "models/detector/fingerprint.pb"
    s3_client(moto_bucket.server).put_object(Bucket=moto_bucket.name, Key=key, Body=b"another")
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "of a worker"))
    with pytest.raises(ModelError, match="its files have changed since the job was started"):
        fetch_model(moto_bucket.uri("models/detector"), expected_version=started.info.version)
