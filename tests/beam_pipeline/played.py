"""A runner for streams whose images, event time and clock a test plays.

`--streaming --runner tests.beam_pipeline.played.PlayedRunner` is the job as a user gives it, on
Beam's in-process runner of streams; only its source is another: a script in the place of looks at
`--input`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PTransformOverride
from apache_beam.runners.common import DoFnSignature
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.runner import PipelineResult, PipelineRunner
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import TimestampedValue

from beam_pipeline.sources.watching import WatchImages
from transforms.records.images import ImageFile
from transforms.records.times import canonical_time, from_unix

RUNNER = f"{__name__}.PlayedRunner"


@dataclass(frozen=True)
class Found:
    """The source finds a file.

    Attributes:
      uri: Where it is.
      size_bytes: Its size.
      changed: When it was changed, in Unix seconds; None if unknown.
    """

    uri: str
    size_bytes: int
    changed: float | None = None


@dataclass(frozen=True)
class FoundTogether:
    """The source finds several files at one look."""

    files: tuple[Found, ...]


@dataclass(frozen=True)
class EventTime:
    """Event time moves on to so many seconds of Unix time."""

    seconds: float


@dataclass(frozen=True)
class Clock:
    """So many seconds pass by the runner's clock."""

    seconds: float


Event = Found | FoundTogether | EventTime | Clock


class _Script(beam.PTransform):
    def __init__(self, events: Sequence[Event]) -> None:
        super().__init__()
        self._events = events

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[ImageFile]:
        stream = TestStream(coder=beam.coders.FastPrimitivesCoder())
        reached: float | None = None
        for event in self._events:
            if isinstance(event, EventTime):
                reached = event.seconds
                stream = stream.advance_watermark_to(reached)
            elif isinstance(event, Clock):
                stream = stream.advance_processing_time(event.seconds)
            else:
                stream_time = None if reached is None else canonical_time(from_unix(reached))
                found = event.files if isinstance(event, FoundTogether) else (event,)
                stream = stream.add_elements(
                    TimestampedValue(
                        ImageFile(file.uri, file.size_bytes, stream_time, file.changed),
                        reached or 0,
                    )
                    for file in found
                )
        ended = begin.pipeline | "Play" >> stream.advance_watermark_to_infinity()
        # The runner of streams takes a TestStream by its own type only where something follows it.
        return ended | "Found" >> beam.Map(lambda file: file).with_output_types(ImageFile)


class _ScriptForPolls(PTransformOverride):
    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def matches(self, applied: AppliedPTransform) -> bool:
        return isinstance(applied.transform, WatchImages)

    def get_replacement_transform_for_applied_ptransform(
        self, applied: AppliedPTransform
    ) -> beam.PTransform:
        (watch,) = (part for part in applied.parts if isinstance(part.transform, beam.ParDo))
        PlayedRunner.pause = _pause_after_poll(watch.transform.fn)
        return _Script(self._events)


def _pause_after_poll(fn: beam.DoFn) -> float:
    """Seconds for which a source that never ends asks the runner to be left alone."""
    signature = DoFnSignature(fn)
    provider = signature.get_restriction_provider()
    tracker = ThreadsafeRestrictionTracker(
        provider.create_tracker(provider.initial_restriction(None))
    )
    estimators = signature.get_watermark_estimator_provider()
    estimator = estimators.create_watermark_estimator(
        estimators.initial_estimator_state(None, None)
    )
    fn.setup()
    for _ in fn.process(None, RestrictionTrackerView(tracker), estimator):
        pass
    _, pause = tracker.deferred_status()
    return float(pause.micros / 1e6)


class PlayedRunner(PipelineRunner):
    """The runner.

    Attributes:
      script: What happens; a test sets it first.
      pause: Seconds between two polls of the source that the script replaces.
    """

    script: Sequence[Event] = ()
    pause: float

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        pipeline.replace_all([_ScriptForPolls(self.script)])
        result: Any = BundleBasedDirectRunner().run_pipeline(pipeline, options)
        return result
