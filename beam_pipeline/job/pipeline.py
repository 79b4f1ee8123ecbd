"""The whole graph, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_pipeline.job import Job
from beam_pipeline.notifications.source import WatchNotifications
from beam_pipeline.sources import ListImages
from beam_pipeline.watching import WatchImages
from transforms import stores
from transforms.count_threats import CountThreats, StoreCounts, StoreLate
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
from transforms.settle_moments import SettleMoments, TakeBack
from transforms.validate_image import (
    LOCAL_READERS,
    REMOTE_READERS,
    InvalidNames,
    ValidateImage,
)


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

    Reading, decoding and detection stay in one fused stage: no step that groups is given the bytes
    of an image. A batch groups file names by moment before that stage; a stream can't wait for
    more files, and settles afterwards which picture stands for a moment.

    Resource hints of the model go to every step of that stage: a runner fuses no steps whose
    hints differ, and images would be written down between them.
    """
    options, output, streaming = job.options, job.output, job.options.streaming
    hints = options.model_hints

    refused: dict[str, Any] = {}
    if options.notifications is not None:
        told = pipeline | "WatchNotifications" >> WatchNotifications(
            options.notifications, job.input, poll_seconds=options.poll_interval_seconds
        )
        files, refused["StoreMalformed"] = told.images, (told.malformed, {})
    else:
        files = pipeline | "ListImages" >> (
            WatchImages(job.input, poll_seconds=options.poll_interval_seconds)
            if streaming
            else ListImages(job.input)
        )
    parsed = files | "ParseFilename" >> ParseFilename(
        max_clock_skew=job.max_clock_skew, is_known=job.rules.takes
    )
    checked = parsed.named | "ValidateImage" >> ValidateImage(
        limits=job.limits,
        by=job.rules,
        input_size=job.model.spec.input_size,
        earlier=job.earlier,
        streaming=streaming,
        threads=LOCAL_READERS if stores.is_local(job.input) else REMOTE_READERS,
        resource_hints=hints,
    )
    seen = checked.valid | "DetectObjects" >> DetectObjects(
        job.model,
        batch_size=options.batch_size,
        min_score_kept=options.min_score_kept,
        threads=options.model_threads,
    ).with_resource_hints(**hints)
    detected = (
        seen.kept | "StoreValidated" >> StoreValidated(output).with_resource_hints(**hints)
        if options.store_validated
        else seen.detected
    )
    judged = detected | "JudgeThreats" >> JudgeThreats(
        job.rules,
        streaming=streaming,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
    )
    wrong_names = parsed.invalid | "InvalidNames" >> InvalidNames(streaming=streaming)
    refused |= {
        "StoreInvalidNames": (wrong_names, {}),
        "StoreInvalidImages": (checked.invalid, hints),
        "StoreFailedInferences": (seen.invalid, hints),
    }

    if streaming:
        settled = judged | "SettleMoments" >> SettleMoments(
            window_seconds=options.window_seconds,
            allowed_lateness_seconds=options.allowed_lateness_seconds,
        )
        judged, counted = settled.stands, settled.counted
        detected = judged | "ObjectData" >> beam.Map(lambda one: one.image)
        duplicates = settled.duplicate | "TakeBack" >> TakeBack(output)
        refused["StoreDuplicates"] = (duplicates, {})
        settled.late | "StoreLate" >> StoreLate(output, window_seconds=options.window_seconds)
    else:
        counted = judged

    detected | "StoreDetections" >> StoreDetections(output)
    judged | "StoreFinal" >> StoreFinal(output)
    invalid = [
        images | label >> StoreInvalid(output, streaming=streaming).with_resource_hints(**where)
        for label, (images, where) in refused.items()
    ]
    windows = counted | "CountThreats" >> CountThreats(
        window_seconds=options.window_seconds,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
        early_firing_seconds=options.early_firing_seconds if streaming else None,
        shards=options.count_shards,
    )
    windows | "StoreCounts" >> StoreCounts(
        output, shards=options.count_shards, keep_newer=streaming
    )
    judged | "SendAlerts" >> SendAlerts(
        output,
        job.rules,
        urls=options.alert_urls,
        streaming=streaming,
        max_age_seconds=options.alert_max_age_seconds,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
    )
    return Outputs(judged, windows, invalid | "AllInvalid" >> beam.Flatten())
