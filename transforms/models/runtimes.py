"""What runs a model on this machine: TensorFlow as it is, or TFLite once it was converted.

A conversion is kept in the cache of models, under the version of the model and of TensorFlow, so
that a machine converts a model once, however many processes run it.
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
from transforms.models.runtime_names import AUTO, SAVED_MODEL, TFLITE, TFLITE_INT8
from transforms.models.tensorflow_runtime import has_gpu, load_tensorflow
from transforms.records.text import one_line, printable

SMALLEST_CONVERTED_BYTES = 3 << 20
"""`auto` converts no model whose files are smaller: it takes little of the time of an image, and a
short job would wait for the conversion longer than it runs."""
HOW_MODELS_ARE_CONVERTED = 1
"""Raised by a release that converts or compares in another way."""
LONGEST_SECONDS = 1800
_DIGEST = 32


def runtime_of(
    spec: ModelSpec, version: str, asked: str = AUTO
) -> tuple[str, ConvertedModel | None]:
    """Which runtime runs a model on this machine, and what the model was converted to for it.

    `auto` converts where no GPU is, and takes the converted model only if both see the same on a
    few images; where it does not, a line on standard error says why. That depends on the model and
    the kind of machine alone.

    Args:
      spec: The model.
      version: The hash of its files.
      asked: One of :data:`transforms.models.runtime_names.RUNTIMES`.

    Raises:
      ModelError: What was asked for, other than `auto`, can't run the model.
    """
    if spec.is_tflite:
        if asked in (AUTO, TFLITE):
            return TFLITE, None
        raise ModelError(
            f"{spec.path}: a .tflite file runs as it is; leave out --model_runtime {asked}"
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
            _tell(
                f"{spec.path}: with 8-bit weights, boxes or scores differ by up to "
                f"{conversion.difference:.2g} on the images of the check"
            )
        return runtime, conversion.model
    if asked == AUTO:
        _tell(f"{spec.path}: runs as a SavedModel: {conversion.problem}")
        return SAVED_MODEL, None
    raise ModelError(
        f"{spec.path}: not run by --model_runtime {asked}: {conversion.problem}; give "
        f"--model_runtime {AUTO} or {SAVED_MODEL}"
    )


def _stays_as_it_is(spec: ModelSpec) -> bool:
    files = (one for one in Path(spec.path).rglob("*") if one.is_file())
    return sum(one.stat().st_size for one in files) < SMALLEST_CONVERTED_BYTES or has_gpu()


def _conversion_of(spec: ModelSpec, version: str, runtime: str) -> Conversion:
    """What this machine keeps of an earlier conversion, or else a new one, which it keeps."""
    file = cache_directory() / "converted" / _name(spec, version, runtime)
    kept, _ = _kept(file)
    if kept is not None:
        return kept
    with _locked(file) as unwritable:
        kept, damage = _kept(file)  # Another process may have been first.
        if kept is not None:
            return kept
        _tell(f"{spec.path}: is converted for this machine's processors, which takes a while once")
        conversion, is_final = _convert(spec, runtime)
        if unwritable is None and is_final:
            unwritable = _keep(file, conversion)
        elif not is_final:
            return conversion
    if unwritable is not None:
        _tell(
            f"{file.parent}: can't be written ({unwritable}), so that each process converts the "
            f"model; set {CACHE_VARIABLE} to a folder for models"
        )
    elif damage is not None:
        _tell(f"{file}: was damaged ({damage}), and the model was converted again")
    return conversion


def _name(spec: ModelSpec, version: str, runtime: str) -> str:
    width, height = spec.input_size
    tensorflow = load_tensorflow().__version__
    return (
        f"{version}-{spec.batch or 1}x{width}x{height}-{runtime}-tensorflow-{tensorflow}-"
        f"{platform.machine()}-{HOW_MODELS_ARE_CONVERTED}"
    )


def _kept(file: Path) -> tuple[Conversion | None, str | None]:
    """The conversion in a file, or what is wrong with the file; neither if there is none."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, one_line(error)
    digest, content = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        return None, "its checksum is another"
    return msgspec.msgpack.decode(content, type=Conversion), None


def _keep(file: Path, conversion: Conversion) -> str | None:
    """Writes a file for all processes of this machine; why it can't be written, if so."""
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
    """Waits until no other process is at work on a file; yields why none can be, if so."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        yield one_line(error)
        return
    try:
        with suppress(OSError):  # Where the filesystem has no locks, the last to write stands.
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield None
    finally:
        os.close(lock)


def _convert(spec: ModelSpec, runtime: str) -> tuple[Conversion, bool]:
    """Converts a model in a process of its own; also whether it would end like this again."""
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
def _tell(line: str) -> None:
    """Says something once in a process: it launches the job, and often works on it too."""
    print(line, file=sys.stderr)
