"""The whole graph, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_pipeline.job import Job
from beam_pipeline.sources import ListImages
from transforms.count_threats import CountThreats, StoreCounts
from transforms.detect_objects import DetectObjects
from transforms.judge_threats import JudgeThreats
from transforms.parse_filename import ParseFilename
from transforms.records import JudgedImage, WindowCounts
from transforms.repositories import (
    StoreDetections,
    StoreFinal,
    StoreInvalid,
    StoreValidated,
)
from transforms.send_alerts import SendAlerts
from transforms.validate_image import InvalidNames, ValidateImage


@dataclass(frozen=True)
class Outputs:
    """What a pipeline of one's own can build on.

    Attributes:
      judged: Each valid image with its verdict.
      counts: The count rows of each window.
      invalid: The record of each invalid image, after it was stored.
    """

    judged: beam.PCollection[JudgedImage]
    counts: beam.PCollection[WindowCounts]
    invalid: beam.PCollection[dict[str, Any]]


def build_pipeline(pipeline: beam.Pipeline, job: Job) -> Outputs:
    """Adds the job to a pipeline.

    Reading, decoding and detection stay in one fused stage, between the grouping of file names
    and the windows: no step that groups is given the bytes of an image.
    """
    options, output = job.options, job.output

    files = pipeline | "ListImages" >> ListImages(job.input)
    parsed = files | "ParseFilename" >> ParseFilename(
        max_clock_skew=job.max_clock_skew,
        is_known=job.rules.knows if job.rules.strict_ids else None,
    )
    checked = parsed.named | "ValidateImage" >> ValidateImage(
        limits=job.limits,
        by=job.rules,
        input_size=job.model.spec.input_size,
        earlier=job.earlier,
    )
    seen = checked.valid | "DetectObjects" >> DetectObjects(
        job.model,
        batch_size=options.batch_size,
        min_score_kept=options.min_score_kept,
        threads=options.model_threads,
    )
    judged = seen.detected | "JudgeThreats" >> JudgeThreats(job.rules)

    if options.store_validated:
        seen.kept | "StoreValidated" >> StoreValidated(output)
    seen.detected | "StoreDetections" >> StoreDetections(output)
    judged | "StoreFinal" >> StoreFinal(output)

    wrong_names = parsed.invalid | "InvalidNames" >> InvalidNames()
    invalid = [
        wrong_names | "StoreInvalidNames" >> StoreInvalid(output),
        checked.invalid | "StoreInvalidImages" >> StoreInvalid(output),
        seen.invalid | "StoreFailedInferences" >> StoreInvalid(output),
    ]

    windows = judged | "CountThreats" >> CountThreats(
        window_seconds=options.window_seconds,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
        shards=options.count_shards,
    )
    windows | "StoreCounts" >> StoreCounts(output, shards=options.count_shards)
    judged | "SendAlerts" >> SendAlerts(output, urls=options.alert_urls)
    return Outputs(judged, windows, invalid | "AllInvalid" >> beam.Flatten())
