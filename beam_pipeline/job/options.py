"""The job's own options, read in one place and made into typed values.

Beam is not imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.parsing import (
    DEFAULT_OUTPUT,
    LONGEST_WINDOW,
    OneLineParser,
    add_alert_url,
    add_name_options,
    at_least_0,
    at_least_1,
    hours,
    integer,
    interval,
    max_age,
    score,
)
from beam_pipeline.sources.notifications.address import Address, parse_address
from transforms.models.runtime_names import AUTO, RUNTIMES

if TYPE_CHECKING:
    from rules import NameSettings

STREAM_MAX_AGE_SECONDS = 3600.0
JSON, PACKED = "json", "packed"

_ONLY_FOR_MODELS = {
    **dict.fromkeys(("model", "labels", "model_threads", "model_input_size")),
    "model_accelerator": None,
    "model_runtime": AUTO,
    "trust_model": False,
}
"""Options that mean nothing without a model, with their defaults."""
_UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGTP", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", 1)},
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTP]?i?B)", re.ASCII)
_ACCELERATOR = re.compile(r"type:[\w.-]+(;[\w-]+(:[\w.-]+)?)+", re.ASCII)


@dataclass(frozen=True)
class JobOptions:
    """What the command line says about the job; see the help texts for units.

    A field has the name of its option, but for those of which `to_options` says otherwise.

    Attributes:
      input: None: the bundled samples.
      rules: None: those that belong to the input.
      shadow_rules: None: no rules are judged beside these.
      name_preset: None: names are canonical, or as `name_pattern` says.
      name_pattern: None: names are canonical, or as `name_preset` says.
      timezone: None: names are in UTC.
      model: None: that which belongs to the input; `bundled`: the samples' own.
      detections: None: the model detects.
      trust_model: Whether the model may do more than detect.
      labels: None: COCO's names.
      alert_max_age_seconds: None: an alert is sent however old it is.
      model_min_ram: Bytes; None: the runner's own choice.
      model_accelerator: None: no accelerator.
      notifications: Where messages about new images come from; None: `input` is listed.
      report_every_seconds: Infinite: the report is written when the stream ends.
    """

    input: str | None
    follow_links: bool
    input_parts: int
    output: str
    rules: str | None
    shadow_rules: str | None
    name_preset: str | None
    name_pattern: str | None
    timezone: str | None
    model: str | None
    detections: str | None
    labels: str | None
    alert_urls: tuple[str, ...]
    alert_max_age_seconds: float | None
    window_seconds: int
    allowed_lateness_seconds: int
    count_shards: int | None
    chart_period_hours: float
    batch_size: int
    trust_model: bool
    model_threads: int | None
    model_input_size: int | None
    model_runtime: str
    model_min_ram: int | None
    model_accelerator: str | None
    min_score_kept: float
    max_clock_skew_seconds: int
    min_resolution: tuple[int, int]
    max_resolution: tuple[int, int]
    max_file_bytes: int
    resume: bool
    store_validated: bool
    repository: str
    streaming: bool
    notifications: Address | None
    poll_interval_seconds: int
    early_firing_seconds: int
    report_every_seconds: float

    @property
    def names(self) -> NameSettings:
        """How names are read where the rule file does not say it."""
        from rules import NameSettings  # The rules bring pydantic, and --help answers at once.

        return NameSettings(self.name_preset, self.name_pattern, self.timezone)

    @property
    def model_hints(self) -> dict[str, int | str]:
        """Beam's resource hints for the workers that run the model, by Beam's names."""
        hints = {"min_ram": self.model_min_ram, "accelerator": self.model_accelerator}
        return {name: value for name, value in hints.items() if value is not None}


def _clock_skew(text: str) -> int:
    seconds = integer(text, 0)
    if seconds > 1000 * 366 * 86400:
        raise argparse.ArgumentTypeError(f"{seconds} s is more than a thousand years")
    return seconds


def _window(text: str) -> int:
    seconds = integer(text, 1)
    if seconds > LONGEST_WINDOW.total_seconds():
        raise argparse.ArgumentTypeError(f"{seconds} s is more than a year")
    return seconds


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size with its unit, like 4GB or 4GiB")
    size = int(float(match[1]) * _UNITS[match[2]])
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text} is no memory at all")
    return size


def _accelerator(text: str) -> str:
    if not _ACCELERATOR.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not like type:nvidia-tesla-t4;count:1;install-nvidia-driver"
        )
    return text


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _add_switch(group: argparse._ArgumentGroup, option: str, *, help: str) -> None:
    """Adds an option that is on without a value or with `true`; templates give all a value."""
    group.add_argument(
        option, nargs="?", type=_truth, const=True, default=False, metavar="true|false", help=help
    )


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _resolution(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, like 160x120")
    return int(parts[0]), int(parts[1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the job's own options to a parser."""
    data = parser.add_argument_group("input and output")
    data.add_argument(
        "--input",
        metavar="PATH",
        help="images named <id>_<timestamp>.jpg, or as --name_preset or --name_pattern says: a "
        "file, a directory (everything beneath it) or "
        "a glob, on any of Beam's filesystems (default: the bundled samples)",
    )
    _add_switch(
        data,
        "--follow_links",
        help="follow links under a local --input that lead to folders or out of --input "
        "(default: such links are skipped and counted)",
    )
    data.add_argument(
        "--output",
        metavar="DIR",
        default=DEFAULT_OUTPUT,
        help="the directory for all results, on any of Beam's filesystems (default: %(default)s)",
    )
    data.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file: what is a threat on which camera (default: the bundled rules for the "
        "bundled samples; otherwise a person is a threat on every camera)",
    )
    data.add_argument(
        "--shadow_rules",
        metavar="FILE",
        help="a second rule file to try: each image is judged by it too, and where it would have "
        "an alert, or lacks one, is written to OUTPUT/shadow; nothing of it is sent "
        "(docs/shadow.md)",
    )
    _add_switch(
        data,
        "--no_store_validated",
        help="do not copy valid images to OUTPUT/validated",
    )
    data.add_argument(
        "--repository",
        choices=(JSON, PACKED),
        default=JSON,
        help="how detections and verdicts are written. json: a file in OUTPUT/detections and "
        "OUTPUT/final for each image; packed: a Parquet file in OUTPUT/packed for each window, "
        "which costs a store a fraction of the requests (docs/output.md) (default: "
        "%(default)s)",
    )
    _add_switch(
        data,
        "--resume",
        help="continue an interrupted run: the model skips images whose detections are in "
        "OUTPUT/detections, if the bytes, the model, its labels, its input size and "
        "--min_score_kept are unchanged",
    )

    add_name_options(parser.add_argument_group("names of images"))

    stream = parser.add_argument_group(
        "streaming (DirectRunner by Prism, FlinkRunner, DataflowRunner)"
    )
    _add_switch(
        stream,
        "--streaming",
        help="run until stopped: judge each image when it appears under --input, and reload the "
        "rule file when it changes (default: judge the images that are there, and end)",
    )
    stream.add_argument(
        "--notifications",
        type=_address,
        metavar="ADDRESS",
        help="read messages about new images under --input instead of listing it: a Pub/Sub "
        "subscription to a bucket's notifications (projects/P/subscriptions/S), or a Kafka topic "
        "with S3's events (kafka://HOST:PORT[,HOST:PORT]/TOPIC[?group=GROUP]). The environment "
        "variable KAFKA_CONFIG names a file with settings for TLS and SASL "
        "(docs/notifications.md)",
    )
    stream.add_argument(
        "--poll_interval_seconds",
        type=at_least_1,
        default=5,
        metavar="S",
        help="seconds between two searches for new images or messages (default: %(default)s)",
    )
    stream.add_argument(
        "--input_parts",
        type=at_least_1,
        default=1,
        metavar="N",
        help="divide what is directly in the folder --input, by name, into so many parts, each of "
        "which is listed on its own, so that several workers list (docs/flink.md); not with "
        "--notifications or --follow_links (default: %(default)s)",
    )
    stream.add_argument(
        "--early_firing_seconds",
        type=at_least_1,
        default=30,
        metavar="S",
        help="seconds between two updates of the counts of a window that is still open (default: "
        "%(default)s)",
    )
    stream.add_argument(
        "--report_every",
        type=interval,
        default=600.0,
        metavar="DURATION",
        help="write the report of a stream anew this often, such as 30s, 10m or 1h, by the program "
        "that has started it and waits for it; off: only when it ends (default: 10m)",
    )

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="MODEL",
        help="a detector: a SavedModel's directory, a .tflite or .onnx file, or a .tar.gz of one, "
        "on any of Beam's filesystems; a name of the TensorFlow 2 Detection Zoo or of YOLOX (such "
        "as yolox_s), downloaded once; or 'bundled', the detector for the bundled samples "
        "(default: 'bundled' for the bundled samples, otherwise efficientdet_d0_coco17_tpu-32). A "
        "model is a program: use one from a source that you trust",
    )
    model.add_argument(
        "--detections",
        metavar="FILE",
        help="take the detections from this file in place of a model: the output of another "
        "detector in MegaDetector's batch form (JSON), with paths that are relative to --input "
        "(docs/models.md); not with --streaming",
    )
    model.add_argument(
        "--trust_model",
        action="store_true",
        help="run a model whose graph can read or write files, use the network or call Python "
        "(default: such a model is refused)",
    )
    model.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the model's classes: a .pbtxt label map, lines of id and name, or one name "
        "a line counted from the model's first class (default: the names in an .onnx file, or "
        "else COCO's 80: under their ids 1 to 90, or for 80 classes in ONNX counted from 1)",
    )
    model.add_argument(
        "--batch_size",
        type=at_least_1,
        default=8,
        metavar="N",
        help="images per batch that the model receives; without a GPU each image is a call of its "
        "own (default: %(default)s)",
    )
    model.add_argument(
        "--model_threads",
        type=at_least_1,
        metavar="N",
        help="concurrent calls of the model in a process (default: the number of processors)",
    )
    model.add_argument(
        "--model_input_size",
        type=at_least_1,
        metavar="PIXELS",
        help="side of the square to which images are scaled, for a model whose signature leaves "
        "the size open (default: the size in the pipeline.config beside the model, or else 640)",
    )
    model.add_argument(
        "--model_runtime",
        choices=RUNTIMES,
        default=AUTO,
        help="what runs a SavedModel. savedmodel: TensorFlow, as it is; tflite: TFLite, converted "
        "once on each machine, for processors; tflite-int8: the same with 8-bit weights, less "
        "exact; auto: tflite without a GPU, for a model of at least 3 MiB, if both give the same "
        "on a few images (docs/models.md) (default: %(default)s)",
    )
    model.add_argument(
        "--min_score_kept",
        type=score,
        default=0.05,
        metavar="SCORE",
        help="drop detections with a score below this, 0 to 1 (default: %(default)s)",
    )
    model.add_argument(
        "--model_min_ram",
        type=_size,
        metavar="SIZE",
        help="Dataflow: minimum memory, like 8GB, of a worker that reads images and runs the model "
        "(default: Dataflow chooses)",
    )
    model.add_argument(
        "--model_accelerator",
        type=_accelerator,
        metavar="HINT",
        help="Dataflow: the accelerator of such a worker, like "
        "'type:nvidia-tesla-t4;count:1;install-nvidia-driver' (default: none)",
    )

    limits = parser.add_argument_group("validation of images")
    limits.add_argument(
        "--min_resolution",
        type=_resolution,
        default="160x120",
        metavar="WxH",
        help="minimum width and height in pixels of the upright image (default: %(default)s); the "
        "rule file can set another value for a camera",
    )
    limits.add_argument(
        "--max_resolution",
        type=_resolution,
        default="8192x8192",
        metavar="WxH",
        help="maximum width and height in pixels of the upright image (default: %(default)s); the "
        "rule file can set another value for a camera",
    )
    limits.add_argument(
        "--max_file_mib",
        type=at_least_1,
        default=64,
        metavar="MIB",
        help="maximum file size in MiB (default: %(default)s)",
    )
    limits.add_argument(
        "--max_clock_skew_seconds",
        type=_clock_skew,
        default=86400,
        metavar="S",
        help="maximum number of seconds by which a capture time may be ahead of this machine's "
        "clock (default: %(default)s)",
    )

    results = parser.add_argument_group("alerts, counts and chart")
    add_alert_url(results)
    results.add_argument(
        "--alert_max_age",
        type=max_age,
        metavar="DURATION",
        help="record, but do not send, alerts of images older than this, such as 30s, 5m, 24h or "
        "7d; off: send alerts of any age (default: off, with --streaming 1h)",
    )
    results.add_argument(
        "--window_seconds",
        type=_window,
        default=300,
        metavar="S",
        help="length in seconds of the event-time windows in which threats are counted (default: "
        "%(default)s)",
    )
    results.add_argument(
        "--allowed_lateness_seconds",
        type=at_least_0,
        default=3600,
        metavar="S",
        help="maximum number of seconds by which an image of a stream may be late and still be "
        "counted in its window (default: %(default)s)",
    )
    results.add_argument(
        "--count_shards",
        type=at_least_1,
        metavar="N",
        help="number of files for the counts of one window (default: one for each 5,000 cameras of "
        "the rule file; a stream keeps the number that its output has)",
    )
    results.add_argument(
        "--chart_period_hours",
        type=hours,
        default=24,
        metavar="H",
        help="period in hours that the chart shows; it ends with the newest image (default: "
        "%(default)s)",
    )


def option_names() -> tuple[str, ...]:
    """Returns the job's own options, as they are written."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return tuple(parser._option_string_actions)


def job_options(arguments: Sequence[str]) -> JobOptions:
    """Returns the job's own options from a command line, for a pipeline of one's own.

    Raises:
      SetupError: An option is wrong, or is none of the job's own.
    """
    parser = OneLineParser(prog="job_options", add_help=False, allow_abbrev=False)
    add_arguments(parser)
    return to_options(parser.parse_args(arguments))


def to_options(args: argparse.Namespace) -> JobOptions:
    """Returns the typed values of parsed arguments.

    Raises:
      SetupError: Two of them contradict each other.
    """
    if any(low > high for low, high in zip(args.min_resolution, args.max_resolution, strict=True)):
        raise SetupError(
            "--min_resolution is larger than --max_resolution; no image could be valid"
        )
    for option in ("input", "output", "rules", "shadow_rules", "model", "detections", "labels"):
        if getattr(args, option) == "":
            raise SetupError(f"--{option} is empty; leave it out or give a path")
    if args.name_preset is not None and args.name_pattern is not None:
        raise SetupError(
            "--name_preset and --name_pattern are two ways of naming; keep one of them, or give "
            "each camera its own in the rule file (names)"
        )
    if args.detections is not None:
        _check_detections(args)
    if args.notifications is not None:
        _check_notifications(args.notifications, args.input, args.streaming)
    if args.input_parts > 1:
        _check_parts(args)
    age: float | None = args.alert_max_age
    if age is None and args.streaming:
        age = STREAM_MAX_AGE_SECONDS
    values = {
        **vars(args),
        "alert_urls": tuple(dict.fromkeys(args.alert_url)),
        "alert_max_age_seconds": None if age == math.inf else age,
        "max_file_bytes": args.max_file_mib << 20,
        "report_every_seconds": args.report_every,
        "store_validated": not args.no_store_validated,
    }
    return JobOptions(**{field.name: values[field.name] for field in fields(JobOptions)})


def _check_detections(args: argparse.Namespace) -> None:
    if args.streaming:
        raise SetupError(
            "--detections works only in a batch, as the file must be complete; leave --streaming "
            "out"
        )
    if args.input is None:
        raise SetupError("--detections: give --input too, the images that the detector has seen")
    for option, default in _ONLY_FOR_MODELS.items():
        if getattr(args, option) != default:
            raise SetupError(
                f"--{option} is for a model, and --detections runs none; leave one of them out"
            )


def _check_parts(args: argparse.Namespace) -> None:
    if not args.streaming:
        raise SetupError("--input_parts works only in a stream; add --streaming")
    if args.notifications is not None:
        raise SetupError(
            "--input_parts divides an input that is listed, and --notifications lists none; leave "
            "one of them out"
        )
    if args.follow_links:
        raise SetupError(
            "--input_parts and --follow_links: links in two parts may lead to one folder, which "
            "would be listed twice; leave one of them out"
        )


def _check_notifications(address: Address, source: str | None, streaming: bool) -> None:
    if not streaming:
        raise SetupError("--notifications works only in a stream; add --streaming")
    if source is None:
        raise SetupError(
            f"--notifications: give --input {address.scheme}BUCKET/FOLDER too, under which "
            "images are taken"
        )
    if not source.startswith(address.scheme):
        raise SetupError(
            f"--notifications {address.uri} is about objects on {address.scheme}, and --input is "
            f"{source}"
        )
