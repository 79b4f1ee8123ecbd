"""TensorFlow, loaded once in a process and set to the machine it runs on."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_QUIET = "3"
_START_UP_NOTE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|I\d{4} [\d:.]+\s+\d+ \S+:\d+\] "
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate"
)
_LEGACY_KERAS, _LEGACY_PACKAGE = "TF_USE_LEGACY_KERAS", "tf_keras"
_redirecting = threading.Lock()


def available_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def load_tensorflow() -> ModuleType:
    """The `tensorflow` module, each call of a model on one thread where there is no GPU.

    On CPUs one thread an image, several images side by side, uses the cores better than one image
    spread over them (measured in `benchmarks/`), and gives bit-identical results whatever else is
    in the batch.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _QUIET)
    with start_up_notes_left_out(), _keras_left_out():
        import tensorflow as tf

    # Of a part of TensorFlow that both sets of versions have; no user can act on it.
    deprecated = r"\s*Warning: tf\.lite\.Interpreter is deprecated"
    warnings.filterwarnings("ignore", message=deprecated, category=UserWarning)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(available_cpus())
    except RuntimeError:
        pass  # The program that uses us has started TensorFlow its own way.
    return tf  # type: ignore[no-any-return]


@contextmanager
def _keras_left_out() -> Iterator[None]:
    """Keeps TensorFlow from importing Keras with itself, which takes half a second of a processor.

    TensorFlow imports the package that this variable selects, and goes on without it if it is not
    installed. The first use of `tf.keras` imports Keras as before. Once TensorFlow is loaded, its
    threads may read the environment, which must not change under them.
    """
    is_selectable = importlib.util.find_spec(_LEGACY_PACKAGE) is not None
    if "tensorflow" in sys.modules or _LEGACY_KERAS in os.environ or is_selectable:
        yield
        return
    os.environ[_LEGACY_KERAS] = "1"
    try:
        yield
    finally:
        del os.environ[_LEGACY_KERAS]


@contextmanager
def start_up_notes_left_out() -> Iterator[None]:
    """Keeps TensorFlow's notes on its start out of standard error; all other lines come at the end.

    From TensorFlow 2.17 on, its libraries write them as they are loaded, whatever
    `TF_CPP_MIN_LOG_LEVEL` says, and past `sys.stderr`; so does TFLite with its first interpreter.
    Another value of that variable than this module's own shows them all.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", _QUIET) != _QUIET:
        yield
        return
    # One thread at a time: a second one would take the first one's file for standard error.
    with _redirecting, tempfile.TemporaryFile() as lines:
        try:
            standard_error = os.dup(2)
        except OSError:  # It is closed.
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            lines.seek(0)
            for line in lines:
                if not _START_UP_NOTE.match(line):
                    os.write(2, line)


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(load_tensorflow().config.list_physical_devices("GPU"))
