"""Detectors: SavedModels with the TF Object Detection API's signature, TFLite and ONNX detectors.

:func:`inspect_model` finds what a model takes; :class:`Detector` runs it.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from transforms.models.converted import ConvertedModel, open_converted
from transforms.models.model_files import ModelError
from transforms.models.model_safety import unsafe_ops, unsafe_tflite_ops
from transforms.models.onnx_runtime import open_onnx
from transforms.models.runtime_names import SAVED_MODEL
from transforms.models.tensorflow_runtime import available_cpus, has_gpu, load_tensorflow
from transforms.models.tflite import custom_ops, open_interpreter
from transforms.records.text import one_line

SERVING_TAG = "serve"
SIGNATURE = "serving_default"
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
"""What a detector's signature gives; the last is not needed."""
POSTPROCESS_OP = "TFLite_Detection_PostProcess"
DEFAULT_INPUT_SIZE = 640
"""Side in pixels of what a model of free size is given, where nothing else is said."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class ModelSpec:
    """What a model takes.

    Attributes:
      path: A SavedModel's directory or a `.tflite` or `.onnx` file, on this machine.
      input_size: Width and height in pixels of the image that it is given.
      batch: Images per call, where the signature fixes it; None where it is free.
      classes: How many classes it knows, without background; None where it does not say.
      labels: The names of its classes by number, as far as an `.onnx` file shows them; None for
        other models.
      keeps_aspect: Whether the image keeps its aspect, with a margin, or is stretched to the size.
    """

    path: str
    input_size: tuple[int, int]
    batch: int | None
    classes: int | None
    labels: dict[int, str] | None = None
    keeps_aspect: bool = True

    @property
    def is_tflite(self) -> bool:
        return self.path.endswith(".tflite")

    @property
    def is_onnx(self) -> bool:
        return self.path.endswith(".onnx")


@dataclass(frozen=True)
class RawDetections:
    """The output of a model for one image, unchanged.

    Attributes:
      boxes: float32 [n, 4], y_min, x_min, y_max, x_max as fractions of the model's input.
      scores: float32 [n], 0 to 1.
      classes: float32 [n], the model's numbers, the first class being 1.
    """

    boxes: Floats
    scores: Floats
    classes: Floats


_Run = Callable[[Pixels], list[RawDetections]]


def inspect_model(
    path: str, free_input_size: int | None = None, *, is_trusted: bool = False
) -> ModelSpec:
    """What the model at a local path takes, read off its files; an `.onnx` file is run once.

    Args:
      path: A SavedModel's directory or a `.tflite` or `.onnx` file.
      free_input_size: Side in pixels of the square to give a model whose signature leaves the
        size free; None: what the `pipeline.config` beside it says (as the TF2 Detection Zoo ships
        it), or else 640.
      is_trusted: The model may read and write files, use the network and call Python.

    Raises:
      ModelError: Not readable, not a detector, or not trusted and able to do more than detect.
    """
    if path.endswith(".tflite"):
        return _inspect_tflite(path, is_trusted)
    if path.endswith(".onnx"):
        return _inspect_onnx(path, free_input_size or DEFAULT_INPUT_SIZE)
    return _inspect(path, free_input_size, is_trusted)


def _refuse_unsafe(path: str, ops: Sequence[str]) -> None:
    if ops:
        raise ModelError(
            f"{path}: this model can do more than detect: its graph has {', '.join(ops)}, which "
            "reach files, the network or Python; if you trust its author, give --trust_model"
        )


def _inspect(path: str, free_input_size: int | None, is_trusted: bool) -> ModelSpec:
    load_tensorflow()
    from tensorflow.python.saved_model import loader_impl

    try:
        saved_model = loader_impl.parse_saved_model(path)
    except Exception as error:
        raise ModelError(
            f"{path}: not a SavedModel that TensorFlow reads ({one_line(error)})"
        ) from None
    graphs = [graph for graph in saved_model.meta_graphs if SERVING_TAG in graph.meta_info_def.tags]
    if not graphs:
        raise ModelError(
            f"{path}: not a SavedModel to serve: it has no graph with the tag {SERVING_TAG!r}"
        )
    if not is_trusted:
        _refuse_unsafe(path, sorted({op for graph in graphs for op in unsafe_ops(graph)}))
    signature = graphs[0].signature_def.get(SIGNATURE)
    if signature is None:
        raise ModelError(
            f"{path}: no signature {SIGNATURE!r}; export the model with the TF Object Detection "
            "API's signature (input_tensor to detection_boxes, -scores, -classes)"
        )
    missing = sorted(set(OUTPUTS[:3]) - set(signature.outputs))
    if missing:
        raise ModelError(
            f"{path}: not a detector: its signature {SIGNATURE!r} lacks {', '.join(missing)}"
        )
    batch, height, width = _input_shape(path, signature)
    if width > 0 and height > 0:
        size = (width, height)
    elif free_input_size:
        size = (free_input_size, free_input_size)
    else:
        size = _size_from_pipeline_config(path)
    return ModelSpec(path, size, batch if batch > 0 else None, _number_of_classes(signature))


def _input_shape(path: str, signature: Any) -> tuple[int, int, int]:
    """Batch, height and width of the one input, each -1 where it is free."""
    inputs = list(signature.inputs.items())
    shape = [dim.size for dim in inputs[0][1].tensor_shape.dim] if inputs else []
    tf_uint8 = 4  # types.proto: DT_UINT8
    if len(inputs) != 1 or inputs[0][1].dtype != tf_uint8 or len(shape) != 4 or shape[3] != 3:
        raise ModelError(
            f"{path}: the signature {SIGNATURE!r} must take one tensor of uint8 "
            "[batch, height, width, 3]"
        )
    return shape[0], shape[1], shape[2]


def _number_of_classes(signature: Any) -> int | None:
    classes = None
    for name in ("raw_detection_scores", "detection_multiclass_scores"):
        if name in signature.outputs:
            last = [dim.size for dim in signature.outputs[name].tensor_shape.dim][-1:]
            classes = last[0] - 1 if last and last[0] > 1 else classes
    return classes


def _size_from_pipeline_config(path: str) -> tuple[int, int]:
    """The size to which the TF Object Detection API's `image_resizer` brings an image."""
    config = Path(path).parent / "pipeline.config"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    if resizer := re.search(r"(fixed_shape|keep_aspect_ratio)_resizer\s*\{([^}]*)\}", text):
        values = {key: int(value) for key, value in re.findall(r"(\w+)\s*:\s*(\d+)", resizer[2])}
        if "width" in values and "height" in values:
            return values["width"], values["height"]
        if "max_dimension" in values:
            return values["max_dimension"], values["max_dimension"]
    return DEFAULT_INPUT_SIZE, DEFAULT_INPUT_SIZE


def _postprocess_op(path: str) -> tuple[list[int], list[int], Any]:
    """Tensors that go into and come out of the op that ends a TFLite detector."""
    interpreter = open_interpreter(path, delegates=False)
    for op in interpreter._get_ops_details():  # TFLite's only way to tell boxes from scores.
        if op["op_name"] == POSTPROCESS_OP:
            return list(op["inputs"]), list(op["outputs"]), interpreter
    raise ModelError(f"{path}: not a detector: it does not end in {POSTPROCESS_OP}")


def _inspect_tflite(path: str, is_trusted: bool) -> ModelSpec:
    custom = custom_ops(Path(path).read_bytes(), path)
    if not is_trusted:
        _refuse_unsafe(path, unsafe_tflite_ops(custom))
    inputs, _, interpreter = _postprocess_op(path)
    taken = interpreter.get_input_details()
    shape = list(taken[0]["shape"])
    if len(taken) != 1 or len(shape) != 4 or shape[3] != 3:
        raise ModelError(f"{path}: must take one tensor of [1, height, width, 3]")
    shapes = {tensor["index"]: list(tensor["shape"]) for tensor in interpreter.get_tensor_details()}
    scores = shapes.get(inputs[1], [])
    classes = int(scores[-1]) - 1 if len(scores) == 3 else None
    return ModelSpec(path, (int(shape[2]), int(shape[1])), 1, classes)


def _inspect_onnx(path: str, free_input_size: int) -> ModelSpec:
    detector = open_onnx(path, (free_input_size, free_input_size))
    head = detector.head
    classes = None if head.classes is None else head.classes - 1 + head.first_class
    return ModelSpec(
        path, detector.input_size, 1, classes, dict(detector.labels), head.keeps_aspect
    )


class _Call(NamedTuple):
    """The outputs of one call of the model, and when it began and ended, in seconds."""

    outputs: list[RawDetections | Exception]
    began: float
    ended: float


class Batch:
    """A batch of images that a model is processing.

    Args:
      calls: The calls of the model, in the order of the images.
      call_size: The number of images in each call but the last.
    """

    def __init__(self, calls: Sequence[Future[_Call]], call_size: int) -> None:
        self._calls = calls
        self._call_size = call_size

    def outputs(self, first: int, number: int) -> list[RawDetections | Exception]:
        """Waits for the outputs for some of the images.

        Args:
          first: The index of the first image.
          number: The number of images.

        Returns:
          The output for each image, or an exception for one on which the model failed.
        """
        calls = self._calls
        places = (divmod(index, self._call_size) for index in range(first, first + number))
        return [calls[call].result().outputs[place] for call, place in places]

    def cancel(self) -> None:
        """Gives up the calls that have not begun."""
        for call in self._calls:
            call.cancel()

    def duration(self) -> float:
        """Waits for the end of the batch.

        Returns:
          The seconds from the start of its first call to the end of its last one.
        """
        calls = [call.result() for call in self._calls]
        return max(call.ended for call in calls) - min(call.began for call in calls)


class Detector:
    """A loaded model.

    Calls are spread over threads. Without a GPU, each image is one call: this is as fast as larger
    calls on CPUs, and the result does not depend on the other images of the batch.

    Args:
      spec: From :func:`inspect_model`.
      runtime: The name of the runtime.
      converted: The converted model, which runs instead of the original; it runs on the processors,
        even if there is a GPU.
      threads: The number of concurrent calls; None: one per processor, or one with a GPU.
      call_size: Images per call, unless the signature fixes it or the model is converted; None: 8
        with a GPU, 1 without.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        runtime: str = SAVED_MODEL,
        converted: ConvertedModel | None = None,
        threads: int | None = None,
        call_size: int | None = None,
    ) -> None:
        self.runtime = runtime
        gpu = converted is None and not spec.is_onnx and has_gpu()
        self._threads = threads or (1 if gpu else available_cpus())
        self._call_size = spec.batch or (1 if converted else call_size) or (8 if gpu else 1)
        if converted is not None:
            run = open_converted(converted, name=spec.path, threads=self._threads)
            self._run: _Run = lambda pixels: _raw_detections(run(pixels))
        elif spec.is_onnx:
            onnx = open_onnx(spec.path, spec.input_size)
            self._run = lambda pixels: [RawDetections(*onnx.run(pixels))]
        else:
            self._run = _tflite_runner(spec, self._threads) if spec.is_tflite else _runner(spec)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="detect")

    def start(self, images: Sequence[Pixels]) -> Batch:
        """Starts to detect the objects in each image.

        Args:
          images: Each uint8 [height, width, 3] RGB, of the model's input size.
        """
        size = self._call_size
        calls = [images[at : at + size] for at in range(0, len(images), size)]
        return Batch([self._pool.submit(self._call, call) for call in calls], size)

    def detect(self, images: Sequence[Pixels]) -> list[RawDetections | Exception]:
        """Detects the objects in each image; see :meth:`start` and :meth:`Batch.outputs`."""
        return self.start(images).outputs(0, len(images))

    def _call(self, images: Sequence[Pixels]) -> _Call:
        began = perf_counter()
        return _Call(self._outputs(images), began, perf_counter())

    def _outputs(self, images: Sequence[Pixels]) -> list[RawDetections | Exception]:
        try:
            return list(self._run(_stack(images, self._call_size))[: len(images)])
        except Exception as error:  # An error of one image must not affect the others.
            if len(images) == 1:
                return [error]
            return [result for image in images for result in self._outputs([image])]


def _stack(images: Sequence[Pixels], size: int) -> Pixels:
    """Stacks the images to one tensor; the last one is repeated to fill it."""
    if size == 1:
        return images[0][np.newaxis]  # Without a copy.
    return np.stack([*images, *[images[-1]] * (size - len(images))])


def _runner(spec: ModelSpec) -> _Run:
    tf = load_tensorflow()
    try:
        model = tf.saved_model.load(spec.path)
        signature = model.signatures[SIGNATURE]
    except Exception as error:
        raise ModelError(f"{spec.path}: TensorFlow can't load it ({one_line(error)})") from error
    (name,) = signature.structured_input_signature[1]

    def run(pixels: Pixels) -> list[RawDetections]:
        outputs = signature(**{name: tf.constant(pixels)})
        return _raw_detections({key: outputs[key].numpy() for key in OUTPUTS if key in outputs})

    run.model = model  # type: ignore[attr-defined]  # A signature does not keep its variables.
    return run


def _raw_detections(outputs: Mapping[str, np.ndarray[Any, Any]]) -> list[RawDetections]:
    """The detections of each image of a call, from the signature's outputs."""
    boxes, scores, classes = (outputs[key] for key in OUTPUTS[:3])
    if "num_detections" in outputs:
        counts = outputs["num_detections"].reshape(-1).astype(int)
    else:
        counts = np.full(len(boxes), scores.shape[1])
    return [
        RawDetections(boxes[i, :count], scores[i, :count], classes[i, :count])
        for i, count in enumerate(counts)
    ]


def _tflite_runner(spec: ModelSpec, threads: int) -> _Run:
    # The file may be another one by now.
    custom_ops(Path(spec.path).read_bytes(), spec.path)
    _, outputs, _ = _postprocess_op(spec.path)
    interpreters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(threads):
        interpreter = open_interpreter(spec.path)
        interpreters.put(interpreter)
    (taken,) = interpreter.get_input_details()

    def run(pixels: Pixels) -> list[RawDetections]:
        interpreter = interpreters.get()
        try:
            interpreter.set_tensor(taken["index"], _as_input(pixels, taken["dtype"]))
            interpreter.invoke()
            boxes, classes, scores, count = (interpreter.get_tensor(index) for index in outputs)
        finally:
            interpreters.put(interpreter)
        number = int(count[0])
        first_class = 1  # The op counts classes from 0, without background.
        return [
            RawDetections(boxes[0, :number], scores[0, :number], classes[0, :number] + first_class)
        ]

    return run


def _as_input(pixels: Pixels, dtype: Any) -> np.ndarray[Any, Any]:
    """RGB bytes in a TFLite detector's own form: floats are -1 to 1, int8 is shifted by 128."""
    if dtype == np.float32:
        return (pixels.astype(np.float32) - 127.5) / 127.5
    if dtype == np.int8:
        return (pixels.astype(np.int16) - 128).astype(np.int8)
    return pixels
