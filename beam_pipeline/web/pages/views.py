"""What the pages show, made of the index, the fleet and the records of the output."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

import rules
from beam_pipeline.fleet import chart
from beam_pipeline.pages.report.gathering import Fleet
from beam_pipeline.pages.report.page import (
    figures_cells,
    figures_division,
    heat_level,
    labels_text,
    shown_windows,
)
from beam_pipeline.web.output.following import FleetView
from beam_pipeline.web.output.index import Index
from beam_pipeline.web.output.pictures import (
    NoPictureError,
    StoredImage,
    images_of_day,
    read_record,
    stored_image,
    why_unreadable,
)
from rules.local_times import local_words
from transforms.records.times import canonical_time, from_unix
from transforms.storage.marks import MISSED

_SHOWN_FROM = 0.25
"""Rejected detections with lower scores are only counted: a detector has dozens in each image."""
_COUNTED = re.compile(r"- \d+ more, with ")
_PER_PAGE = 48
_MISSED_SHOWN = 20
_LAST_SECOND = 253_402_300_799.0
"""Of the calendar. A fraction of it would be rounded up to the next year."""


def period_text(fleet: Fleet | None) -> str | None:
    """Returns the period of a fleet in words; None if nothing was counted."""
    if fleet is None or fleet.period is None:
        return None
    return chart.period_text(fleet.period.start, fleet.period.end)


def fleet_values(view: FleetView) -> dict[str, Any]:
    """Returns what the pages of the fleet and of its health show."""
    fleet = view.fleet
    most = 0 if fleet is None else fleet.heat.most
    days: dict[str, int] = {}
    for hour in () if fleet is None else fleet.heat.hours:
        days[f"{hour:%Y-%m-%d}"] = days.get(f"{hour:%Y-%m-%d}", 0) + 1
    return {
        "view": view,
        "fleet": fleet,
        "period": period_text(fleet),
        "total": None if fleet is None else fleet.total,
        "days": days,
        "level": lambda threats: heat_level(threats, most),
        "figures_by": figures_division(() if fleet is None else fleet.figures),
        "iso": canonical_time,
        "percent": chart.percent,
    }


def camera_values(output: str, index: Index, view: FleetView, camera: str) -> dict[str, Any]:
    """Returns what the page of a camera shows, without its rules."""
    fleet = view.fleet
    cameras = () if fleet is None else fleet.cameras
    row = next((one for one in cameras if one.id == camera), None)
    figures = next((one for one in (fleet.figures if fleet else ()) if one.id == camera), None)
    counted = [one for one in (fleet.rows if fleet else ()) if one.id == camera]
    windows = shown_windows(figures, counted)
    newest, problem = newest_image(output, index, view, camera)
    marks = reversed(index.marks_of_camera(camera))
    missed = [mark for mark in marks if mark.mark == MISSED]
    return {
        **fleet_values(view),
        "camera": camera,
        "row": row,
        "findings": () if row is None else row.findings,
        "windows": windows,
        "most": max([1, *(one.counted.images for one in windows if one.counted)]),
        "figures_cells": figures_cells,
        "newest": newest,
        "newest_problem": problem,
        "missed": missed[:_MISSED_SHOWN],
    }


def is_known(index: Index, view: FleetView, camera: str, ruleset: rules.Rules | None) -> bool:
    """Returns whether there is a camera of this id."""
    return (
        (view.fleet is not None and any(one.id == camera for one in view.fleet.cameras))
        or camera in index.cameras()
        or (ruleset is not None and camera in ruleset.cameras)
    )


def newest_image(
    output: str, index: Index, view: FleetView, camera: str
) -> tuple[StoredImage | None, str | None]:
    """Returns the last image of a camera, or why it is unknown."""
    rows = () if view.fleet is None else view.fleet.rows
    days = (
        {max(times)} if (times := [one.window_start for one in rows if one.id == camera]) else set()
    )
    last_alert = index.last_alert(camera)
    if last_alert is not None:
        days.add(from_unix(min(last_alert, _LAST_SECOND)))
    # A window may go over midnight.
    days |= {time + timedelta(days=1) for time in days if time.date() < date.max}
    try:
        for day in sorted(days, reverse=True):
            if images := images_of_day(output, camera, day):
                return images[-1], None
    except OSError as error:
        return None, f"The images can't be listed now ({why_unreadable(error)})."
    return None, None


def images_values(output: str, camera: str, begins: datetime) -> dict[str, Any]:
    """Returns what the page with the images of a day shows.

    Raises:
      OSError: The store can't be listed.
    """
    images = [
        image for image in images_of_day(output, camera, begins) if image.capture_time >= begins
    ]
    shown, further = images[:_PER_PAGE], images[_PER_PAGE:]
    later = None
    if further:
        moment = further[0].capture_time.replace(tzinfo=None)
        later = f"/cameras/{camera}/images?from={moment.isoformat()}"
    return {
        "camera": camera,
        "day": f"{begins:%Y-%m-%d}",
        "begins": f"{begins:%Y-%m-%dT%H:%M}",
        "images": shown,
        "later": later,
    }


def alert_values(output: str, index: Index, alert_id: str) -> dict[str, Any] | None:
    """Returns what the page of an alert shows; None if there is no such alert."""
    incident = index.incident_of(alert_id)
    if incident is None:
        return None
    alert = next(one for one in incident.alerts if one.record.alert_id == alert_id)
    record = alert.record
    image = None if alert.stem is None else stored_image(record.camera, alert.stem)
    values = _image_values(output, image, record.timezone)
    if not values["threats"]:
        values["threats"] = alert.boxes
    return {
        **values,
        "image": image or {"camera": record.camera, "stem": None},
        "timestamp": record.timestamp,
        "when": record.when,
        "alert": alert,
        "incident": incident,
        "marks": incident.marks.get(alert_id, ()),
        "labels_text": labels_text,
    }


def image_values(output: str, index: Index, image: StoredImage, zone: str) -> dict[str, Any]:
    """Returns what the page of an image without an alert shows."""
    timestamp = canonical_time(image.capture_time)
    alert_id = rules.alert_id(image.camera, timestamp, "alert")
    return {
        **_image_values(output, image, zone),
        "image": image,
        "timestamp": timestamp,
        "when": local_words(image.capture_time, zone),
        "alert": None,
        "incident": None,
        "marks": index.marks_of(alert_id),
    }


def alert_of_image(index: Index, image: StoredImage) -> str | None:
    """Returns the id of the alert of an image; None if it has none."""
    timestamp = canonical_time(image.capture_time)
    ids = [rules.alert_id(image.camera, timestamp, name) for name in ("alert", "detection")]
    return next((id for id in ids if index.has_alert(id)), None)


def _image_values(output: str, image: StoredImage | None, zone: str) -> dict[str, Any]:
    """Returns what the record of an image says: boxes, and why each is a threat or none."""
    values: dict[str, Any] = {
        "threats": (), "rejected": (), "reasons": (), "why": (), "more": (), "problem": None,
        "width": 640, "height": 480,
    }  # fmt: skip
    if image is None:
        return {**values, "problem": "The record was shortened by prune."}
    try:
        record = read_record(output, image)
        values["width"], values["height"] = int(record["width"]), int(record["height"])
        detections = record["detections"]
        if "threat" not in record:
            return {**values, "problem": "The image has not been judged."}
        reasons = rules.explain_detections(record)
        threats = {threat["detection"] for threat in record["threat"]["threats"]}
        shown = [
            number
            for number in reasons
            if number in threats or detections[number]["conf"] >= _SHOWN_FROM
        ]
        values["threats"] = [_box(detections[number]) for number in shown if number in threats]
        values["rejected"] = [_box(detections[number]) for number in shown if number not in threats]
        values["reasons"] = [
            (*_box(detections[number])[:2], reasons[number], number in threats) for number in shown
        ]
        # The first lines are about the image; those about detections are in the list.
        lines = rules.explain(record, timezone=zone).splitlines()
        values["why"] = [line for line in lines[1:] if not line.startswith("- ")]
        values["more"] = [line[2:] for line in lines if _COUNTED.match(line)]
    except NoPictureError as error:
        values["problem"] = f"The record can't be shown: {error}."
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        values["problem"] = f"The record can't be read ({why_unreadable(error)})."
    return values


def _box(detection: Mapping[str, Any]) -> tuple[str, float, tuple[float, ...]]:
    box = tuple(float(side) for side in detection["bbox"])
    if len(box) != 4:
        raise ValueError("a box has four numbers")
    return str(detection["label"]), float(detection["conf"]), box


def utc_minutes(text: str | None) -> datetime | None:
    """Reads the time of a form, such as `2026-01-31T18:00`, as UTC; None if it is none."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if time.tzinfo is not None or not 1970 <= time.year < 9999:
        return None
    return time.replace(tzinfo=timezone.utc)
