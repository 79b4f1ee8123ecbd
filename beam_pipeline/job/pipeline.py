"""The whole graph, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam

from beam_pipeline.inputs.name_checks import input_top
from beam_pipeline.job.options import PACKED
from beam_pipeline.job.preparation import Job
from beam_pipeline.runners.prism import is_prism
from beam_pipeline.sources.folders import source_of
from beam_pipeline.sources.listing import ListImages
from beam_pipeline.sources.notifications.source import WatchNotifications
from beam_pipeline.sources.watching import WatchImages
from transforms.alerting.alerts import HasRecord
from transforms.alerting.target_checks import WorkerCheck, notified_targets
from transforms.count_threats import CountThreats
from transforms.detect_objects import DetectObjects
from transforms.forget_earlier_verdicts import ForgetEarlierVerdicts
from transforms.judge_shadow import JudgeShadow
from transforms.judge_threats import JudgeThreats
from transforms.packed_decisions import PackedWindows
from transforms.parse_filename import ParseFilename
from transforms.read_detections import ReadDetections
from transforms.records.images import DetectedImage, InvalidImage, JudgedImage, WindowCounts
from transforms.repositories import (
    StoreDetections,
    StoreFinal,
    StoreInvalid,
    StoreValidated,
)
from transforms.resolve_versions import ResolveVersions
from transforms.send_alerts import SendAlerts
from transforms.storage import stores
from transforms.store_counts import StoreCounts
from transforms.store_packed import StorePackedDetections, StorePackedVerdicts
from transforms.validate_image import (
    LOCAL_READERS,
    REMOTE_READERS,
    InvalidNames,
    ValidateImage,
)

Refused = tuple[beam.PCollection[InvalidImage], Mapping[str, int | str]]
"""Images that are not judged, and the resource hints of the step that stores them."""


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
    of an image. Which of several images of one capture time wins is decided after they were
    judged, with small records.

    Resource hints of the model go to every step of that stage: a runner fuses no steps whose
    hints differ, and images would be written down between them.
    """
    options, output, streaming = job.options, job.output, job.options.streaming
    on_prism = streaming and is_prism(pipeline.options)
    hints = options.model_hints
    top = source_of(job.input).top if stores.is_local(job.input) else None

    refused: dict[str, Refused] = {}
    if options.notifications is not None:
        notified = pipeline | "WatchNotifications" >> WatchNotifications(
            options.notifications, job.input, poll_seconds=options.poll_interval_seconds
        )
        files, refused["StoreMalformed"] = notified.images, (notified.malformed, {})
    else:
        files = pipeline | "ListImages" >> (
            WatchImages(
                job.input,
                parts=options.input_parts,
                follow_links=options.follow_links,
                poll_seconds=options.poll_interval_seconds,
            )
            if streaming
            else ListImages(job.input, follow_links=options.follow_links)
        )
    parsed = files | "ParseFilename" >> ParseFilename(
        max_clock_skew=job.max_clock_skew,
        is_known=job.rules.accepts,
        names=partial(job.rules.names, options.names),
        top=input_top(job.input),
    )
    checked = parsed.named | "ValidateImage" >> ValidateImage(
        limits=job.limits,
        ruleset=job.rules,
        with_tiles=job.detections is None,
        input_size=job.model.spec.input_size,
        keeps_aspect=job.model.spec.keeps_aspect,
        earlier=job.earlier,
        streaming=streaming,
        threads=LOCAL_READERS if stores.is_local(job.input) else REMOTE_READERS,
        top=top,
        check_worker=WorkerCheck(
            job.rules,
            notified_targets(job.rules.current),
            options.alert_urls,
            job.rules.current.alerting.console,
        ),
        resource_hints=hints,
    )
    inferred = (
        checked.valid
        | "DetectObjects"
        >> DetectObjects(
            job.model,
            batch_size=options.batch_size,
            min_score_kept=options.min_score_kept,
            threads=options.model_threads,
            restores_timestamps=on_prism,
        ).with_resource_hints(**hints)
        if job.detections is None
        else checked.valid
        | "ReadDetections"
        >> ReadDetections(
            job.detections,
            job.model.info,
            min_score_kept=options.min_score_kept,
            top=input_top(job.input),
        ).with_resource_hints(**hints)
    )
    detected = (
        inferred.kept
        | "StoreValidated"
        >> StoreValidated(output, streaming=streaming).with_resource_hints(**hints)
        if options.store_validated
        else inferred.detected
    )
    wrong_names = parsed.invalid | "InvalidNames" >> InvalidNames(streaming=streaming)
    refused |= {
        "StoreInvalidNames": (wrong_names.invalid, {}),
        "StoreInvalidImages": (checked.invalid, hints),
        "StoreFailedInferences": (inferred.invalid, hints),
    }
    contested = (
        wrong_names.contested,
        checked.contested,
        inferred.contested,
    ) | "Contested" >> beam.Flatten()
    return judge_and_store(detected, contested, refused, job, on_prism=on_prism)


def judge_and_store(
    detected: beam.PCollection[DetectedImage],
    contested: beam.PCollection[InvalidImage],
    refused: Mapping[str, Refused],
    job: Job,
    *,
    on_prism: bool = False,
) -> Outputs:
    """Adds the part of the job that follows detection: all that it needs are small records.

    Args:
      detected: Each valid image with its detections.
      contested: Invalid images whose files share a capture time with others.
      refused: The other invalid images, by the label of the step that stores them.
      job: The job.
      on_prism: Whether the job is a stream on Prism.
    """
    options, output, streaming = job.options, job.output, job.options.streaming
    top = source_of(job.input).top if stores.is_local(job.input) else None
    judged = detected | "JudgeThreats" >> JudgeThreats(
        job.rules,
        streaming=streaming,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
        output=output,
    )
    if job.shadow is not None:
        judged | "JudgeShadow" >> JudgeShadow(
            job.shadow,
            output,
            streaming=streaming,
            allowed_lateness_seconds=options.allowed_lateness_seconds,
        )
    has_file = HasRecord(job.rules) if options.repository == PACKED else None
    stored = detected | "StoreDetections" >> (
        StoreDetections(output) if has_file is None else StorePackedDetections(output)
    )
    judged | "StoreFinal" >> StoreFinal(output, has_file=has_file)
    resolved = judged | "ResolveVersions" >> ResolveVersions(
        contested,
        output,
        streaming=streaming,
        window_seconds=options.window_seconds,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
        store_validated=options.store_validated,
        max_copied_bytes=job.limits.max_file_bytes,
        top=top,
        has_file=has_file,
        windows=PackedWindows(options.window_seconds, job.count_shards)
        if streaming and has_file is not None
        else None,
        keeps_verdicts=on_prism,
    )
    if has_file is not None and not streaming:
        resolved.winners | "StorePackedVerdicts" >> StorePackedVerdicts(
            output,
            invalid=[(contested, {}), *refused.values()],
            detections=stored,
            has_record=has_file,
            window_seconds=options.window_seconds,
            shards=options.count_shards or 1,
        )
    invalid = [
        images
        | label
        >> StoreInvalid(
            output,
            streaming=streaming,
            max_copied_bytes=job.limits.max_file_bytes,
            top=top,
        ).with_resource_hints(**where)
        for label, (images, where) in refused.items()
    ]
    if not streaming and stores.has_files(stores.final_folder(output)):
        resolved.winners | "ForgetEarlierVerdicts" >> ForgetEarlierVerdicts(output)
    windows = resolved.counted | "CountThreats" >> CountThreats(
        window_seconds=options.window_seconds,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
        early_firing_seconds=options.early_firing_seconds if streaming else None,
        shards=job.count_shards,
        streaming=streaming,
    )
    windows | "StoreCounts" >> StoreCounts(
        output,
        shards=job.count_shards,
        keep_newer=streaming,
        reordered=on_prism,
        allowed_lateness_seconds=options.allowed_lateness_seconds,
    )
    resolved.winners | "SendAlerts" >> SendAlerts(
        output,
        job.rules,
        urls=options.alert_urls,
        timezone=options.timezone,
        streaming=streaming,
        max_age_seconds=options.alert_max_age_seconds,
    )
    records = [*invalid, resolved.records] | "AllInvalid" >> beam.Flatten()
    return Outputs(resolved.winners, windows, records)
