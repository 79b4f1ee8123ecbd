"""The command `alerts mark`: what an operator says of an alert, or of an image without one."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import rules
from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.console.tables import write_stdout
from beam_pipeline.inputs import paths
from beam_pipeline.inputs.preflight import check_readable, check_writable
from beam_pipeline.inputs.rule_files import load_labels
from beam_pipeline.inputs.selection import store_errors_as_failures
from rules.errors import suggestion
from rules.text import escaped, shortened
from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores
from transforms.storage.marks import (
    MISSED,
    UNSURE,
    Box,
    Mark,
    MarkedThreat,
    check_box,
    is_alert_id,
    threats_from_json,
    write_mark,
)
from transforms.storage.packed_output import find_image

_IMAGE = re.compile(r"(.+)\.(?:jpe?g|json)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Said:
    """What a person says of an alert or an image.

    Attributes:
      what: The alert's id, or the name of the image.
      mark: One of `MARKS`.
      by: Who says it.
      label: The label that it is about; None for the alert as a whole.
      bboxes: Where the missed objects are.
      note: What the person adds.
    """

    what: str
    mark: str
    by: str
    label: str | None = None
    bboxes: tuple[Box, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Marked:
    """What is marked.

    Attributes:
      id: The camera.
      timestamp: The capture time, canonical.
      alert_id: The alert's id, or that which it would have had.
      threats: The threats that the alert names; None if there is no alert.
    """

    id: str
    timestamp: str
    alert_id: str
    threats: tuple[MarkedThreat, ...] | None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of the threats, each once; None if there is no alert."""
        if self.threats is None:
            return None
        return tuple(dict.fromkeys(threat.label for threat in self.threats))


def mark(args: argparse.Namespace) -> int:
    """Writes a mark, and prints it; returns the exit code.

    Raises:
      SetupError: There is no such alert or image, or a value is wrong; nothing was written.
      CommandFailedError: The store failed.
    """
    output = paths.absolute("--output", args.output)
    check_readable("--output", output)
    said = Said(
        what=args.what,
        mark=args.mark,
        by=user_name() if args.by is None else args.by,
        label=args.label,
        bboxes=tuple(map(parse_box, args.bboxes)),
        note=args.note,
    )
    with store_errors_as_failures():
        marked = find_marked(output, said, args.id, args.labels)
        check_writable("--output", output)
        written = write_said(output, said, marked)
    write_stdout(f"{written.id} {written.timestamp}: {words(written)}\n")
    return 0


def find_marked(output: str, said: Said, camera: str | None, labels: str | None) -> Marked:
    """Finds what a person marks, and checks that the mark fits it.

    Args:
      output: The job's output.
      said: What the person says.
      camera: The camera, if it is known.
      labels: A label map; None for COCO's.

    Raises:
      SetupError: There is no such alert or image, or the mark does not fit it.
      CommandFailedError: The record of the alert is damaged.
      OSError: The store can't be read.
    """
    marked = _find(output, said.what, camera)
    _check_fit(marked, said, labels)
    return marked


def write_said(output: str, said: Said, marked: Marked) -> Mark:
    """Writes what a person says as a mark, and returns it.

    Raises:
      SetupError: A value is wrong; nothing was written.
      OSError: The store can't be read or written.
    """
    try:
        return write_mark(
            output,
            id=marked.id,
            timestamp=marked.timestamp,
            alert_id=marked.alert_id,
            mark=said.mark,
            label=said.label,
            bboxes=said.bboxes,
            threats=marked.threats or (),
            note=said.note,
            by=said.by,
        )
    except ValueError as error:
        raise SetupError(f"alerts mark: {escaped(str(error))}") from None


def words(mark: Mark) -> str:
    """Returns a mark in a few words, such as `false person, by Anna`."""
    label = "" if mark.label is None else f" {mark.label}"
    return f"{mark.mark}{label}, by {mark.by}"


def all_words(marks: Iterable[Mark]) -> str:
    """Returns the marks of an alert in words; a dash if there is none."""
    return "; ".join(map(words, marks)) or "-"


def user_name() -> str:
    """Returns the name of the user on this machine.

    Raises:
      SetupError: The user has none.
    """
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A container may run as a user without a name.
        raise SetupError("who marks is unknown on this machine; give --by NAME") from None


def parse_box(text: str) -> Box:
    """Reads a box such as `0.1,0.2,0.05,0.3`.

    Raises:
      SetupError: It is none.
    """
    try:
        sides = [round(float(side), 4) for side in text.split(",")]
        return check_box(sides)
    except ValueError as error:
        why = str(error) if "box" in str(error) else "write it as 0.1,0.2,0.05,0.3"
        raise SetupError(f"--bbox {shortened(escaped(text))}: {why}") from None


def _check_fit(marked: Marked, said: Said, label_map: str | None) -> None:
    """Checks that a mark fits what is marked.

    Raises:
      SetupError: It does not.
    """
    what, label = shortened(escaped(said.what)), said.label
    if said.bboxes and said.mark != MISSED:
        raise SetupError(f"--bbox is for `missed`, and the mark is `{said.mark}`; leave it out")
    if said.mark == MISSED:
        if label is None:
            raise SetupError("a missed threat needs its label; give --label LABEL")
        if label in (marked.labels or ()) and not said.bboxes:
            raise SetupError(
                f"--label {shortened(escaped(label))}: the alert names it; mark it `right`, or "
                "give the --bbox of another one that the alert missed"
            )
        labels = load_labels(label_map).values()
        if label not in labels:
            hint = suggestion(label, labels, "labels of the model")
            raise SetupError(
                f"--label {shortened(escaped(label))}: the model gives no such label; {hint}; "
                "--labels takes the labels of another model"
            )
    elif marked.labels == ():
        raise SetupError(
            f"{what}: the record of this alert does not say any more what it was for, as `prune` "
            "has shortened it; mark alerts before that, or keep them longer: prune --keep alerts"
        )
    elif marked.labels is None:
        if label is None or said.mark != UNSURE:
            raise SetupError(
                f"{what}: no alert was raised for this image, so none can be {said.mark}; mark it "
                "`missed` with --label, or `unsure` with --label to take that back"
            )
    elif label is not None and label not in marked.labels and said.mark != UNSURE:
        named = ", ".join(marked.labels) or "no label"
        raise SetupError(
            f"--label {shortened(escaped(label))}: the alert does not name it, but {named}; what "
            "it does not name can be `missed`"
        )


# What is marked


def _find(output: str, what: str, camera: str | None) -> Marked:
    if camera is not None and not rules.is_camera_id(camera):
        raise SetupError(f"--id {shortened(escaped(camera))}: no id of a camera")
    if is_alert_id(what):
        return _find_alert(output, what, camera)
    match = _IMAGE.fullmatch(what.replace("\\", "/").rsplit("/", 1)[-1])
    if match is None:
        raise SetupError(
            f"{shortened(escaped(what))}: neither the id of an alert (32 hex digits) nor the name "
            "of an image, such as hall_20260131T235959Z.jpg"
        )
    return _find_image(output, what, match[1])


def _find_alert(output: str, alert_id: str, camera: str | None) -> Marked:
    for id in [camera] if camera is not None else _cameras_with(output, alert_id):
        record = _alert_record(output, id, alert_id)
        if record is not None:
            return Marked(id, _time(record), alert_id, _threats(record))
    where = "" if camera is None else f" of {camera}"
    raise SetupError(
        f"{alert_id}: no such alert{where} under {output}; `alert_id` in "
        f"{stores.join(output, 'alerts')} names each"
    )


def _cameras_with(output: str, alert_id: str) -> list[str]:
    """Returns the cameras that have a record of an alert; there is one at most."""
    folder = stores.join(output, "alerts")
    if stores.is_local(folder):
        ids = os.listdir(folder) if os.path.isdir(folder) else []
        # No digest: no id of a camera begins as the folders of digests do.
        return [
            id
            for id in sorted(ids)
            if rules.is_camera_id(id) and os.path.exists(stores.alert_uri(output, id, alert_id))
        ]
    beneath = (file.path[len(folder) + 1 :].split("/") for file in stores.list_beneath(folder))
    return [
        parts[0] for parts in beneath if parts[1:] == [f"{alert_id}.json"] and parts[0][0] != "_"
    ]


def _find_image(output: str, what: str, stem: str) -> Marked:
    try:
        camera, capture_time = parse_name(f"{stem}.jpg")
    except InvalidNameError as error:
        raise SetupError(
            f"{shortened(escaped(what))}: not the name of a stored image ({error}); give it as in "
            "final/, such as hall_20260131T235959Z.jpg"
        ) from None
    uris = (
        stores.final_uri(output, camera, stem),
        stores.detections_uri(output, camera, stem),
    )
    if (
        all(stores.read_if_there(uri) is None for uri in uris)
        and find_image(output, camera, stem) is None
    ):
        raise SetupError(
            f"{shortened(escaped(what))}: no such image under {output}; give its name as in "
            f"{stores.final_folder(output, camera)}"
        )
    timestamp = canonical_time(capture_time)
    ids = [rules.alert_id(camera, timestamp, severity) for severity in ("alert", "detection")]
    for alert_id in ids:
        record = _alert_record(output, camera, alert_id)
        if record is not None:
            return Marked(camera, timestamp, alert_id, _threats(record))
    return Marked(camera, timestamp, ids[0], None)


def _alert_record(output: str, camera: str, alert_id: str) -> dict[str, Any] | None:
    uri = stores.alert_uri(output, camera, alert_id)
    data = stores.read_if_there(uri)
    if data is None:
        return None
    try:
        record = json.loads(data)
        _time(record), _threats(record)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise CommandFailedError(f"{uri}: is no record of an alert; is it damaged?") from None
    return dict(record)


def _time(record: dict[str, Any]) -> str:
    return canonical_time(parse_time(record["timestamp"]))


def _threats(record: dict[str, Any]) -> tuple[MarkedThreat, ...]:
    return threats_from_json(record["threats"])
