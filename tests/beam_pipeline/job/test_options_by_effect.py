"""Every option of the job changes what the job does, when it is on the command line.

An option that is parsed and then ignored fails here: each has a test that names it, here or in the
table of those whose effect needs a real cluster or cloud.
"""

from __future__ import annotations

import argparse
import ast
import base64
import calendar
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest

from beam_pipeline.job.options import add_arguments
from beam_pipeline.runners import launching
from tests.beam_pipeline.conftest import jpeg, read_json, tree
from tests.beam_pipeline.played import RUNNER, Clock, Event, EventTime, Found, PlayedRunner
from tests.conftest import Command, Done
from tests.transforms.convolutional_models import save_convolutional_detector
from tests.transforms.small_models import save_detector
from tests.transforms.web_service import WebService
from transforms.models.detector import Detector
from transforms.storage import stores

Test = TypeVar("Test", bound=Callable[..., None])

ELSEWHERE = {
    "--follow_links": "beam_pipeline/test_unlistable_job.py::test_links_are_followed_on_request",
    "--streaming": "flink/test_rules.py::"
    "test_an_edited_rule_file_is_taken_up_and_a_broken_one_refused",
    "--notifications": "flink/test_notifications.py::"
    "test_a_stream_judges_each_picture_of_which_it_is_told_once",
    "--input_parts": "flink/test_input_parts.py::"
    "test_each_slot_lists_its_part_and_a_savepoint_keeps_the_parts",
    "--model_min_ram": "deploy/test_dataflow.py::"
    "test_a_template_holds_the_image_the_hints_and_the_steps",
    "--model_accelerator": "deploy/test_dataflow.py::"
    "test_a_template_holds_the_image_the_hints_and_the_steps",
}
"""Options whose effect is seen by the test of another file."""

_shown: dict[str, str] = {}


def shows(*options: str) -> Callable[[Test], Test]:
    """Says of a test that it fails where one of these options is ignored."""

    def decorate(test: Test) -> Test:
        _shown.update(dict.fromkeys(options, test.__name__))
        return test

    return decorate


def test_every_option_has_a_test_of_its_effect() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    assert options == set(_shown) | set(ELSEWHERE)


@pytest.mark.parametrize("option", sorted(ELSEWHERE))
def test_the_test_of_an_effect_elsewhere_is_there_and_gives_the_option(option: str) -> None:
    file, _, name = ELSEWHERE[option].partition("::")
    path = Path(__file__).parents[2] / file
    module = ast.parse(path.read_text())
    assert name in {part.name for part in module.body if isinstance(part, ast.FunctionDef)}
    pattern = re.compile(rf"\"{option}[\"=]")
    helper = Path(__file__).parents[2] / "flink" / "stream_job.py"
    assert any(pattern.search(file.read_text()) for file in (path, helper))


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds a person of 0.9, and a car whose score is the width of the model's input / 1000."""
    return save_detector(tmp_path_factory.mktemp("model") / "sized", tells_size=True)


class Folder:
    """A folder of images, and jobs on it, each with an output of its own."""

    def __init__(self, top: Path, command: Command, detector: Path) -> None:
        self.input, self._top, self._command, self._detector = top / "in", top, command, detector
        self._runs = 0
        self.input.mkdir()

    def put(self, name: str, data: bytes | None = None) -> None:
        (self.input / name).write_bytes(jpeg() if data is None else data)

    def run(self, *arguments: str | Path, output: Path | None = None) -> Path:
        """The output of a job with these options."""
        self._runs += 1
        output = output or self._top / f"out-{self._runs}"
        self.done = self._command(
            *("--input", self.input, "--output", output, "--model", self._detector),
            *map(str, arguments),
        )
        assert self.done.code == 0, self.done.err
        return output

    done: Done


@pytest.fixture
def folder(tmp_path: Path, command: Command, detector: Path) -> Folder:
    return Folder(tmp_path, command, detector)


def finals(output: Path) -> dict[str, Any]:
    """The verdicts, by file name."""
    records = map(read_json, sorted((output / "final").glob("*/*.json")))
    return {record["file"]: record for record in records}


def reasons(output: Path) -> dict[str, str]:
    """Why images are invalid, by file name."""
    records = map(read_json, sorted((output / "invalid").glob("*/*.json")))
    return {record["file"]: record["reason"] for record in records}


def counts(output: Path) -> list[dict[str, Any]]:
    """The count rows of all windows."""
    files = sorted((output / "counts").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


NAME = "hall_20260131T120000Z.jpg"


@shows("--input", "--output")
def test_what_is_read_and_where_it_is_written(folder: Folder, tmp_path: Path) -> None:
    folder.put(NAME)
    output = folder.run(output=tmp_path / "elsewhere")
    assert output == tmp_path / "elsewhere"
    assert list(finals(output)) == [NAME]
    assert finals(output)[NAME]["uri"] == str(tmp_path / "in" / NAME)


@shows("--min_resolution", "--max_resolution")
def test_resolutions_that_are_taken(folder: Folder) -> None:
    sizes = {"least": (100, 80), "low": (99, 80), "flat": (100, 79)}
    sizes |= {"most": (900, 700), "high": (901, 700), "tall": (900, 701)}
    for name, size in sizes.items():
        folder.put(f"{name}_20260131T120000Z.jpg", jpeg(size=size))
    outcome = reasons(folder.run("--min_resolution", "100x80", "--max_resolution", "900x700"))
    assert {name.split("_")[0]: reason for name, reason in outcome.items()} == {
        **dict.fromkeys(("low", "flat"), "resolution_too_low"),
        **dict.fromkeys(("high", "tall"), "resolution_too_high"),
    }
    outcome = reasons(folder.run())
    assert {name.split("_")[0] for name in outcome} == {"least", "low", "flat"}
    assert set(outcome.values()) == {"resolution_too_low"}


def test_resolutions_that_are_taken_without_options(folder: Folder) -> None:
    """160x120 to 8192x8192."""
    sizes = {"least": (160, 120), "low": (159, 120), "flat": (160, 119)}
    sizes |= {"most": (8192, 120), "high": (8193, 120), "tall": (160, 8193)}
    for name, size in sizes.items():
        folder.put(f"{name}_20260131T120000Z.jpg", jpeg(size=size))
    outcome = reasons(folder.run())
    assert {name.split("_")[0]: reason for name, reason in outcome.items()} == {
        **dict.fromkeys(("low", "flat"), "resolution_too_low"),
        **dict.fromkeys(("high", "tall"), "resolution_too_high"),
    }


@shows("--max_file_mib")
def test_the_largest_file(folder: Folder) -> None:
    """Bytes after a JPEG's end are skipped, so that a file is as large as is asked."""
    content = jpeg()
    for name, size in (("most", 2 << 20), ("more", (2 << 20) + 1)):
        folder.put(f"{name}_20260131T120000Z.jpg", content.ljust(size, b"\0"))
    more = "more_20260131T120000Z.jpg"
    assert reasons(folder.run("--max_file_mib", "2")) == {more: "file_too_large"}
    assert reasons(folder.run()) == {}


def test_the_largest_file_without_the_option_has_64_mib(folder: Folder) -> None:
    for name, size in (("most", 67_108_864), ("more", 67_108_865)):
        folder.put(f"{name}_20260131T120000Z.jpg")
        with (folder.input / f"{name}_20260131T120000Z.jpg").open("r+b") as file:
            file.truncate(size)
    assert reasons(folder.run()) == {"more_20260131T120000Z.jpg": "file_too_large"}


@shows("--max_clock_skew_seconds")
def test_how_far_ahead_of_the_clock_an_image_may_be(folder: Folder) -> None:
    now = datetime.now(timezone.utc)
    for name, ahead in (("hour", 1), ("day", 23), ("more", 25), ("week", 24 * 7)):
        folder.put(f"{name}_{now + timedelta(hours=ahead):%Y%m%dT%H%M%SZ}.jpg")

    def future(*arguments: str) -> set[str]:
        outcome = reasons(folder.run(*arguments))
        assert set(outcome.values()) == {"timestamp_in_future"}
        return {name.split("_")[0] for name in outcome}

    assert future() == {"more", "week"}
    assert future("--max_clock_skew_seconds", "7200") == {"day", "more", "week"}
    assert future("--max_clock_skew_seconds", "259200") == {"week"}


def times(output: Path) -> dict[str, tuple[str, str]]:
    """The camera and capture time of each valid image, by the name as received."""
    return {file: (one["id"], one["timestamp"]) for file, one in finals(output).items()}


@shows("--name_preset")
def test_names_that_a_preset_reads(folder: Folder) -> None:
    folder.put("Front Door_00_20260131175217.jpg")
    folder.put("hall_20260131T175217Z.jpg")
    assert reasons(folder.run()) == {"Front Door_00_20260131175217.jpg": "bad_name"}
    output = folder.run("--name_preset", "reolink")
    assert times(output) == {
        "Front Door_00_20260131175217.jpg": ("Front-Door", "2026-01-31T17:52:17Z"),
        "hall_20260131T175217Z.jpg": ("hall", "2026-01-31T17:52:17Z"),
    }
    stem = "Front-Door/Front-Door_20260131T175217Z"
    for file in (f"final/{stem}.json", f"detections/{stem}.json", f"validated/{stem}.jpg"):
        assert (output / file).is_file()
    assert reasons(folder.run("--name_preset", "dahua")) == {
        "Front Door_00_20260131175217.jpg": "bad_name"
    }


@shows("--name_pattern")
def test_names_that_a_pattern_reads(folder: Folder) -> None:
    below = folder.input / "front door" / "2026" / "01" / "31"
    below.mkdir(parents=True)
    (below / "175217.jpg").write_bytes(jpeg())
    pattern = "{camera}/{time:%Y/%m/%d}/{time:%H%M%S}.jpg"
    output = folder.run("--name_pattern", pattern)
    assert times(output) == {"175217.jpg": ("front-door", "2026-01-31T17:52:17Z")}
    assert reasons(folder.run("--name_pattern", f"2026/{pattern}")) == {"175217.jpg": "bad_name"}


@shows("--timezone")
def test_names_in_local_time(folder: Folder) -> None:
    folder.put("hall_20260131175217.jpg")
    folder.put("hall_20260731T175217.jpg")
    folder.put("hall_20260131T175217Z.jpg")

    def hours(*arguments: str) -> list[str]:
        return sorted(timestamp[5:13] for _, timestamp in times(folder.run(*arguments)).values())

    assert hours("--timezone", "Europe/Berlin") == ["01-31T16", "01-31T17", "07-31T15"]
    (folder.input / "hall_20260131T175217Z.jpg").unlink()
    assert hours() == ["01-31T17", "07-31T17"]


@shows("--model", "--model_input_size")
def test_the_model_and_the_size_at_which_it_looks(folder: Folder) -> None:
    folder.put(NAME)

    def scores_of(*arguments: str) -> dict[str, float]:
        detections = finals(folder.run(*arguments))[NAME]["detections"]
        return {detection["label"]: detection["conf"] for detection in detections}

    assert scores_of("--model_input_size", "96") == {"person": 0.9, "car": 0.096}
    assert scores_of() == {"person": 0.9, "car": 0.64}
    assert max(scores_of("--model", "bundled").values()) < 0.1


@shows("--detections")
def test_detections_of_another_detector_take_the_place_of_a_model(
    folder: Folder, command: Command, tmp_path: Path
) -> None:
    folder.put(NAME)
    found = tmp_path / "found.json"
    detection = {"category": "7", "conf": 0.4321, "bbox": [0.25, 0.5, 0.125, 0.25]}
    document = {
        "images": [{"file": NAME, "detections": [detection]}],
        "detection_categories": {"1": "person", "7": "fox"},
    }
    found.write_text(json.dumps(document))
    arguments = ("--input", folder.input, "--output", tmp_path / "out", "--detections", found)
    done = command(*arguments)
    assert done.code == 0, done.err
    assert finals(tmp_path / "out")[NAME]["detections"] == [{**detection, "label": "fox"}]


@shows("--model_runtime")
def test_what_runs_the_model_is_in_each_record_and_sees_the_same(
    folder: Folder, tmp_path: Path
) -> None:
    model = save_convolutional_detector(tmp_path / "net")
    folder.put(NAME)
    detections = {}
    for runtime in ("auto", "savedmodel", "tflite", "tflite-int8"):
        record = finals(folder.run("--model", model, "--model_runtime", runtime))[NAME]
        assert record["model"]["runtime"] == ("savedmodel" if runtime == "auto" else runtime)
        detections[runtime] = [
            (detection["label"], detection["conf"]) for detection in record["detections"]
        ]
    assert len(detections["savedmodel"]) > 5
    for (label, conf), (other_label, other_conf) in zip(
        detections["savedmodel"], detections["tflite"], strict=True
    ):
        assert (label, conf) == (other_label, pytest.approx(other_conf, abs=0.0002))
    assert detections["tflite-int8"] != detections["tflite"]
    output = folder.run("--model", model, "--model_runtime", "tflite")
    folder.run("--model", model, "--model_runtime", "savedmodel", "--resume", output=output)
    assert "processed in an earlier run" not in folder.done.out


def test_a_runtime_that_can_not_run_the_model_is_a_wrong_set_up(
    folder: Folder, command: Command, tmp_path: Path, detector: Path
) -> None:
    folder.put(NAME)
    arguments = ("--input", folder.input, "--output", tmp_path / "out", "--model", detector)
    done = command(*arguments, "--model_runtime", "tflite")
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if "--model: " in line]
    assert "TFLite supports only 0% of its multiplications; give --model_runtime" in line


@shows("--trust_model")
def test_a_model_that_writes_files_is_run_where_it_is_trusted(
    folder: Folder, command: Command, tmp_path: Path
) -> None:
    folder.put(NAME)
    model = save_detector(tmp_path / "writing", writes=tmp_path / "written")
    arguments = ("--input", folder.input, "--output", tmp_path / "out", "--model", model)
    refused = command(*arguments)
    assert refused.code == 2
    assert "its graph has PrintV2" in refused.err
    assert command(*arguments, "--trust_model").code == 0
    assert (tmp_path / "written").read_text() == "looked\n"


@shows("--min_score_kept")
def test_the_least_score_that_is_kept(folder: Folder) -> None:
    folder.put(NAME)

    def kept(*arguments: str) -> list[float]:
        output = folder.run(*arguments)
        return [detection["conf"] for detection in finals(output)[NAME]["detections"]]

    assert kept("--model_input_size", "50") == [0.9, 0.05]
    assert kept("--model_input_size", "49") == [0.9]
    assert kept("--model_input_size", "49", "--min_score_kept", "0.01") == [0.9, 0.049]
    assert kept("--min_score_kept", "0.641") == [0.9]
    assert kept("--min_score_kept", "0.95") == []


def test_a_score_that_track_needs_must_be_kept(
    folder: Folder, command: Command, tmp_path: Path
) -> None:
    folder.put(NAME)
    tracking = tmp_path / "rules.yaml"
    tracking.write_text("version: 1\ndefaults: {objects: {person: }, track: }\n")
    arguments = ("--input", folder.input, "--output", tmp_path / "out", "--rules", tracking)
    refused = command(*arguments, "--min_score_kept", "0.2")
    assert refused.code == 2
    assert refused.err.strip().splitlines() == [
        f"beam_pipeline: {tracking}: track.min_score of any other camera is 0.1, but "
        "--min_score_kept drops detections below 0.2; give --min_score_kept 0.1, or raise "
        "track.min_score to 0.2"
    ]
    folder.run("--rules", tracking, "--min_score_kept", "0.1")


@shows("--labels", "--rules")
def test_names_of_classes_and_what_is_a_threat(folder: Folder, tmp_path: Path) -> None:
    folder.put(NAME)
    labels, rules = tmp_path / "labels.txt", tmp_path / "rules.yaml"
    labels.write_text("1 intruder\n3 lorry\n")
    rules.write_text("version: 1\ndefaults: {objects: {lorry: {severity: detection}}}\n")
    record = finals(folder.run("--labels", labels, "--rules", rules))[NAME]
    assert [detection["label"] for detection in record["detections"]] == ["intruder", "lorry"]
    threats = [(threat["label"], threat["severity"]) for threat in record["threat"]["threats"]]
    assert threats == [("lorry", "detection")]
    record = finals(folder.run())[NAME]
    threats = [(threat["label"], threat["severity"]) for threat in record["threat"]["threats"]]
    assert threats == [("person", "alert")]


@shows("--shadow_rules")
def test_rules_that_are_tried_beside_the_others(folder: Folder, tmp_path: Path) -> None:
    """The model has found a person, and no cat."""
    folder.put(NAME)
    (tmp_path / "shadow.yaml").write_text("version: 1\ndefaults: {objects: {cat: }}\n")
    output = folder.run("--shadow_rules", tmp_path / "shadow.yaml")
    (path,) = (output / "shadow" / "alerts" / "hall").iterdir()
    assert read_json(path)["difference"] == "only_rules"
    assert not (folder.run() / "shadow").exists()


@shows("--batch_size")
def test_images_that_are_handed_to_the_model_at_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    start = Detector.start

    def counted(self: Detector, images: Sequence[Any]) -> Any:
        sizes.append(len(images))
        return start(self, images)

    monkeypatch.setattr(Detector, "start", counted)
    for second in range(20):
        folder.put(f"hall_20260131T1200{second:02}Z.jpg")

    def handed(*arguments: str) -> Counter[int]:
        sizes.clear()
        assert len(finals(folder.run(*arguments))) == 20
        average = 20 / len(sizes)
        pattern = (
            rf"inference +{len(sizes)} batch(es)? of {average:.1f} images and [0-9]+ ms on average"
        )
        assert re.search(pattern, folder.done.out)
        return Counter(sizes)

    assert handed("--batch_size", "5") == {5: 4}
    assert handed("--batch_size", "20") == {20: 1}
    assert handed() == {8: 2, 4: 1}


@shows("--model_threads")
def test_calls_of_the_model_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call waits until as many are under way as may be: one fewer, and it waits in vain."""
    call = Detector._call
    lock = threading.Lock()
    under_way = most = 0

    def run(threads: int) -> int:
        nonlocal most
        most = 0
        together = threading.Barrier(threads)

        def counted(self: Detector, images: Sequence[Any]) -> Any:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            together.wait(timeout=60)
            with lock:
                under_way -= 1
            return call(self, images)

        monkeypatch.setattr(Detector, "_call", counted)
        output = folder.run("--model_threads", str(threads), "--batch_size", "15")
        assert len(finals(output)) == 15
        return most

    for second in range(15):
        folder.put(f"hall_20260131T1200{second:02}Z.jpg")
    assert [run(threads) for threads in (1, 3, 5)] == [1, 3, 5]


@shows("--no_store_validated")
def test_no_copies_of_valid_images(folder: Folder) -> None:
    folder.put(NAME)
    kept = tree(folder.run())
    assert kept[f"validated/hall/{NAME}"] == jpeg()
    without = tree(folder.run("--no_store_validated"))
    assert {name for name in kept if name not in without} == {f"validated/hall/{NAME}"}
    assert set(tree(folder.run("--no_store_validated", "false"))) == set(kept)


@shows("--resume")
def test_what_an_earlier_run_has_seen_is_not_looked_at_again(folder: Folder) -> None:
    folder.put(NAME)
    output = folder.run()
    folder.run(output=output)
    assert "processed in an earlier run" not in folder.done.out
    folder.run("--resume", output=output)
    assert "valid               1 (1 of them processed in an earlier run)" in folder.done.out
    folder.run("--resume", "--model", "bundled", output=output)
    assert "processed in an earlier run" not in folder.done.out
    assert finals(output)[NAME]["model"]["name"] == "bundled"


@pytest.mark.parametrize(
    ("option", "before", "now"),
    [
        ("--labels", "coco", "other"),
        ("--min_score_kept", "0.7", "0.05"),
        ("--min_score_kept", "0.05", "0.7"),
        ("--model_input_size", "640", "96"),
    ],
)
def test_what_an_earlier_run_has_seen_in_another_way_is_looked_at_again(
    folder: Folder, tmp_path: Path, option: str, before: str, now: str
) -> None:
    """And ends with the tree of a first run."""
    labels = {"coco": "1 person\n3 car\n", "other": "1 cat\n3 person\n"}
    for name, text in labels.items():
        (tmp_path / name).write_text(text)
    before, now = (
        str(tmp_path / option) if option in labels else option for option in (before, now)
    )
    folder.put(NAME)
    output = folder.run(option, before)
    detections = finals(output)[NAME]["detections"]
    folder.run("--resume", option, now, output=output)
    assert "processed in an earlier run" not in folder.done.out
    assert finals(output)[NAME]["detections"] != detections
    first = folder.run(option, now)
    told_of = {  # An alert names where its verdict is kept.
        name: data.replace(bytes(first), bytes(output)) if name.startswith("alerts/") else data
        for name, data in tree(first).items()
    }
    assert tree(output) == told_of
    folder.run("--resume", option, now, output=output)
    assert "(1 of them processed in an earlier run)" in folder.done.out


def test_what_a_release_has_seen_that_did_not_say_how_is_looked_at_again(folder: Folder) -> None:
    folder.put(NAME)
    output = folder.run()
    (path,) = (output / "detections").glob("*/*.json")
    record = json.loads(path.read_text())
    settings = record["model"].pop("settings")
    assert re.fullmatch("[0-9a-f]{12}", settings)
    path.write_text(json.dumps(record))
    folder.run("--resume", output=output)
    assert "processed in an earlier run" not in folder.done.out
    assert json.loads(path.read_text())["model"]["settings"] == settings


@pytest.fixture
def service() -> Any:
    with WebService() as running:
        yield running


def ages(folder: Folder) -> dict[str, str]:
    """Images that are so many minutes old; their names by canonical time."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    names = {}
    for minutes in (1, 50, 70, 90, 60 * 26):
        capture_time = now - timedelta(minutes=minutes)
        folder.put(f"hall_{capture_time:%Y%m%dT%H%M%SZ}.jpg")
        names[f"{capture_time:%Y-%m-%dT%H:%M:%SZ}"] = str(minutes)
    return names


@shows("--alert_url", "--alert_max_age")
@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (["--alert_max_age", "1h"], {"1", "50"}),
        (["--alert_max_age", "80m"], {"1", "50", "70"}),
        (["--alert_max_age", "600s"], {"1"}),
        (["--alert_max_age", "1d"], {"1", "50", "70", "90"}),
        (["--alert_max_age", "off"], {"1", "50", "70", "90", "1560"}),
        ([], {"1", "50", "70", "90", "1560"}),
    ],
)
def test_alerts_are_sent_up_to_their_largest_age(
    folder: Folder, service: WebService, arguments: list[str], sent: set[str]
) -> None:
    names = ages(folder)
    output = folder.run("--alert_url", f"{service.url}/hook", *arguments)
    times = [json.loads(request.body)["timestamp"] for request in service.requests]
    assert {names[timestamp] for timestamp in times} == sent
    assert len(times) == len(sent)
    records = map(read_json, (output / "alerts").glob("hall/*.json"))
    outcomes = {names[record["timestamp"]]: record["targets"][0]["outcome"] for record in records}
    assert outcomes == {
        name: "delivered" if name in sent else "not_sent" for name in names.values()
    }


def test_an_alert_that_was_too_old_hides_no_recent_one_of_its_incident(
    folder: Folder, service: WebService
) -> None:
    """An incident with an image each four minutes began 76 minutes ago and ended 48 minutes ago."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    names = {}
    for minutes in range(48, 77, 4):
        capture_time = now - timedelta(minutes=minutes)
        folder.put(f"hall_{capture_time:%Y%m%dT%H%M%SZ}.jpg")
        names[f"{capture_time:%Y-%m-%dT%H:%M:%SZ}"] = minutes
    options = ("--alert_url", f"{service.url}/hook", "--alert_max_age", "1h")
    output = folder.run(*options)
    (request,) = service.requests
    sent = json.loads(request.body)
    assert names[sent["timestamp"]] in (48, 52, 56)
    (delivered,) = [
        record
        for record in map(read_json, (output / "alerts").glob("hall/*.json"))
        if record["targets"][0]["outcome"] == "delivered"
    ]
    assert delivered["alert_id"] == sent["alert_id"]
    verdicts = [final["threat"]["suppressed_by"] for final in finals(output).values()]
    assert (verdicts[0], len(set(verdicts[1:]))) == (None, 1)
    folder.run(*options, output=output)
    assert len(service.requests) == 1


def test_every_alert_url_gets_the_alert(folder: Folder, service: WebService) -> None:
    folder.put(NAME)
    urls = [f"{service.url}/{name}" for name in ("one", "other")]
    folder.run("--alert_url", urls[0], "--alert_url", urls[1])
    assert sorted(request.path for request in service.requests) == ["/one", "/other"]


@pytest.mark.parametrize(
    ("rule_lines", "zone", "local"),
    [
        ("", "Europe/Berlin", "2026-01-31T18:00:00+01:00"),
        ("cameras: {hall: {timezone: Asia/Kolkata}}", "Asia/Kolkata", "2026-01-31T22:30:00+05:30"),
    ],
)
def test_an_alert_url_gets_the_boxes_the_words_the_picture_and_the_local_time(
    folder: Folder, service: WebService, tmp_path: Path, rule_lines: str, zone: str, local: str
) -> None:
    folder.put("hall_20260131T180000.jpg")
    rules = tmp_path / "own.yaml"
    rules.write_text(f"version: 1\ndefaults: {{objects: {{person: }}}}\n{rule_lines}\n")
    options = ("--alert_url", service.url, "--rules", rules, "--timezone", "Europe/Berlin")
    output = folder.run(*options)
    (request,) = service.requests
    sent = json.loads(request.body)
    assert sent["timestamp"] == "2026-01-31T17:00:00Z"
    assert (sent["local_time"], sent["timezone"]) == (local, zone)
    (final,) = finals(output).values()
    boxes = [threat["bbox"] for threat in sent["threats"]]
    assert boxes == [
        final["detections"][threat["detection"]]["bbox"] for threat in final["threat"]["threats"]
    ]
    assert len(boxes) > 0
    assert sent["text"].startswith(f"person at hall\n{local[:10]} {local[11:19]} ({zone}, UTC+")
    assert base64.b64decode(sent["picture"]).startswith(b"\xff\xd8")
    assert sent["links"] == {}  # Links of a local disk can't be signed.
    (record,) = map(read_json, (output / "alerts").glob("hall/*.json"))
    shared = {name: value for name, value in record.items() if name != "targets"}
    assert shared == {name: sent[name] for name in shared}
    assert sent.keys() - shared.keys() == {"subject", "text", "links", "picture"}
    page = (output / "report" / "report.html").read_text()
    assert f'datetime="2026-01-31T17:00:00Z">{local[:10]} {local[11:19]} ({zone}, UTC+' in page


def test_a_reference_in_an_alert_url_is_looked_up_where_it_is_sent(
    folder: Folder, service: WebService, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(NAME)
    monkeypatch.setenv("ALERT_HOOK", "h00k")
    output = folder.run("--alert_url", service.url + "/${ALERT_HOOK}")
    assert [request.path for request in service.requests] == ["/h00k"]
    assert not any(b"h00k" in path.read_bytes() for path in output.rglob("*") if path.is_file())


@shows("--window_seconds")
def test_the_length_of_a_window(folder: Folder) -> None:
    for minute in range(4):
        folder.put(f"hall_20260131T120{minute}30Z.jpg")

    def windows(*arguments: str) -> list[tuple[str, str, int]]:
        rows = counts(folder.run(*arguments))
        return [(row["window_start"][11:], row["window_end"][11:], row["images"]) for row in rows]

    assert windows("--window_seconds", "120") == [
        ("12:00:00Z", "12:02:00Z", 2),
        ("12:02:00Z", "12:04:00Z", 2),
    ]
    assert windows() == [("12:00:00Z", "12:05:00Z", 4)]


@shows("--count_shards")
def test_files_for_the_counts_of_one_window(folder: Folder) -> None:
    for camera in ("attic", "front-door", "hall", "yard"):
        folder.put(f"{camera}_20260131T120000Z.jpg")
    output = folder.run("--count_shards", "3")
    files = sorted(path.name for path in (output / "counts").iterdir())
    stem = "20260131T120000Z_20260131T120500Z"
    assert set(files) <= {f"{stem}-{shard}-of-3.jsonl" for shard in range(3)}
    assert len(files) > 1
    assert [path.name for path in (folder.run() / "counts").iterdir()] == [f"{stem}.jsonl"]
    assert {row["id"] for row in counts(output)} == {"attic", "front-door", "hall", "yard"}
    assert [path.name for path in (folder.run() / "counts").iterdir()] == [f"{stem}.jsonl"]


@shows("--chart_period_hours")
def test_the_hours_that_the_chart_shows(folder: Folder) -> None:
    """The report of a job shows the same period."""
    for day, hour in ((30, 12), (31, 6), (31, 11), (31, 12)):
        folder.put(f"hall_202601{day}T{hour:02}3000Z.jpg")

    def shown(*arguments: str) -> tuple[bytes, int]:
        output = folder.run(*arguments)
        page = (output / "report" / "report.html").read_text()
        (images,) = re.findall(r"([0-9]+) images from 1 id", page)
        return (output / "chart" / "threats.png").read_bytes(), int(images)

    runs = [shown("--chart_period_hours", hours) for hours in ("1.5", "12", "48")]
    runs.append(shown())
    assert len({chart for chart, _ in runs}) == 4
    assert [images for _, images in runs] == [2, 3, 4, 3]


START = calendar.timegm((2026, 1, 31, 12, 0, 0))


class Stream:
    """A stream whose images, event time and clock a test plays; the writes of counts are kept."""

    def __init__(self, folder: Folder, patch: pytest.MonkeyPatch) -> None:
        self.written: list[int] = []
        self._folder, self._patch = folder, patch
        write = stores.write_bytes

        def noting(uri: str, data: bytes) -> None:
            if "/counts/" in uri:
                rows = map(json.loads, data.splitlines())
                self.written.append(sum(row["images"] for row in rows))
            write(uri, data)

        patch.setattr(stores, "write_bytes", noting)

    def file_found(self, seconds: int) -> Found:
        """An image so many seconds after 12:00, where the source finds it."""
        capture_time = datetime.fromtimestamp(START + seconds, timezone.utc)
        path = self._folder.input / f"hall_{capture_time:%Y%m%dT%H%M%SZ}.jpg"
        path.write_bytes(jpeg())
        return Found(str(path), len(jpeg()))

    def play(
        self, *script: Event, arguments: Sequence[str] = (), output: Path | None = None
    ) -> Path:
        """The output after a script, with these options."""
        self.written.clear()
        self._patch.setattr(PlayedRunner, "script", script)
        return self._folder.run("--streaming", "--runner", RUNNER, *arguments, output=output)


@pytest.fixture
def stream(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Stream:
    return Stream(folder, monkeypatch)


@shows("--poll_interval_seconds")
def test_how_long_the_source_waits_between_two_looks(stream: Stream) -> None:
    """Flink cuts a pause to whole seconds: a part of a second is added for it."""

    def pause(*arguments: str) -> int:
        stream.play(EventTime(START), arguments=arguments)
        return int(PlayedRunner.pause)

    assert pause() == 5
    assert pause("--poll_interval_seconds", "40") == 40


@shows("--early_firing_seconds")
def test_counts_come_while_a_window_fills(stream: Stream) -> None:
    script = [EventTime(START), stream.file_found(1), Clock(45), stream.file_found(2), Clock(45)]
    script += [stream.file_found(3), EventTime(START + 300)]

    def written(*arguments: str) -> list[int]:
        # The runner's clock begins now, as the timers of the job are set by that of the machine.
        stream.play(Clock(time.time()), *script, arguments=arguments)
        return list(stream.written)

    assert written() == [1, 2, 3]
    assert written("--early_firing_seconds", "60") == [2, 3]
    assert written("--early_firing_seconds", "600") == [3]


@shows("--report_every")
def test_the_report_is_written_while_a_stream_runs(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is played has ended by then, which no stream does by itself."""
    script = [EventTime(START), stream.file_found(0), EventTime(START + 300)]
    really = launching.wait

    def is_written_within(seconds: float, *arguments: str) -> bool:
        output, found = tmp_path / f"out-{seconds}-{len(arguments)}", []

        def wait(*given: Any) -> Any:
            deadline = time.monotonic() + seconds
            page = output / "report" / "report.html"
            while not page.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            found.append(page.exists())
            return really(*given)

        monkeypatch.setattr(launching, "wait", wait)
        stream.play(*script, arguments=arguments, output=output)
        return found == [True]

    assert not is_written_within(1.5)
    assert not is_written_within(1.5, "--report_every", "off")
    assert is_written_within(20, "--report_every", "1s")


@shows("--allowed_lateness_seconds")
def test_how_late_an_image_of_a_stream_is_counted(stream: Stream) -> None:
    """Its window of five minutes is counted for so long after its end."""
    on_time, late, other = stream.file_found(0), stream.file_found(1), stream.file_found(2)
    script = [EventTime(START), on_time, EventTime(START + 300 + 3599), late]
    script += [EventTime(START + 300 + 3600), other]

    def counted(*arguments: str) -> tuple[int, int]:
        output = stream.play(*script, arguments=arguments)
        return counts(output)[0]["images"], len(list((output / "late").glob("*/*.json")))

    assert counted() == (2, 1)
    assert counted("--allowed_lateness_seconds", "3601") == (3, 0)
    assert counted("--allowed_lateness_seconds", "3599") == (1, 2)


def test_a_stream_without_the_state_of_an_earlier_one_counts_no_image_twice(stream: Stream) -> None:
    """The earlier stream has stored a count row of an image that was late."""
    on_time, late = stream.file_found(0), stream.file_found(1)
    output = stream.play(
        EventTime(START), on_time, EventTime(START + 300 + 3600), late, EventTime(START + 4000)
    )
    assert counts(output)[0]["images"] == 1
    assert len(list((output / "late").glob("*/*.json"))) == 1
    stream.play(on_time, late, EventTime(START + 4000), output=output)
    assert counts(output)[0]["images"] == 2
    assert list((output / "late").glob("*/*.json")) == []


def test_alerts_of_a_stream_are_sent_for_an_hour_by_default(
    folder: Folder, stream: Stream, service: WebService
) -> None:
    names = ages(folder)
    files = [Found(str(path), len(jpeg())) for path in sorted(folder.input.iterdir())]
    for arguments, sent in (
        ([], {"1", "50"}),
        (["--alert_max_age", "off"], {"1", "50", "70", "90", "1560"}),
        (["--alert_max_age", "80m"], {"1", "50", "70"}),
    ):
        service.requests.clear()
        stream.play(*files, arguments=["--alert_url", service.url, *arguments])
        times = [json.loads(request.body)["timestamp"] for request in service.requests]
        assert {names[timestamp] for timestamp in times} == sent


def test_a_stream_sends_alerts_of_a_camera_that_has_lost_its_clock(
    folder: Folder, stream: Stream, service: WebService
) -> None:
    """Images that were just received, and some that were received three hours ago. One clock fell
    back to 2021-01-01 49 hours ago."""
    now = datetime.now(timezone.utc).timestamp()
    files = []
    for camera, arrived in (("gate", now), ("yard", now - 3 * 3600)):
        for day in ("19700101", "20000101", "20210103"):
            folder.put(f"{camera}_{day}T010500Z.jpg", jpeg((int(day[:4]) % 250, 90, 90)))
            path = folder.input / f"{camera}_{day}T010500Z.jpg"
            files.append(Found(str(path), path.stat().st_size, arrived))
    output = stream.play(EventTime(now), *files, arguments=["--alert_url", service.url])
    sent = [json.loads(request.body) for request in service.requests]
    assert sorted((alert["id"], alert["timestamp"]) for alert in sent) == [
        ("gate", f"{day}T01:05:00Z") for day in ("1970-01-01", "2000-01-01", "2021-01-03")
    ]
    assert {alert["time_is_wrong"] for alert in sent} == {True}
    records = [read_json(file) for file in (output / "alerts").glob("[a-z]*/*.json")]
    assert len(records) == 6
    assert not any("time_is_wrong" in record or "arrived" in record for record in records)


def test_a_stream_reads_names_as_a_batch_does(folder: Folder, stream: Stream) -> None:
    for number, name in enumerate(("175217", "175218", "175218_2")):
        below = folder.input / "front door" / "2026" / "01" / "31"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{name}.jpg").write_bytes(jpeg((number, 90, 90)))
    options = ["--name_pattern", "{camera}/{time:%Y/%m/%d/%H%M%S}*.jpg"]
    options += ["--timezone", "Europe/Berlin"]
    files = sorted(folder.input.rglob("*.jpg"))
    script = [EventTime(START), *(Found(str(file), file.stat().st_size) for file in files)]
    for output in (folder.run(*options), stream.play(*script, arguments=options)):
        stems = sorted(path.stem for path in (output / "final").glob("*/*.json"))
        assert stems == ["front-door_20260131T165217Z", "front-door_20260131T165218Z"]
        assert list(reasons(output).values()) == ["duplicate"]
        assert set(times(output)) | set(reasons(output)) == {file.name for file in files}


def test_fewer_counts_do_not_overwrite_more_in_a_stream_and_do_in_a_batch(
    folder: Folder, stream: Stream, tmp_path: Path
) -> None:
    """A worker of a stream that was given up for dead may still write."""
    image = stream.file_found(1)
    window = "20260131T120000Z_20260131T120500Z.jsonl"
    row = {"id": "hall", "window_start": "2026-01-31T12:00:00Z"}
    row |= {"window_end": "2026-01-31T12:05:00Z"}
    more = {"images": 5, "threat_images": 0, "threats": 0, "alerts": 0, "by_label": {}}
    left = []
    for name in ("stream", "batch"):
        output = tmp_path / name
        (output / "counts").mkdir(parents=True)
        (output / "counts" / window).write_text(json.dumps({**row, **more}) + "\n")
        if name == "stream":
            stream.play(EventTime(START), image, EventTime(START + 300), output=output)
        else:
            folder.run(output=output)
        left += [archived["images"] for archived in counts(output)]
    assert left == [5, 1]


def test_an_image_of_a_stream_outlives_its_file_and_another_one_of_its_name(
    folder: Folder, stream: Stream, tmp_path: Path
) -> None:
    """The smaller sha256 wins, as both images show the same. The winner's file is gone when the
    other one comes."""
    best, other = sorted((jpeg(), jpeg((10, 20, 30))), key=lambda data: sha256(data).hexdigest())
    output = tmp_path / "stream"
    folder.put(NAME, best)
    first = Found(str(folder.input / NAME), len(best))
    stream.play(EventTime(START), first, output=output)
    (folder.input / NAME).unlink()
    (folder.input / "other").mkdir()
    folder.put(f"other/{NAME}", other)
    second = Found(str(folder.input / "other" / NAME), len(other))
    stream.play(EventTime(START + 2 * 86_400), second, output=output)
    assert finals(output)[NAME]["uri"] == first.uri
    assert (output / "validated" / "hall" / NAME).read_bytes() == best
    assert reasons(output) == {NAME: "duplicate"}


def test_the_window_of_an_image_of_a_stream_that_is_late(stream: Stream) -> None:
    image = stream.file_found(130)
    output = stream.play(
        EventTime(START + 2 * 86_400), image, arguments=["--window_seconds", "120"]
    )
    (row,) = map(read_json, (output / "late").glob("*/*.json"))
    assert row["window_start"] == "2026-01-31T12:02:00Z"
    assert row["window_end"] == "2026-01-31T12:04:00Z"


def test_files_up_to_the_largest_are_kept_as_they_were_whatever_is_wrong_with_them(
    folder: Folder, stream: Stream
) -> None:
    """Of larger ones the record alone: a name that says nothing, and in a stream a time to come,
    which a newer version of the file may be taken for."""
    later = datetime.now(timezone.utc) + timedelta(days=2)
    sizes = {"most": 1 << 20, "more": (1 << 20) + 1}
    for name, size in sizes.items():
        for file_name in (f"{name}.jpg", f"{name}_{later:%Y%m%dT%H%M%SZ}.jpg"):
            folder.put(file_name, jpeg().ljust(size, b"\0"))
    files = sorted(folder.input.iterdir())
    limit = ["--max_file_mib", "1"]
    script = [EventTime(START), *(Found(str(file), file.stat().st_size) for file in files)]
    for output in (folder.run(*limit), stream.play(*script, arguments=limit)):
        kept = {path.name for path in (output / "invalid").glob("*/*.jpg")}
        assert kept == {file.name for file in files if file.name.startswith("most")}
        assert set(reasons(output)) == {file.name for file in files}


@shows("--repository")
def test_verdicts_are_a_file_each_or_a_file_for_each_window(folder: Folder) -> None:
    for second in range(3):
        folder.put(f"hall_20260131T10000{second}Z.jpg")
    plain = folder.run("--repository", "json")
    packed = folder.run("--repository", "packed", "--no_store_validated")
    assert len(list((plain / "final").rglob("*.json"))) == 3
    assert not (plain / "packed").exists()
    (file,) = (packed / "packed").glob("*.parquet")
    assert file.name.startswith("20260131T100000Z_20260131T100500Z_")
    assert not (packed / "detections").exists()
    # Each image shows a person, and has an alert, but for the cooldown's.
    assert len(list((packed / "final").rglob("*.json"))) == 3
