"""The job as `python -m beam_pipeline` runs it, timed from the first batch to the last output.

`python -m benchmarks.whole_job PICTURES MODEL OUTPUT [OPTION ...]` prints images a second, start-up
taken out, the processor time of an image, and the peak memory of the process.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time

from beam_pipeline import cli
from benchmarks.processor_time import ProcessorTime
from transforms.runtime.counters import counted_here

_WARM = 16


def main() -> None:
    images_folder, model, output, *more = sys.argv[1:]
    begun: list[tuple[float, int, ProcessorTime]] = []

    def watch() -> None:
        while not begun:
            judged = counted_here()["images.detected"]
            if judged >= _WARM:
                begun.append((time.monotonic(), judged, ProcessorTime()))
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    code = cli.main(
        [
            *("--runner", "DirectRunner", "--input", images_folder, "--model", model),
            *("--output", output, "--model_input_size", "416", *more),
        ]
    )
    ended = time.monotonic()
    if code or not begun:
        sys.exit(f"the job ended with {code}")
    started, warm, processor = begun[0]
    judged = counted_here()["images.detected"] - warm
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        "images_per_second": judged / (ended - started),
        "ms_of_cpu": processor.ms_per(judged),
        "peak_mib": peak,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
