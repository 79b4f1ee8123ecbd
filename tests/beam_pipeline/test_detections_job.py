"""The whole job on what another detector has found (`--detections`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import bundled
from tests.beam_pipeline.conftest import jpeg, read_json, refused, tree
from tests.conftest import Command

CAMERAS = ("garden", "hall", "street")
CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
PERSON = {"category": "2", "conf": 0.9, "bbox": [0.1, 0.2, 0.05, 0.3]}
ANIMAL = {"category": "1", "conf": 0.8, "bbox": [0.5, 0.5, 0.2, 0.2]}
RULES = """\
version: 1
defaults: {objects: {person: , animal: {severity: detection}}}
"""


def name(second: int) -> str:
    return f"hall_20260131T1200{second:02}Z.jpg"


class Detections:
    """A folder of images, a file with detections, and rules for them."""

    def __init__(self, top: Path, command: Command) -> None:
        self.input, self.file, self.rules = top / "in", top / "found.json", top / "rules.yaml"
        self.output, self._command = top / "out", command
        self.rules.write_text(RULES)
        (self.input / "day").mkdir(parents=True)

    def put(self, *seconds: int) -> None:
        for second in seconds:
            (self.input / "day" / name(second)).write_bytes(jpeg(colour=(second, 120, 150)))

    def write(self, images: dict[str, Any]) -> None:
        entries = [
            {"file": file, **(found if isinstance(found, dict) else {"detections": found})}
            for file, found in images.items()
        ]
        info = {"detector": "md_v5a.0.0.pt", "format_version": "1.3"}
        document = {"images": entries, "detection_categories": CATEGORIES, "info": info}
        self.file.write_text(json.dumps(document))

    def arguments(self, *more: object) -> list[str]:
        return [
            *("--input", str(self.input), "--output", str(self.output)),
            *("--detections", str(self.file), "--rules", str(self.rules)),
            *map(str, more),
        ]

    def run(self, *more: object) -> tuple[str, list[str]]:
        """What the job prints, and its lines about the file on standard error."""
        done = self._command(*self.arguments(*more))
        assert done.code == 0, done.err
        lines = [line for line in done.err.splitlines() if line.startswith("--detections")]
        return done.out, lines

    def records(self, kind: str) -> dict[str, Any]:
        records = map(read_json, sorted(self.output.glob(f"{kind}/*/*.json")))
        return {record["file"]: record for record in records}


@pytest.fixture
def detections(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Detections:
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    return Detections(tmp_path, command)


def test_detections_failures_and_images_without_an_entry(
    detections: Detections, tmp_path: Path
) -> None:
    detections.put(0, 1, 2, 3, 4)
    (detections.input / "day" / "notes.txt").write_text("?")
    detections.write(
        {
            f"day/{name(0)}": [ANIMAL, PERSON],
            f"day\\{name(1)}": [ANIMAL],
            str(detections.input / "day" / name(2)): [],
            f"day/{name(3)}": {"failure": "image access", "detections": None},
            "day/gone.jpg": [PERSON],
        }
    )
    detections.rules.write_text(RULES.replace("{objects", "{tiles: {columns: 3}, objects"))
    out, lines = detections.run()
    where = f"--detections {detections.file}: "
    assert lines == [
        f"{where}has no entry for 2 of 6 files, such as day/{name(4)}; those that are images go to "
        "invalid/inference_failed",
        f"{where}1 of its 5 entries have no file in --input {detections.input}, such as "
        "day/gone.jpg, and are not used",
        f"{where}the tiles of the rules have no effect, as no model runs",
    ]
    assert "model               md_v5a.0.0.pt, version " in out
    finals = detections.records("final")
    assert list(finals) == [name(0), name(1), name(2)]
    record = finals[name(0)]
    assert record["detections"] == [{**PERSON, "label": "person"}, {**ANIMAL, "label": "animal"}]
    assert record["threat"]["severity"] == "alert"
    model = record["model"]
    assert (model["name"], model["runtime"]) == ("md_v5a.0.0.pt", "detections")
    assert " " not in model["settings"]
    assert [one["label"] for one in finals[name(1)]["threat"]["threats"]] == ["animal"]
    assert finals[name(2)]["detections"] == []
    invalid = detections.records("invalid")
    assert {file: (one["reason"], one["detail"]) for file, one in invalid.items()} == {
        name(3): (
            "inference_failed",
            f"the detector failed, says {detections.file}: image access",
        ),
        name(4): ("inference_failed", f"{detections.file} has no entry for it"),
        "notes.txt": ("bad_name", invalid["notes.txt"]["detail"]),
    }
    stored = detections.output / "invalid" / "inference_failed" / name(4)
    assert stored.read_bytes() == (detections.input / "day" / name(4)).read_bytes()
    (window,) = (detections.output / "counts").iterdir()
    (row,) = map(json.loads, window.read_text().splitlines())
    assert (row["images"], row["alerts"], row["by_label"]) == (3, 1, {"animal": 2, "person": 1})


def test_resume_takes_what_the_same_file_gave_and_reads_a_changed_one(
    detections: Detections,
) -> None:
    detections.put(0, 1)
    detections.write({f"day/{name(0)}": [PERSON]})
    detections.run()
    detections.put(2)
    resumed = "(1 of them processed in an earlier run)"
    assert resumed in detections.run("--resume")[0]
    assert list(detections.records("final")) == [name(0)]
    assert "in an earlier run" not in detections.run("--resume", "--min_score_kept", "0.95")[0]
    assert detections.records("final")[name(0)]["detections"] == []
    assert "in an earlier run" not in detections.run("--resume")[0]
    detections.write({f"day/{name(0)}": [ANIMAL], f"day/{name(1)}": [PERSON]})
    assert "in an earlier run" not in detections.run("--resume")[0]
    labels = {file: one["detections"] for file, one in detections.records("final").items()}
    assert [one[0]["label"] for one in labels.values()] == ["animal", "person"]
    assert list(detections.records("invalid")) == [name(2)]
    resumed_records = detections.records("final")
    detections.output = detections.output.with_name("fresh")
    detections.run()
    assert detections.records("final") == resumed_records


def test_commands_read_an_archive_of_such_a_job(
    detections: Detections, command: Command, tmp_path: Path
) -> None:
    detections.put(0, 1)
    detections.write({f"day/{name(0)}": [PERSON], f"day/{name(1)}": [ANIMAL]})
    detections.run()
    other = tmp_path / "other.yaml"
    other.write_text("version: 1\ndefaults: {objects: {animal: }}\n")
    truth = tmp_path / "truth.csv"
    truth.write_text(f"file,main_class,count\n{name(0)},person,1\n{name(1)},animal,1\n")
    archive = ("--output", detections.output, "--rules", other)
    unknown = command("backtest", *archive)
    assert unknown.code == 2
    assert "animal" in unknown.err
    labels = ("--labels", detections.file)
    done = command("backtest", *archive, *labels, "--format", "json")
    assert done.code == 0, done.err
    total = json.loads(done.out)["alerts"]
    assert (total["gained"], total["lost"]) == (1, 1)
    done = command("evaluate", *archive, *labels, "--truth", truth, "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["total"]["recall"] == 1
    assert "tiles" not in done.err


def test_the_detections_of_an_archive_give_the_same_verdicts_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "in"
    for camera in CAMERAS:
        (images / camera).mkdir(parents=True)
        for path in sorted((bundled.BUNDLED_SAMPLES / camera).rglob("*.jpg"))[:10]:
            (images / camera / path.name).write_bytes(path.read_bytes())
    rules = bundled.BUNDLED_SAMPLES.parent / "rules.yaml"

    def run(output: str, *more: object) -> dict[str, Any]:
        arguments = ("--input", images, "--output", tmp_path / output, "--rules", rules)
        done = command(*map(str, (*arguments, *more)))
        assert done.code == 0, done.err
        records = map(read_json, sorted((tmp_path / output / "final").rglob("*.json")))
        return {
            record["file"]: [record[key] for key in ("detections", "threat", "sha256", "uri")]
            for record in records
        }

    by_model = run("model", "--model", "bundled")
    exported = tmp_path / "exported.json"
    done = command("export", "--output", tmp_path / "model", "--to", exported, "--paths", "uri")
    assert done.code == 0, done.err
    assert len(by_model) == 30
    assert sum(bool(threat["threats"]) for _, threat, *_ in by_model.values()) > 5
    for runner in ("DirectRunner", "FnApiRunner"):
        assert run(runner, "--detections", exported, "--runner", runner) == by_model
    counts = {output: tree(tmp_path / output / "counts") for output in ("model", "DirectRunner")}
    assert counts["model"] == counts["DirectRunner"]


def test_set_ups_that_are_refused_before_an_image_is_read(
    detections: Detections, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    detections.put(0)
    detections.write({f"day/{name(0)}": [PERSON]})

    def line(*more: object) -> str:
        return refused(capsys, *detections.arguments(*more)).removeprefix("beam_pipeline: ")

    for option, value in (
        *(("model", "bundled"), ("labels", "x.txt"), ("model_threads", "1")),
        *(("model_input_size", "320"), ("model_runtime", "tflite")),
    ):
        assert line(f"--{option}", value) == (
            f"--{option} is for a model, and --detections runs none; leave one of them out"
        )
    assert line("--trust_model").startswith("--trust_model is for a model")
    assert line("--streaming").startswith("--detections works only in a batch")
    assert line("--input", detections.input / "day" / "none.jpg").startswith("--input")
    detections.rules.write_text("version: 1\ndefaults: {objects: {car: }}\n")
    assert "car: the model does not have this label" in line()
    detections.rules.write_text(RULES)
    detections.write({f"cam/day/{name(0)}": [PERSON]})
    assert line() == (
        f"--detections {detections.file}: has no entry for any of the 1 files in --input "
        f"{detections.input}; its paths are like cam/day/{name(0)}, and those of the images like "
        f"day/{name(0)}; give as --input the folder that the detector was given"
    )
    detections.file.write_text('{"images": [')
    assert line() == (
        f"--detections {detections.file}: not JSON: Expecting value (at character 13); give a file "
        "in MegaDetector's batch output form"
    )
    detections.file.unlink()
    assert line() == f"--detections {detections.file}: no such file; check the path"
    assert not (detections.output / "final").exists()


def test_without_rules_a_person_is_a_threat(detections: Detections, command: Command) -> None:
    detections.put(0)
    detections.write({f"day/{name(0)}": [PERSON]})
    arguments = ("--input", detections.input, "--output", detections.output)
    done = command(*map(str, (*arguments, "--detections", detections.file)))
    assert done.code == 0, done.err
    assert detections.records("final")[name(0)]["threat"]["severity"] == "alert"
