"""A pipeline built from the steps of this project: how often each camera sees each label, by hour.

    python examples/labels_by_hour.py --input /srv/pictures --output labels_by_hour

It reads, validates and detects as the job does, and judges and alerts nothing. It writes
labels.jsonl, lines of JSON: {"id": "hall", "hour": "2026-01-31T23:00:00Z", "label": "person",
"images": 4}. Two files of one camera and capture time count twice: `ResolveVersions` is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.job.options import job_options
from beam_pipeline.job.preparation import prepare
from beam_pipeline.sources.listing import ListImages
from transforms.detect_objects import DetectObjects
from transforms.parse_filename import ParseFilename
from transforms.records.images import DetectedImage
from transforms.validate_image import ValidateImage

MIN_SCORE = 0.5

Key = tuple[str, str, str]


def labels_of(image: DetectedImage) -> Iterator[Key]:
    """The camera, the hour and the label of each label in an image, once per label."""
    hour = f"{image.timestamp[:13]}:00:00Z"
    labels = {found.label for found in image.detections if found.conf >= MIN_SCORE}
    return ((image.id, hour, label) for label in sorted(labels))


def as_line(key: Key, images: int) -> str:
    """A line of the output."""
    camera, hour, label = key
    return json.dumps({"id": camera, "hour": hour, "label": label, "images": images})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the pipeline."""
    parser = argparse.ArgumentParser(description="Counts labels by camera and hour.")
    parser.add_argument("--input", required=True, help="the images")
    parser.add_argument("--output", required=True, help="the directory for labels.jsonl")
    parser.add_argument("--model", default="bundled", help="the model")
    own, beam_arguments = parser.parse_known_args(arguments)
    # The checks of the job: the model is there, the input can be read.
    job = prepare(job_options(["--input", own.input, "--output", own.output, "--model", own.model]))
    with beam.Pipeline(options=PipelineOptions(beam_arguments)) as pipeline:
        parsed = pipeline | ListImages(job.input) | ParseFilename()
        checked = parsed.named | ValidateImage(
            limits=job.limits, input_size=job.model.spec.input_size
        )
        seen = checked.valid | DetectObjects(job.model)
        (
            seen.detected
            | "Labels" >> beam.FlatMap(labels_of).with_output_types(Key)
            | "Count" >> beam.combiners.Count.PerElement()
            | "Lines" >> beam.MapTuple(as_line)
            | "Write" >> beam.io.WriteToText(f"{job.output}/labels.jsonl", shard_name_template="")
        )


if __name__ == "__main__":
    main()
