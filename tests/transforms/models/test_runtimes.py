"""The runtime that is chosen for a model, and the conversions that a machine keeps."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.transforms.convolutional_models import save_convolutional_detector
from tests.transforms.small_models import save_detector
from transforms.models import runtimes
from transforms.models.conversion import Conversion
from transforms.models.converted import ConvertedModel, Part
from transforms.models.detector import ModelSpec, inspect_model
from transforms.models.model_files import ModelError, fetch_model
from transforms.models.runtime_names import RUNTIMES
from transforms.models.runtimes import SMALLEST_CONVERTED_BYTES, runtime_of

Answer = tuple[str, ConvertedModel | None]
MODEL = ConvertedModel("image:0", Part(b"", (), ()), b"m", (), (), Part(b"", (), ()), ())
SPEC = ModelSpec("/models/net", (64, 48), None, None)
GOOD = Conversion(MODEL, None, 0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model cache of a machine without a GPU, on which `auto` converts every model."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MODEL_CACHE", str(folder))
    monkeypatch.setattr(runtimes, "has_gpu", lambda: False)
    monkeypatch.setattr(runtimes, "SMALLEST_CONVERTED_BYTES", 0)
    runtimes._print_once.cache_clear()
    return folder


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Conversion, bool]]:
    """The results of simulated conversions, in order; the last one is repeated."""
    answers = [(GOOD, True)]
    monkeypatch.setattr(
        runtimes, "_convert", lambda *_: answers.pop(0) if len(answers) > 1 else answers[0]
    )
    return answers


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    printed = capsys.readouterr().err.splitlines()
    return [line for line in printed if "is being converted for this machine" not in line]


def kept_in(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "converted").iterdir() if path.suffix != ".lock")


def test_a_model_is_converted_once_and_the_result_is_kept(
    cache: Path, conversions: list[tuple[Conversion, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)
    assert "/models/net: is being converted for this machine" in capsys.readouterr().err
    (kept,) = kept_in(cache)
    assert kept.name.startswith("0123-1x64x48-tflite-tensorflow-2.")
    conversions[:] = [(Conversion(None, "no second conversion"), True)]
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spec", "version", "asked"),
    [
        pytest.param(SPEC, "4567", "tflite", id="other files"),
        pytest.param(ModelSpec("/models/net", (32, 32), None, None), "0123", "tflite", id="size"),
        pytest.param(ModelSpec("/models/net", (64, 48), 4, None), "0123", "tflite", id="batch"),
        pytest.param(SPEC, "0123", "tflite-int8", id="weights"),
    ],
)
def test_a_kept_conversion_is_used_only_for_its_model_size_and_runtime(
    cache: Path,
    conversions: list[tuple[Conversion, bool]],
    spec: ModelSpec,
    version: str,
    asked: str,
) -> None:
    runtime_of(SPEC, "0123", "tflite")
    runtime_of(spec, version, asked)
    assert len(kept_in(cache)) == 2


def test_each_release_of_tensorflow_has_its_own_conversions(
    cache: Path, conversions: list[tuple[Conversion, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_of(SPEC, "0123")
    monkeypatch.setattr(runtimes.load_tensorflow(), "__version__", "9.9.9")
    runtime_of(SPEC, "0123")
    assert [path.name.split("-")[4] for path in kept_in(cache)][1] == "9.9.9"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), id="a bit"),
        pytest.param(lambda data: b"x" * 200, id="another file"),
    ],
)
def test_a_damaged_file_is_reported_and_written_again(
    cache: Path,
    conversions: list[tuple[Conversion, bool]],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
) -> None:
    runtime_of(SPEC, "0123")
    (kept,) = kept_in(cache)
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    runtimes._print_once.cache_clear()
    capsys.readouterr()
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)
    (line,) = lines(capsys)
    assert f"{kept}: was damaged" in line
    assert kept.read_bytes() == whole


def test_a_cache_that_can_not_be_written_costs_only_time(
    cache: Path, conversions: list[tuple[Conversion, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("")  # Root ignores permissions, but even root can't use a file as a folder.
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)
    (line,) = lines(capsys)
    assert "can't be written" in line
    assert "set MODEL_CACHE" in line
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)


def test_a_full_disk_costs_only_time(
    cache: Path,
    conversions: list[tuple[Conversion, bool]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)
    (line,) = lines(capsys)
    assert "No space left on device" in line
    assert kept_in(cache) == []


def test_a_cache_that_can_only_be_read_is_used(
    cache: Path,
    conversions: list[tuple[Conversion, bool]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime_of(SPEC, "0123")
    capsys.readouterr()
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a lock was asked for"))
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)
    assert capsys.readouterr().err == ""


def test_auto_keeps_the_saved_model_if_the_results_differ_and_says_so(
    cache: Path, conversions: list[tuple[Conversion, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    conversions[:] = [(Conversion(MODEL, "it gives other results", 0.2), True)]
    for _ in range(2):
        assert runtime_of(SPEC, "0123") == ("savedmodel", None)
    assert lines(capsys) == ["/models/net: runs as a SavedModel: it gives other results"]
    with pytest.raises(ModelError, match="--model_runtime tflite: it gives other results; give"):
        runtime_of(SPEC, "0123", "tflite")


def test_eight_bit_weights_may_differ_and_a_line_says_by_how_much(
    conversions: list[tuple[Conversion, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    conversions[:] = [(Conversion(MODEL, "it gives other results", 0.0712), True)]
    assert runtime_of(SPEC, "0123", "tflite-int8") == ("tflite-int8", MODEL)
    (line,) = lines(capsys)
    assert "differ by up to 0.071" in line
    conversions[:] = [(Conversion(None, "TensorFlow can't convert it"), True)]
    with pytest.raises(ModelError, match="can't convert it"):
        runtime_of(SPEC, "4567", "tflite-int8")


def test_a_failure_that_may_not_recur_is_not_kept(
    cache: Path, conversions: list[tuple[Conversion, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    conversions[:] = [(Conversion(None, "the converter ended with -9"), False), (GOOD, True)]
    assert runtime_of(SPEC, "0123") == ("savedmodel", None)
    assert lines(capsys) == ["/models/net: runs as a SavedModel: the converter ended with -9"]
    assert runtime_of(SPEC, "0123") == ("tflite", MODEL)


def test_a_crash_of_the_converter_does_not_affect_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho LLVM ERROR: out of luck >&2\nkill -ABRT $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert runtime_of(SPEC, "0123") == ("savedmodel", None)
    (line,) = lines(capsys)
    assert line.endswith("the converter ended with -6 (LLVM ERROR: out of luck)")


def test_without_a_temporary_folder_the_model_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert runtime_of(SPEC, "0123") == ("savedmodel", None)
    (line,) = lines(capsys)
    assert "it could not be converted (FileNotFoundError" in line


@pytest.mark.parametrize("asked", RUNTIMES)
def test_a_tflite_file_runs_as_it_is(asked: str) -> None:
    spec = ModelSpec("/models/net.tflite", (64, 48), 1, None)
    if asked in ("auto", "tflite"):
        assert runtime_of(spec, "0123", asked) == ("tflite", None)
    else:
        with pytest.raises(ModelError, match=f"leave out --model_runtime {asked}"):
            runtime_of(spec, "0123", asked)


def test_with_a_gpu_the_saved_model_runs_unless_another_runtime_is_requested(
    conversions: list[tuple[Conversion, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "has_gpu", lambda: True)
    assert runtime_of(SPEC, "0123") == ("savedmodel", None)
    assert runtime_of(SPEC, "0123", "savedmodel") == ("savedmodel", None)
    assert runtime_of(SPEC, "0123", "tflite") == ("tflite", MODEL)


def test_auto_leaves_small_models_as_they_are(
    conversions: list[tuple[Conversion, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "SMALLEST_CONVERTED_BYTES", SMALLEST_CONVERTED_BYTES)
    folder = tmp_path / "net" / "variables"
    folder.mkdir(parents=True)
    spec = ModelSpec(str(folder.parent), (64, 48), None, None)
    for size, runtime in ((SMALLEST_CONVERTED_BYTES - 1, "savedmodel"), (1, "tflite")):
        (folder / str(size)).write_bytes(bytes(size))
        assert runtime_of(spec, "0123")[0] == runtime
    assert runtime_of(SPEC, "0123", "tflite")[0] == "tflite"


def test_a_model_with_other_results_after_the_conversion_runs_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = fetch_model(str(save_convolutional_detector(tmp_path / "net", chaotic=True)))
    spec = inspect_model(files.path)
    assert runtime_of(spec, files.info.version) == ("savedmodel", None)
    (line,) = lines(capsys)
    assert "runs as a SavedModel: the converted model gives other results" in line


def test_a_model_that_can_not_be_converted_runs_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = fetch_model(str(save_detector(tmp_path / "net", size=(8, 8))))
    assert runtime_of(inspect_model(files.path), files.info.version) == ("savedmodel", None)
    (line,) = lines(capsys)
    assert "0% of its multiplications" in line


CONVERT = """
import sys
import numpy as np
from transforms.models.detector import Detector, RawDetections, inspect_model
from transforms.models.runtimes import runtime_of
spec = inspect_model(sys.argv[1])
runtime, model = runtime_of(spec, "0123", "tflite")
assert runtime == "tflite"
(result,) = Detector(spec, converted=model).detect([np.full((48, 64, 3), 99, np.uint8)])
assert isinstance(result, RawDetections), result
print(result.scores.tobytes().hex())
"""


def test_of_two_concurrent_processes_one_converts_and_both_run_the_result(
    tmp_path: Path, cache: Path
) -> None:
    """Neither has loaded the SavedModel, whose functions could replace missing ones."""
    path = save_convolutional_detector(tmp_path / "net", zoo=True, batch=1)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "".join(lines for _, lines in outputs).count("is being converted for this machine") == 1
    assert outputs[0][0] == outputs[1][0] != ""
    assert len(kept_in(cache)) == 1
