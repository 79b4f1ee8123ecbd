"""Rules that are edited while the stream runs on a real cluster, its counters, and its end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_pipeline.bundled import BUNDLED_SAMPLES
from tests.flink.stream_job import StreamJob, scraped, wait_for

ALERT = "version: 1\ndefaults:\n  objects:\n    person: {severity: alert}\n"
IGNORE = "version: 1\ndefaults:\n  objects:\n    person: {severity: ignore}\n"


def test_an_edited_rule_file_is_taken_up_and_a_broken_one_refused(
    cluster: Any, stream: Callable[..., StreamJob], tmp_path: Path
) -> None:
    source, output, rules = tmp_path / "in", tmp_path / "out", tmp_path / "rules.yaml"
    source.mkdir()
    rules.write_text(ALERT)
    job = stream(
        *("--input", source, "--output", output, "--model", "bundled", "--rules", rules),
        *("--poll_interval_seconds", "1"),
    )
    person = next(
        BUNDLED_SAMPLES / image["file"]
        for image in json.loads((BUNDLED_SAMPLES.parent / "truth.json").read_text())["images"]
        if image["id"] == "hall" and [truth["label"] for truth in image["objects"]] == ["person"]
    ).read_bytes()
    numbers = iter(range(1_000))

    version = ""

    def severity() -> str | None:
        """What a new picture of a person is judged to be."""
        nonlocal version
        name = f"hall_{int(time.time() * 1000) + next(numbers)}"
        (source / f"{name}.jpg").write_bytes(person)
        path = output / "final" / "hall" / f"{name}.json"
        wait_for("a verdict", path.exists)
        threat = json.loads(path.read_text())["threat"]
        version = threat["rules_version"]
        found: str | None = threat["severity"]
        return found

    assert severity() == "alert"
    rules.write_text(IGNORE)
    wait_for("the edited rules are in force", lambda: severity() is None, 60)
    in_force = f"rules version {version} is now in force\n"
    wait_for("the log names the new version", lambda: in_force in job.printed(), 60)
    rules.write_text("version: 1\nprofile: {}\n")
    wait_for(
        "the broken file is refused",
        lambda: severity() is None and job.counter("rules.refused"),
        60,
    )
    logs = "".join(
        path.read_text(errors="replace")
        for path in Path(cluster.run_dir, "log").rglob("*")
        if path.is_file()
    )
    assert "the rule file is rejected" in logs
    assert job.counter("images.valid") >= 3
    _check_what_prometheus_gets(cluster)
    told_at = time.monotonic()
    job.cancel()
    assert job._client.wait(timeout=60) == 0
    assert time.monotonic() - told_at < 20
    printed = job.printed()
    assert "the job was cancelled; run the same command with --resume to continue\n" in printed
    assert "\nfound " in printed
    assert "Traceback" not in printed
    summary = rf"^rules +{re.escape(str(rules))}, version {version}$"
    assert re.search(summary, printed, re.MULTILINE), printed


def _check_what_prometheus_gets(cluster: Any) -> None:
    """Real numbers of what the model was given, and how long it took."""

    def total(name: str) -> float:
        return sum(scraped(cluster).get(f"flink_taskmanager_job_task_operator_threats_{name}", []))

    # Flink's reporters show what the workers have told at the end of a bundle.
    wait_for("images that were handed to the model", lambda: total("model_images") >= 3)
    batches, images = total("model_batches"), total("images_valid")
    assert 1 <= batches <= images
    milliseconds = total("model_microseconds") / batches / 1000
    assert 0.1 < milliseconds < 60_000
    assert scraped(cluster)["flink_jobmanager_numRunningJobs"] != [0.0]
