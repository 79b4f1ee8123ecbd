"""Decides what runs a model on this machine: TensorFlow, TFLite, or ONNX Runtime.

A conversion is kept in the model cache, under the versions of the model and of TensorFlow. So a
machine converts a model once, however many processes run it.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from transforms.models import conversion as converting
from transforms.models.conversion import Conversion, Request
from transforms.models.converted import ConvertedModel
from transforms.models.detector import ModelSpec
from transforms.models.model_files import CACHE_VARIABLE, ModelError, cache_directory
from transforms.models.runtime_names import AUTO, ONNX, SAVED_MODEL, TFLITE, TFLITE_INT8
from transforms.models.tensorflow_runtime import has_gpu, load_tensorflow
from transforms.records.text import one_line, printable

SMALLEST_CONVERTED_BYTES = 3 << 20
"""`auto` does not convert smaller models: they take little of the time of an image, and a short job
would take longer to convert the model than to run it."""
HOW_MODELS_ARE_CONVERTED = 2
"""The version of the conversion: a release that converts or compares differently increases it."""
LONGEST_SECONDS = 1800
_DIGEST = 32


def runtime_of(
    spec: ModelSpec, version: str, asked: str = AUTO
) -> tuple[str, ConvertedModel | None]:
    """Returns the runtime for a model on this machine, and the converted model if it needs one.

    Without a GPU, `auto` converts the model. It uses the converted model only if both models give
    the same results on a few images; otherwise it prints the reason to standard error. The decision
    depends only on the model and the kind of machine.

    Args:
      spec: The model.
      version: The hash of its files.
      asked: One of :data:`transforms.models.runtime_names.RUNTIMES`.

    Raises:
      ModelError: The requested runtime, other than `auto`, can't run the model.
    """
    if spec.is_tflite or spec.is_onnx:
        runtime = TFLITE if spec.is_tflite else ONNX
        if asked in (AUTO, runtime):
            return runtime, None
        raise ModelError(
            f"{spec.path}: a .{runtime} file runs as it is; leave out --model_runtime {asked}"
        )
    if asked == SAVED_MODEL or (asked == AUTO and _stays_as_it_is(spec)):
        return SAVED_MODEL, None
    runtime = TFLITE if asked == AUTO else asked
    conversion = _conversion_of(spec, version, runtime)
    is_taken = conversion.model is not None and (
        runtime == TFLITE_INT8 or conversion.problem is None
    )
    if is_taken:
        if runtime == TFLITE_INT8:
            _print_once(
                f"{spec.path}: with 8-bit weights, boxes or scores differ by up to "
                f"{conversion.difference:.2g} on the images of the check"
            )
        return runtime, conversion.model
    if asked == AUTO:
        _print_once(f"{spec.path}: runs as a SavedModel: {conversion.problem}")
        return SAVED_MODEL, None
    raise ModelError(
        f"{spec.path}: not run by --model_runtime {asked}: {conversion.problem}; give "
        f"--model_runtime {AUTO} or {SAVED_MODEL}"
    )


def _stays_as_it_is(spec: ModelSpec) -> bool:
    files = (path for path in Path(spec.path).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files) < SMALLEST_CONVERTED_BYTES or has_gpu()


def _conversion_of(spec: ModelSpec, version: str, runtime: str) -> Conversion:
    """Returns the conversion from the cache, or converts the model and keeps the result there."""
    file = cache_directory() / "converted" / _name(spec, version, runtime)
    kept, _ = _read_kept(file)
    if kept is not None:
        return kept
    with _locked(file) as unwritable:
        kept, damage = _read_kept(file)  # Another process may have been first.
        if kept is not None:
            return kept
        _print_once(
            f"{spec.path}: is being converted for this machine's processors; this happens once and "
            f"takes a while"
        )
        conversion, is_final = _convert(spec, runtime)
        if unwritable is None and is_final:
            unwritable = _keep(file, conversion)
        elif not is_final:
            return conversion
    if unwritable is not None:
        _print_once(
            f"{file.parent}: can't be written ({unwritable}), so each process converts the model "
            f"again; set {CACHE_VARIABLE} to a writable folder"
        )
    elif damage is not None:
        _print_once(f"{file}: was damaged ({damage}), and the model was converted again")
    return conversion


def _name(spec: ModelSpec, version: str, runtime: str) -> str:
    width, height = spec.input_size
    tensorflow = load_tensorflow().__version__
    return (
        f"{version}-{spec.batch or 1}x{width}x{height}-{runtime}-tensorflow-{tensorflow}-"
        f"{platform.machine()}-{HOW_MODELS_ARE_CONVERTED}"
    )


def _read_kept(file: Path) -> tuple[Conversion | None, str | None]:
    """Returns the conversion in a file, or what is wrong with the file; both None without one."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, one_line(error)
    digest, content = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        return None, "its checksum is wrong"
    return msgspec.msgpack.decode(content, type=Conversion), None


def _keep(file: Path, conversion: Conversion) -> str | None:
    """Writes a file for all processes of this machine; returns why that failed, or None."""
    content = msgspec.msgpack.encode(conversion)
    partial = Path(f"{file}.{os.getpid()}.partial")
    try:
        partial.write_bytes(hashlib.sha256(content).digest() + content)
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        return one_line(error)
    return None


@contextmanager
def _locked(file: Path) -> Iterator[str | None]:
    """Holds the lock of a file; yields why it can't be locked, or None."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        yield one_line(error)
        return
    try:
        with suppress(OSError):  # If the filesystem has no locks, the last writer wins.
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield None
    finally:
        os.close(lock)


def _convert(spec: ModelSpec, runtime: str) -> tuple[Conversion, bool]:
    """Converts a model in a separate process; also returns whether a retry would end the same."""
    try:
        with tempfile.TemporaryDirectory(prefix="convert-") as scratch:
            request, result = Path(scratch, "request"), Path(scratch, "result")
            request.write_bytes(msgspec.msgpack.encode(Request(spec, runtime == TFLITE_INT8)))
            ended = subprocess.run(
                [sys.executable, "-m", converting.__name__, str(request), str(result)],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "CUDA_VISIBLE_DEVICES": "-1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=LONGEST_SECONDS,
                check=False,
            )
            if not ended.returncode:
                return msgspec.msgpack.decode(result.read_bytes(), type=Conversion), True
    except (OSError, subprocess.TimeoutExpired) as error:
        return Conversion(None, f"it could not be converted ({one_line(error)})"), False
    last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2][-200:]
    return Conversion(
        None, f"the converter ended with {ended.returncode} ({printable(last)})"
    ), False


@functools.cache
def _print_once(line: str) -> None:
    """Prints a line once per process: one process may both launch the job and work on it."""
    print(line, file=sys.stderr)
