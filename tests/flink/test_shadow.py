"""Shadow rules on Flink say what they say on DirectRunner."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from beam_pipeline.bundled import BUNDLED_SAMPLES
from tests.beam_pipeline.conftest import tree

SHADOW = """\
version: 1
defaults:
  cooldown: 0s
  objects: {person: {severity: alert}, dog: {severity: alert}}
cameras:
  front-door: {cooldown: 2m}
"""
"""One camera is judged by what came before, and the others image by image."""


def test_a_batch_with_shadow_rules_writes_the_bytes_of_directrunner(
    cluster: Any, tmp_path: Path
) -> None:
    source, shadow = tmp_path / "in", tmp_path / "shadow.yaml"
    for camera in ("hall", "front-door", "car-park"):
        shutil.copytree(BUNDLED_SAMPLES / camera, source / camera)
    shadow.write_text(SHADOW)
    written = []
    for runner in ((), ("--runner", "FlinkRunner", *cluster.pipeline_options())):
        output = tmp_path / f"out{len(written)}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "beam_pipeline", *runner, "--model", "bundled"),
                *("--input", str(source), "--output", str(output), "--shadow_rules", str(shadow)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        written.append(tree(output / "shadow"))
    assert {name.split("/")[1] for name in written[0]} == {"hall", "front-door", "car-park"}
    assert written[1] == written[0]
