"""From options to a job that can run: everything that may be wrong is found here, in seconds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import rules
from beam_pipeline import counts, preflight
from beam_pipeline.errors import SetupError
from beam_pipeline.notifications.address import Address
from beam_pipeline.options import BUNDLED, JobOptions
from beam_pipeline.sources import list_images
from transforms import stores
from transforms.couriers import check_url
from transforms.detect_objects import Model
from transforms.detector import inspect_model
from transforms.labels import COCO, LabelsError, check_fit, parse_label_map
from transforms.live_rules import LiveRules
from transforms.model_files import DEFAULT_ZOO_MODEL, INSTALLED, ModelError, fetch_model
from transforms.text import one_line
from transforms.validate_image import EarlierRun, Limits

_BUNDLED = Path(__file__).parent / "bundled"
BUNDLED_SAMPLES = _BUNDLED / "samples"
BUNDLED_RULES = _BUNDLED / "rules.yaml"
BUNDLED_MODEL = _BUNDLED / "detector"
_INSTALLED_MODEL = f"{INSTALLED}{__package__}.bundled/{BUNDLED_MODEL.name}"
DEFAULT_RULES = _BUNDLED / "default_rules.yaml"


@dataclass(frozen=True)
class Job:
    """A job whose set-up was found right.

    Attributes:
      input: A file, directory or glob.
      output: Where the results go.
      rules: What is a threat; as the rule file is edited, in a stream.
      rules_source: Where the rules came from, for the summary.
      model: What finds objects.
      limits: Which pictures are valid.
      max_clock_skew: How far ahead of the clock a picture may be.
      earlier: Where detections of an earlier run are, with `--resume`.
      options: The rest, as given.
    """

    input: str
    output: str
    rules: LiveRules
    rules_source: str
    model: Model
    limits: Limits
    max_clock_skew: timedelta
    earlier: EarlierRun | None
    options: JobOptions


def prepare(options: JobOptions, *, sends_here: bool = False) -> Job:
    """Checks the whole set-up before an image is read.

    Args:
      options: What the command line says.
      sends_here: Whether alerts are sent from this machine, so that it must have the targets'
        secrets.

    Raises:
      SetupError: What is wrong, where, and what to do.
    """
    own_pictures = options.input is not None
    source = _absolute(options.input or str(BUNDLED_SAMPLES))
    output = _absolute(options.output)
    if options.notifications is not None:
        _check_notifications(options.notifications)
    preflight.check_readable("--input", source)
    preflight.check_readable("--rules", options.rules, is_file=True)
    preflight.check_readable("--labels", options.labels, is_file=True)
    preflight.check_readable("--model", options.model)
    preflight.check_writable("--output", output)
    _check_apart(source, output)
    if options.notifications is None:
        _check_input(source, options.streaming)
    _check_output(output, options.window_seconds)
    for url in options.alert_urls:
        try:
            check_url(url)
        except ValueError as error:
            raise SetupError(f"--alert_url: {error}") from None
    rules_source = _absolute(options.rules or str(DEFAULT_RULES if own_pictures else BUNDLED_RULES))
    text = read_file(rules_source, "--rules")
    by = load_rules(text, rules_source, None)  # A wrong file is told before a model is fetched.
    if sends_here:
        check_targets(by.alerting.targets[name] for name in sorted(by.notified))
    model = _model(options, own_pictures)
    labels = frozenset(model.labels.values())
    if options.labels is not None and options.rules is None and "person" not in labels:
        raise SetupError(
            f"--labels {options.labels}: names no 'person', which the default rules look for; is "
            "it a label map? If so, give --rules too"
        )
    judged_by = LiveRules(
        load_rules(text, rules_source, labels),
        source=rules_source if options.streaming and options.rules is not None else None,
        labels=labels,
    )
    return Job(
        input=source,
        output=output,
        rules=judged_by,
        rules_source=rules_source,
        model=model,
        limits=Limits(options.min_resolution, options.max_resolution, options.max_file_bytes),
        max_clock_skew=timedelta(seconds=options.max_clock_skew_seconds),
        earlier=(
            EarlierRun(output, model.info, options.min_score_kept) if options.resume else None
        ),
        options=options,
    )


def _absolute(path: str) -> str:
    path = path.removeprefix("file://")
    return os.path.abspath(path) if stores.is_local(path) else path.rstrip("/")


def _check_apart(source: str, output: str) -> None:
    if output == source or output.startswith(source.rstrip("/") + "/"):
        raise SetupError(
            f"--output {output} lies within --input {source}, so that the next run would read "
            "this one's results; choose an output outside it"
        )


def _check_notifications(address: Address) -> None:
    # Imported here, as a job without messages needs no client of theirs.
    from beam_pipeline.notifications.channel import ChannelError
    from beam_pipeline.notifications.source import open_channel

    try:
        open_channel(address).check()
    except ChannelError as error:
        raise SetupError(f"--notifications {address.uri}: {error}") from None


def _check_input(source: str, streaming: bool) -> None:
    try:
        found = next(list_images(source), None)
    except Exception as error:  # Each store's client has its own kinds of error.
        raise SetupError(
            f"--input {source}: can't be listed ({one_line(error)}); is the address right, and "
            "are there credentials for it?"
        ) from None
    will_come = streaming and (not stores.is_local(source) or os.path.isdir(source))
    if found is None and not will_come:
        what = (
            "has no files in it"
            if stores.is_local(source) and os.path.isdir(source)
            else ("matches no file")
        )
        raise SetupError(
            f"--input {source}: {what}; give a directory with pictures, a file or a glob"
        )


def _check_output(output: str, window_seconds: int) -> None:
    if stores.is_local(output):
        try:
            os.makedirs(output, exist_ok=True)
            probe = stores.join(output, ".can-be-written")
            stores.write_bytes(probe, b"")
            os.unlink(probe)
        except OSError as error:
            raise SetupError(
                f"--output {output}: can't be written ({error.strerror or error}); choose another"
            ) from None
    try:
        windows = counts.list_windows(output)
    except counts.NoCountsError:
        return
    except counts.CountsError as error:
        raise SetupError(f"--output {output}: {error}") from None
    for start, end in windows:
        seconds = round((end - start).total_seconds())
        if seconds != window_seconds:
            raise SetupError(
                f"--window_seconds {window_seconds}: {output}/counts holds windows of {seconds} s, "
                "and images would be counted twice; choose another --output, or delete its counts/"
            )


def read_file(path: str, option: str) -> bytes:
    """The bytes of a file of the set-up.

    Args:
      path: The file, on any of Beam's filesystems.
      option: What named it, for messages.

    Raises:
      SetupError: It can't be read.
    """
    try:
        return stores.read_bytes(path.removeprefix("file://"))
    except FileNotFoundError:
        raise SetupError(f"{option} {path}: no such file; check the path") from None
    except Exception as error:  # Each store's client has its own kinds of error.
        raise SetupError(f"{option} {path}: can't be read ({one_line(error)})") from None


def load_rules(text: bytes, source: str, labels: frozenset[str] | None) -> rules.Rules:
    """The rules of a file.

    Args:
      text: The file's bytes.
      source: Its name, for messages.
      labels: The labels that the model can give; None to let any pass.

    Raises:
      SetupError: They are not right.
    """
    try:
        return rules.parse_rules(text, source, labels=labels)
    except rules.RulesError as error:
        raise SetupError(str(error)) from None


def read_rules(path: str, labels: str | None, option: str = "--rules") -> rules.Rules:
    """The rules of a file, on any filesystem.

    Args:
      path: The rule file.
      labels: A label map; None for COCO's.
      option: What named the file, for messages.

    Raises:
      SetupError: The rule file or the label map is wrong.
    """
    names = frozenset(load_labels(labels).values())
    return load_rules(read_file(path, option), path, names)


def check_targets(targets: Iterable[rules.Target]) -> None:
    """Looks for what targets need of this machine.

    Raises:
      SetupError: An environment variable or a file is missing.
    """
    for target in targets:
        for name in target.variables:
            if not os.environ.get(name, "").strip():
                raise SetupError(
                    f"target {target.name!r} of the rules needs the environment variable {name}, "
                    "which is not set here, where alerts are sent; set it"
                )
        if target.ca is not None and not os.path.isfile(target.ca):
            raise SetupError(
                f"target {target.name!r} of the rules: there is no file {target.ca}, which it "
                "names as its ca"
            )


def _model(options: JobOptions, own_pictures: bool) -> Model:
    source = options.model or (DEFAULT_ZOO_MODEL if own_pictures else BUNDLED)
    place = _INSTALLED_MODEL if source == BUNDLED else source.removeprefix("file://")
    try:
        files = fetch_model(place)
        spec = inspect_model(files.path, options.model_input_size)
    except ModelError as error:
        raise SetupError(f"--model: {error}") from None
    labels = load_labels(options.labels, spec.classes)
    return Model(place, files.info, spec, labels)


def load_labels(path: str | None, classes: int | None = None) -> dict[int, str]:
    """The label map of a file; COCO's without one.

    Raises:
      SetupError: It can't be read, or does not fit a model of that many classes.
    """
    if path is None:
        return dict(COCO)
    data = read_file(path, "--labels")
    try:
        labels = parse_label_map(data.decode(), path)
        check_fit(labels, classes, path)
    except UnicodeDecodeError:
        raise SetupError(f"--labels {path}: is not text in UTF-8; is it a label map?") from None
    except LabelsError as error:
        raise SetupError(f"--labels: {error}") from None
    return labels
