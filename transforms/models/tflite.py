"""TFLite's interpreters, and what may be opened with them."""

from __future__ import annotations

from typing import Any

from transforms.models.model_files import ModelError
from transforms.models.tensorflow_runtime import load_tensorflow, start_up_notes_left_out
from transforms.records.text import one_line


def custom_ops(content: bytes, name: str) -> list[str]:
    """The ops of a `.tflite` file that are not TFLite's own; none of them is run.

    A file names the place of each of its parts, so one that was cut short, or is another format,
    has parts beyond its end, which Python's reader of the same format notices. TFLite itself reads
    past its end, and the process dies.

    Args:
      content: The file.
      name: What errors call it.

    Raises:
      ModelError: It is broken.
    """
    load_tensorflow()
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        codes = [one.customCode for one in model.operatorCodes or () if one.customCode]
        ops = [bytes(code).decode("utf-8", "replace") for code in codes]
    except Exception as error:  # struct's, NumPy's or the reader's own, whatever part is broken.
        raise ModelError(f"{name}: not a model that TFLite reads ({one_line(error)})") from None
    if not model.subgraphs:
        raise ModelError(f"{name}: not a model that TFLite reads (it has no graph)")
    return ops


def open_interpreter(name: str, *, content: bytes | None = None, delegates: bool = True) -> Any:
    """A `tf.lite.Interpreter` of one thread, its tensors allocated.

    Args:
      name: The file; with `content`, what errors call it.
      content: The file's bytes, where they are in memory.
      delegates: Whether the fast kernels are used, which hide the ops that they take.

    Raises:
      ModelError: TFLite does not open it.
    """
    tf = load_tensorflow()
    kind = tf.lite.experimental.OpResolverType
    try:
        with start_up_notes_left_out():
            interpreter = tf.lite.Interpreter(
                model_path=None if content is not None else name,
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=(
                    kind.AUTO if delegates else kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: not a model that TFLite reads ({one_line(error)})") from None
    return interpreter
