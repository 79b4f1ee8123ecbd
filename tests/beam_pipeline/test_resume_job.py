"""A run that was killed goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from beam_pipeline import job as jobs
from tests.beam_pipeline.conftest import tree
from tests.conftest import Run


def test_after_kill_9_resume_ends_with_the_tree_of_an_undisturbed_run(
    run_job: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "beam_pipeline", "--output", str(output)),
        *("--batch_size", "2", "--model_threads", "1"),
    ]
    killed = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    # What --resume goes by; verdicts are written beside them, by a step that may be ahead.
    while len(list((output / "detections").rglob("*.json"))) < 40:
        assert killed.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (output / "chart").exists()
    seen = len(list((output / "detections").rglob("*.json")))

    resumed = run_job("--output", output, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    known = int(resumed.stdout.split(" of them seen in an earlier run")[0].rsplit("(", 1)[1])
    assert 40 <= known <= seen
    after = tree(output)

    undisturbed = tmp_path / "moved"
    output.rename(undisturbed)
    whole = run_job("--output", output)
    assert whole.returncode == 0, whole.stderr
    assert tree(output) == after


def test_resume_looks_again_at_other_bytes_and_with_another_model(
    run_job: Run, tmp_path: Path
) -> None:
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    pictures = tmp_path / "in"
    pictures.mkdir()
    sources = sorted((jobs.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:3]
    for source in sources:
        (pictures / source.name).write_bytes(source.read_bytes())
    first = run_job(*arguments, "--model", "bundled")
    assert first.returncode == 0, first.stderr
    (pictures / sources[0].name).write_bytes(sources[1].read_bytes())
    second = run_job(*arguments, "--model", "bundled", "--resume")
    assert "(2 of them seen in an earlier run)" in second.stdout, second.stderr
