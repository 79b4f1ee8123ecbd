"""Whole jobs with ONNX detectors: what is recorded, and files that are a wrong set-up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.beam_pipeline.conftest import jpeg, read_json, tree
from tests.conftest import Command, Done
from tests.transforms.onnx_models import (
    CHANNELS,
    save,
    save_boxes_detector,
    save_logits_detector,
    save_with_external_data,
    save_yolox,
)
from tests.transforms.web_service import WebService, status

NAMES = {"names": "{0: 'car', 1: 'dog', 2: 'person'}"}
ROW = [0.0, 0.0, 0.0, 0.0, 1.0]
"""A row of YOLOX's output: a box as large as its cell around its corner."""


class Jobs:
    """Runs jobs on a folder of images, each with an output of its own."""

    def __init__(self, top: Path, command: Command) -> None:
        self.top, self._command, self._runs = top, command, 0
        self.input = top / "in"
        self.input.mkdir()
        for hour, red in enumerate((255, 200, 150, 90)):
            colour = (red, 0, 102)
            (self.input / f"hall_2026013{1}T0{hour}0000Z.jpg").write_bytes(jpeg(colour))

    def run(self, model: str | Path, *more: str | Path, output: Path | None = None) -> Done:
        self._runs += 1
        self.output = output or self.top / f"out-{self._runs}"
        return self._command(
            *("--input", self.input, "--output", self.output, "--model", model, *more)
        )

    def records(self, model: str | Path, *more: str | Path) -> list[dict[str, Any]]:
        """The verdicts of a job, in the order of their capture times."""
        done = self.run(model, *more)
        assert done.code == 0, done.err
        return [read_json(file) for file in sorted((self.output / "final").glob("*/*.json"))]


@pytest.fixture
def jobs(tmp_path: Path, command: Command) -> Jobs:
    return Jobs(tmp_path, command)


def test_a_job_with_yolox_records_what_ran_it_and_the_names_of_the_metadata(jobs: Jobs) -> None:
    """The image of 320x240 fills 64x48 of 64x64 pixels."""
    model = save_yolox(jobs.top / "net.onnx", {9: ROW}, size=(64, 64), metadata=NAMES)
    first = jobs.records(model)[0]
    assert first["model"]["name"] == "net"
    assert first["model"]["runtime"] == "onnx"
    box = [round(4 / 64, 4), round(4 / 48, 4), 0.125, round(8 / 48, 4)]
    assert [
        (detection["label"], detection["category"], detection["bbox"])
        for detection in first["detections"]
    ] == [("person", "3", box), ("car", "1", box), ("dog", "2", box)]
    shown, margin = 0.75, 0.25 * 114
    expected = [(colour * shown + margin) / 255 for colour in (255, 102, 0)]
    scores = [detection["conf"] for detection in first["detections"]]
    assert scores == pytest.approx(expected, abs=0.01)  # JPEG changes colours a little.


def test_a_model_of_detrs_kind_sees_the_image_stretched(jobs: Jobs) -> None:
    """Letterboxed, its means would have the grey of the margin, and its boxes other places."""
    model = save_boxes_detector(jobs.top / "net.onnx", size=(64, 64), metadata=NAMES)
    records = jobs.records(model)
    found = [record["detections"][0] for record in records]
    assert {tuple(detection["bbox"]) for detection in found} == {(0.5, 0.25, 0.25, 0.25)}
    assert [detection["conf"] for detection in found] == pytest.approx(
        [1, 200 / 255, 150 / 255, 90 / 255], abs=0.01
    )
    assert {detection["label"] for detection in found} == {"car"}


def test_tiles_of_a_model_of_detrs_kind_are_stretched_too(jobs: Jobs) -> None:
    (jobs.top / "rules.yaml").write_text(
        "version: 1\ndefaults:\n  objects: {car: {}}\n  tiles: {columns: 2, rows: 1}\n"
    )
    for file in jobs.input.iterdir():
        file.write_bytes(jpeg((255, 0, 102), (1280, 720)))
    model = save_boxes_detector(
        jobs.top / "net.onnx", boxes=[(0.25, 0.25, 0.5, 0.5)], size=(64, 64), metadata=NAMES
    )
    record = jobs.records(model, "--rules", jobs.top / "rules.yaml")[0]
    assert len(record["detections"]) >= 2
    assert min(detection["conf"] for detection in record["detections"]) > 0.98


def test_the_output_is_the_same_for_each_batch_size_and_number_of_threads(jobs: Jobs) -> None:
    model = save_logits_detector(jobs.top / "net.onnx", classes=80, names=("pred_boxes", "logits"))
    trees = []
    for options in (("--batch_size", "1"), ("--batch_size", "8", "--model_threads", "3")):
        assert jobs.run(model, *options).code == 0
        trees.append(
            {name: data for name, data in tree(jobs.output).items() if name.startswith("det")}
        )
    assert trees[0] == trees[1]
    assert len(trees[0]) == 4


def test_resume_reuses_what_the_same_file_has_detected_at_the_same_size(jobs: Jobs) -> None:
    names = ("pred_boxes", "logits")
    model = save_logits_detector(
        jobs.top / "net.onnx", classes=80, names=names, size=("width", "height")
    )
    output = jobs.top / "resumed"

    def resumed(*more: str | Path) -> bool:
        done = jobs.run(model, "--resume", *more, output=output)
        assert done.code == 0, done.err
        return "4 of them processed in an earlier run" in done.out

    assert not resumed("--model_input_size", "64")
    assert resumed("--model_input_size", "64")
    assert not resumed("--model_input_size", "96")
    labels = jobs.top / "labels.txt"
    labels.write_text("1 person\n2 cat\n")
    assert not resumed("--model_input_size", "96", "--labels", labels)
    save_logits_detector(
        model, boxes=[(0.5, 0.5, 0.5, 0.5)], classes=80, names=names, size=("width", "height")
    )
    assert not resumed("--model_input_size", "96", "--labels", labels)
    assert resumed("--model_input_size", "96", "--labels", labels)


def test_labels_of_a_file_go_before_those_of_the_metadata(jobs: Jobs) -> None:
    labels = jobs.top / "labels.txt"
    labels.write_text("person\nvan\nbus\n")
    model = save_yolox(jobs.top / "net.onnx", {0: ROW}, metadata=NAMES)
    found = jobs.records(model, "--labels", labels)[0]["detections"]
    assert {detection["label"] for detection in found} == {"person", "van", "bus"}
    labels.write_text("a\nb\nc\nd\n")
    done = jobs.run(model, "--labels", labels)
    assert done.code == 2
    assert "names class 4 ('d'), but the model has 3 classes" in done.err


def test_a_name_of_yolox_is_downloaded_once(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_CACHE", str(jobs.top / "cache"))
    made = save_yolox(jobs.top / "made.onnx", {0: ROW}, metadata=NAMES)
    with WebService() as web:
        monkeypatch.setenv("MODEL_YOLOX_ADDRESS", web.url)
        web.answers = [status(200, made.read_bytes())]
        for _ in range(2):
            assert jobs.records("yolox_tiny")[0]["model"]["name"] == "yolox_tiny"
    assert [request.path for request in web.requests] == ["/yolox_tiny.onnx"]


def without_names(path: Path) -> Path:
    return save_yolox(path, {})


def without_a_head(path: Path) -> Path:
    return save(path, [*CHANNELS, helper.make_node("Relu", ["means"], ["p"])], {"p": (1, 1, 3)})


def with_custom_operators(path: Path) -> Path:
    nodes = [helper.make_node("EfficientNMS", ["image"], ["p"], domain="TRT")]
    return save(path, nodes, {"p": (1, 1, 3)}, domains=["TRT"])


def with_weights_missing(path: Path) -> Path:
    save_with_external_data(path, "net.bin")
    (path.parent / "net.bin").unlink()
    return path


def with_weights_outside(path: Path) -> Path:
    save_with_external_data(path, "net.bin")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../net.bin"
    path.write_bytes(model.SerializeToString())
    return path


def with_weights_cut(path: Path) -> Path:
    save_with_external_data(path, "net.bin")
    (path.parent / "net.bin").write_bytes(b"\0" * 100)
    return path


def damaged(path: Path) -> Path:
    whole = save_yolox(path, {}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_names, "does not say what its 3 classes are called; give --labels"),
        (without_a_head, "no detector with a head that is known: its outputs for 64x32 pixels are"),
        (with_custom_operators, "its graph has TRT.EfficientNMS, which ONNX Runtime does not have"),
        (with_weights_missing, "its weights are in the file 'net.bin', which is missing; put it"),
        (with_weights_outside, "its weights are in '../net.bin', outside its folder"),
        (with_weights_cut, "ONNX Runtime can't load it"),
        (damaged, "not an ONNX file, or a damaged one"),
    ],
)
def test_a_file_that_can_not_be_used_is_a_wrong_set_up(
    jobs: Jobs, make: Callable[[Path], Path], message: str
) -> None:
    model = make(jobs.top / "net.onnx")
    done = jobs.run(model)
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if "net.onnx" in line]
    assert line.startswith(f"beam_pipeline: --model: {model}: ")
    assert message in line
    assert "Traceback" not in done.err
    assert not (jobs.output / "final").exists()


def test_without_onnx_runtime_a_job_says_how_to_install_it(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = jobs.run(save_yolox(jobs.top / "net.onnx", {}, metadata=NAMES))
    assert done.code == 2
    assert "run `pip install '.[onnx]'` here and on the workers" in done.err


def test_a_runtime_for_saved_models_does_not_run_an_onnx_file(jobs: Jobs) -> None:
    model = save_yolox(jobs.top / "net.onnx", {}, metadata=NAMES)
    done = jobs.run(model, "--model_runtime", "tflite")
    assert done.code == 2
    assert "a .onnx file runs as it is; leave out --model_runtime tflite" in done.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["rules", "check", "RULES"], ["rules", "--help"]]
)
def test_other_commands_do_not_load_onnx_runtime(tmp_path: Path, arguments: list[str]) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\ndefaults: {objects: {person: {}}}\n")
    program = (
        "import sys\n"
        "from beam_pipeline import cli\n"
        "try:\n"
        "    code = cli.main(sys.argv[1:])\n"
        "except SystemExit as ended:\n"
        "    code = ended.code\n"
        "assert not code, code\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )
    given = [str(rules) if argument == "RULES" else argument for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
