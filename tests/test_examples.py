"""The examples run, and say what their text says."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from beam_pipeline.bundled import BUNDLED_SAMPLES

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
CAMERA = "garden"
"""No two of its samples have one capture time."""
TESTED = {"labels_by_hour.py", "mail_to_folder.py", "rules.ipynb"}
"""`mail_to_folder.py` is tested by test_cameras_page.py."""


def test_every_example_is_tested() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "examples"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {Path(name).name for name in listed.stdout.splitlines()} == TESTED


def test_the_pipeline_built_from_steps_counts_what_the_job_detects(
    samples_run: tuple[Path, str], tmp_path: Path
) -> None:
    finished = subprocess.run(
        [
            *(sys.executable, EXAMPLES / "labels_by_hour.py"),
            *("--input", BUNDLED_SAMPLES / CAMERA, "--output", tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    counted = {
        (row["id"], row["hour"], row["label"]): row["images"] for row in map(json.loads, lines)
    }
    output, _ = samples_run
    expected: Counter[tuple[str, str, str]] = Counter()
    for file in (output / "detections" / CAMERA).iterdir():
        record = json.loads(file.read_text())
        labels = {found["label"] for found in record["detections"] if found["conf"] >= 0.5}
        expected.update(
            (record["id"], f"{record['timestamp'][:13]}:00:00Z", label) for label in labels
        )
    assert expected
    assert counted == dict(expected)
    assert len(lines) == len(counted)


def test_the_notebook_of_the_rules_says_what_its_text_says() -> None:
    notebook = json.loads((EXAMPLES / "rules.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            exec("".join(cell["source"]), names)
    assert printed.getvalue().splitlines()[-3:] == [
        "hall alert ['car'] [('person', 'min_score')]",
        "yard detection ['car'] [('person', 'min_score')]",
        "20 of 40 images would have become alerts",
    ]
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []
