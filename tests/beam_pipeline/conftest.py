"""The job as a user runs it: in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run_job() -> Run:
    """Runs `python -m beam_pipeline` with arguments, from the checkout or another directory."""

    def run(
        *arguments: str | os.PathLike[str], cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "beam_pipeline", *map(os.fspath, arguments)],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def samples_run(run_job: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output directory and the printed summary of the job on the bundled samples."""
    output = tmp_path_factory.mktemp("samples") / "output"
    finished = run_job("--runner", "DirectRunner", "--output", output)
    assert finished.returncode == 0, finished.stderr
    return output, finished.stdout


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
    """A plain picture."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()
