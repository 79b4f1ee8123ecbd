"""Opens TFLite's interpreters, and checks the files that they open."""

from __future__ import annotations

from typing import Any

from transforms.models.model_files import ModelError
from transforms.models.tensorflow_runtime import load_tensorflow, start_up_notes_left_out
from transforms.records.text import one_line


def custom_ops(content: bytes, name: str) -> list[str]:
    """Returns the custom ops of a `.tflite` file, without running any of them.

    A file holds the offset of each of its parts. In a truncated file, or one of another format,
    some offsets lie beyond its end. The Python reader of the format detects that; TFLite itself
    reads past the end and crashes the process.

    Args:
      content: The bytes of the file.
      name: The name of the file in error messages.

    Raises:
      ModelError: The file is broken.
    """
    load_tensorflow()
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        names = [code.customCode for code in model.operatorCodes or () if code.customCode]
        ops = [bytes(encoded).decode("utf-8", "replace") for encoded in names]
    except Exception as error:  # struct, NumPy and the reader raise their own types.
        raise ModelError(f"{name}: not a model that TFLite reads ({one_line(error)})") from None
    if not model.subgraphs:
        raise ModelError(f"{name}: not a model that TFLite reads (it has no graph)")
    return ops


def open_interpreter(name: str, *, content: bytes | None = None, delegates: bool = True) -> Any:
    """Returns a `tf.lite.Interpreter` with one thread and allocated tensors.

    Args:
      name: The path of the file; with `content`, only its name in error messages.
      content: The bytes of the file, if they are in memory.
      delegates: Whether to use the fast kernels. They hide the ops that they replace.

    Raises:
      ModelError: TFLite can't open the file.
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
