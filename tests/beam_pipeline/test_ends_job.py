"""A job that is stopped, or that loses its disk, ends in order and can go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from beam_pipeline import bundled
from tests.absent import give_up
from tests.beam_pipeline.conftest import tree

KILLS = int(os.environ.get("KILLS", "6"))
"""How many times the job is stopped: more in a longer search."""
SEED = int(os.environ.get("KILLS_SEED", "1"))
GO_ON = "run the same command with --resume to continue"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the samples, invalid ones among them."""
    folder = tmp_path_factory.mktemp("in") / "images"
    for name in ("hall", "office"):
        shutil.copytree(bundled.BUNDLED_SAMPLES / name, folder / name)
    for file in bundled.BUNDLED_SAMPLES.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    (folder / "nameless.jpg").write_bytes(b"not an image")
    return folder


def command(images: Path, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "beam_pipeline", "--input", str(images), "--output", str(output)),
        *("--model", "bundled", "--rules", str(bundled.BUNDLED_RULES), *more),
    ]


def start(arguments: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def handles_signals(pid: int) -> bool:
    """Whether a process has handlers of its own for SIGINT and SIGTERM."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                both = 1 << signal.SIGTERM - 1
                return int(line.split()[1], 16) & both == both
    return False


def held_open(pid: int) -> list[Path]:
    """What a process holds open."""
    held = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            held.append(descriptor.readlink())
    return held


def assert_nothing_is_torn(output: Path) -> None:
    files = tree(output)
    assert [name for name in files if name.endswith(".partial")] == []
    for name, data in files.items():
        if name.endswith(".json"):
            json.loads(data)
        if name.endswith(".jsonl"):
            assert [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """What an undisturbed run writes, and for how many seconds it can be stopped."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    process = start(command(images, output))
    wait_for(lambda: handles_signals(process.pid), process)
    began = time.monotonic()
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    return output, time.monotonic() - began


def expected(undisturbed: Path, output: Path) -> dict[str, bytes]:
    """The undisturbed tree, as it is when it lies elsewhere: alerts name where verdicts are."""
    return {
        name: data.replace(bytes(undisturbed), bytes(output))
        for name, data in tree(undisturbed).items()
    }


def without_page(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith("report/")}


def test_a_job_stopped_at_any_time_ends_in_order_and_resumes(
    images: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    """Each run takes up what the one before left, and is stopped at a random time."""
    whole, seconds = undisturbed
    output = tmp_path / "out"
    chance = random.Random(SEED)
    for attempt in range(KILLS):
        number = chance.choice([signal.SIGINT, signal.SIGTERM])
        capture_time = chance.uniform(0, seconds)
        process = start(command(images, output, *(["--resume"] if attempt else [])))
        wait_for(lambda process=process: handles_signals(process.pid), process)  # type: ignore[misc]
        with suppress(subprocess.TimeoutExpired):
            process.wait(capture_time)
        told_at = time.monotonic()
        ended_before = process.poll() is not None
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        what = f"attempt {attempt}, {number.name} after {capture_time:.2f} s: {out}{err}"
        if process.returncode == 0:  # It was done, or all but done.
            assert ended_before or out.startswith("found"), what
        else:
            assert process.returncode == 128 + number, what
            assert time.monotonic() - told_at < 5, what
            lines = without_progress(err)
            assert len(lines) == 1, what
            assert lines[0].startswith("stopped"), what
        if output.exists():
            assert_nothing_is_torn(output)
    last = start(command(images, output, "--resume"))
    _, stderr = last.communicate(timeout=280)
    assert last.returncode == 0, stderr
    assert without_page(tree(output)) == without_page(expected(whole, output))


def test_as_process_1_it_ends_on_sigterm(images: Path, tmp_path: Path) -> None:
    """The kernel drops a signal to process 1, as every container's is, that has no handler."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        give_up("no process namespaces here")
    output = tmp_path / "out"
    process = start([*alone, *command(images, output)])

    def first() -> int | None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    wait_for(lambda: first() and handles_signals(first() or 0), process)
    wait_for((output / "final").exists, process)
    pid = first()
    assert pid is not None
    told_at = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - told_at < 5
    assert (process.returncode, without_progress(err)) == (143, [f"stopped; {GO_ON}"])
    assert_nothing_is_torn(output)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        give_up("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def without_progress(err: str) -> list[str]:
    """The lines on standard error but for those of progress, which a busy machine shows."""
    return [line for line in err.splitlines() if " images done, " not in line]


def failed(process: subprocess.Popen[str]) -> str:
    """The one line of a job that failed."""
    out, err = process.communicate(timeout=280)
    assert (process.returncode, out) == (1, ""), err
    (line,) = without_progress(err)
    assert line.endswith(GO_ON)
    return line


def test_a_full_disk_is_one_line_and_once_there_is_room_it_goes_on(
    images: Path, undisturbed: tuple[Path, float], small_disk: Path
) -> None:
    output = small_disk / "out"
    line = failed(start(command(images, output)))
    assert line.startswith(f"the job failed: {output}/")
    assert ": No space left on device; make room there, and " in line
    assert_nothing_is_torn(output)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    resumed = start(command(images, output, "--resume"))
    _, stderr = resumed.communicate(timeout=280)
    assert resumed.returncode == 0, stderr
    assert without_page(tree(output)) == without_page(expected(undisturbed[0], output))


def test_a_limit_of_a_files_size_is_one_line(images: Path, tmp_path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "limited"]
    line = failed(start([*limited, *command(images, tmp_path / "out")]))
    assert "File too large; raise the file size limit (ulimit -f), and " in line
    assert_nothing_is_torn(tmp_path / "out")


@pytest.mark.parametrize("removed", [".", "final"])
def test_an_output_that_is_removed_is_no_success(
    removed: str, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start(command(images, output))
    # It looks every quarter of a second, and knows a folder once it holds it open.
    wait_for(lambda: output / "final" in held_open(process.pid), process)
    # At once: what the job writes meanwhile would keep a folder from being removed.
    away = (output / removed).rename(tmp_path / "away")
    shutil.rmtree(away)
    line = failed(process)
    assert line.startswith("the job failed: ")
    assert str(output) in line
