"""The job's own options, read in one place and made into typed values.

Beam is not imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from beam_pipeline.errors import SetupError
from beam_pipeline.notifications.address import Address, parse_address

DEFAULT_OUTPUT = "output"
STREAM_MAX_AGE_SECONDS = 3600.0
BUNDLED = "bundled"

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

    Attributes:
      input: None: the bundled samples.
      rules: None: those that belong to the input.
      model: None: that which belongs to the input; `bundled`: the samples' own.
      labels: None: COCO's names.
      alert_max_age_seconds: None: an alert is sent however old it is.
      model_min_ram: Bytes; None: the runner's own choice.
      model_accelerator: None: no accelerator.
      notifications: Where messages tell of new pictures; None: they are looked for.
    """

    input: str | None
    output: str
    rules: str | None
    model: str | None
    labels: str | None
    alert_urls: tuple[str, ...]
    alert_max_age_seconds: float | None
    window_seconds: int
    allowed_lateness_seconds: int
    count_shards: int
    chart_period_hours: float
    batch_size: int
    model_threads: int | None
    model_input_size: int | None
    model_min_ram: int | None
    model_accelerator: str | None
    min_score_kept: float
    max_clock_skew_seconds: int
    min_resolution: tuple[int, int]
    max_resolution: tuple[int, int]
    max_file_bytes: int
    resume: bool
    store_validated: bool
    streaming: bool
    notifications: Address | None
    poll_interval_seconds: int
    early_firing_seconds: int

    @property
    def model_hints(self) -> dict[str, int | str]:
        """Beam's resource hints for the workers that run the model, by Beam's names."""
        hints = {"min_ram": self.model_min_ram, "accelerator": self.model_accelerator}
        return {name: value for name, value in hints.items() if value is not None}


class OneLineParser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message} (see {self.prog} --help)")


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value


def _at_least_1(text: str) -> int:
    return _whole(text, 1)


def _at_least_0(text: str) -> int:
    return _whole(text, 0)


def _clock_skew(text: str) -> int:
    seconds = _whole(text, 0)
    if seconds > 1000 * 366 * 86400:
        raise argparse.ArgumentTypeError(f"{seconds} s is more than a thousand years")
    return seconds


def _window(text: str) -> int:
    seconds = _whole(text, 1)
    if seconds > 366 * 86400:
        raise argparse.ArgumentTypeError(f"{seconds} s is more than a year")
    return seconds


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value <= 24 * 366:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most {24 * 366}")
    return value


def max_age(text: str) -> float:
    """Seconds of an age such as `30s` or `24h`; infinite for `off`.

    Raises:
      argparse.ArgumentTypeError: It is no age.
    """
    # Imported here, as the rules bring pydantic, and `--help` answers at once.
    from rules.schedule import Unreadable, parse_duration

    if text == "off":
        return math.inf
    try:
        return parse_duration(text).total_seconds()
    except Unreadable as error:
        raise argparse.ArgumentTypeError(f"{error}; or off") from None


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds ``--labels`` to a command that reads a rule file."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the model's classes, as for the job (default: COCO's)",
    )


def add_alert_url(group: argparse._ActionsContainer) -> None:
    """Adds `--alert_url`, which may be given several times."""
    group.add_argument(
        "--alert_url",
        action="append",
        default=[],
        metavar="URL",
        help="POST each alert there as JSON; may be given several times. A bearer token is taken "
        "from the environment variable ALERT_TOKEN (default: alerts go to the targets of the "
        "rules, and are recorded)",
    )


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size with its unit, like 4GB or 4GiB")
    size = int(float(found[1]) * _UNITS[found[2]])
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
    """An option that is on where it stands, or says so: templates give every option a value."""
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
    data = parser.add_argument_group("what is read and written")
    data.add_argument(
        "--input",
        metavar="PATH",
        help="pictures named <id>_<timestamp>.jpg: a file, a directory (everything beneath it) or "
        "a glob, on any of Beam's filesystems (default: the bundled samples)",
    )
    data.add_argument(
        "--output",
        metavar="DIR",
        default=DEFAULT_OUTPUT,
        help="where all results go, on any of Beam's filesystems (default: %(default)s)",
    )
    data.add_argument(
        "--rules",
        metavar="FILE",
        help="what is a threat for which camera (default: the bundled rules for the bundled "
        "samples; otherwise: a person, on any camera)",
    )
    _add_switch(
        data,
        "--no_store_validated",
        help="keep no copy of the valid images in OUTPUT/validated",
    )
    _add_switch(
        data,
        "--resume",
        help="go on after a run that was broken off: images that OUTPUT/detections shows as seen, "
        "same bytes and same model, do not go through the model again (give the same "
        "--min_score_kept and --model_input_size as before)",
    )

    stream = parser.add_argument_group("a stream: pictures keep arriving (FlinkRunner, Dataflow)")
    _add_switch(
        stream,
        "--streaming",
        help="go on for ever: judge each picture as it appears under --input, and take up changes "
        "of the rule file (default: judge the pictures that are there, and end)",
    )
    stream.add_argument(
        "--notifications",
        type=_address,
        metavar="ADDRESS",
        help="take pictures under --input as messages tell of them, in place of looking for them: "
        "a Pub/Sub subscription to a bucket's notifications (projects/P/subscriptions/S), or a "
        "Kafka topic with S3's events (kafka://HOST:PORT[,HOST:PORT]/TOPIC[?group=GROUP]); TLS and "
        "SASL by a file that the environment variable KAFKA_CONFIG names (docs/notifications.md)",
    )
    stream.add_argument(
        "--poll_interval_seconds",
        type=_at_least_1,
        default=5,
        metavar="S",
        help="seconds between two looks for new pictures or messages (default: %(default)s)",
    )
    stream.add_argument(
        "--early_firing_seconds",
        type=_at_least_1,
        default=30,
        metavar="S",
        help="seconds between two writings of the counts of a window while it fills (default: "
        "%(default)s)",
    )

    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        metavar="MODEL",
        help="a detector: a SavedModel's directory, a .tflite file, or a .tar.gz of either, on any "
        "of Beam's filesystems; a name of the TensorFlow 2 Detection Zoo, downloaded once; or "
        "'bundled', the detector for the bundled samples (default: 'bundled' for the bundled "
        "samples, otherwise ssd_mobilenet_v2_320x320_coco17_tpu-8)",
    )
    model.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the model's classes: a .pbtxt label map, lines of id and name, or one name "
        "a line counted from the model's first class (default: COCO's 80 under their ids 1 to 90)",
    )
    model.add_argument(
        "--batch_size",
        type=_at_least_1,
        default=8,
        metavar="N",
        help="pictures handed to the model at once; without a GPU each is a call of its own "
        "(default: %(default)s)",
    )
    model.add_argument(
        "--model_threads",
        type=_at_least_1,
        metavar="N",
        help="calls of the model at once in a process (default: as many as there are processors)",
    )
    model.add_argument(
        "--model_input_size",
        type=_at_least_1,
        metavar="PIXELS",
        help="side of the square to which pictures are scaled, for a model whose signature leaves "
        "the size free (default: what the pipeline.config beside it says, or else 640)",
    )
    model.add_argument(
        "--min_score_kept",
        type=_score,
        default=0.05,
        metavar="SCORE",
        help="detections below this score, 0 to 1, are not kept (default: %(default)s)",
    )
    model.add_argument(
        "--model_min_ram",
        type=_size,
        metavar="SIZE",
        help="Dataflow: least memory, like 8GB, of a worker that reads pictures and runs the model "
        "(default: Dataflow's own choice)",
    )
    model.add_argument(
        "--model_accelerator",
        type=_accelerator,
        metavar="HINT",
        help="Dataflow: the accelerator of such a worker, like "
        "'type:nvidia-tesla-t4;count:1;install-nvidia-driver' (default: none)",
    )

    limits = parser.add_argument_group("which pictures are valid")
    limits.add_argument(
        "--min_resolution",
        type=_resolution,
        default="160x120",
        metavar="WxH",
        help="least width and height in pixels, upright (default: %(default)s); the rules may say "
        "otherwise for a camera",
    )
    limits.add_argument(
        "--max_resolution",
        type=_resolution,
        default="8192x8192",
        metavar="WxH",
        help="largest width and height in pixels, upright (default: %(default)s); likewise",
    )
    limits.add_argument(
        "--max_file_mib",
        type=_at_least_1,
        default=64,
        metavar="MIB",
        help="largest file in MiB (default: %(default)s)",
    )
    limits.add_argument(
        "--max_clock_skew_seconds",
        type=_clock_skew,
        default=86400,
        metavar="S",
        help="how many seconds ahead of this machine's clock a picture may be (default: "
        "%(default)s)",
    )

    told = parser.add_argument_group("alerts, counts and chart")
    add_alert_url(told)
    told.add_argument(
        "--alert_max_age",
        type=max_age,
        metavar="DURATION",
        help="record alerts of pictures older than this, such as 30s, 5m, 24h or 7d, and do not "
        "send them; off: send them however old they are (default: off, with --streaming 1h)",
    )
    told.add_argument(
        "--window_seconds",
        type=_window,
        default=300,
        metavar="S",
        help="length in seconds of the windows in which threats are counted (default: %(default)s)",
    )
    told.add_argument(
        "--allowed_lateness_seconds",
        type=_at_least_0,
        default=3600,
        metavar="S",
        help="how many seconds late a picture of a stream may be and still be counted (default: "
        "%(default)s)",
    )
    told.add_argument(
        "--count_shards",
        type=_at_least_1,
        default=1,
        metavar="N",
        help="files for the counts of one window, where its ids are too many for one (default: "
        "%(default)s)",
    )
    told.add_argument(
        "--chart_period_hours",
        type=_hours,
        default=24,
        metavar="H",
        help="hours, up to the newest image, that the chart shows (default: %(default)s)",
    )


def job_options(arguments: Sequence[str]) -> JobOptions:
    """The job's own options from a command line, for a pipeline of one's own.

    Raises:
      SetupError: An option is wrong, or is none of the job's own.
    """
    parser = OneLineParser(prog="job_options", add_help=False, allow_abbrev=False)
    add_arguments(parser)
    return to_options(parser.parse_args(arguments))


def to_options(args: argparse.Namespace) -> JobOptions:
    """The typed values of parsed arguments.

    Raises:
      SetupError: Two of them contradict each other.
    """
    if any(low > high for low, high in zip(args.min_resolution, args.max_resolution, strict=True)):
        raise SetupError(
            "--min_resolution is larger than --max_resolution; no picture could be valid"
        )
    for option in ("input", "output", "rules", "model", "labels"):
        if getattr(args, option) == "":
            raise SetupError(f"--{option} is empty; leave it out or give a path")
    if args.notifications is not None:
        _check_notifications(args.notifications, args.input, args.streaming)
    age: float | None = args.alert_max_age
    if age is None and args.streaming:
        age = STREAM_MAX_AGE_SECONDS
    return JobOptions(
        input=args.input,
        output=args.output,
        rules=args.rules,
        model=args.model,
        labels=args.labels,
        alert_urls=tuple(dict.fromkeys(args.alert_url)),
        alert_max_age_seconds=None if age == math.inf else age,
        window_seconds=args.window_seconds,
        allowed_lateness_seconds=args.allowed_lateness_seconds,
        count_shards=args.count_shards,
        chart_period_hours=args.chart_period_hours,
        batch_size=args.batch_size,
        model_threads=args.model_threads,
        model_input_size=args.model_input_size,
        model_min_ram=args.model_min_ram,
        model_accelerator=args.model_accelerator,
        min_score_kept=args.min_score_kept,
        max_clock_skew_seconds=args.max_clock_skew_seconds,
        min_resolution=args.min_resolution,
        max_resolution=args.max_resolution,
        max_file_bytes=args.max_file_mib << 20,
        resume=args.resume,
        store_validated=not args.no_store_validated,
        streaming=args.streaming,
        notifications=args.notifications,
        poll_interval_seconds=args.poll_interval_seconds,
        early_firing_seconds=args.early_firing_seconds,
    )


def _check_notifications(address: Address, source: str | None, streaming: bool) -> None:
    if not streaming:
        raise SetupError("--notifications tells of pictures as they come; give --streaming too")
    if source is None:
        raise SetupError(
            f"--notifications: give --input {address.scheme}BUCKET/FOLDER too, under which "
            "pictures are taken"
        )
    if not source.startswith(address.scheme):
        raise SetupError(
            f"--notifications {address.uri} tells of objects on {address.scheme}, and --input is "
            f"{source}"
        )
