"""The graph: what it gives back, and what never crosses a shuffle."""

from __future__ import annotations

import json
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

import rules
from beam_pipeline import bundled
from beam_pipeline.console.failure_messages import explain, setup_error
from beam_pipeline.job.options import job_options
from beam_pipeline.job.pipeline import build_pipeline
from beam_pipeline.job.preparation import Job, prepare
from beam_pipeline.sources.notifications.address import parse_address
from beam_pipeline.sources.notifications.source import _PullMessages
from tests.beam_pipeline.conftest import jpeg, read_json
from transforms.runtime.live_rules import LiveRules


@pytest.fixture
def job(tmp_path: Path) -> Job:
    images = tmp_path / "pictures"
    images.mkdir()
    for source in sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:12]:
        (images / source.name).write_bytes(source.read_bytes())
    (images / "0001.jpg").write_bytes(jpeg())
    ruleset = tmp_path / "rules.yaml"
    text = bundled.BUNDLED_RULES.read_text()
    ruleset.write_text(text.replace("\ndefaults:\n", "\ndefaults:\n  cooldown: 0s\n"))
    (images / "gate_20260131T120000Z.jpg").write_bytes(b"not a picture")
    return prepare(
        job_options(
            [
                *("--input", str(images), "--output", str(tmp_path / "out")),
                *("--model", "bundled", "--rules", str(ruleset)),
            ]
        )
    )


def as_stream(job: Job) -> Job:
    return replace(job, options=replace(job.options, streaming=True))


def looking_back(job: Job) -> Job:
    text = "version: 1\ndefaults: {objects: {person: {severity: alert}}, cooldown: 1h}\n"
    return replace(job, rules=LiveRules.of(rules.parse_rules(text, "rules.yaml")))


@pytest.mark.parametrize("min_ram", [None, 8 << 30])
@pytest.mark.parametrize("kind", ["batch", "batch that looks back", "stream"])
def test_steps_that_see_the_bytes_of_an_image_are_one_fused_stage(
    job: Job, kind: str, min_ram: int | None
) -> None:
    """What a stage hands to another is encoded and kept: image bytes never are."""
    job = replace(job, options=replace(job.options, model_min_ram=min_ram))
    job = looking_back(job) if "looks back" in kind else job
    with_bytes = (
        *("ValidateImage/ReadAndDecode", "DetectObjects/RunInference"),
        *("DetectObjects/ReadPrediction", "StoreValidated", "StoreInvalidImages"),
        "StoreFailedInferences",
    )
    homes = stages_of(as_stream(job) if kind == "stream" else job, with_bytes)
    assert set(homes) == set(with_bytes)
    assert len(set.union(*homes.values())) == 1, homes


def stages_of(job: Job, names: tuple[str, ...]) -> dict[str, set[str]]:
    """The stages of Beam's in-process runner that have steps whose labels begin so."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build_pipeline(pipeline, job)
    environment = pipeline.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())
    _, stages = FnApiRunner().create_stages(environment)
    homes: dict[str, set[str]] = {}
    for stage in stages:
        for transform in stage.transforms:
            for name in names:
                if f"{transform.unique_name}/".startswith(f"{name}/"):
                    homes.setdefault(name, set()).add(stage.name)
    return homes


def test_a_batch_stores_verdicts_without_an_incident_while_it_detects(job: Job) -> None:
    """Those with an incident are stored after all images were detected, in the order of time."""
    steps = "DetectObjects/RunInference", "StoreFinal/Write", "StoreFinal/WriteInOrder"
    homes = stages_of(looking_back(job), steps)
    assert homes["StoreFinal/Write"] == homes["DetectObjects/RunInference"]
    assert homes["StoreFinal/WriteInOrder"].isdisjoint(homes["StoreFinal/Write"])


def test_invalid_images_windowed_counts_and_verdicts_can_be_built_on(
    job: Job, tmp_path: Path
) -> None:
    def written(name: str) -> Any:
        return beam.io.WriteToText(str(tmp_path / name), shard_name_template="")

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        outputs = build_pipeline(pipeline, job)
        invalid = outputs.invalid | beam.Map(lambda record: f"{record['file']} {record['reason']}")
        invalid | "WriteInvalid" >> written("invalid")
        counts = outputs.counts | beam.Map(
            lambda window: f"{window.start} {sum(row['images'] for row in window.rows)}"
        )
        counts | "WriteCounts" >> written("counts")
        judged = outputs.judged | beam.Map(lambda name: name.image.file)
        judged | "WriteJudged" >> written("judged")
    assert sorted((tmp_path / "invalid").read_text().splitlines()) == [
        "0001.jpg bad_name",
        "gate_20260131T120000Z.jpg not_jpeg",
    ]
    assert len((tmp_path / "judged").read_text().splitlines()) == 12
    windows = [line.split() for line in (tmp_path / "counts").read_text().splitlines()]
    assert sum(int(images) for _, images in windows) == 12
    assert {start for start, _ in windows} == {
        read_json_line["window_start"]
        for path in Path(job.output, "counts").iterdir()
        for read_json_line in [read_json(path)]
    }


def test_alerts_in_a_cooldown_are_judged_in_the_order_of_time_and_counted_but_not_sent(
    job: Job,
) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        build_pipeline(pipeline, looking_back(job))
    output = Path(job.output)
    finals = sorted(
        (read_json(path) for path in output.glob("final/hall/*.json")),
        key=lambda final: str(final["timestamp"]),
    )
    assert len(finals) == 12
    alerts = [final for final in finals if final["threat"]["severity"] == "alert"]
    first = rules.alert_id("hall", alerts[0]["timestamp"], "alert")
    assert len(alerts) > 1
    suppressed = [
        (alert["threat"]["suppressed_by"], alert["threat"]["incident_number"]) for alert in alerts
    ]
    assert suppressed == [(None, 1), *((first, number) for number in range(2, len(alerts) + 1))]
    for alert in alerts:
        name = rules.alert_id("hall", alert["timestamp"], "alert")
        record = read_json(output / "alerts" / "hall" / f"{name}.json")
        covered_by = alert["threat"]["suppressed_by"]
        assert record.get("suppressed_by") == covered_by
        assert [target["outcome"] for target in record["targets"]] == [
            "suppressed" if covered_by else "not_sent"
        ]
    counts = [
        json.loads(line)
        for path in output.glob("counts/*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sum(row["alerts"] for row in counts) == len(alerts)


def test_counts_include_late_images_for_the_allowed_lateness(job: Job) -> None:
    """The state of a window that has ended is kept for as long."""
    options = replace(job.options, allowed_lateness_seconds=7201, streaming=True)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build_pipeline(pipeline, replace(job, options=options))
    kept: list[int] = []

    class Counts(PipelineVisitor):  # type: ignore[misc]
        def visit_transform(self, applied: AppliedPTransform) -> None:
            if applied.full_label.endswith("CountThreats/SumInStream"):
                kept.append(applied.transform.fn._lateness_seconds)

    pipeline.visit(Counts())
    assert kept == [7201]


def test_messages_are_polled_at_the_interval(job: Job) -> None:
    """By a broker that is not there: the source is built and not run."""
    address = parse_address("kafka://127.0.0.1:1/cameras")
    options = replace(job.options, streaming=True, notifications=address, poll_interval_seconds=40)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build_pipeline(pipeline, replace(job, options=options))
    pauses: list[float] = []

    class Sources(PipelineVisitor):  # type: ignore[misc]
        def visit_transform(self, applied: AppliedPTransform) -> None:
            fn = getattr(applied.transform, "fn", None)
            if isinstance(fn, _PullMessages):
                pauses.append(fn._poll_seconds)

    pipeline.visit(Sources())
    assert pauses == [40]


def test_the_labels_of_the_steps_are_those_of_the_contract(job: Job) -> None:
    """A running stream is updated by its labels: they change by intent only."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build_pipeline(pipeline, job)
    top = [part.full_label for part in pipeline.transforms_stack[0].parts]
    assert [label for label in top if not label.startswith("AllInvalid")] == [
        *("ListImages", "ParseFilename", "ValidateImage", "DetectObjects", "StoreValidated"),
        *("InvalidNames", "Contested"),
        *("JudgeThreats", "StoreDetections", "StoreFinal", "ResolveVersions"),
        *("StoreInvalidNames", "StoreInvalidImages", "StoreFailedInferences"),
        *("CountThreats", "StoreCounts", "SendAlerts"),
    ]


def test_a_stream_has_the_same_steps(job: Job) -> None:
    labels = []
    for job_of_kind in (job, as_stream(job)):
        pipeline = beam.Pipeline(runner=FnApiRunner())
        build_pipeline(pipeline, job_of_kind)
        labels.append([part.full_label for part in pipeline.transforms_stack[0].parts])
    assert labels[0] == labels[1]


def test_a_worker_that_lacks_a_secret_ends_the_job_with_its_line_before_an_image_is_read(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "version: 1\ntargets: {guard: {webhook: 'https://${GUARD_HOST}/'}}\n"
        "defaults: {objects: {person: }, notify: [guard]}\n"
    )
    job = replace(job, rules=LiveRules.of(rules.parse_rules(text, "rules.yaml")))
    monkeypatch.delenv("GUARD_HOST", raising=False)
    with pytest.raises(Exception) as caught, beam.Pipeline(runner=FnApiRunner()) as pipeline:  # noqa: PT011
        build_pipeline(pipeline, job)
    message = (
        "target 'guard' of the rules needs the environment variable GUARD_HOST, which is not set"
    )
    assert explain(caught.value).startswith(message)
    assert (setup_error("".join(traceback.format_exception(caught.value))) or "").startswith(
        message
    )
    assert [path for path in Path(job.output).rglob("*") if path.suffix == ".jpg"] == []
