"""Marks: what operators say of alerts, and of images that had none.

Each mark is a small file of its own, `marks/<id>/<alert_id>_<at>_<digits>.json`, which is written
once and never changed. Its name holds the time of the mark and a hash of its content, so two people
who mark at once write two files, on every store and without a lock. The newest mark of a person
stands (:func:`standing`).

Marks record what people did, so they hold a clock, which nothing else under the output does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import rules
from transforms.records.text import one_line
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores

RIGHT, FALSE, UNSURE, MISSED = "right", "false", "unsure", "missed"
MARKS = (RIGHT, FALSE, UNSURE, MISSED)
"""What can be said: of an alert that it is right or false; of either that one is unsure; of an
image that there was something, and no alert for it."""

MAX_NAME, MAX_NOTE, MAX_BOXES = 100, 1000, 100
"""The greatest number of characters of a label or of who marked, of characters of a note, and of
boxes of one mark."""

_FORMAT_VERSION = "1.0"
_ALERT_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FILE_NAME = re.compile(
    r"([0-9a-f]{32})_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{6})Z_[0-9a-f]{12}\.json", re.ASCII
)
_MAX_BYTES = 4 << 20
_AT_ONCE = 16
_ROUNDING = 2e-4
"""What two numbers of 4 decimals can add to the sum that they were rounded from."""
_TICK = timedelta(microseconds=1)
_LAST = datetime.max.replace(tzinfo=timezone.utc) - _TICK

Box = tuple[float, float, float, float]
"""x_min, y_min, width and height as fractions of the image, from its top left corner."""


@dataclass(frozen=True)
class MarkedThreat:
    """A threat that the alert names, as it was when somebody marked it.

    Attributes:
      label: The label.
      bbox: Where it is; None if the record of the alert does not say.
    """

    label: str
    bbox: Box | None


Problem = tuple[str, str]
"""The address of a file that could not be read, and the reason."""


@dataclass(frozen=True)
class Mark:
    """What a person said of an alert, or of an image.

    Attributes:
      id: The camera.
      timestamp: The capture time of the image, canonical.
      alert_id: The alert; of an image without one, the id that its alert would have had.
      mark: One of `MARKS`.
      label: The label that the mark is about; None for the alert as a whole. `missed` has a label.
      bboxes: Where the missed objects are; none if nobody has drawn them.
      note: What the person added.
      by: Who marked.
      at: When, canonical.
      threats: The threats that the alert names; none if there is no alert.

    Raises:
      ValueError: A value is none of these, in one line.
    """

    id: str
    timestamp: str
    alert_id: str
    mark: str
    label: str | None
    bboxes: tuple[Box, ...]
    note: str
    by: str
    at: str
    threats: tuple[MarkedThreat, ...] = ()

    def __post_init__(self) -> None:
        if not rules.is_camera_id(self.id):
            raise ValueError(f"no id of a camera: {self.id[:MAX_NAME]!r}")
        if not is_alert_id(self.alert_id):
            raise ValueError(f"no id of an alert (32 hex digits): {self.alert_id[:MAX_NAME]!r}")
        for time in (self.timestamp, self.at):
            if canonical_time(parse_time(time)) != time:
                raise ValueError(f"no canonical time: {time!r}")
        if self.label is not None:
            _check_text("label", self.label)
        _check_text("by", self.by)
        if len(self.note) > MAX_NOTE:
            raise ValueError(f"note has {len(self.note):,} characters; {MAX_NOTE:,} are allowed")
        self._check_mark()

    def _check_mark(self) -> None:
        if self.mark not in MARKS:
            raise ValueError(f"mark must be one of {', '.join(MARKS)}, not {self.mark[:20]!r}")
        if self.mark == MISSED and self.label is None:
            raise ValueError("a missed threat needs a label")
        if self.bboxes and self.mark != MISSED:
            raise ValueError(f"only what was missed has boxes, and this mark is {self.mark!r}")
        if len(self.bboxes) > MAX_BOXES:
            raise ValueError(f"{len(self.bboxes)} boxes; {MAX_BOXES} are allowed")
        for box in self.bboxes:
            check_box(box)

    def to_json(self) -> dict[str, Any]:
        """Makes the JSON of the file."""
        return {
            "format_version": _FORMAT_VERSION,
            "id": self.id,
            "timestamp": self.timestamp,
            "alert_id": self.alert_id,
            "mark": self.mark,
            "label": self.label,
            "bboxes": [list(box) for box in self.bboxes],
            "threats": [
                {"label": threat.label, "bbox": threat.bbox and list(threat.bbox)}
                for threat in self.threats
            ],
            "note": self.note,
            "by": self.by,
            "at": self.at,
        }

    @classmethod
    def from_json(cls, value: Any) -> Mark:
        """Reads the JSON of a file.

        Raises:
          ValueError: It is no mark.
        """
        if not isinstance(value, dict):
            raise ValueError("no mark: not an object")
        texts: dict[str, Any] = {
            name: value.get(name) for name in ("id", "timestamp", "alert_id", "mark")
        }
        texts |= {name: value.get(name) for name in ("note", "by", "at")}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"no mark: {name!r} is missing, or not a text")
        label, bboxes, threats = (value.get(name) for name in ("label", "bboxes", "threats"))
        if not (label is None or isinstance(label, str)):
            raise ValueError("no mark: 'label' is not a text")
        if not isinstance(bboxes, list) or not isinstance(threats, list):
            raise ValueError("no mark: 'bboxes' or 'threats' is no list")
        return cls(
            label=label,
            bboxes=tuple(map(check_box, bboxes)),
            threats=threats_from_json(threats),
            **texts,
        )


def is_alert_id(text: str) -> bool:
    """Returns whether a text has the form of an alert's id."""
    return _ALERT_ID.fullmatch(text) is not None


def threats_from_json(entries: Sequence[Any]) -> tuple[MarkedThreat, ...]:
    """Reads the threats of an alert, or of a mark; records of earlier releases have no boxes.

    Raises:
      ValueError: They are none.
    """
    threats = []
    for entry in entries:
        label = entry.get("label") if isinstance(entry, dict) else None
        box = entry.get("bbox") if isinstance(entry, dict) else None
        if not isinstance(label, str) or not (box is None or _is_four_numbers(box)):
            raise ValueError("a threat has a label and, if it is known, a box of four numbers")
        # The box of a detection may reach a little beyond the image.
        threats.append(MarkedThreat(label, box and tuple(map(float, box))))
    return tuple(threats)


def _is_four_numbers(box: Any) -> bool:
    return (
        isinstance(box, (list, tuple))
        and len(box) == 4
        and all(type(side) in (int, float) and abs(side) < 1e6 for side in box)
    )


def check_box(box: Any) -> Box:
    """Returns a box as it is stored.

    Raises:
      ValueError: It is none, or lies outside the image.
    """
    if not _is_four_numbers(box) or not all(0 <= side <= 1 for side in box):
        raise ValueError(
            "a box has four numbers from 0 to 1: x, y, width and height as fractions of the image"
        )
    x_min, y_min, width, height = (float(side) for side in box)
    if not width or not height or max(x_min + width, y_min + height) > 1 + _ROUNDING:
        raise ValueError("a box has a width and a height, and lies inside the image")
    return x_min, y_min, width, height


def _check_text(name: str, text: str) -> None:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{name} is empty, or holds what can't be printed")
    if len(text) > MAX_NAME:
        raise ValueError(f"{name} has {len(text):,} characters; {MAX_NAME} are allowed")


# Writing


def write_mark(
    output: str,
    *,
    id: str,
    timestamp: str,
    alert_id: str,
    mark: str,
    label: str | None = None,
    bboxes: Iterable[Box] = (),
    threats: Iterable[MarkedThreat] = (),
    note: str = "",
    by: str,
    now: datetime | None = None,
) -> Mark:
    """Writes a mark to the output, beside all others.

    Its time is that of this machine's clock, or just after the newest mark of the alert, so that a
    mark stands against those that were there before it whatever the clocks of the machines say.

    Args:
      output: The job's output.
      id: See `Mark`, like the others.
      timestamp: The same.
      alert_id: The same.
      mark: The same.
      label: The same.
      bboxes: The same.
      threats: The same.
      note: The same.
      by: The same.
      now: The current time in UTC; None for this machine's clock.

    Raises:
      ValueError: A value is wrong; nothing was written.
      OSError: The store can't be read or written.
    """
    at = now or datetime.now(timezone.utc)
    values = (id, timestamp, alert_id, mark, label, tuple(bboxes), note, by)
    new = Mark(*values, canonical_time(at), tuple(threats))
    folder = stores.marks_folder(output, id)
    names = stores.names_with_prefix(folder, [f"{alert_id}_"])
    newest = max((time for time in map(_time_in_name, names) if time is not None), default=None)
    if newest is not None and newest >= at:
        at = min(newest, _LAST) + _TICK
        new = replace(new, at=canonical_time(at))
    stores.write_bytes(stores.join(folder, file_name(new)), stores.json_bytes(new.to_json()))
    return new


def file_name(mark: Mark) -> str:
    """Returns the name of the file of a mark."""
    at = parse_time(mark.at)
    digits = hashlib.sha256(stores.json_bytes(mark.to_json())).hexdigest()[:12]
    time = canonical_time(at.replace(microsecond=0)).replace("-", "").replace(":", "")
    return f"{mark.alert_id}_{time[:-1]}{at.microsecond:06d}Z_{digits}.json"


def _time_in_name(name: str) -> datetime | None:
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime(*map(int, match.groups()[1:]), tzinfo=timezone.utc)  # type: ignore[misc,arg-type]
    except ValueError:
        return None


# Reading


def read_marks(output: str) -> tuple[list[Mark], list[Problem]]:
    """Reads all marks of an output, the oldest first; and why some files could not be read.

    Raises:
      OSError: The store can't be listed.
    """
    files = stores.list_one_deep(stores.marks_folder(output))
    return _read(sorted(file.path for file in files if file.path.endswith(".json")))


def read_marks_of(output: str, camera: str, alert_id: str) -> tuple[list[Mark], list[Problem]]:
    """Reads the marks of one alert, as `read_marks` does.

    Raises:
      OSError: The store can't be listed.
    """
    folder = stores.marks_folder(output, camera)
    names = stores.names_with_prefix(folder, [f"{alert_id}_"])
    return _read([stores.join(folder, name) for name in names if name.endswith(".json")])


def read_mark(uri: str) -> Mark:
    """Reads the file of one mark.

    Raises:
      OSError: The file can't be read.
      ValueError: It is no mark, or one of another alert than its name says.
    """
    folder, name = uri.rsplit("/", 2)[1:]
    try:
        mark = Mark.from_json(json.loads(stores.read_bytes(uri, at_most=_MAX_BYTES)))
    except (OverflowError, RecursionError) as error:
        raise ValueError(one_line(error)) from error
    if (mark.id, mark.alert_id) != (folder, name[:32]):
        raise ValueError("is a mark of another alert than its name says")
    return mark


def _read(uris: Sequence[str]) -> tuple[list[Mark], list[Problem]]:
    def read(uri: str) -> tuple[str, Mark] | Problem:
        try:
            return uri.rpartition("/")[2], read_mark(uri)
        except (OSError, ValueError) as error:
            return uri, one_line(error)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="marks") as pool:
        results = list(pool.map(read, uris))
    found = [(name, mark) for name, mark in results if isinstance(mark, Mark)]
    found.sort(key=lambda item: (parse_time(item[1].at), item[0]))
    problems = [(uri, why) for uri, why in results if isinstance(why, str)]
    return [mark for _, mark in found], problems


def standing(marks: Iterable[Mark]) -> list[Mark]:
    """Returns the marks that stand, in the same order.

    Of a person, the newest mark of an alert and a label stands. The mark of an alert as a whole
    also replaces the person's older ones of single labels, but not what was missed: that is
    something else than what the alert is for.

    Args:
      marks: Marks, the oldest first.
    """
    newest: dict[tuple[str, str, str | None], tuple[int, Mark]] = {}
    for order, mark in enumerate(marks):
        newest[mark.alert_id, mark.by, mark.label] = order, mark
    return [
        mark
        for order, mark in sorted(newest.values(), key=lambda item: item[0])
        if mark.mark == MISSED
        or order >= newest.get((mark.alert_id, mark.by, None), (order, mark))[0]
    ]


def by_alert(marks: Iterable[Mark]) -> dict[str, list[Mark]]:
    """Groups marks by their alerts, in the same order."""
    groups: dict[str, list[Mark]] = {}
    for mark in marks:
        groups.setdefault(mark.alert_id, []).append(mark)
    return groups
