"""Rule files and label maps that the command line names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs.local_files import replace_file
from transforms.alerting.target_checks import TargetError
from transforms.models.detection_files import DetectionFileError, read_labels
from transforms.models.labels import COCO, LabelsError, check_fit, parse_label_map
from transforms.records.text import one_line
from transforms.runtime.live_rules import scores_not_kept
from transforms.storage import stores


def read_file(path: str, option: str) -> bytes:
    """Returns the bytes of a file of the set-up.

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
    except OSError as error:
        raise SetupError(f"{option} {path}: can't be read ({one_line(error)})") from None


def replace_rules(path: str, text: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Writes a rule file anew. A local one keeps its mode and owner, and a link to it stays.

    Args:
      path: The file, on any of Beam's filesystems.
      text: Its new bytes.
      before: Called immediately before the file is replaced, which stays if it raises.

    Raises:
      OSError: It can't be written.
    """
    path = path.removeprefix("file://")
    if not stores.is_local(path):
        before()
        stores.write_bytes(path, text)
        return
    status = os.stat(path)

    def set_access(descriptor: int) -> None:
        with suppress(PermissionError):  # This user may not give files away.
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))

    replace_file(path, text, set_access, before)


def load_rules(text: bytes, source: str, labels: frozenset[str] | None) -> rules.Rules:
    """Returns the rules of a file.

    Args:
      text: The file's bytes.
      source: Its name, for messages.
      labels: The labels that the model can give; None to let any pass.

    Raises:
      SetupError: They are not right.
    """
    with rule_errors_as_setup_errors():
        return rules.parse_rules(text, source, labels=labels)


def check_scores_kept(ruleset: rules.Rules, min_score_kept: float, source: str) -> None:
    """Checks that the detections which `track` needs reach the rules.

    Args:
      ruleset: The rules.
      min_score_kept: Detections below this score are dropped.
      source: The rule file, for messages.

    Raises:
      SetupError: They don't.
    """
    problem = scores_not_kept(ruleset, min_score_kept)
    if problem is not None:
        raise SetupError(f"{source}: {problem}")


@contextmanager
def rule_errors_as_setup_errors() -> Iterator[None]:
    """Makes a mistake in rules one of the set-up.

    Raises:
      SetupError: In place of a RulesError.
    """
    try:
        yield
    except rules.RulesError as error:
        raise SetupError(str(error)) from None


def read_rules(path: str, labels: str | None, option: str = "--rules") -> rules.Rules:
    """Returns the rules of a file, on any filesystem.

    Args:
      path: The rule file.
      labels: A label map; None for COCO's.
      option: What named the file, for messages.

    Raises:
      SetupError: The rule file or the label map is wrong.
    """
    names = frozenset(load_labels(labels).values())
    return load_rules(read_file(path, option), path, names)


@contextmanager
def target_errors_as_setup_errors() -> Iterator[None]:
    """Makes what a target lacks here an error of the set-up.

    Raises:
      SetupError: In place of a TargetError.
    """
    try:
        yield
    except TargetError as error:
        raise SetupError(str(error)) from None


def load_labels(
    path: str | None, classes: int | None = None, of_model: Mapping[int, str] | None = None
) -> dict[int, str]:
    """Returns the label map of a file; without one, the model's own, or else COCO's.

    Args:
      path: A label map, or a `.json` file with detections in MegaDetector's form.
      classes: The number of the model's last class; None if that is unknown.
      of_model: The names that the model's own files show; None if it is of a kind without names.

    Raises:
      SetupError: It can't be read, or does not fit a model of that many classes.
    """
    if path is None:
        return dict(COCO if of_model is None else of_model)
    try:
        labels = _read_labels(path)
        check_fit(labels, classes, path)
    except UnicodeDecodeError:
        raise SetupError(f"--labels {path}: is not text in UTF-8; is it a label map?") from None
    except LabelsError as error:
        raise SetupError(f"--labels: {error}") from None
    except DetectionFileError as error:
        raise SetupError(f"--labels {error}") from None
    return labels


def _read_labels(path: str) -> dict[int, str]:
    if path.endswith(".json"):
        return read_labels(path.removeprefix("file://"))
    return parse_label_map(read_file(path, "--labels").decode(), path)
