"""What tests of every package share."""

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult

Outputs = Mapping[str, "beam.PCollection[Any]"]
RunPipeline = Callable[
    [Callable[[beam.Pipeline], Outputs]], tuple[PipelineResult, dict[str, list[Any]]]
]

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_kept: dict[tuple[int, str], list[Any]] = defaultdict(list)
_runs = itertools.count()


def _shared(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        reason = f"{folder} is not there: these tests need the {name} kept beside the checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Detectors that are kept beside the checkout, not in it."""
    return _shared("models")


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """Photographs that are kept beside the checkout, not in it."""
    return _shared("photos")


class _Keep(beam.DoFn):
    """Hands elements to the test: the in-process runner's workers share its memory."""

    def __init__(self, run: int, name: str) -> None:
        self._place = run, name

    def process(self, element: Any) -> None:
        _kept[self._place].append(element)


@pytest.fixture
def run_pipeline() -> RunPipeline:
    """Runs what a function adds to a pipeline, on Beam's in-process runner, to its end.

    The function returns PCollections by name; what they held is returned by the same names, in no
    certain order, after the runner's result.
    """

    def run(
        build: Callable[[beam.Pipeline], Outputs],
    ) -> tuple[PipelineResult, dict[str, list[Any]]]:
        number = next(_runs)
        pipeline = beam.Pipeline(runner=FnApiRunner())
        outputs = build(pipeline)
        for name, collection in outputs.items():
            collection | f"Keep {name}" >> beam.ParDo(_Keep(number, name))
        result = pipeline.run()
        result.wait_until_finish()
        return result, {name: _kept.pop((number, name), []) for name in outputs}

    return run
