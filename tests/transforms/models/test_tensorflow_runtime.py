"""What TensorFlow writes as it starts."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from transforms.models.tensorflow_runtime import load_tensorflow, start_up_notes_left_out

NOTES = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1795937699.334762    3852 port.cc:153] oneDNN custom operations are on.\n"
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
)
PROGRAM = """\
from transforms.models.tensorflow_runtime import load_tensorflow
tf = load_tensorflow()
tf.constant(1)
try:
    tf.lite.Interpreter("missing.tflite")
except ValueError:
    pass
"""
OTHERS = (
    b"F0000 00:00:1795937699.334762    3852 port.cc:153] there is no memory\n"
    b"E0000 00:00:1795937699.334762    3852 cuda.cc:52] failed call to cuInit\n"
    b"a line of another thread\n"
)


def load(**environment: str) -> str:
    """What a process writes to standard error that loads TensorFlow and uses it, and TFLite."""
    finished = subprocess.run(
        [
            *(sys.executable, "-c"),
            PROGRAM,
        ],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("TF_")}, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    return finished.stderr


def fail_to_load() -> None:
    os.write(2, NOTES + OTHERS)
    raise ImportError


def test_tensorflow_starts_in_silence() -> None:
    assert load() == ""


def test_tensorflows_notes_are_shown_on_request() -> None:
    # What it notes depends on the processor: oneDNN is on only on some.
    assert "cpu_feature_guard" in load(TF_CPP_MIN_LOG_LEVEL="0")


def test_keras_is_loaded_only_when_it_is_used() -> None:
    program = (
        "import os, sys\n"
        "from transforms.models.tensorflow_runtime import load_tensorflow\n"
        "tf = load_tensorflow()\n"
        "assert 'keras' not in sys.modules\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "assert tf.keras.layers.Dense(1)(tf.ones([1, 1])).shape == (1, 1)\n"
    )
    others = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    subprocess.run([sys.executable, "-c", program], env=others, timeout=200, check=True)


def test_the_environment_of_a_program_that_has_loaded_tensorflow_does_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread of TensorFlow that reads it meanwhile could read freed memory."""
    load_tensorflow()
    changes: list[str] = []
    monkeypatch.setattr(os, "putenv", lambda name, _: changes.append(name))
    load_tensorflow.__wrapped__()
    assert changes == []


def test_a_legacy_keras_that_is_installed_is_not_selected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tf_keras.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    chosen: list[str | None] = []
    load = builtins.__import__

    def importing(name: str, *others: Any) -> Any:
        if name == "tensorflow":
            chosen.append(os.environ.get("TF_USE_LEGACY_KERAS"))
            raise ImportError
        return load(name, *others)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ImportError):
        load_tensorflow.__wrapped__()
    assert chosen == [None]


def test_other_lines_than_notes_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with start_up_notes_left_out():
        os.write(2, NOTES + OTHERS + NOTES)
    os.write(2, NOTES)
    assert capfd.readouterr().err == (OTHERS + NOTES).decode()


def test_standard_error_is_the_same_after_two_threads_have_loaded(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """However they overlap: here the first one is done while the second one is at work."""
    first_is_in, second_is_ready = threading.Event(), threading.Event()

    def first() -> None:
        with start_up_notes_left_out():
            first_is_in.set()
            second_is_ready.wait(10)
            time.sleep(0.05)
            os.write(2, NOTES)

    def second() -> None:
        first_is_in.wait(10)
        second_is_ready.set()
        with start_up_notes_left_out():
            time.sleep(0.2)
            os.write(2, NOTES)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_lines_are_kept_if_tensorflow_cannot_be_loaded(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ImportError), start_up_notes_left_out():
        fail_to_load()
    assert capfd.readouterr().err == OTHERS.decode()


def test_a_closed_standard_error_is_left_closed() -> None:
    program = (
        "import os\n"
        "from transforms.models.tensorflow_runtime import start_up_notes_left_out\n"
        "with start_up_notes_left_out(): pass\n"
        "try: os.dup(2)\n"
        "except OSError: print('closed')\n"
    )
    finished = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert finished.stdout == "closed\n"
