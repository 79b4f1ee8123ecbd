"""TensorFlow, loaded once in a process and set to the machine it runs on."""

from __future__ import annotations

import functools
import os
from types import ModuleType


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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Its start-up notes are no news.
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(available_cpus())
    except RuntimeError:
        pass  # The program that uses us has started TensorFlow its own way.
    return tf  # type: ignore[no-any-return]


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(load_tensorflow().config.list_physical_devices("GPU"))
