"""A run that was killed goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from beam_pipeline import bundled
from tests.beam_pipeline.conftest import tree
from tests.conftest import Command, Run
from transforms.records.file_names import parse_name


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
    images_before = len(list((output / "detections").rglob("*.json")))

    resumed = run_job("--output", output, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    known = int(resumed.stdout.split(" of them processed in an earlier run")[0].rsplit("(", 1)[1])
    assert 40 <= known <= images_before
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
    images = tmp_path / "in"
    images.mkdir()
    sources = sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:3]
    for source in sources:
        (images / source.name).write_bytes(source.read_bytes())
    first = command(*arguments, "--model", "bundled")
    assert first.code == 0, first.err
    (images / sources[0].name).write_bytes(sources[1].read_bytes())
    second = command(*arguments, "--model", "bundled", "--resume")
    assert "(2 of them processed in an earlier run)" in second.out, second.err


def test_a_further_run_leaves_one_verdict_of_a_file_that_has_another_name_by_now(
    command: Command, tmp_path: Path
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    samples = sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:3]
    for source in samples:
        (folder / source.name).write_bytes(source.read_bytes())
    arguments = ["--model", "bundled", "--input", folder, "--output"]
    assert command(*arguments, output).code == 0
    names = [f"hall_{parse_name(path.name)[1].timestamp():.0f}.jpg" for path in samples]
    (folder / samples[0].name).rename(folder / names[0])
    (folder / samples[1].name).unlink()
    (folder / names[1]).write_bytes(b"half of a file")
    known = output / "late" / "_known" / "hall" / f"{samples[0].stem.removeprefix('hall_')}.state"
    known.parent.mkdir(parents=True)
    known.write_bytes(b"what a stream had known")
    rows = [output / "late" / "hall" / f"{sample.stem}.json" for sample in samples[1:]]
    rows[0].parent.mkdir()
    for row in rows:
        row.write_bytes(b"a row of an image that was too late")
    for name in (f"{known.stem}.jpg", f"{known.stem}_{'0123456789abcdef' * 4}.jpg"):
        (known.parent / name).write_bytes(b"a spare copy, as this and earlier releases name it")
    (known.parent / "notes.txt").write_bytes(b"not written by the job")
    assert command(*arguments, output).code == 0
    fresh = tmp_path / "fresh"
    assert command(*arguments, fresh).code == 0

    # The file that is no image takes the place of none: what was seen of another one stays.
    # An image that is in the counts now has no row of its own.
    stays = {f"final/hall/{samples[1].stem}.json", f"detections/hall/{samples[1].stem}.json"}
    stays |= {f"validated/hall/{samples[1].name}", f"late/hall/{samples[1].stem}.json"}
    stays.add("late/_known/hall/notes.txt")
    repositories = ("final", "detections", "validated", "invalid", "late")

    def stored(folder: Path) -> dict[str, bytes]:
        return {name: data for name, data in tree(folder).items() if name.startswith(repositories)}

    after = stored(output)
    assert {name: data for name, data in after.items() if name not in stays} == stored(fresh)
    assert after.keys() >= stays
