"""Runs ONNX detectors by ONNX Runtime, each call on one thread of a processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from transforms.models.model_files import ModelError
from transforms.models.onnx_files import OnnxFile, OnnxFileError, OnnxTensor, read_onnx
from transforms.models.onnx_heads import (
    SIZES_INPUT,
    Array,
    Detections,
    Head,
    head_of,
    names_of,
)
from transforms.records.text import one_line, printable

_FLOATS: Mapping[int, Any] = {1: np.float32, 10: np.float16}
"""The types of images, by ONNX's number."""
_INTEGERS: Mapping[int, Any] = {6: np.int32, 7: np.int64}
_ONLY_FATAL = 4
_MAX_SIDE = 8192


@dataclass(frozen=True)
class OnnxDetector:
    """An opened detector.

    Attributes:
      input_size: The width and height in pixels of the image that it is given.
      head: What its outputs mean.
      labels: The names of its classes by number; none if they are unknown.
      run: Detects the objects in uint8 [1, height, width, 3] RGB. It may be called from several
        threads.
    """

    input_size: tuple[int, int]
    head: Head
    labels: Mapping[int, str]
    run: Callable[[Array], Detections]


def open_onnx(path: str, free_size: tuple[int, int]) -> OnnxDetector:
    """Opens an `.onnx` file, and runs it once on an empty image, which shows whether it works.

    Args:
      path: The file.
      free_size: The width and height of the image, if the model leaves them open.

    Raises:
      ModelError: It can't be run, or is no detector with a head that is known.
    """
    try:
        file = read_onnx(path)
    except OnnxFileError as error:
        raise ModelError(f"{path}: {error}") from None
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({one_line(error)})") from None
    if custom := file.custom_ops:
        raise ModelError(
            f"{path}: its graph has {', '.join(custom[:3])}, which ONNX Runtime does not have; "
            "export the model without custom operators"
        )
    image, size = _image_input(file, path, free_size)
    session = _open_session(path)
    dtype, sizes = _FLOATS[image.element], _sizes(file, size)

    def call(prepared: Array, outputs: list[str] | None) -> list[Array]:
        results: list[Array] = session.run(
            outputs, {image.name: prepared.astype(dtype, copy=False), **sizes}
        )
        return results

    try:
        results = call(np.zeros((1, 3, size[1], size[0]), dtype), None)
    except Exception as error:  # ONNX Runtime raises its own types.
        raise ModelError(
            f"{path}: it fails on an image of {size[0]}x{size[1]} pixels ({_cause(error)})"
        ) from None
    names = [tensor.name for tensor in session.get_outputs()]
    _check_tensors(dict(zip(names, results, strict=True)), path)
    head = head_of(file, dict(zip(names, results, strict=True)), size)
    if head is None:
        shapes = ", ".join(
            f"{name} {list(result.shape)}" for name, result in zip(names, results, strict=True)
        )
        raise ModelError(
            f"{path}: no detector with a head that is known: its outputs for {size[0]}x{size[1]} "
            f"pixels are {shapes}; docs/models.md lists the heads that are known"
        )
    wanted = list(head.outputs)

    def run(pixels: Array) -> Detections:
        with np.errstate(all="ignore"):  # Numbers that are not finite are dropped later.
            return head.decode(call(head.prepare(pixels), wanted), size)

    return OnnxDetector(size, head, names_of(file, head), run)


def _check_tensors(outputs: Mapping[str, Any], path: str) -> None:
    for name, output in outputs.items():
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "biuf":
            raise ModelError(
                f"{path}: no detector that is known: its output {printable(name)} is no tensor of "
                "numbers; docs/models.md lists the heads that are known"
            )


def _image_input(
    file: OnnxFile, path: str, free_size: tuple[int, int]
) -> tuple[OnnxTensor, tuple[int, int]]:
    """Returns the input for the image, and the width and height that it is given."""
    images = [tensor for tensor in file.inputs if tensor.name != SIZES_INPUT]
    shape = images[0].shape if images else None
    if len(images) != 1 or shape is None or len(shape) != 4 or images[0].element not in _FLOATS:
        raise ModelError(
            f"{path}: no detector that is known: it must take one image, a tensor of floats "
            "[batch, 3, height, width]"
        )
    batch, channels, height, width = shape
    if channels not in (3, None):
        raise ModelError(
            f"{path}: no detector that is known: its image has the shape {list(shape)}, not "
            "[batch, 3, height, width]"
        )
    if batch not in (1, None):
        raise ModelError(
            f"{path}: takes {batch} images at once; export it for one image, or with a free batch"
        )
    size = (width or free_size[0], height or free_size[1])
    if max(size) > _MAX_SIDE:
        raise ModelError(
            f"{path}: takes an image of {size[0]}x{size[1]} pixels; at most {_MAX_SIDE} by "
            f"{_MAX_SIDE} are possible"
        )
    return images[0], size


def _sizes(file: OnnxFile, size: tuple[int, int]) -> dict[str, Array]:
    """The input that says in which image boxes are to be: that of the model."""
    types = {tensor.name: _INTEGERS.get(tensor.element, np.float32) for tensor in file.inputs}
    return {SIZES_INPUT: np.array([size], types[SIZES_INPUT])} if SIZES_INPUT in types else {}


def _open_session(path: str) -> Any:
    onnxruntime = _load(path)
    options = onnxruntime.SessionOptions()
    # A call on one thread gives the same bytes whatever else runs; threads run calls side by side.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ONLY_FATAL
    try:
        # Its fallback is the same provider once more, after some lines on standard output.
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime raises its own types.
        raise ModelError(f"{path}: ONNX Runtime can't load it ({_cause(error)})") from None


def _cause(error: Exception) -> str:
    """Returns what ONNX Runtime says after its error code and the path of the file."""
    text = " ".join(str(error).rpartition(" failed:")[2].split())
    return f"{type(error).__name__}: {printable(text)[:200]}"


def _load(path: str) -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"{path}: needs ONNX Runtime, which can't be imported here ({one_line(error)}); run "
            "`pip install '.[onnx]'` here and on the workers"
        ) from None
    return onnxruntime  # type: ignore[no-any-return]
