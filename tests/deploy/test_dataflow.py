"""Dataflow: what is staged, what is refused, and the template's metadata."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud.dataflow_v1beta3 import TemplateMetadata

from beam_pipeline import bundled, cli
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.job.options import add_arguments, job_options
from beam_pipeline.job.pipeline import build_pipeline
from beam_pipeline.job.preparation import prepare
from tests.beam_pipeline.conftest import jpeg
from tests.deploy.google_cloud import (
    Buckets,
    DataflowService,
    Staged,
    buckets,
    credentials,
    forget_credentials,
)
from transforms.storage import stores

CHECKOUT = Path(__file__).resolve().parents[2]
METADATA = CHECKOUT / "deploy" / "dataflow" / "metadata.json"
IMAGE = "europe-west1-docker.pkg.dev/cameras-test/images/beam-threats:1"
MIN_RAM, ACCELERATOR = "beam:resources:min_ram_bytes:v1", "beam:resources:accelerator:v1"
T4 = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"

WITH_THE_MODEL = {
    "ValidateImage/ReadAndDecode",
    "DetectObjects/RunInference/BatchElements",
    "DetectObjects/RunInference/BeamML_RunInference",
    "DetectObjects/ReadPrediction",
    "StoreValidated/Write",
    "StoreInvalidImages/Write",
    "StoreFailedInferences/Write",
}
"""Every step that sees the bytes of an image."""


@pytest.fixture(scope="module")
def service() -> Iterator[DataflowService]:
    service = DataflowService()
    yield service
    service.close()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    user = credentials(tmp_path_factory.mktemp("user") / "credentials.json")
    with pytest.MonkeyPatch.context() as patch, buckets("camera-pictures-test") as (address, made):
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
        patch.setenv("GOOGLE_CLOUD_PROJECT", "cameras-test")
        forget_credentials(patch)
        made.write("pictures/hall_20260131T120000Z.jpg", jpeg())
        made.write("rules.yaml", bundled.BUNDLED_RULES.read_bytes())
        yield made


@pytest.fixture
def on_dataflow(bucket: Buckets) -> list[str]:
    """A command line that is right, but for what comes of it."""
    return [
        *("--runner=DataflowRunner", "--project=cameras-test", "--region=europe-west1"),
        *(f"--temp_location={bucket.uri('temp')}", f"--sdk_container_image={IMAGE}"),
        *(f"--input={bucket.uri('pictures')}", f"--output={bucket.uri('results')}"),
        "--model=bundled",
    ]


def without(arguments: list[str], option: str) -> list[str]:
    return [argument for argument in arguments if argument.split("=")[0] != option]


def steps_of(*, streaming: bool, source: Path) -> set[str]:
    """The outermost steps of the job, as the graph's one page names them."""
    pipeline = beam.Pipeline(runner="FnApiRunner")
    arguments = ["--input", str(source), "--output", str(source.parent / "out")]
    options = job_options([*arguments, "--model=bundled", f"--streaming={streaming}"])
    build_pipeline(pipeline, prepare(options))
    return {part.full_label for part in pipeline.transforms_stack[0].parts}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_template_holds_the_image_the_hints_and_the_steps(
    streaming: bool,
    on_dataflow: list[str],
    bucket: Buckets,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Started as a Flex Template's launcher starts it: values after `=`, options of its own."""
    template = bucket.uri(f"templates/streaming-{streaming}")
    code = cli.main(
        [
            *on_dataflow,
            *(f"--template_location={template}", "--option_of_the_launcher=1"),
            *(f"--streaming={str(streaming).lower()}", "--no_store_validated=false"),
            *(f"--rules={bucket.uri('rules.yaml')}", "--sdk_location=container"),
            *("--model_min_ram=8GB", f"--model_accelerator={T4}"),
        ]
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out == f"template written to {template}; no job was started\n"
    assert "skipped: no such option: --option_of_the_launcher" in printed.err

    staged = Staged(json.loads(bucket.read(template)), bucket)
    assert staged.type == ("JOB_TYPE_STREAMING" if streaming else "JOB_TYPE_BATCH")
    assert staged.images == staged.environment_images() == {IMAGE}
    assert "pickled_main_session" not in staged.packages
    assert ("enable_streaming_rightfitting" in staged.experiments) == streaming
    hints = staged.hints()
    assert all(
        step_hints == {MIN_RAM: "8000000000", ACCELERATOR: T4} for step_hints in hints.values()
    ), hints
    named = {name.split("/ParDo(")[0] for name in hints}
    assert named == WITH_THE_MODEL | {f"ValidateImage/{'Alone' if streaming else 'Each'}"}
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "hall_20260131T120000Z.jpg").write_bytes(jpeg())
    assert staged.steps() == steps_of(streaming=streaming, source=tmp_path / "pictures")


def test_a_dry_run_stages_nothing(
    on_dataflow: list[str], bucket: Buckets, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bucket.names("")
    assert cli.main([*on_dataflow, "--dry_run"]) == 0
    assert capsys.readouterr().out.startswith("dry run: ")
    assert bucket.names("") == before


@pytest.mark.parametrize(
    ("state", "code", "out", "err"),
    [
        ("JOB_STATE_DONE", 0, "verdicts  ", ""),
        ("JOB_STATE_DRAINED", 0, "verdicts  ", ""),
        ("JOB_STATE_CANCELLED", 1, "", "the job ended as CANCELLED; see the runner's log"),
        ("JOB_STATE_FAILED", 1, "", "the job failed: "),
    ],
)
def test_a_job_is_told_of_with_its_page_and_how_it_ended(
    state: str,
    code: int,
    out: str,
    err: str,
    on_dataflow: list[str],
    bucket: Buckets,
    service: DataflowService,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.state = state
    assert cli.main([*on_dataflow, "--dataflow_endpoint", service.url]) == code
    printed = capsys.readouterr()
    page = "https://console.cloud.google.com/dataflow/jobs/europe-west1/2026-01-31_00_00_00-1"
    assert printed.out.startswith(f"job 2026-01-31_00_00_00-1 was submitted: {page}")
    assert out in printed.out
    assert err in printed.err
    assert "Traceback" not in printed.err
    assert Staged(service.jobs[-1], bucket).hints() == {}, "no hint where none is asked for"


def test_a_submitted_job_need_not_be_waited_for(
    on_dataflow: list[str], service: DataflowService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.state = "JOB_STATE_RUNNING"
    endpoint = ["--dataflow_endpoint", service.url]
    assert cli.main([*on_dataflow, *endpoint, "--no_wait_until_finish"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused, in seconds."""
    started = time.monotonic()
    code = cli.main(arguments)
    printed = capsys.readouterr()
    assert code == 2, printed
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert time.monotonic() - started < 20
    return line


@pytest.mark.parametrize(
    "option", ["--project", "--region", "--temp_location", "--sdk_container_image"]
)
def test_what_is_missing_is_told_in_one_line(
    option: str,
    on_dataflow: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
    monkeypatch.setenv("PATH", "")  # A `gcloud` on this machine would know a region.
    line = refusal(without(on_dataflow, option), capsys)
    assert f"DataflowRunner needs {option}" in line


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--input=pictures"], "--input pictures: Dataflow's workers can't see"),
        (["--output=file:///srv/out"], "--output file:///srv/out: Dataflow's workers can't see"),
        (["--model=models/ssd"], "--model models/ssd: Dataflow's workers can't see"),
        (["--streaming", "--rules=a.yaml"], "--rules a.yaml: Dataflow's workers can't see"),
        (["--temp_location=/tmp/temp"], "--temp_location /tmp/temp: Dataflow needs an address"),
        (["--temp_location=gs://no-such-bucket-here/temp"], "no-such-bucket-here/temp"),
        (["--project=12345"], "Invalid Project ID (12345)"),
        (["--job_name=My job"], "Invalid job_name (My job)"),
        (
            ["--model_min_ram=8GB", "--dataflow_service_options=worker_accelerator=type:x"],
            "don't go with the service option worker_accelerator",
        ),
        (["--model_min_ram=8GB", "--flexrs_goal=COST_OPTIMIZED"], "don't go with --flexrs_goal"),
        (["--model_min_ram=8"], "'8' is not a size with its unit"),
        (["--model_min_ram=lots"], "'lots' is not a size with its unit"),
        (["--model_min_ram=0GB"], "0GB is no memory at all"),
        (["--model_accelerator=nvidia-tesla-t4"], "is not like type:nvidia-tesla-t4;count:1"),
        (["--resume=perhaps"], "'perhaps' is neither true nor false"),
        (["--runner=DirectRunner", "--model_min_ram=8GB"], "leave them out on DirectRunner"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    more: list[str], says: str, on_dataflow: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal([*on_dataflow, *more], capsys)


def test_a_job_that_google_cloud_does_not_take_is_told_in_its_words(
    on_dataflow: list[str], service: DataflowService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.refuses = True
    try:
        line = refusal([*on_dataflow, "--dataflow_endpoint", service.url], capsys)
    finally:
        service.refuses = False
    assert line.endswith(
        "no job was started: Dataflow API has not been used in project cameras-test before"
    )


def test_the_samples_must_be_in_a_bucket(
    on_dataflow: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--input is missing" in refusal(without(on_dataflow, "--input"), capsys)


def test_a_stream_by_the_default_rules_looks_for_no_rule_file_on_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file's place on the launching machine may not exist there."""
    (tmp_path / "pictures").mkdir()
    arguments = ["--input", str(tmp_path / "pictures"), "--output", str(tmp_path / "out")]
    ruleset = prepare(job_options([*arguments, "--model=bundled", "--streaming"])).rules
    monkeypatch.setattr(stores, "read_bytes", lambda path: 1 / 0)
    ruleset.refresh()
    assert caplog.messages == []


@pytest.fixture(scope="module")
def metadata() -> Any:
    return json.loads(METADATA.read_text(encoding="utf-8"))


def own_options() -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return {
        option.removeprefix("--"): action
        for action in parser._actions
        for option in action.option_strings
    }


def test_the_metadata_keeps_to_the_fields_that_dataflow_publishes() -> None:
    text = METADATA.read_text(encoding="utf-8")
    kept = TemplateMetadata.from_json(text, ignore_unknown_fields=False)
    assert kept.name
    assert all(parameter.label and parameter.help_text for parameter in kept.parameters)
    with pytest.raises(Exception, match='no field named "optional"'):
        TemplateMetadata.from_json('{"parameters": [{"name": "a", "optional": true}]}')


def test_each_parameter_is_an_option_with_the_same_default(metadata: Any) -> None:
    own, beams = own_options(), PipelineOptions(["--sdk_container_image=a"]).get_all_options()
    for parameter in metadata["parameters"]:
        name = parameter["name"]
        assert name in own or name in beams, name
        if "defaultValue" in parameter:
            default = own[name].default
            text = str(default).lower() if isinstance(default, bool) else str(default)
            assert parameter["defaultValue"] == text, name
    names = [parameter["name"] for parameter in metadata["parameters"]]
    assert len(set(names)) == len(names)
    required = {
        parameter["name"] for parameter in metadata["parameters"] if not parameter["isOptional"]
    }
    assert required == {"input", "output", "sdk_container_image"}


def test_the_docs_give_every_required_parameter_and_none_that_is_not_there(metadata: Any) -> None:
    text = (CHECKOUT / "docs" / "dataflow.md").read_text(encoding="utf-8")
    run = text[text.index("flex-template run") :].split("```")[0]
    given = set(re.findall(r"(?:--parameters |,)(\w+)=", run))
    assert given <= {parameter["name"] for parameter in metadata["parameters"]}
    assert given >= {
        parameter["name"] for parameter in metadata["parameters"] if not parameter["isOptional"]
    }


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("model_min_ram", ["8GB", "7.5 GiB", "8000000000B"], ["8", "GB", "8 gigabytes", "-8GB"]),
        ("model_accelerator", [T4, "type:tpu-v5;topology:1x1"], ["nvidia-l4", "type:a", "count:1"]),
        ("streaming", ["true", "false"], ["yes", "1", ""]),
        ("window_seconds", ["300"], ["0", "5m", "-1"]),
        ("allowed_lateness_seconds", ["0", "60"], ["-1", "1h"]),
        ("min_score_kept", ["0", "0.05", "1"], ["1.5", "-0.1", "low"]),
        ("min_resolution", ["160x120"], ["160", "0x120", "160x120x3"]),
    ],
)
def test_the_metadata_takes_and_refuses_what_the_option_does(
    name: str, right: list[str], wrong: list[str], metadata: Any
) -> None:
    (parameter,) = (candidate for candidate in metadata["parameters"] if candidate["name"] == name)
    for value in right:
        job_options([f"--{name}={value}"])
        assert all(re.search(regex, value) for regex in parameter["regexes"]), value
    for value in wrong:
        with pytest.raises(SetupError):
            job_options([f"--{name}={value}"])
        assert not all(re.search(regex, value) for regex in parameter["regexes"]), value


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("input", ["gs://cameras/pictures", "s3://cameras/a/*.jpg"], ["/srv/pictures", "gs://"]),
        ("output", ["gs://cameras/results"], ["results", "file:///srv"]),
        ("model", ["gs://cameras/ssd", "bundled"], ["/srv/ssd", "models/ssd"]),
        ("sdk_container_image", [IMAGE, f"{IMAGE}@sha256:{'0' * 64}"], ["beam-threats", ""]),
        ("alert_url", ["https://alerts.example.com/hook"], ["alerts.example.com"]),
        ("alert_max_age", ["off", "30s", "7d"], ["1 week", "h", "never"]),
    ],
)
def test_the_metadata_refuses_what_no_worker_could_reach(
    name: str, right: list[str], wrong: list[str], metadata: Any
) -> None:
    (parameter,) = (candidate for candidate in metadata["parameters"] if candidate["name"] == name)
    (regex,) = parameter["regexes"]
    assert [value for value in [*right, *wrong] if re.search(regex, value)] == right


def test_every_default_is_one_that_its_own_pattern_takes(metadata: Any) -> None:
    for parameter in metadata["parameters"]:
        for regex in parameter.get("regexes", []):
            assert (
                re.search(regex, parameter.get("defaultValue", ""))
                or "defaultValue" not in parameter
            ), parameter
