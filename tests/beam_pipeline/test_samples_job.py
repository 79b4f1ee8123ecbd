"""The whole job on the bundled samples, whose truth is known."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from beam_pipeline import bundled
from beam_pipeline.fleet.output_scan import OutputScan
from rules import load_rules
from tests.beam_pipeline.conftest import read_json, tree
from tests.conftest import Command, Run

TRUTH: dict[str, Any] = read_json(bundled.BUNDLED_RULES.with_name("truth.json"))
VALID = {Path(image["file"]).name: image for image in TRUTH["images"]}


def final_records(output: Path) -> dict[str, Any]:
    records = [read_json(path) for path in sorted((output / "final").rglob("*.json"))]
    return {record["file"]: record for record in records}


def test_every_valid_sample_has_a_verdict_and_every_other_one_its_reason(
    samples_run: tuple[Path, str],
) -> None:
    output, _ = samples_run
    assert set(final_records(output)) == set(VALID)
    assert len(VALID) >= 200
    reasons = Counter(
        (read_json(path)["reason"], Path(read_json(path)["uri"]).name)
        for path in (output / "invalid").rglob("*.json")
    )
    assert reasons == Counter(
        (record["reason"], Path(record["file"]).name) for record in TRUTH["invalid"]
    )


def test_records_say_what_the_contract_says(samples_run: tuple[Path, str]) -> None:
    output, _ = samples_run
    for name, record in final_records(output).items():
        truth = VALID[name]
        assert list(record) == [
            *("format_version", "id", "timestamp", "file", "uri", "sha256", "width", "height"),
            *("brightness", "sharpness", "model", "detections", "threat"),
        ]
        assert (record["id"], record["timestamp"]) == (truth["id"], truth["timestamp"])
        assert (record["width"], record["height"]) == (truth["width"], truth["height"])
        assert record["sha256"] == hashlib.sha256(Path(record["uri"]).read_bytes()).hexdigest()
        judged = [threat["detection"] for threat in record["threat"]["threats"]]
        judged += [entry["detection"] for entry in record["threat"]["rejected"]]
        assert sorted(judged) == list(range(len(record["detections"])))
        without = {key: value for key, value in record.items() if key != "threat"}
        stem = name.rsplit(".", 1)[0]
        assert read_json(output / "detections" / record["id"] / f"{stem}.json") == without
        kept = output / "validated" / record["id"] / name
        assert kept.read_bytes() == Path(record["uri"]).read_bytes()


def test_invalid_files_are_kept_as_they_were_received(samples_run: tuple[Path, str]) -> None:
    output, _ = samples_run
    for path in (output / "invalid").rglob("*.json"):
        record = read_json(path)
        original = Path(record["uri"]).read_bytes()
        assert path.with_suffix("").read_bytes() == original
        assert record["size_bytes"] == len(original)
        assert record["sha256"] == hashlib.sha256(original).hexdigest()
        assert record["detail"]
        keys = {"detections"} if record["reason"] == "duplicate" else set()
        assert set(record) == keys | {
            *("file", "uri", "reason", "detail", "size_bytes", "width", "height", "sha256")
        }


def test_the_verdicts_are_those_that_the_rules_give_for_the_truth(
    samples_run: tuple[Path, str],
) -> None:
    """The model is good enough on the drawings that 93 of 100 verdicts are those of the truth."""
    output, _ = samples_run
    rules = load_rules(bundled.BUNDLED_RULES)
    right = 0
    for name, record in final_records(output).items():
        wanted = set()
        for object_ in VALID[name]["objects"]:
            rule = rules.for_camera(record["id"]).objects.get(object_["label"])
            if rule is not None and rule.severity != "ignore":
                wanted.add((object_["label"], rule.severity))
        got = {(threat["label"], threat["severity"]) for threat in record["threat"]["threats"]}
        right += wanted == got
    assert right / len(VALID) >= 0.93


def test_the_bundled_rules_say_of_the_street_what_its_pictures_show() -> None:
    description = (
        "Every picture of this camera has a passer-by; no other camera sees as many persons."
    )
    text = bundled.BUNDLED_RULES.read_text()
    assert description in text.partition("\n  street:")[0].rpartition("\n\n")[2]
    with_person: dict[str, list[bool]] = {}
    for name, image in VALID.items():
        has_person = any(object_["label"] == "person" for object_ in image["objects"])
        with_person.setdefault(name.rpartition("_")[0], []).append(has_person)
    assert all(with_person.pop("street"))
    assert not any(map(all, with_person.values()))


def test_cars_are_tolerated_outdoors_and_not_indoors(samples_run: tuple[Path, str]) -> None:
    output, _ = samples_run
    rules = load_rules(bundled.BUNDLED_RULES)
    cars = Counter()
    for record in final_records(output).values():
        profile = rules.for_camera(record["id"]).profile
        for threat in record["threat"]["threats"]:
            if threat["label"] == "car":
                cars[profile, "threat"] += 1
        for rejected in record["threat"]["rejected"]:
            if rejected["label"] == "car" and rejected["by"] == "severity":
                cars[profile, "tolerated"] += 1
    assert cars["outdoor", "tolerated"] >= 10
    assert cars["outdoor", "threat"] == 0
    assert cars["indoor", "threat"] >= 1
    assert cars["indoor", "tolerated"] == 0


def test_counts_are_those_of_an_independent_recount(samples_run: tuple[Path, str]) -> None:
    output, _ = samples_run
    images: Counter[tuple[str, datetime]] = Counter()
    threats: Counter[tuple[str, datetime]] = Counter()
    alerts: Counter[tuple[str, datetime]] = Counter()
    for record in final_records(output).values():
        capture_time = datetime.fromisoformat(record["timestamp"].replace("Z", "+00:00"))
        seconds = int((capture_time - datetime(2026, 1, 1, tzinfo=timezone.utc)).total_seconds())
        start = capture_time.replace(microsecond=0) - timedelta(seconds=seconds % 300)
        key = (record["id"], start)
        images[key] += 1
        threats[key] += len(record["threat"]["threats"])
        alerts[key] += record["threat"]["severity"] == "alert"
    rows = {(row.id, row.window_start): row for row in OutputScan(str(output)).counts()}
    assert set(rows) == set(images)
    for key, row in rows.items():
        assert (row.images, row.threats, row.alerts) == (images[key], threats[key], alerts[key])
        assert row.window_end - row.window_start == timedelta(seconds=300)
        assert sum(row.by_label.values()) == row.threats


def test_every_image_of_severity_alert_has_an_alert_that_was_not_sent(
    samples_run: tuple[Path, str],
) -> None:
    output, _ = samples_run
    wanted = {
        (record["id"], record["timestamp"]): "suppressed"
        if record["threat"]["suppressed_by"]
        else "not_sent"
        for record in final_records(output).values()
        if record["threat"]["severity"] == "alert"
    }
    alerts = [read_json(path) for path in (output / "alerts").rglob("*.json")]
    outcomes = {
        (alert["id"], alert["timestamp"]): target["outcome"]
        for alert in alerts
        for target in alert["targets"]
    }
    assert outcomes == wanted
    assert Counter(wanted.values()) == {"not_sent": 27, "suppressed": 81}
    for alert in alerts:
        event = f"{alert['id']}\n{alert['timestamp']}\nalert"
        assert alert["alert_id"] == hashlib.sha256(event.encode()).hexdigest()[:32]
        assert len(alert["targets"]) == 1
        assert Path(alert["final_uri"]).is_file()
        assert Path(alert["image_uri"]).is_file()


def test_the_summary_adds_up(samples_run: tuple[Path, str]) -> None:
    output, summary = samples_run
    lines = dict(line.split("  ", 1) for line in summary.splitlines())
    numbers = {name.strip(): text.split() for name, text in lines.items()}
    number_found, valid = int(numbers["found"][0]), int(numbers["valid"][0])
    invalid = int(numbers["invalid"][0])
    assert (valid, invalid) == (len(VALID), len(TRUTH["invalid"]))
    assert number_found == valid + invalid + int(numbers.get("repeated", ["0"])[0])
    assert str(output / "chart" / "threats.png") in summary
    assert str(output / "report" / "report.html") in summary
    assert "not_jpeg" in summary


def test_the_chart_is_a_picture(samples_run: tuple[Path, str]) -> None:
    output, _ = samples_run
    with Image.open(output / "chart" / "threats.png") as image:
        image.load()
        assert image.width >= 600


def test_a_second_run_writes_the_same_bytes(
    samples_run: tuple[Path, str], run_job: Run, tmp_path: Path
) -> None:
    output, _ = samples_run
    elsewhere = tmp_path / "again"  # Empty: what is there already could be left as it is.
    again = run_job("--output", elsewhere, "--batch_size", "3", "--model_threads", "1")
    assert again.returncode == 0, again.stderr
    assert tree(elsewhere) == {
        # An alert names where its verdict is kept.
        name: data.replace(bytes(output), bytes(elsewhere)) if name.startswith("alerts/") else data
        for name, data in tree(output).items()
    }


def test_count_shards_and_no_store_validated(command: Command, tmp_path: Path) -> None:
    finished = command(
        *("--output", tmp_path / "out", "--count_shards", "2", "--no_store_validated"),
        *("--input", bundled.BUNDLED_SAMPLES / "hall", "--model", "bundled"),
        *("--rules", bundled.BUNDLED_RULES),
    )
    assert finished.code == 0, finished.err
    assert not (tmp_path / "out" / "validated").exists()
    names = [path.name for path in (tmp_path / "out" / "counts").iterdir()]
    assert names
    assert all(name.endswith(("-0-of-2.jsonl", "-1-of-2.jsonl")) for name in names)
    table = command("counts", "--output", tmp_path / "out", "--format", "json")
    rows = json.loads(table.out)
    assert {row["id"] for row in rows} == {"hall"}
