"""How a process ends on a signal, and one whose reader goes away."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transforms.storage import stores

PARENT = """
import subprocess, sys, threading, time
from beam_pipeline.console import ending
ending.install()
{more}
child = subprocess.Popen(["sh", "-c", "{child}"], stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
while True:
    time.sleep(60)
"""


def run_parent(child: str, more: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    """A process that handles signals, and the pids that its child says."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(child=child, more=more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", ["", "trap '' TERM INT; "])
def test_children_and_theirs_end_with_it(number: signal.Signals, stubborn: str) -> None:
    parent, pids = run_parent(f"{stubborn}sleep 600 & echo $$ $!; wait; sleep 600")
    assert len(pids) == 2
    assert all(runs(pid) for pid in pids)
    told_at = time.monotonic()
    parent.send_signal(number)
    _, stderr = parent.communicate(timeout=60)
    assert time.monotonic() - told_at < 5
    assert (parent.returncode, stderr) == (128 + number, "stopped\n")
    assert not any(runs(pid) for pid in pids)


def test_a_library_that_is_being_loaded_does_not_swallow_the_last_line() -> None:
    """TensorFlow's notes on its start are kept out of standard error while it is loaded."""
    ended = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import signal; from beam_pipeline.console import ending; ending.install()\n"
            "from transforms.models.tensorflow_runtime import start_up_notes_left_out as loading\n"
            "with loading(): signal.raise_signal(signal.SIGTERM)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, "stopped\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_on_standard_error_is_there_at_once(unbuffered: str) -> None:
    """Also where PYTHONUNBUFFERED is set, as in the job's image."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys; from beam_pipeline.console import ending\n"
            "ending.tolerate_closed_readers()\n"
            "print('a note', file=sys.stderr); sys.stdin.readline()",
        ],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    ready, _, _ = select.select([process.stderr], [], [], 30)
    noted = os.read(process.stderr.fileno(), 100) if ready else b""
    process.communicate(b"\n")
    assert noted == b"a note\n"


def test_work_that_hangs_does_not_hold_the_end_up() -> None:
    hangs = "kept = ending.before_end(lambda: threading.Event().wait()); kept.__enter__()"
    parent, _ = run_parent("echo 1", hangs)
    told_at = time.monotonic()
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) == 143
    assert time.monotonic() - told_at < 5


def test_files_that_are_being_written_become_whole_and_no_other_begins(tmp_path: Path) -> None:
    """What takes too long, and what the signal has interrupted itself, leaves nothing behind."""
    program = f"""
import threading, time
from beam_pipeline.console import ending
from transforms.storage import stores
ending.install()
kept = ending.before_end(lambda: stores.finish_writes(1.5))
kept.__enter__()
folder = {str(tmp_path)!r}

def slow(seconds):
    yield b"the first half, "
    begun.release()
    time.sleep(seconds)
    yield b"the second"

begun = threading.Semaphore(0)
for name, seconds in (("whole", 0.7), ("never", 600)):
    arguments = f"{{folder}}/{{name}}", slow(seconds)
    threading.Thread(target=stores.write_chunks, args=arguments, daemon=True).start()
    begun.acquire()
print("now", flush=True)
stores.write_chunks(f"{{folder}}/interrupted", slow(600))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "whole": "the first half, the second"
    }


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output in which 1,000 alerts wait: more than a pipe holds."""
    output = tmp_path_factory.mktemp("waiting") / "out"
    for number in range(1000):
        body = {"alert_id": f"{number:032x}", "id": "hall", "timestamp": "2026-01-31T12:00:00Z"}
        letter = {"target": "guard", "detail": "HTTP status 503 " * 9, "alert": body}
        alert_file = (
            output / "alerts" / "undelivered" / "guard" / f"20260131T120000Z_{number:032x}.json"
        )
        stores.write_bytes(str(alert_file), json.dumps(letter).encode())
    return output


@pytest.mark.parametrize(
    "command", [["alerts", "list"], ["counts"], ["--help"], ["rules", "explain", "hall"]]
)
def test_a_reader_that_goes_away_is_no_error(
    command: list[str], samples_run: tuple[Path, str], waiting: Path
) -> None:
    output = {"alerts": waiting, "counts": samples_run[0]}.get(command[0])
    arguments = [*command, *(["--output", str(output)] if output else [])]
    usual = subprocess.run(
        [sys.executable, "-m", "beam_pipeline", *arguments], check=False, capture_output=True
    )
    for lines in (0, 1):
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "beam_pipeline", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
        )
        os.close(writing)
        with open(reading, "rb") as reader:
            for _ in range(lines):
                reader.readline()
        _, stderr = process.communicate(timeout=120)
        assert (process.returncode, stderr) == (usual.returncode, usual.stderr), lines


def test_a_standard_output_that_takes_nothing_is_one_line(samples_run: tuple[Path, str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "beam_pipeline", "counts", "--output", str(samples_run[0])],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "beam_pipeline: standard output: No space left on device\n"


def test_a_signal_after_the_work_changes_nothing() -> None:
    """Python itself would end by the signal's default action while it takes itself down."""
    program = """
import sys, time
from beam_pipeline.console import ending
ending.install()
class Late:
    def __del__(self):
        print("now", file=sys.__stderr__, flush=True)
        time.sleep(1)
late = Late()
sys.exit(ending.flush_stdout(0))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "now\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
