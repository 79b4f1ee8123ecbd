"""The runtimes of models by name, as `--model_runtime` takes them and the image JSON says them."""

AUTO, SAVED_MODEL, TFLITE, TFLITE_INT8 = RUNTIMES = ("auto", "savedmodel", "tflite", "tflite-int8")
"""`auto` selects one of the others."""
ONNX = "onnx"
"""What runs an `.onnx` file; not to be chosen, as nothing else runs one."""
DETECTIONS = "detections"
"""In place of a runtime, where no model ran: the detections are those of a file."""
