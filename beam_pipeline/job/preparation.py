"""From options to a job that can run: everything that may be wrong is found here, in seconds."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import rules
from beam_pipeline import bundled
from beam_pipeline.bundled import (
    BUNDLED,
    BUNDLED_MODEL,
    BUNDLED_RULES,
    BUNDLED_SAMPLES,
    DEFAULT_RULES,
)
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.fleet.output_scan import CountsError, NoCountsError, OutputScan
from beam_pipeline.inputs import preflight
from beam_pipeline.inputs.detections import check_entries, model_of, open_detections
from beam_pipeline.inputs.name_checks import NameConflictError, check_names
from beam_pipeline.inputs.rule_files import (
    check_scores_kept,
    load_labels,
    read_file,
    rule_errors_as_setup_errors,
    target_errors_as_setup_errors,
)
from beam_pipeline.job.count_shards import choose_count_shards
from beam_pipeline.job.options import PACKED, JobOptions
from beam_pipeline.sources.folders import UnlistableFolder
from beam_pipeline.sources.listing import describe_unlistable, files_in, list_folders, list_images
from beam_pipeline.sources.notifications.address import Address
from rules.tiling import SMALLEST_TILE
from transforms.alerting.target_checks import (
    check_alert_urls,
    check_console,
    check_targets,
    notified_targets,
)
from transforms.detect_objects import Model, settings_of
from transforms.models.detection_files import DetectionFile
from transforms.models.detector import inspect_model
from transforms.models.model_files import DEFAULT_ZOO_MODEL, INSTALLED, ModelError, fetch_model
from transforms.models.runtime_names import AUTO, SAVED_MODEL
from transforms.models.runtimes import runtime_of
from transforms.records.text import one_line
from transforms.runtime.live_rules import SHADOW_RULES, LiveRules
from transforms.storage import stores
from transforms.storage.packed_output import EarlierRows, is_packed
from transforms.validate_image import EarlierRun, Limits

_NO_STORE = re.compile(r"(rtsps?|rtmps?|https?|s?ftps?|udp|onvif|smb)://", re.IGNORECASE)
_NAMES_CHECKED = 100_000
"""How many names are looked at before a job starts."""


@dataclass(frozen=True)
class Job:
    """A job whose set-up was found right.

    Attributes:
      input: A file, directory or glob.
      output: Where the results go.
      rules: What is a threat; as the rule file is edited, in a stream.
      rules_source: Where the rules came from, for the summary.
      shadow: The rules that are judged beside these; None if there are none.
      shadow_source: Where they came from; None if there are none.
      model: What finds objects.
      detections: The file with the detections of another detector; None if the model runs.
      limits: Which images are valid.
      max_clock_skew: How far ahead of the clock an image may be.
      earlier: Where detections of an earlier run are, with `--resume`.
      count_shards: How many files the counts of a window have.
      options: The job's options.
    """

    input: str
    output: str
    rules: LiveRules
    rules_source: str
    shadow: LiveRules | None
    shadow_source: str | None
    model: Model
    detections: DetectionFile | None
    limits: Limits
    max_clock_skew: timedelta
    earlier: EarlierRun | None
    count_shards: int
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
    has_own_images = options.input is not None
    source = _absolute(options.input or str(BUNDLED_SAMPLES))
    output = _absolute(options.output)
    if (scheme := _NO_STORE.match(source)) is not None:  # The rest may hold a password.
        raise SetupError(
            f"--input {scheme[0]}…: is not a store; see docs/cameras.md for how its images come to "
            "this job"
        )
    if options.notifications is not None:
        _check_notifications(options.notifications)
    preflight.check_readable("--input", source)
    preflight.check_readable("--rules", options.rules, is_file=True)
    preflight.check_readable("--shadow_rules", options.shadow_rules, is_file=True)
    preflight.check_readable("--labels", options.labels, is_file=True)
    preflight.check_readable("--model", options.model)
    preflight.check_readable("--detections", options.detections, is_file=True)
    preflight.check_writable("--output", output)
    _check_output_outside_input(source, output)
    if options.notifications is None:
        _check_input(source, options)
    _check_output(output, options.window_seconds, options.repository)
    _check_repository(output, options.repository)
    with target_errors_as_setup_errors():
        check_alert_urls(options.alert_urls, sends_here=sends_here)
    rules_source = _absolute(
        options.rules or str(DEFAULT_RULES if has_own_images else BUNDLED_RULES)
    )
    # A wrong file is reported before a model is fetched.
    parsed = _parsed(rules_source, "--rules", options)
    ruleset = parsed.rules
    shadow = _parsed_shadow(options)
    if options.detections is None:
        _check_tiles(ruleset, options.max_resolution, rules_source)
    targets = notified_targets(ruleset)
    if sends_here:
        _check_sending(ruleset, targets, options.alert_urls)
    else:
        _check_paths_for_workers(targets)
    detections = None
    if options.detections is None:
        model = _model(options, has_own_images)
    else:
        detections = open_detections(options.detections)
        model = model_of(detections, options.min_score_kept)
    labels = frozenset(model.labels.values())
    if options.labels is not None and options.rules is None and "person" not in labels:
        raise SetupError(
            f"--labels {options.labels}: names no 'person', which the default rules look for; is "
            "it a label map? If so, give --rules too"
        )
    with rule_errors_as_setup_errors():
        parsed.check_labels(labels)
    names = _names(options, ruleset)
    if options.notifications is None:
        _check_names(source, options, names)
    if detections is not None:
        check_entries(detections, source, ruleset, follow_links=options.follow_links)
    judged_by = LiveRules(
        ruleset,
        source=rules_source if options.streaming and options.rules is not None else None,
        labels=labels,
        min_score_kept=options.min_score_kept,
    )
    return Job(
        input=source,
        output=output,
        rules=judged_by,
        rules_source=rules_source,
        shadow=None if shadow is None else _live_shadow(*shadow, labels, options),
        shadow_source=None if shadow is None else shadow[0],
        model=model,
        detections=detections,
        limits=Limits(options.min_resolution, options.max_resolution, options.max_file_bytes),
        max_clock_skew=timedelta(seconds=options.max_clock_skew_seconds),
        earlier=_earlier(output, model, options),
        count_shards=options.count_shards
        or choose_count_shards(len(judged_by.current.cameras), output, streaming=options.streaming),
        options=options,
    )


def _parsed(source: str, option: str, options: JobOptions) -> rules.ParsedRules:
    """Reads a rule file.

    Raises:
      SetupError: It can't be read, or is wrong.
    """
    text = read_file(source, option)
    with rule_errors_as_setup_errors():
        parsed = rules.ParsedRules.from_text(text, source)
    check_scores_kept(parsed.rules, options.min_score_kept, source)
    return parsed


def _parsed_shadow(options: JobOptions) -> tuple[str, rules.ParsedRules] | None:
    """Reads the shadow rules; returns where they came from too, or None if there are none.

    Raises:
      SetupError: They can't be read, or are wrong.
    """
    if options.shadow_rules is None:
        return None
    source = _absolute(options.shadow_rules)
    return source, _parsed(source, "--shadow_rules", options)


def _live_shadow(
    source: str, parsed: rules.ParsedRules, labels: frozenset[str], options: JobOptions
) -> LiveRules:
    """Returns the shadow rules as the job judges by them.

    Raises:
      SetupError: They name a label that the model does not give.
    """
    with rule_errors_as_setup_errors():
        parsed.check_labels(labels)
    return LiveRules(
        parsed.rules,
        source=source if options.streaming else None,
        labels=labels,
        min_score_kept=options.min_score_kept,
        name=SHADOW_RULES,
    )


def _earlier(output: str, model: Model, options: JobOptions) -> EarlierRun | None:
    if not options.resume:
        return None
    is_packed = options.repository == PACKED
    packed = EarlierRows(output) if is_packed else None
    return EarlierRun(output, model.info, packed)


def _check_tiles(ruleset: rules.Rules, max_resolution: tuple[int, int], rules_source: str) -> None:
    """Checks whether the largest images have tiles that are large enough.

    Raises:
      SetupError: The tiles of a camera are always too small.
    """
    others = {} if ruleset.strict_ids else {"any other camera": ruleset.defaults}
    width, height = max_resolution
    for name, camera in {**others, **ruleset.by_camera}.items():
        has_own_maximum = camera.resolution is not None and camera.resolution.max is not None
        if camera.tiles is None or has_own_maximum or camera.tiles.fit(width, height):
            continue
        across, down = camera.tiles.size(width, height)
        raise SetupError(
            f"{rules_source}: the tiles of {name} have {across:.0f}x{down:.0f} pixels in an image "
            f"of --max_resolution {width}x{height}, and need {SMALLEST_TILE}x{SMALLEST_TILE}; "
            "write fewer columns or rows"
        )


def _names(options: JobOptions, ruleset: rules.Rules) -> rules.Names:
    """Returns how names are read.

    Raises:
      SetupError: The options and the rule file say different things for all cameras.
    """
    for_all = ruleset.defaults.names
    form = options.names.form
    if form and for_all.form and form != for_all.form:
        raise SetupError(
            f"names are read by {form}, say the options, and by {for_all.form}, says "
            f"{for_all.origins.get('preset') or for_all.origins.get('pattern')} of the rule file; "
            "keep one of them"
        )
    if options.timezone and for_all.timezone and options.timezone != for_all.timezone:
        raise SetupError(
            f"--timezone {options.timezone}: {for_all.origins['timezone']} of the rule file says "
            f"{for_all.timezone}; keep one of them"
        )
    return ruleset.names(options.names)


def _check_names(source: str, options: JobOptions, names: rules.Names) -> None:
    """Checks the first names of the input, as far as presets or patterns read them.

    Raises:
      SetupError: Two ways of naming fit one name, or two cameras would have one id.
    """
    if not names.forms:
        return
    try:
        files = list_images(source, follow_links=options.follow_links)
        check_names(itertools.islice(files, _NAMES_CHECKED), source, names)
    except NameConflictError as error:
        raise SetupError(f"--input {source}: {error}") from None
    except OSError as error:
        raise SetupError(f"--input {source}: can't be listed ({one_line(error)})") from None


def _absolute(path: str) -> str:
    path = path.removeprefix("file://")
    return os.path.abspath(path) if stores.is_local(path) else path.rstrip("/")


def _check_output_outside_input(source: str, output: str) -> None:
    if output == source or output.startswith(source.rstrip("/") + "/"):
        raise SetupError(
            f"--output {output} is inside --input {source}, so that the next run would read "
            "this one's results; choose an output outside it"
        )


def _check_notifications(address: Address) -> None:
    # Imported here, as a job without messages needs no client of theirs.
    from beam_pipeline.sources.notifications.channel import ChannelError
    from beam_pipeline.sources.notifications.source import open_channel

    try:
        open_channel(address).check()
    except ChannelError as error:
        raise SetupError(f"--notifications {address.uri}: {error}") from None


def _check_input(source: str, options: JobOptions) -> None:
    if stores.is_local(source):
        _check_local_input(source, options)
        return
    try:
        first = next(list_images(source), None)
    except OSError as error:
        raise SetupError(
            f"--input {source}: can't be listed ({one_line(error)}); is the address right, and "
            "are there credentials for it?"
        ) from None
    if first is None and not options.streaming:
        raise SetupError(
            f"--input {source}: matches no file; give a directory with images, a file or a glob"
        )


def _check_local_input(source: str, options: JobOptions) -> None:
    unlistable, links = None, 0
    is_folder = os.path.isdir(source)
    try:
        for folder in list_folders(source, follow_links=options.follow_links):
            if isinstance(folder, UnlistableFolder):
                unlistable = unlistable or folder
                continue
            if next(files_in(folder), None) is not None:
                return
            links += len(folder.links)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        raise SetupError(
            f"--input {source}: can't be listed ({error.strerror}); let this user read and enter "
            "it, or run the job as a user with these permissions"
        ) from None
    except OSError as error:
        raise SetupError(
            f"--input {source}: can't be listed ({error.strerror or error}); does its disk work?"
        ) from None
    if options.streaming and is_folder:
        return
    if unlistable is not None:
        what = f"no file was found, and {describe_unlistable(unlistable)}"
    elif links:
        what = f"contains no files, only {links} links, which --follow_links follows"
    else:
        what = "contains no files" if is_folder else "matches no file"
    raise SetupError(f"--input {source}: {what}; give a directory with images, a file or a glob")


def _check_output(output: str, window_seconds: int, repository: str) -> None:
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
        windows = OutputScan(output).windows()
    except NoCountsError:
        return
    except CountsError as error:
        raise SetupError(f"--output {output}: {error}") from None
    for start, end in windows:
        seconds = round((end - start).total_seconds())
        if seconds != window_seconds:
            raise SetupError(
                f"--window_seconds {window_seconds}: {output}/counts holds windows of {seconds} s, "
                f"and images would be counted twice; give --window_seconds {seconds}"
                f"{_packed_too(output, repository)}, choose another --output, or delete its counts/"
            )


def _packed_too(output: str, repository: str) -> str:
    """Returns what else an output needs if it is packed and the job's results are not."""
    with contextlib.suppress(OSError):  # `_check_repository` reports it.
        if repository != PACKED and is_packed(output):
            return " and --repository packed, as its results are packed"
    return ""


def _check_repository(output: str, repository: str) -> None:
    """Checks whether the output has results in the other form.

    Raises:
      SetupError: It has: each image would have two verdicts.
    """
    try:
        if repository == PACKED and stores.has_files(stores.detections_folder(output)):
            raise SetupError(
                f"--repository packed: {output}/detections holds a JSON file for each image; "
                "choose another --output, or leave the option out"
            )
        if repository == PACKED and not is_packed(output) and _has_verdicts(output):
            raise SetupError(
                f"--repository packed: {output}/final holds verdicts, but there is no "
                f"{output}/packed; choose another --output, or leave the option out. Delete "
                f"{output}/final if it is left of a job with --repository packed that was stopped"
            )
        if repository != PACKED and is_packed(output):
            raise SetupError(
                f"--output {output}: its results are packed; add --repository packed, or choose "
                "another output"
            )
    except OSError as error:
        raise SetupError(f"--output {output}: can't be listed ({one_line(error)})") from None


def _has_verdicts(output: str) -> bool:
    final = stores.final_folder(output)
    if not stores.is_local(final):
        return stores.has_files(final)
    return any(True for _ in stores.list_one_deep(final))  # Not if prune has left empty folders.


def _check_sending(
    ruleset: rules.Rules, targets: tuple[rules.Target, ...], alert_urls: tuple[str, ...]
) -> None:
    """Checks what messages need of this machine, if any are sent.

    Raises:
      SetupError: It is missing.
    """
    with target_errors_as_setup_errors():
        check_targets(targets)
        if targets or alert_urls:
            check_console(ruleset.alerting.console)


def _check_paths_for_workers(targets: Iterable[rules.Target]) -> None:
    """Checks what means another thing on a worker.

    Raises:
      SetupError: A path that a worker would look for in its own working directory.
    """
    for target in targets:
        if target.ca is not None and not os.path.isabs(target.ca):
            raise SetupError(
                f"target {target.name!r} of the rules names {target.ca} as its ca, which each "
                "worker would look for in its own working directory; give an absolute path"
            )


def _model(options: JobOptions, has_own_images: bool) -> Model:
    source = options.model or (DEFAULT_ZOO_MODEL if has_own_images else BUNDLED)
    path = (
        f"{INSTALLED}{bundled.__name__}/{BUNDLED_MODEL.name}"
        if source == BUNDLED
        else source.removeprefix("file://")
    )
    if stores.is_local(path) and os.path.exists(path):
        path = os.path.abspath(path)  # Workers have another working directory.
    try:
        files = fetch_model(path)
        spec = inspect_model(files.path, options.model_input_size, is_trusted=options.trust_model)
        runtime, _ = runtime_of(spec, files.info.version, _expected_runtime(options))
    except ModelError as error:
        raise SetupError(f"--model: {error}") from None
    labels = load_labels(options.labels, spec.classes, spec.labels)
    if not labels:
        raise SetupError(
            f"--model: {files.path}: does not say what its {spec.classes} classes are called; give "
            "--labels"
        )
    settings = settings_of(
        labels, min_score_kept=options.min_score_kept, input_size=spec.input_size
    )
    info = replace(files.info, settings=settings, runtime=runtime)
    return Model(path, info, spec, labels, options.model_runtime)


def _expected_runtime(options: JobOptions) -> str:
    """What workers are asked to run the model by, where it is known what they have."""
    if options.model_runtime == AUTO and options.model_accelerator is not None:
        return SAVED_MODEL
    return options.model_runtime
