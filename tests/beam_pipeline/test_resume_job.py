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
from tests.conftest import Command, Run


def test_after_kill_9_resume_ends_with_the_tree_of_an_undisturbed_run(
    run_job: Run, samples_run: tuple[Path, str], tmp_path: Path
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
    undisturbed, _ = samples_run
    assert tree(output) == {
        # An alert names where its verdict is kept.
        name: data.replace(bytes(undisturbed), bytes(output))
        if name.startswith("alerts/")
        else data
        for name, data in tree(undisturbed).items()
    }


def test_resume_looks_again_at_other_bytes_and_with_another_model(
    command: Command, tmp_path: Path
) -> None:
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    pictures = tmp_path / "in"
    pictures.mkdir()
    sources = sorted((jobs.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:3]
    for source in sources:
        (pictures / source.name).write_bytes(source.read_bytes())
    first = command(*arguments, "--model", "bundled")
    assert first.code == 0, first.err
    (pictures / sources[0].name).write_bytes(sources[1].read_bytes())
    second = command(*arguments, "--model", "bundled", "--resume")
    assert "(2 of them seen in an earlier run)" in second.out, second.err
