"""The job as a user runs it: in a process of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from beam_pipeline import cli
from tests.conftest import Run


def tree(output: Path, *, without: Sequence[str] = ()) -> dict[str, bytes]:
    """Every file beneath a directory, by its path."""
    files = {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }
    return {name: data for name, data in files.items() if name.split("/")[0] not in without}


def read_json(path: Path) -> Any:
    """One JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def jpeg(
    colour: tuple[int, int, int] = (90, 120, 150), size: tuple[int, int] = (320, 240)
) -> bytes:
    """A plain image."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="session")
def real_cameras(
    run_job: Run,
    shared_photos: Path,
    shared_models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What the job writes for real camera frames with a real COCO detector."""
    folder = tmp_path_factory.mktemp("real")
    return _run_real_model(run_job, shared_models, shared_photos / "cameras", folder)


@pytest.fixture(scope="session")
def real_sequences(
    run_job: Run,
    shared_photos: Path,
    shared_models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What the job writes for real sequences of six cameras with a real COCO detector."""
    folder = tmp_path_factory.mktemp("sequences")
    images = shared_photos / "sequences"
    return _run_real_model(run_job, shared_models, images, folder, "--no_store_validated")


def _run_real_model(
    run_job: Run, models: Path, images: Path, folder: Path, *arguments: str
) -> Path:
    output = folder / "out"
    finished = run_job(
        *("--runner", "DirectRunner", "--input", images),
        *("--model", models / "yolox_nano_coco" / "saved_model"),
        *("--output", output, *arguments),
    )
    assert finished.returncode == 0, finished.stderr
    return output


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command is refused."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]
