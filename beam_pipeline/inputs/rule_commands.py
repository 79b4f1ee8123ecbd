"""The commands `rules check` and `rules explain`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rules
from beam_pipeline.bundled import BUNDLED_RULES, DEFAULT_RULES
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.parsing import DEFAULT_OUTPUT
from beam_pipeline.inputs import selection
from beam_pipeline.inputs.confirm_traps import confirm_traps
from beam_pipeline.inputs.preflight import check_readable
from beam_pipeline.inputs.rule_files import (
    check_scores_kept,
    load_labels,
    read_file,
    read_rules,
)
from rules.pitfalls import pitfalls
from transforms.alerting.alerts import known_zone
from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.text import one_line
from transforms.records.times import canonical_time
from transforms.storage import stores
from transforms.storage.packed_output import find_image, newest_image

_IMAGE = re.compile(r"(.+)\.(?:jpe?g|json)", re.IGNORECASE | re.DOTALL)
_FINAL_FILE = re.compile(r"(?:(.*)/)?final/([^/]+)/([^/]+)\.json")


def check(
    path: str, labels: str | None, min_score_kept: float, archives: Sequence[str]
) -> tuple[str, list[str]]:
    """Returns what each camera ends up with by a rule file, for a person, and warnings.

    Args:
      path: The rule file.
      labels: A label map; None for COCO's.
      min_score_kept: The job drops detections below this score.
      archives: Archives with images of the cameras, by which the rules are checked too.

    Raises:
      SetupError: The rule file or the label map is wrong; a line for each mistake. Or there is no
        archive.
      CommandFailedError: A store can't be reached any more.
    """
    check_readable("rules check", path, is_file=True)
    names = frozenset(load_labels(labels).values())
    try:
        ruleset = rules.parse_rules(read_file(path, "rules check"), path, names)
    except rules.RulesError as error:
        raise SetupError("\n".join(error.messages)) from None
    check_scores_kept(ruleset, min_score_kept, path)
    warnings = pitfalls(ruleset)
    if archives:
        archive = selection.open_archives(archives)
        with selection.store_errors_as_failures():
            warnings += confirm_traps(ruleset, archive)
    return rules.describe(ruleset), warnings


def explain(
    camera: str,
    file: str | None,
    path: str | None,
    labels: str | None,
    output: str | None = None,
) -> str:
    """Returns what holds for a camera, and why there was or was no alert for an image of it.

    Args:
      camera: Its id.
      file: The image: its stored name, or its JSON in `final/`; None: only the camera's rules are
        explained.
      path: The rule file; None: with an image none, otherwise that of the output.
      labels: A label map; None for COCO's.
      output: The job's output; None for the default one, or the bundled rules if there is none.

    Raises:
      SetupError: A file can't be read or isn't right, or is another camera's.
    """
    _check_camera(camera)
    check_readable("rules explain", path, is_file=True)
    if file is not None:
        file = _address(camera, file, output)
    may_be_packed = file is not None and _FINAL_FILE.fullmatch(file) is not None
    check_readable("rules explain", file, is_file=True, may_be_missing=may_be_packed)
    parts = []
    if path is not None or file is None:
        source = path or _rules_of_output(camera, output)
        ruleset = read_rules(source, labels, "rules explain")
        parts.append(
            f"rules {ruleset.version} of {source}\n{rules.describe_camera(ruleset, camera)}"
        )
    if file is not None:
        data = _verdict(file, camera)
        if path is not None and data["threat"].get("rules_version") != ruleset.version:
            parts.append(
                "The image was judged by other rules; a backtest shows what these rules would have "
                "done.\n"
            )
        record = _alert_record(file, data)
        try:
            zone = known_zone(record, None if path is None else ruleset, camera)
            parts.append(rules.explain(data, record, timezone=zone))
        except ValueError as error:
            raise SetupError(f"rules explain {file}: {error}") from None
    return "\n".join(parts)


def _check_camera(camera: str) -> None:
    """Checks whether a camera is named, and not an image in its place.

    Raises:
      SetupError: It is not.
    """
    name = re.split(r"[/\\]", camera)[-1]
    named = _camera_in(name)
    if rules.is_camera_id(camera) and named is None:
        return
    raise SetupError(
        f"rules explain {camera}: is no id of a camera; give the id first, then the image, such as "
        f"rules explain {named or 'ID'} {camera}"
    )


def _camera_in(name: str) -> str | None:
    """Returns the camera that the name of an image or of its JSON has; None if it is neither."""
    match = _IMAGE.fullmatch(name)
    with contextlib.suppress(InvalidNameError):
        return None if match is None else parse_name(f"{match[1]}.jpg")[0]
    return None


def _address(camera: str, file: str, output: str | None) -> str:
    """Returns the address of an image's JSON in `final/`, where the output may be packed.

    Args:
      camera: Its camera's id.
      file: The address; or the name of the image or of its JSON, which is then in the output.
      output: The job's output; None for the default one.

    Raises:
      SetupError: The image is another camera's, or the output can't be read.
    """
    name = file.rsplit("/", 1)[-1]
    match = _IMAGE.fullmatch(name)
    is_json = name.lower().endswith(".json")
    if match is None or (is_json and (name != file or os.path.exists(file))):
        return file
    if (named := _camera_in(name)) not in (None, camera):
        raise SetupError(f"rules explain {file}: is of {named!r}, not of {camera!r}")
    check_readable("--output", output)
    return stores.final_uri(output or DEFAULT_OUTPUT, camera, match[1])


def _capture_time(name: str) -> tuple[str, str]:
    """Returns the key by which the names of verdicts are in the order of their capture times."""
    with contextlib.suppress(InvalidNameError):
        return canonical_time(parse_name(name.removesuffix(".json") + ".jpg")[1]), name
    return "", name


def _rules_of_output(camera: str, output: str | None) -> str:
    """Finds the rule file by which the newest image of a camera in an output was judged.

    An output holds only the version of its rules, which is the hash of the file. The file is looked
    for in the working directory, beside a local output, and among those of this program.

    Raises:
      SetupError: There is no such image, or no such file.
    """
    place = output or DEFAULT_OUTPUT
    check_readable("--output", output)
    if output is None and not any(
        os.path.isdir(folder)
        for folder in (stores.final_folder(place), stores.packed_folder(place))
    ):
        return str(BUNDLED_RULES)
    version = _version_of_rules(camera, place)
    folders = [Path(), Path(place).absolute().parent] if stores.is_local(place) else [Path()]
    files = (file for folder in folders for file in sorted(folder.glob("*.y*ml")))
    for file in (*files, DEFAULT_RULES, BUNDLED_RULES):
        with contextlib.suppress(OSError):
            if hashlib.sha256(file.read_bytes()).hexdigest().startswith(version):
                return str(file)
    raise SetupError(
        f"rules explain {camera}: the newest image of this camera in {place} was judged by rules "
        f"{version}, and no rule file here or beside it has this version; give it by --rules FILE"
    )


def _version_of_rules(camera: str, output: str) -> str:
    folder = stores.final_folder(output, camera)
    try:
        newest_row = newest_image(output, camera)
        if newest_row is not None and newest_row.threat is not None:
            return str(newest_row.threat["rules_version"])
        names = [name for name in stores.names_with_prefix(folder, [""]) if name.endswith(".json")]
    except OSError as error:
        raise SetupError(f"rules explain: {folder} can't be listed ({one_line(error)})") from None
    if not names:
        raise SetupError(
            f"rules explain {camera}: {output} has no verdict on an image of this camera, which "
            "would tell the rules; give them by --rules FILE"
        )
    newest = max(names, key=_capture_time)
    return str(_verdict(stores.join(folder, newest), camera)["threat"]["rules_version"])


def _alert_record(file: str, image: Any) -> Any:
    """Returns the record of an image's alert in the output of its file; None if none is found."""
    match = _FINAL_FILE.fullmatch(file)
    if match is None:
        return None
    try:
        alert_id = rules.alert_id(image["id"], image["timestamp"], image["threat"]["severity"])
        record = stores.join(match[1] or ".", "alerts", image["id"], f"{alert_id}.json")
        alert = json.loads(stores.read_bytes(record))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return alert if isinstance(alert, dict) else None


def _packed_verdict(file: str) -> Any:
    """Returns the verdict that a file of `final/` would hold, from the output's packed form.

    Raises:
      OSError: It has none, or can't be read.
    """
    match = _FINAL_FILE.fullmatch(file)
    row = None if match is None else find_image(match[1] or ".", match[2], match[3])
    if row is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
    return {**row.image.to_json(), "threat": row.threat}


def _verdict(file: str, camera: str) -> Any:
    try:
        content = stores.read_if_there(file)
        data = _packed_verdict(file) if content is None else json.loads(content)
    except FileNotFoundError:
        place = "" if (match := _FINAL_FILE.fullmatch(file)) is None else f"{match[1] or '.'}/"
        raise SetupError(
            f"rules explain {file}: no such file"
            + (place and f", and no verdict on this image in {place}packed/")
            + "; give the stored name of an image, such as hall_20260131T235959Z.jpg, and its "
            "--output, or a file of final/"
        ) from None
    except ValueError:
        raise SetupError(f"rules explain {file}: is not JSON; give a file of final/") from None
    except OSError as error:
        raise SetupError(f"rules explain {file}: can't be read ({one_line(error)})") from None
    if not isinstance(data, dict) or not isinstance(data.get("threat"), dict):
        raise SetupError(f"rules explain {file}: holds no verdict; give a file of final/")
    if data.get("id") != camera:
        raise SetupError(f"rules explain {file}: is of {data.get('id')!r}, not of {camera!r}")
    return data
